"""`stfit encode`: every form of input and output holds the same embeddings, and an interruption costs nothing."""

import gzip
import io
import json
import logging
import random
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from processes import at_call, run_in_child
from safetensors.numpy import load_file, save_file
from transformers import BertModel

from stfit.commands.encode import encode
from stfit.data.embeddings.saved_windows import SavedWindows
from stfit.data.mapping.texts import stream_texts
from stfit.data.reading import hub as data_hub
from stfit.data.reading import text_lines
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.encoder.export.quantization import Ranges, check_ranges
from stfit.errors import DataError, InterruptedRun, ModelError, RecipeError, ResourceError, StfitError
from stfit.events import Finished
from stfit.options import EncodeOptions
from stfit.workflows.encode import text_windows as windows
from stfit.workflows.encode.text_windows import Inputs, inputs_to_keep

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river"]
TEXTS = [f"{first} and {second} {'again ' * (i % 5)}" for i, first in enumerate(WORDS) for second in WORDS[i % 3 :]]
TEXTS += TEXTS[::7]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FIRST_WINDOW", 10)
    monkeypatch.setattr(windows, "WINDOW", 25)


@pytest.fixture
def model(tiny_base) -> str:
    return str(tiny_base("bert"))


def run(model, dataset, output, column=None, id_column=None, choices=None, **options) -> dict:
    inputs = Inputs(Source(dataset=str(dataset)), column, id_column)
    *_, finished = encode(model, inputs, Path(output), choices or EncodeOptions(), device="cpu", **options)
    assert isinstance(finished, Finished)
    return finished.result


