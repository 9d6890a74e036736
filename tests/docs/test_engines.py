"""What the page on large corpora says of other engines is run as it stands, by two workers, if they are installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest
from docs.conftest import README, lines

import stfit

PAGE = (README.parent / "recipes" / "guides" / "scale.md").read_text(encoding="utf-8")
ENGINES = dict(re.findall(r"^(Ray Data|Spark|Dask):\n\n```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
PACKAGES = {"Ray Data": "ray", "Spark": "pyspark", "Dask": "dask.dataframe"}
TEXTS = [f"a {word} in the {place} of {i}" for i in range(50) for word in ("cat", "ship") for place in ("sea", "rain")]


def is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_the_page_has_all_engines() -> None:
    assert ENGINES.keys() == PACKAGES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_engine_gives_the_embeddings_of_encode(tiny_base, tmp_path, name) -> None:
    if not is_installed(PACKAGES[name]):
        pytest.skip(f"{PACKAGES[name]} is not installed")
    if name == "Spark" and not shutil.which("java"):
        pytest.skip("Spark needs Java")
    shutil.copytree(tiny_base("bert"), tmp_path / "runs" / "recipe")
    (tmp_path / "corpus.jsonl").write_text(lines([{"number": i, "text": text} for i, text in enumerate(TEXTS)]))
    (tmp_path / "script.py").write_text(ENGINES[name])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(README.parent), "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = parquet.read_table(tmp_path / PACKAGES[name].split(".")[0].replace("pyspark", "spark")).to_pylist()
    rows.sort(key=lambda row: row["number"])
    assert [row["text"] for row in rows] == TEXTS
    expected = stfit.load(tmp_path / "runs" / "recipe").encode(TEXTS)
    np.testing.assert_allclose(np.array([row["embedding"] for row in rows]), expected, rtol=0, atol=2e-7)
