"""`stfit encode --part i/N`: parts share nothing, and are together what one command writes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from stfit.commands.encode import encode
from stfit.commands.join import join_parts
from stfit.commands.similar import similar
from stfit.data.embeddings.read import read_embeddings
from stfit.data.part import Part
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.errors import DataError, InterruptedRun, RecipeError
from stfit.events import Finished
from stfit.options import EncodeOptions
from stfit.workflows.encode import text_windows as windows
from stfit.workflows.encode.text_windows import Inputs, inputs_to_keep

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river"]
TEXTS = [f"{first} and {second} {'again ' * (i % 5)}" for i, first in enumerate(WORDS) for second in WORDS]
ROWS = [{"key": f"k{i}", "text": text, "kind": i % 3} for i, text in enumerate(TEXTS)]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FIRST_WINDOW", 10)
    monkeypatch.setattr(windows, "WINDOW", 25)


@pytest.fixture
def model(tiny_base) -> str:
    return str(tiny_base("bert"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def finish(events) -> dict:
    *_, finished = events
    assert isinstance(finished, Finished)
    return finished.result


def run(model, corpus, output, part=None, options=None, keep=(), id_column=None, **more) -> dict:
    inputs = inputs_to_keep(Source(dataset=str(corpus)), "text", id_column, keep, part and Part.parse(part))
    return finish(encode(model, inputs, Path(output), options or EncodeOptions(), device="cpu", **more))


def run_parts(model, corpus, output, count, **more) -> None:
    for number in random.Random(count).sample(range(1, count + 1), count):
        run(model, corpus, output, f"{number}/{count}", **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [1, 3, pytest.param(150, marks=pytest.mark.slow)])
def test_parts_joined_are_what_one_command_writes(model, corpus, tmp_path, count) -> None:
    run(model, corpus, tmp_path / "whole.npy")
    run_parts(model, corpus, tmp_path / "parts", count)
    assert join_parts(tmp_path / "parts", tmp_path / "joined.npy") == {
        "output": str(tmp_path / "joined.npy"),
        "rows": len(ROWS),
        "embedding_dim": np.load(tmp_path / "whole.npy").shape[1],
        "parts": count,
    }
    np.testing.assert_allclose(np.load(tmp_path / "joined.npy"), np.load(tmp_path / "whole.npy"), rtol=0, atol=2e-7)
    assert len(list((tmp_path / "parts").iterdir())) == count


def test_ids_and_columns_of_parts_are_those_of_the_whole(model, corpus, tmp_path) -> None:
    for name, own in {"numbers": {}, "keys": {"id_column": "key", "keep": ["kind"], "with_text": True}}.items():
        run(model, corpus, tmp_path / f"{name}.parquet", **own)
        run_parts(model, corpus, tmp_path / name, 4, **own)
        join_parts(tmp_path / name, tmp_path / f"{name}.joined.parquet")
        whole, joined = (
            parquet.read_table(tmp_path / f"{name}{end}").drop_columns("embedding").to_pylist()
            for end in (".parquet", ".joined.parquet")
        )
        assert joined == whole
        assert next(iter(whole[-1].values())) == ("k99" if own else 99)
    with pytest.raises(RecipeError, match="numbers alone: write text, kind to"):
        join_parts(tmp_path / "keys", tmp_path / "keys.npy")


def test_part_is_a_matrix_that_numpy_maps_and_a_table(model, corpus, tmp_path) -> None:
    run_parts(model, corpus, tmp_path / "parts", 2, id_column="key")
    folder = tmp_path / "parts" / "part-00002-of-00002"
    values = np.load(folder / "embeddings.npy", mmap_mode="r")
    rows = parquet.read_table(folder / "rows.parquet").to_pylist()
    assert len(values) == len(rows)
    assert rows[-1] == {"id": "k99"}
    np.testing.assert_allclose(values[-1], load_encoder(model).encode([TEXTS[-1]])[0], rtol=0, atol=2e-7)


def test_folder_of_parts_is_searched_as_it_is(model, corpus, tmp_path) -> None:
    run(model, corpus, tmp_path / "whole.parquet", id_column="key", with_text=True)
    run_parts(model, corpus, tmp_path / "parts", 3, id_column="key", with_text=True)
    found = [
        similar(model, Inputs(Source(dataset=str(tmp_path / name))), ["chess and tea"], 5, "cpu")["queries"]
        for name in ("whole.parquet", "parts")
    ]
    assert [row["id"] for row in found[1][0]["nearest"]] == [row["id"] for row in found[0][0]["nearest"]]


def test_parts_of_nothing_are_an_output_without_rows(model, tmp_path) -> None:
    (tmp_path / "empty.txt").write_text("")
    for name in ("npy", "parquet"):
        run(model, tmp_path / "empty.txt", tmp_path / f"whole.{name}")
        run_parts(model, tmp_path / "empty.txt", tmp_path / "parts", 2)
        join_parts(tmp_path / "parts", tmp_path / f"joined.{name}")
        assert (tmp_path / f"joined.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


def test_missing_parts_are_named(model, corpus, tmp_path) -> None:
    for number in (1, 3, 9):
        run(model, corpus, tmp_path / "parts", f"{number}/9")
    message = r"part 2/9, 4/9, 5/9, 6/9, 7/9 and 1 more missing: encode"
    with pytest.raises(DataError, match=message):
        join_parts(tmp_path / "parts", tmp_path / "joined.npy")
    with pytest.raises(DataError, match=message):
        read_embeddings(tmp_path / "parts")
    with pytest.raises(DataError, match="holds no parts"):
        join_parts(tmp_path, tmp_path / "joined.npy")


def test_what_does_not_belong_together_is_refused_with_both_named(model, tiny_base, corpus, tmp_path) -> None:
    parts = tmp_path / "parts"
    run(model, corpus, parts, "1/3")
    with pytest.raises(RecipeError, match=r"holds part 1/3, which is no neighbor of part 2/4"):
        run(model, corpus, parts, "2/4")
    with pytest.raises(RecipeError, match=r"made with model .*bert.* \(\w{12}\), and part 2/3 with .*mpnet"):
        run(str(tiny_base("mpnet")), corpus, parts, "2/3")
    with pytest.raises(RecipeError, match=r"part 1/3 was made with normalize false, and part 2/3 with true"):
        run(model, corpus, parts, "2/3", EncodeOptions(normalize=True))
    corpus.write_text(corpus.read_text().replace("chess", "go"))
    with pytest.raises(RecipeError, match=r"made with input .*corpus.jsonl \(\w{12}\), and part 2/3 with "):
        run(model, corpus, parts, "2/3")
    assert [path.name for path in parts.iterdir()] == ["part-00001-of-00003"]


def test_output_of_a_part_is_a_folder_of_parts(model, corpus, tmp_path) -> None:
    with pytest.raises(RecipeError, match="the output of a part is a folder"):
        run(model, corpus, tmp_path / "o.npy", "1/2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.docx").write_text("mine")
    with pytest.raises(RecipeError, match=r"holds thesis\.docx, which is no part"):
        run(model, corpus, tmp_path / "other", "1/2")
    with pytest.raises(RecipeError, match="a part does not tell the ranges of all"):
        run(model, corpus, tmp_path / "o", "1/2", EncodeOptions(precision="int8"), calibration=tmp_path / "ranges.json")


def test_part_that_is_there_is_not_encoded_again(model, corpus, tmp_path) -> None:
    run(model, corpus, tmp_path / "parts", "2/2")
    before = contents(tmp_path / "parts")
    result = run(model, corpus, tmp_path / "parts", "2/2")
    assert (result["resumed_rows"], result["rows"]) == (49, 49)
    assert contents(tmp_path / "parts") == before


def test_interrupted_part_goes_on_to_the_same_bytes(model, corpus, tmp_path) -> None:
    run(model, corpus, tmp_path / "whole", "1/2")
    inputs = replace(Inputs(Source(dataset=str(corpus)), "text"), part=Part(1, 2))
    stopped = encode(model, inputs, tmp_path / "parts", EncodeOptions(), device="cpu")
    next(stopped)
    with pytest.raises(InterruptedRun, match=r"35 rows are kept in .*part-00001-of-00002.windows"):
        next(stopped) and stopped.throw(InterruptedRun("stopped by SIGTERM", 15))
    run(model, corpus, tmp_path / "parts", "2/2")  # another part does not mind
    assert run(model, corpus, tmp_path / "parts", "1/2")["resumed_rows"] == 35
    shutil.rmtree(tmp_path / "parts" / "part-00002-of-00002")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_mistake_in_a_row_says_from_where_rows_are_counted(model, corpus, tmp_path) -> None:
    rows = [*ROWS[:70], ROWS[70] | {"text": None}, *ROWS[71:]]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(model, corpus, tmp_path / "parts", "1/2")
    with pytest.raises(DataError, match=r"row 2\d \(rows and lines are counted from the first of part 2/2\)"):
        run(model, corpus, tmp_path / "parts", "2/2")


def in_processes(model, corpus, output, count, options=None, **more) -> dict:
    inputs = Inputs(Source(dataset=str(corpus)), "text", "key")
    return finish(
        encode(model, inputs, Path(output), options or EncodeOptions(), device="cpu", processes=count, **more)
    )


def test_processes_write_what_one_writes_in_the_same_bytes_each_time(model, corpus, tmp_path) -> None:
    run(model, corpus, tmp_path / "one.npy")
    for name in ("two.npy", "again.npy"):
        result = in_processes(model, corpus, tmp_path / name, 2)
        assert (result["rows"], result["resumed_rows"]) == (100, 0)
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), np.load(tmp_path / "one.npy"), rtol=0, atol=2e-7)
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "one.npy", "two.npy", "again.npy"}


@pytest.mark.slow
def test_processes_compute_the_ranges_of_all_texts(model, corpus, tmp_path) -> None:
    corpus.write_text(corpus.read_text() * 11)
    options = EncodeOptions(precision="int8")
    run(model, corpus, tmp_path / "one.npy", options=options, calibration=tmp_path / "one.json")
    in_processes(model, corpus, tmp_path / "two.npy", 2, options, calibration=tmp_path / "two.json")
    one, two = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("one", "two"))
    assert np.abs(one - two).max() <= 1  # a value on the border of two numbers
    in_processes(model, corpus, tmp_path / "again.npy", 2, options, calibration=tmp_path / "two.json")
    assert np.array_equal(np.load(tmp_path / "again.npy"), np.load(tmp_path / "two.npy"))


@pytest.mark.slow
def test_mistake_that_a_process_meets_is_that_of_the_command(model, corpus, tmp_path) -> None:
    corpus.write_text(corpus.read_text().replace('"k80"', "80"))
    with pytest.raises(DataError, match="all ids must be texts, or all whole numbers"):
        in_processes(model, corpus, tmp_path / "two.npy", 2)
    assert not (tmp_path / "two.npy").exists()


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "stfit", "encode", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(command: subprocess.Popen) -> int:
    command.communicate()
    return command.returncode


def count_windows(parts: Path) -> int:
    """A folder may vanish while it is listed."""
    with suppress(OSError):
        return len(list(parts.glob("*.windows/window-*")))
    return 0


def workers_of(process: int) -> list[int]:
    """But not the process in which Python keeps track of semaphores."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