def write_inputs(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """The same texts in every form of input: name -> file and column."""
    rows = [{"number": i, "text": text, "set": {"pos": [text]}} for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "t.jsonl").write_text(lines)
    with gzip.open(folder / "t.jsonl.gz", "wt") as file:
        file.write(lines)
    (folder / "t.csv").write_text("number,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS)))
    (folder / "t.tsv").write_text("number\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(TEXTS)))
    import pyarrow as pa

    parquet.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    columns = {"t.jsonl.gz": "set.pos[0]", "t.parquet": "set.pos[*]"}
    return {path.name: (path, columns.get(path.name)) for path in folder.iterdir()}


def test_every_form_of_input_gives_the_same_embeddings(model, tmp_path) -> None:
    expected = load_encoder(model).encode(TEXTS)
    (tmp_path / "in").mkdir()
    for name, (path, column) in write_inputs(tmp_path / "in").items():
        result = run(model, path, tmp_path / "out.npy", column)
        assert (result["rows"], result["embedding_dim"]) == expected.shape, name
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5, err_msg=name)
        assert [file.name for file in tmp_path.iterdir() if file.name != "in"] == ["out.npy"], name


def test_every_form_of_output_holds_the_same_rows(model, tmp_path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps({"key": f"k{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    for name in ("o.npy", "o.safetensors", "o.parquet", "o.jsonl", "shards"):
        run(model, source, tmp_path / name, id_column="key", with_text=not name.endswith((".npy", ".safetensors")))
    with pytest.raises(RecipeError, match="numbers alone"):
        run(model, source, tmp_path / "o.npy", with_text=True)
    expected = np.load(tmp_path / "o.npy")
    assert np.array_equal(load_file(tmp_path / "o.safetensors")["embeddings"], expected)
    rows = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    shards = parquet.read_table(tmp_path / "shards").to_pylist()
    assert len(list((tmp_path / "shards").iterdir())) > 2
    for found in (rows, lines, shards):
        assert [row["id"] for row in found] == [f"k{i}" for i in range(len(TEXTS))]
        assert [row["text"] for row in found] == TEXTS
        assert np.array_equal(np.array([row["embedding"] for row in found], dtype=np.float32), expected)


@pytest.mark.parametrize("name", ["o.npy", "o.parquet", "o.jsonl", "shards"])
def test_resumed_run_equals_uninterrupted_run(model, tmp_path, name) -> None:
    source = tmp_path / "t.txt"
    source.write_text("\n".join(TEXTS))
    run(model, source, tmp_path / name)
    whole = contents(tmp_path / name)
    stopped = encode(model, Inputs(Source(dataset=str(source))), tmp_path / name, EncodeOptions(), device="cpu")
    next(stopped)
    with pytest.raises(InterruptedRun, match=r"35 rows are kept in .*o?.*windows") as stop:
        next(stopped) and stopped.throw(InterruptedRun("stopped by SIGTERM", 15))
    assert stop.value.exit_code == 143
    assert contents(tmp_path / name) == whole  # the earlier output is there until there is a new one
    (tmp_path / f"{name}.windows" / "window-00002.safetensors").write_bytes(b"half a window")
    assert run(model, source, tmp_path / name)["resumed_rows"] == 35
    assert contents(tmp_path / name) == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["o.npy", "o.parquet", "o.jsonl", "o.safetensors", "shards"])
def test_encoding_that_was_killed_goes_on_in_another_process_to_the_same_bytes(model, tmp_path, name) -> None:
    source, counted = tmp_path / "t.txt", tmp_path / "calls"
    source.write_text("\n".join(TEXTS))
    run(model, source, tmp_path / name)
    whole = contents(tmp_path / name)

    def again() -> dict:
        return run(model, source, tmp_path / name)

    assert run_in_child(lambda: counted.write_text(str(at_call(again, -1)))) == 0
    draw = random.Random(name)
    for _ in range(2):
        number = draw.randrange(int(counted.read_text()))
        assert run_in_child(lambda number=number: at_call(again, number)) == -9
    assert run_in_child(again) == 0
    assert contents(tmp_path / name) == whole
    assert not (tmp_path / f"{name}.windows").exists()


def test_standard_input_is_lines_of_text_or_of_json(model, tmp_path, monkeypatch) -> None:
    expected = load_encoder(model).encode(TEXTS)
    rows = "".join(json.dumps({"set": {"pos": [text]}}) + "\n" for text in TEXTS)
    for written, column in (("\n".join(TEXTS), None), (rows, "set.pos[0]")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(written.encode()))))
        assert run(model, "-", tmp_path / "o.npy", column)["rows"] == len(TEXTS)
        np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, rtol=0, atol=1e-5)


def test_ranges_are_those_of_one_model_and_one_length(model, tmp_path) -> None:
    ranges, source = tmp_path / "ranges.json", tmp_path / "t.txt"
    source.write_text("\n".join(TEXTS))
    for normalize in (True, True, False):
        choices = EncodeOptions(precision="int8", normalize=normalize)
        with (
            nullcontext() if normalize else pytest.raises(DataError, match=r"its ranges are of .* \(see --normalize\)")
        ):
            run(model, source, tmp_path / "o.npy", choices=choices, calibration=ranges)
    ranges.write_text(json.dumps(json.loads(ranges.read_text()) | {"model": "of somebody"}))
    with pytest.raises(DataError, match="its ranges are of embeddings by another model"):
        run(model, source, tmp_path / "o.npy", choices=replace(choices, normalize=True), calibration=ranges)


def test_standard_output_is_no_folder_of_shards(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("a\n")
    with pytest.raises(RecipeError, match="-: the output must be a"):
        run(model, "t.txt", Path("-"))
    assert not (tmp_path / "-").exists()


def test_standard_input_has_no_splits(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a\nb\n"))))
    inputs = Inputs(Source(dataset="-", split="train[:1]"), None, None)
    with pytest.raises(RecipeError, match="standard input has no splits: remove --split"):
        list(encode(str(model), inputs, tmp_path / "o.npy", EncodeOptions()))


def test_a_dataset_saved_to_disk_is_read_some_rows_at_a_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(data_hub, "ROWS_AT_ONCE", 10)
    splits = {"train": datasets.Dataset.from_dict({"text": TEXTS}), "test": datasets.Dataset.from_dict({"text": ["a"]})}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    blocks = list(stream_texts(Source(dataset=str(tmp_path / "saved")), None, None))
    assert {len(block) for block in blocks[:-1]} == {10}
    assert [text for block in blocks for text in block.texts] == TEXTS
    assert [id for block in blocks for id in block.ids] == list(range(len(TEXTS)))
    sliced = list(stream_texts(Source(dataset=str(tmp_path / "saved"), split="test+train[1:3]"), None, None))
    assert [text for block in sliced for text in block.texts] == ["a", *TEXTS[1:3]]
    with pytest.raises(DataError, match="no split `tests`: did you mean `test`"):
        list(stream_texts(Source(dataset=str(tmp_path / "saved"), split="tests"), None, None))


def contents(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(path.iterdir())] if path.is_dir() else [path.read_bytes()]


def test_what_changed_since_an_interruption_is_embedded_anew(model, tmp_path) -> None:
    source = tmp_path / "t.txt"
    source.write_text("\n".join(TEXTS))
    for texts, choices, kept in (
        (TEXTS, EncodeOptions(), 10),
        (TEXTS, EncodeOptions(normalize=True), 0),
        ([TEXTS[0] + "!", *TEXTS[1:]], EncodeOptions(), 0),
    ):
        source.write_text("\n".join(TEXTS))
        stopped = encode(model, Inputs(Source(dataset=str(source))), tmp_path / "o.npy", EncodeOptions(), device="cpu")
        next(stopped)
        stopped.close()
        source.write_text("\n".join(texts))
        assert run(model, source, tmp_path / "o.npy", choices=choices)["resumed_rows"] == kept
        expected = load_encoder(model).encode(texts, normalize=choices.normalize)
        np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, rtol=0, atol=1e-5)


def test_windows_and_blocks_hold_no_more_characters_than_fit_into_memory(model, tmp_path, monkeypatch) -> None:
    (tmp_path / "t.txt").write_text("".join(f"{'long ' * (i % 9)}{i}\n" for i in range(60)))
    run(model, tmp_path / "t.txt", tmp_path / "whole.npy")
    monkeypatch.setattr(windows, "WINDOW_CHARACTERS", 100)
    monkeypatch.setattr(text_lines, "BLOCK_CHARACTERS", 70)
    blocks = list(stream_texts(Source(dataset=str(tmp_path / "t.txt")), None, None))
    assert max(sum(map(len, block.texts[:-1])) for block in blocks) < 70
    split = list(windows._split_windows(blocks, load_encoder(model)))
    assert max(sum(map(len, window.texts[:-1])) for window in split) < 100
    assert sum(map(len, split)) == 60
    run(model, tmp_path / "t.txt", tmp_path / "small.npy")
    np.testing.assert_allclose(np.load(tmp_path / "small.npy"), np.load(tmp_path / "whole.npy"), rtol=0, atol=2e-7)


def test_equal_texts_of_a_window_are_embedded_once(model, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("rain\n" * 35 + "bread\n")
    assert run(model, tmp_path / "t.txt", tmp_path / "o.npy")["distinct"] == 3  # rain, rain, bread


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_precisions_are_those_of_sentence_transformers(model, tmp_path, precision) -> None:
    quantize_embeddings = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    ranges = tmp_path / "ranges.json" if precision.endswith("int8") else None
    run(model, tmp_path / "t.txt", tmp_path / "o.npy", choices=EncodeOptions(precision=precision), calibration=ranges)
    found = np.load(tmp_path / "o.npy")
    embeddings = load_encoder(model).encode(TEXTS)
    half = embeddings.astype(np.float16)
    expected = half if precision == "float16" else quantize_embeddings(embeddings, precision)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0, atol=1e-2 if ranges is None else 1)


def test_fast_says_what_it_changes(model, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    assert run(model, tmp_path / "t.txt", tmp_path / "exact.npy")["cosine_to_float32"] is None
    said = run(model, tmp_path / "t.txt", tmp_path / "fast.npy", choices=EncodeOptions(fast=True))["cosine_to_float32"]
    exact, fast = (np.load(tmp_path / f"{name}.npy") for name in ("exact", "fast"))
    cosines = (exact * fast).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert said == pytest.approx(cosines[:10].min(), abs=1e-6)
    assert 0.99 < said < 1


def test_int8_queries_take_the_ranges_of_their_corpus(model, tmp_path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS))
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS[3:5]))
    options = {"choices": EncodeOptions(precision="int8"), "calibration": tmp_path / "ranges.json"}
    run(model, tmp_path / "corpus.txt", tmp_path / "corpus.npy", **options)
    run(model, tmp_path / "queries.txt", tmp_path / "queries.npy", **options)
    corpus, queries = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("corpus", "queries"))
    assert np.abs(queries - corpus[3:5]).max() <= 1
    assert np.ptp(corpus, axis=0).min() >= 254


