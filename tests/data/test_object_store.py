"""Rows are read from object stores, and embeddings written to them, as from and to this disk."""

import json
import os
import socket
import subprocess
import sys
import time
from io import RawIOBase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from stfit.commands.encode import encode
from stfit.commands.join import join_parts
from stfit.commands.similar import closest, similar
from stfit.data import object_store
from stfit.data.embeddings.read import read_embeddings
from stfit.data.object_store import local_copy, path_of
from stfit.data.part import Part
from stfit.data.reading import part_of_files
from stfit.data.reading.load_table import load_table, open_blocks
from stfit.data.reading.local_files import fingerprint_files
from stfit.data.source import Source
from stfit.errors import DataError, RecipeError, ResourceError
from stfit.options import EncodeOptions
from stfit.paths import without_folder
from stfit.workflows.encode.text_windows import Inputs

pytest.importorskip("upath", reason="needs the extra `stores`")
import fsspec

TEXTS = [f"row {i}: {'a longer text ' * (i % 5)}" for i in range(60)]


def run_s3_server(folder: Path):
    """A real S3 server on this machine, with the bucket `store`."""
    pytest.importorskip("s3fs", reason="needs the driver s3fs")
    pytest.importorskip("moto.server", reason="needs moto[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
    raise TimeoutError("the S3 server did not start")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server, endpoint = run_s3_server(tmp_path_factory.mktemp("s3"))
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": endpoint}
    keys["AWS_DEFAULT_REGION"] = "us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("store")
        yield "s3://store"
    server.terminate()
    server.wait()


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path, monkeypatch) -> str:
    """The address of an empty folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        root = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    else:
        root = "memory://" + tmp_path.name if request.param == "memory" else f"file://{tmp_path}/store"
    fsspec.open(f"{root}/.keep", "w", auto_mkdir=True).close()
    return root


def put(address: str, content: bytes) -> str:
    with fsspec.open(address, "wb", auto_mkdir=True) as file:
        file.write(content)
    return address


FORMS = {
    ".jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(),
    ".txt": "".join(text + "\n" for text in TEXTS).encode(),
    ".csv": ("text\n" + "".join(f'"{text}"\n' for text in TEXTS)).encode(),
}


def as_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": TEXTS}), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


def as_packed(suffix: str) -> bytes:
    with pa.BufferOutputStream() as sink:
        with pa.CompressedOutputStream(sink, {".gz": "gzip", ".zst": "zstd"}[suffix]) as packed:
            packed.write(FORMS[".jsonl"])
        return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("form", [".jsonl", ".txt", ".csv", ".parquet", ".jsonl.gz", ".jsonl.zst"])
def test_rows_of_a_store_are_those_of_the_file(store, form) -> None:
    packed = Path(form).suffix in (".gz", ".zst")
    content = as_parquet() if form == ".parquet" else as_packed(Path(form).suffix) if packed else FORMS[form]
    source = Source(dataset=put(f"{store}/rows{form}", content))
    assert load_table(source).columns["text"] == TEXTS
    for count in (1, 2, 7):
        parts = [open_blocks(source, part=Part(number, count))() for number in range(1, count + 1)]
        assert [text for part in parts for table in part for text in table.columns["text"]] == TEXTS


def test_a_pattern_names_files_of_a_store_in_order(store) -> None:
    for number in (2, 10, 1):
        put(f"{store}/rows-{number:02d}.txt", f"text {number}\n".encode())
    assert load_table(Source(dataset=f"{store}/rows-*.txt")).columns["text"] == ["text 1", "text 2", "text 10"]
    with pytest.raises(DataError, match="no file matches"):
        load_table(Source(dataset=f"{store}/none-*.txt"))
    with pytest.raises(DataError, match="does not exist"):
        load_table(Source(dataset=f"{store}/none.txt"))


def test_a_part_reads_its_share_of_a_stored_file(store, monkeypatch) -> None:
    source = Source(dataset=put(f"{store}/rows.txt", b"".join(b"%09d\n" % i for i in range(1_000_000))))
    read = []

    class Counted(RawIOBase):
        def __init__(self, file):
            self.file = file

        def readable(self):
            return True

        def seekable(self):
            return True

        def seek(self, *where):
            return self.file.seek(*where)

        def readinto(self, buffer):
            count = self.file.readinto(buffer)
            read.append(count)
            return count

    monkeypatch.setattr(part_of_files, "open_raw", lambda path: Counted(object_store.open_raw(path)))
    rows = sum(len(table) for table in open_blocks(source, part=Part(3, 5))())
    assert rows == 200_000
    assert 2_000_000 <= sum(read) <= 2_000_000 + 2 * part_of_files.LINE + 4


def test_fingerprint_changes_with_the_content(store) -> None:
    source = Source(dataset=put(f"{store}/rows.txt", b"one\n"))
    first = fingerprint_files(source)
    assert fingerprint_files(source) == first
    put(f"{store}/rows.txt", b"two\n")
    assert fingerprint_files(source) != first


def embed(model, source: str, output: str, part: Part | None = None, **choices) -> dict:
    inputs = Inputs(Source(dataset=source), part=part)
    *_, end = encode(str(model), inputs, Path(output), EncodeOptions(), device="cpu", **choices)
    return end.result


def test_parts_of_a_store_are_those_of_this_disk(tiny_base, store, tmp_path) -> None:
    model, corpus = tiny_base("bert"), put(f"{store}/corpus.jsonl", FORMS[".jsonl"])
    (tmp_path / "corpus.jsonl").write_bytes(FORMS[".jsonl"])
    embed(model, str(tmp_path / "corpus.jsonl"), str(tmp_path / "whole.npy"))
    for number in (2, 1, 3):
        result = embed(model, corpus, f"{store}/parts", Part(number, 3), with_text=True)
        assert result["output"] == f"{store}/parts"
    again = embed(model, corpus, f"{store}/parts", Part(2, 3), with_text=True)
    assert again["resumed_rows"] == again["rows"] == len(TEXTS) // 3
    joined = join_parts(Path(f"{store}/parts"), Path(f"{store}/joined.parquet"))
    assert joined["rows"] == len(TEXTS)
    expected = np.load(tmp_path / "whole.npy")
    stored = np.concatenate([rows.values for rows in read_embeddings(path_of(f"{store}/joined.parquet")).windows])
    np.testing.assert_allclose(stored, expected, atol=2e-7)
    found = similar(str(model), Inputs(Source(dataset=f"{store}/parts")), [TEXTS[7]], 1, "cpu")
    local = similar(str(model), Inputs(Source(dataset=str(tmp_path / "corpus.jsonl"))), [TEXTS[7]], 1, "cpu")
    assert found["queries"][0]["nearest"][0]["text"] == local["queries"][0]["nearest"][0]["text"]
    pairs = closest(str(model), Inputs(Source(dataset=f"{store}/parts")), 3, "cpu")["pairs"]
    here = closest(str(model), Inputs(Source(dataset=str(tmp_path / "corpus.jsonl"))), 3, "cpu")["pairs"]
    assert [pair["similarity"] for pair in pairs] == pytest.approx([pair["similarity"] for pair in here], abs=1e-6)
    other = put(f"{store}/other.jsonl", FORMS[".jsonl"] + b'{"text": "more"}\n')
    with pytest.raises(RecipeError, match="made with input"):
        embed(model, other, f"{store}/parts", Part(1, 3), with_text=True)
    assert not list((tmp_path / "cache" / "stfit" / "outputs").glob("*/*.tmp"))


def test_a_missing_part_of_a_store_is_named(tiny_base, store) -> None:
    corpus = put(f"{store}/corpus.jsonl", FORMS[".jsonl"])
    embed(tiny_base("bert"), corpus, f"{store}/parts", Part(1, 2))
    with pytest.raises(DataError, match="part 2/2 missing"):
        join_parts(Path(f"{store}/parts"), Path("joined.npy"))


def test_a_copy_is_downloaded_again_when_it_changed(store) -> None:
    address = put(f"{store}/e.npy", b"one")
    assert local_copy(path_of(address)).read_bytes() == b"one"
    put(address, b"other")
    assert local_copy(path_of(address)).read_bytes() == b"other"


def test_stores_that_can_not_be_used_are_refused_in_one_line(tiny_base, store, tmp_path, monkeypatch) -> None:
    with pytest.raises(RecipeError, match="can't be opened"):
        load_table(Source(dataset="nosuch://bucket/rows.txt"))
    corpus = put(f"{store}/corpus.jsonl", FORMS[".jsonl"])

    def refuse(*arguments, **choices):
        raise PermissionError("Access Denied")

    if store.startswith("s3:"):
        target, reason = "s3://no-such-bucket/e.npy", "FileNotFoundError: The specified bucket does not exist"
    else:
        target, reason = f"{store}/e.npy", "PermissionError: Access Denied"
        monkeypatch.setattr(type(path_of(store).fs), "put_file", refuse)
    with pytest.raises(ResourceError, match=f"{target} can't be written: {reason}"):
        embed(tiny_base("bert"), corpus, target)


def test_a_store_that_refuses_to_be_read_is_one_line(monkeypatch) -> None:
    def refuse(*arguments, **choices):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(path_of("memory://there").fs), "glob", refuse)
    with pytest.raises(DataError, match=r"memory://refused/rows.txt can't be read: PermissionError: Access Denied"):
        load_table(Source(dataset="memory://refused/rows.txt"))


def test_an_address_is_not_published() -> None:
    assert without_folder("s3://our-bucket/secret/rows.jsonl") == "./rows.jsonl"


def test_addresses_stay_as_they_are_written(tmp_path) -> None:
    os.chdir(tmp_path)
    assert Source(dataset="s3://bucket/a/rows.jsonl").dataset == "s3://bucket/a/rows.jsonl"
    assert Source(dataset="gs://bucket/*.parquet").dataset == "gs://bucket/*.parquet"
    with pytest.raises(DataError, match="is an address and no path: download the file"):
        load_table(Source(dataset="https://example.org/rows.jsonl"))