def test_killed_processes_end_the_command_which_goes_on_to_the_same_bytes(model, corpus, tmp_path) -> None:
    corpus.write_text("".join(json.dumps({"text": f"{row['text']} {i}"}) + "\n" for i in range(400) for row in ROWS))
    assert ended(start(model, corpus, "-o", tmp_path / "whole.npy", "--processes", "2")) == 0
    draws = random.Random(1)
    for attempt in range(3):  # each part has two windows
        command = start(model, corpus, "-o", tmp_path / "killed.npy", "--processes", "2")
        while command.poll() is None and count_windows(tmp_path / "killed.npy.parts") < attempt + 1:
            pass
        workers = workers_of(command.pid)
        victim = draws.choice([command.pid, *workers])
        os.kill(victim, signal.SIGKILL)
        _, err = command.communicate(timeout=60)
        assert victim == command.pid or (command.returncode == 9 and "was killed by SIGKILL" in err)
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            pass
    assert ended(start(model, corpus, "-o", tmp_path / "killed.npy", "--processes", "2")) == 0
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.slow
def test_parts_killed_at_random_are_in_the_end_those_of_an_undisturbed_run(model, corpus, tmp_path) -> None:
    corpus.write_text("".join(json.dumps({"text": f"{row['text']} {i}"}) + "\n" for i in range(200) for row in ROWS))
    run_parts(model, corpus, tmp_path / "whole", 3)
    draws = random.Random(2)
    while len(list((tmp_path / "parts").glob("part-*-of-00003"))) < 3:
        number = draws.randint(1, 3)
        command = start(model, corpus, "--column", "text", "-o", tmp_path / "parts", "--part", f"{number}/3")
        patience = draws.uniform(1, 8)
        begun = time.monotonic()
        while command.poll() is None and time.monotonic() - begun < patience:
            pass
        command.kill()
        ended(command)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_command_line_encodes_parts_and_joins_them(model, corpus, tmp_path) -> None:
    for number, rows in ((1, 51), (2, 49)):
        command = start(model, corpus, "-o", tmp_path / "parts", "--part", f"{number}/2", "--id-column", "key")
        out, _ = command.communicate()
        assert out.startswith(f"{tmp_path / 'parts'}: {rows} embeddings of 32 dimensions at ")
    command = start("--join", tmp_path / "parts", "-o", tmp_path / "o.jsonl")
    out, _ = command.communicate()
    assert out == f"{tmp_path / 'o.jsonl'}: 100 embeddings of 32 dimensions from 2 parts\n"
    for line, message in {
        "": "Missing argument 'MODEL'",
        "model": "Missing argument 'INPUT'",
        "model t.txt --part 3/2": "write i/N",
        "model t.txt --part 1/2 --processes 2": "start one command for each part",
        "model --join parts": "--join takes embeddings that are there",
    }.items():
        command = start(*line.split(), "-o", tmp_path / "out")
        _, err = command.communicate()
        assert command.returncode == 2
        assert message in err