@pytest.mark.parametrize("count", [1, 2])
def test_ranges_of_one_text_are_refused_and_not_kept(model, tmp_path, count) -> None:
    (tmp_path / "one.txt").write_text("rain\n" * count)
    options = {"choices": EncodeOptions(precision="int8"), "calibration": tmp_path / "new.json"}
    with pytest.raises(DataError, match=f"32 of 32 dimensions have one value in all {count} texts"):
        run(model, tmp_path / "one.txt", tmp_path / "o.npy", **options)
    assert not (tmp_path / "new.json").exists()
    assert not (tmp_path / "o.npy").exists()


def test_ranges_of_few_texts_are_doubted(model, tmp_path, caplog) -> None:
    (tmp_path / "few.txt").write_text("\n".join(TEXTS[:3]))
    (tmp_path / "many.txt").write_text("\n".join(f"{text} {i}" for i in range(10) for text in TEXTS[:10]))
    for name in ("many", "few"):
        options = {"choices": EncodeOptions(precision="uint8"), "calibration": tmp_path / f"{name}.json"}
        run(model, tmp_path / f"{name}.txt", tmp_path / "o.npy", **options)
        assert ("the ranges are those of 3 texts" in caplog.text) == (name == "few")


def test_a_dimension_that_is_always_zero_does_not_keep_many_texts_from_int8() -> None:
    ranges = Ranges(np.array([0.0, -1.0]), np.array([0.0, 1.0]))
    assert check_ranges(ranges, 100) == [
        "1 of 2 dimensions have one value in all 100 texts, and tell no text from another"
    ]
    with pytest.raises(DataError, match="1 of 2 dimensions have one value in all 99 texts"):
        check_ranges(ranges, 99)


@pytest.mark.parametrize(
    ("scale", "precision", "cause"), [(1e6, "float16", "too large for float16"), (3e38, "int8", "overflows")]
)
def test_an_embedding_that_is_not_finite_is_refused_with_its_text(model, tmp_path, scale, precision, cause) -> None:
    model = shutil.copytree(model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = [name for name in weights if name.endswith(".output.LayerNorm.bias") and ".attention." not in name][-1]
    save_file(weights | {name: weights[name] + np.float32(scale)}, model / "model.safetensors")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    ranges = tmp_path / "ranges.json"
    ranges.write_text(json.dumps({"low": [-1.0] * 32, "high": [1.0] * 32}))
    options = {"calibration": ranges} if precision == "int8" else {}
    with pytest.raises(ModelError, match=f'id 0, "{TEXTS[0].strip()}", is not finite: .*{cause}'):
        run(str(model), tmp_path / "t.txt", tmp_path / "o.npy", choices=EncodeOptions(precision=precision), **options)
    assert not (tmp_path / "o.npy").exists()


def test_what_cannot_be_done_is_said_and_leaves_nothing(model, tmp_path, caplog) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "t.txt").write_text("rain\n")
    (tmp_path / "two.csv").write_text("title,body\na,b\n")
    (tmp_path / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    (tmp_path / "bad.txt").write_bytes(b"rain\n\xff\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "ranges.json").write_text('{"low": [0], "high": [1]}')
    (tmp_path / "scalar.json").write_text('{"low": 0, "high": 1}')
    (tmp_path / "flat.json").write_text(json.dumps({"low": [0.5] * 8, "high": [0.5] * 8}))
    (tmp_path / "infinite.json").write_text(json.dumps({"low": [-np.inf] * 8, "high": [np.inf] * 8}))
    (tmp_path / "large.json").write_text(json.dumps({"low": [-1e39] * 8, "high": [1e39] * 8}))
    cases: list[tuple[type[StfitError], str, dict]] = [
        (RecipeError, "set --column", {"dataset": tmp_path / "two.csv"}),
        (DataError, "no text in row 2", {"dataset": tmp_path / "null.jsonl"}),
        (DataError, "line 2 is not utf-8", {"dataset": tmp_path / "bad.txt"}),
        (
            DataError,
            "contains no text to",
            {
                "dataset": tmp_path / "empty.txt",
                "choices": EncodeOptions(precision="int8"),
                "calibration": tmp_path / "new.json",
            },
        ),
        (DataError, "does not exist", {"dataset": tmp_path / "t.tx"}),
        (DataError, "no column `title`", {"dataset": tmp_path / "null.jsonl", "column": "title"}),
        (RecipeError, "output must be a .npy", {"output": tmp_path / "o.bin"}),
        (ResourceError, "does not exist", {"output": tmp_path / "no" / "o.npy"}),
        (RecipeError, "--calibration", {"choices": EncodeOptions(precision="int8")}),
        (RecipeError, "not a multiple of 8", {"choices": EncodeOptions(precision="binary", truncate_dim=12)}),
        (
            DataError,
            "calibrates 1 dim",
            {"choices": EncodeOptions(precision="int8"), "calibration": tmp_path / "ranges.json"},
        ),
        (
            DataError,
            "calibrates 1 dim",
            {"choices": EncodeOptions(precision="int8"), "calibration": tmp_path / "scalar.json"},
        ),
        (RecipeError, "truncate_dim 33: the model's embeddings have 32", {"choices": EncodeOptions(truncate_dim=33)}),
        (
            DataError,
            "below high",
            {"choices": EncodeOptions(precision="int8", truncate_dim=8), "calibration": tmp_path / "flat.json"},
        ),
        *(
            (
                DataError,
                "a range is not finite",
                {"choices": EncodeOptions(precision="int8", truncate_dim=8), "calibration": tmp_path / name},
            )
            for name in ("infinite.json", "large.json")
        ),
        (ModelError, "no prompt", {"choices": EncodeOptions(prompt_name="topic")}),
    ]
    before = sorted(tmp_path.iterdir())
    for error, message, changes in cases:
        with pytest.raises(error, match=message):
            run(**{"model": model, "dataset": tmp_path / "t.txt", "output": tmp_path / "o.npy"} | changes)
        assert sorted(tmp_path.iterdir()) == before, message


def test_a_window_of_something_else_is_no_window(tmp_path) -> None:
    saved = SavedWindows(tmp_path)
    assert not saved.has(0, "a")
    saved.path(0).write_bytes(b"8 bytes and no more")
    assert not saved.has(0, "a")


def test_a_window_is_known_again_by_another_process(model, tmp_path) -> None:
    shutil.copytree(model, tmp_path / "bare")
    BertModel.from_pretrained(model, add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    seen = []
    for seed in (1, 2):  # each process draws the pooler that is not in the folder
        torch.manual_seed(seed)
        seen.append(load_encoder(tmp_path / "bare").fingerprint)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [("1", other) for other in ('"x"', str(2**63), "NaN", "true", "null")]
    + [("[1]", '"x"'), ('"x"', "1"), ('"x"', '"\\ud83d"')],
)
def test_an_id_that_the_output_cannot_hold_is_refused_with_its_row(tmp_path, first, second) -> None:
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "rain", "id": {id}}}\n' for id in (first, second)))
    row = 1 if first == "[1]" else 2
    with pytest.raises(DataError, match=f"(?s)row {row} of `id` is .*: all ids must be") as caught:
        list(stream_texts(Source(dataset=str(tmp_path / "t.jsonl")), "text", "id"))
    assert caught.value.problems[0].row == row


def test_ids_are_of_one_kind_in_all_blocks(tmp_path) -> None:
    ids = [*range(2**63 - 1200, 2**63), "x"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": "rain", "id": id}) + "\n" for id in ids))
    blocks = stream_texts(Source(dataset=str(tmp_path / "t.jsonl")), "text", "id")
    first = next(blocks).ids
    assert first == ids[: len(first)]
    with pytest.raises(DataError, match="row 1201 of `id` is 'x'"):
        list(blocks)


PAYLOAD = [
    {"id": f"d{i}", "title": f"title {i}" if i % 3 else None, "text": text, "tags": ["a", "b"][: i % 3]}
    for i, text in enumerate(TEXTS)
]


@pytest.mark.parametrize("name", ["o.parquet", "o.jsonl", "shards"])
def test_columns_are_kept_beside_the_embeddings(model, tmp_path, name) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAYLOAD))
    inputs = inputs_to_keep(Source(dataset=str(tmp_path / "t.jsonl")), None, None, ["id", "title", "tags"])
    list(encode(model, inputs, tmp_path / name, EncodeOptions(), device="cpu"))
    if name == "o.jsonl":
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    else:
        rows = parquet.read_table(tmp_path / name).to_pylist()
    assert [row.keys() for row in rows[:1]] == [{"id", "title", "tags", "embedding"}]
    assert [[row[key] for key in ("id", "title", "tags")] for row in rows] == [
        [row[key] for key in ("id", "title", "tags")] for row in PAYLOAD
    ]


@pytest.mark.parametrize(
    ("name", "keep", "error", "message"),
    [
        ("o.npy", ["title"], RecipeError, "holds numbers alone: write title to .parquet or .jsonl"),
        ("o.parquet", ["title", "title"], RecipeError, "`title` is written already"),
        ("o.parquet", ["embedding"], RecipeError, "`embedding` is written already"),
        ("o.parquet", ["titel"], DataError, "there is no column `titel`: did you mean `title`"),
        ("o.parquet", ["mixed"], DataError, "column `mixed` can't be kept"),
    ],
)
def test_columns_that_can_not_be_kept_are_named(model, tmp_path, name, keep, error, message) -> None:
    rows = [row | {"mixed": i if i % 2 else "x", "embedding": 1} for i, row in enumerate(PAYLOAD)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = inputs_to_keep(Source(dataset=str(tmp_path / "t.jsonl")), "text", None, keep)
    with pytest.raises(error, match=message):
        list(encode(model, inputs, tmp_path / name, EncodeOptions(), device="cpu"))


def test_a_column_that_is_not_there_is_told_before_a_model_is_loaded(tmp_path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAYLOAD))
    inputs = inputs_to_keep(Source(dataset=str(tmp_path / "t.jsonl")), "text", None, ["titel"])
    with pytest.raises(DataError, match="there is no column `titel`"):
        list(encode(str(tmp_path / "no-model"), inputs, tmp_path / "o.parquet", EncodeOptions(), device="cpu"))
