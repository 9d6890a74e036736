"""`stfit mine` in parts, from a corpus that is encoded already, and after an interruption: the same negatives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stfit.commands import mine as module
from stfit.commands.encode import encode
from stfit.commands.mine import mine
from stfit.data.part import Part
from stfit.data.saved_blocks import SavedBlocks
from stfit.data.source import Source
from stfit.errors import DataError, InterruptedRun, RecipeError
from stfit.options import EncodeOptions, MiningOptions
from stfit.recipe.load import load_recipe
from stfit.workflows.encode.text_windows import Inputs
from stfit.workflows.mine import candidates

PLACES = ["the sea", "a box", "the stage", "the rain", "the castle", "the sand", "a letter"]
PAIRS = [(f"where is the cat of {i}", f"it sleeps in {PLACES[i % 7]} for {i // 7} days") for i in range(60)]
PAIRS += [(PAIRS[i][0].upper(), f"or near {PLACES[i % 5]}") for i in range(0, 60, 9)]  # more positives of an anchor
CORPUS = [f"{word} {place}" for word in ("in", "by", "on", "it sleeps in") for place in PLACES] + ["", "in the sea"]
RULES = MiningOptions(ranks=(2, 9), margin=-0.1, relative_margin=0.0, duplicate=0.98, per_row=3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(module, "ROWS", 8)
    monkeypatch.setattr(candidates, "BLOCK", 9)
    monkeypatch.setattr(module, "BLOCK", 9)


@pytest.fixture
def recipe(tmp_path, minilm):
    rows = [{"anchor": anchor, "positive": positive} for anchor, positive in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{base: {minilm}}}\ndata: {{dataset: ./pairs.jsonl, format: positive_pair}}\n"
        "loss: multiple_negatives_ranking\n"
    )
    return load_recipe(tmp_path / "recipe.yaml").recipe


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"number": i, "text": text}) + "\n" for i, text in enumerate(CORPUS)))
    return path


def run(model, recipe, output, corpus=None, part=None, rules=RULES, **choices) -> list[dict]:
    source = Source(dataset=str(corpus)) if corpus else None
    own = Part.parse(part) if part else None
    mine(str(model), recipe, output, rules, corpus=source, corpus_column=None, device="cpu", part=own, **choices)
    files = sorted(output.iterdir()) if part else [output]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def assert_same(found, expected) -> None:
    """But for the last digits, which depend on the texts of a batch."""
    for name in ("anchor", "positive", "negative"):
        assert [row[name] for row in found] == [row[name] for row in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["negative_scores"], other["negative_scores"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_parts_find_what_one_command_finds(minilm, recipe, corpus, tmp_path, count) -> None:
    for own in (None, corpus):
        expected = run(minilm, recipe, tmp_path / "whole.jsonl", own)
        assert len(expected) > 40
        for number in range(count, 0, -1):
            found = run(minilm, recipe, tmp_path / "parts", own, f"{number}/{count}")
        assert_same(found, expected)
        shutil.rmtree(tmp_path / "parts")


@pytest.mark.parametrize("spare", [-8, pytest.param(0, marks=pytest.mark.slow)])
def test_neighbors_that_say_the_same_are_made_up_for(minilm, recipe, tmp_path, monkeypatch, spare) -> None:
    expected = run(minilm, recipe, tmp_path / "whole.jsonl")
    monkeypatch.setattr(module, "SPARE", spare)
    assert_same(run(minilm, recipe, tmp_path / "again.jsonl"), expected)


@pytest.mark.parametrize("name", ["parts", "e.parquet", "e.jsonl"])
def test_encoded_corpus_gives_the_negatives_of_its_texts(minilm, recipe, corpus, tmp_path, name) -> None:
    expected = run(minilm, recipe, tmp_path / "whole.jsonl", corpus)
    for number in (1, 2) if name == "parts" else (None,):
        part = Part(number, 2) if number else None
        inputs = Inputs(Source(dataset=str(corpus)), "text", part=part)
        list(encode(str(minilm), inputs, tmp_path / name, EncodeOptions(), with_text=True, device="cpu"))
    assert_same(run(minilm, recipe, tmp_path / "mined.jsonl", tmp_path / name), expected)


def test_an_index_of_few_texts_finds_the_same_negatives(minilm, recipe, corpus, tmp_path, caplog) -> None:
    pytest.importorskip("faiss")
    caplog.set_level("INFO", logger="stfit")
    expected = run(minilm, recipe, tmp_path / "exact.jsonl", corpus)
    assert_same(run(minilm, recipe, tmp_path / "found.jsonl", corpus, approximate=True), expected)
    assert "the index finds 100.0% of nearest neighbors" in caplog.text


def test_encoded_corpus_needs_its_texts_and_the_dimensions_of_the_model(minilm, recipe, corpus, tmp_path) -> None:
    list(encode(str(minilm), Inputs(Source(dataset=str(corpus)), "text"), tmp_path / "e.npy", EncodeOptions()))
    with pytest.raises(DataError, match="without their texts: encode with --with-text"):
        run(minilm, recipe, tmp_path / "mined.jsonl", tmp_path / "e.npy")
    dim = np.load(tmp_path / "e.npy").shape[1]
    rows = [{"id": i, "text": text, "embedding": [1.0] * (dim + 1)} for i, text in enumerate(CORPUS)]
    (tmp_path / "wide.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"have {dim + 1} dimensions, and those of .* {dim}: mine with the model"):
        run(minilm, recipe, tmp_path / "mined.jsonl", tmp_path / "wide.jsonl")


def test_interrupted_mining_goes_on_with_the_next_block(minilm, recipe, tmp_path, monkeypatch) -> None:
    run(minilm, recipe, tmp_path / "whole.jsonl")
    done = []
    mine_rows = module._mine_rows

    def stop_at_the_fourth(mining, rows):
        if len(done) == 3:
            raise InterruptedRun("stopped by SIGTERM", 15)
        done.append(rows)
        return mine_rows(mining, rows)

    monkeypatch.setattr(module, "_mine_rows", stop_at_the_fourth)
    with pytest.raises(
        InterruptedRun, match=r"what was compared is kept in .*mined.jsonl.blocks; run the same command"
    ):
        run(minilm, recipe, tmp_path / "mined.jsonl")
    again = []
    monkeypatch.setattr(module, "_mine_rows", lambda mining, rows: again.append(rows) or mine_rows(mining, rows))
    run(minilm, recipe, tmp_path / "mined.jsonl")
    assert sorted(row for rows in done + again for row in rows.tolist()) == list(range(len(PAIRS)))
    assert (tmp_path / "mined.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "mined.jsonl.blocks").exists()


def test_block_of_other_inputs_is_none(tmp_path) -> None:
    saved = SavedBlocks(tmp_path / "blocks")
    saved.write(0, "inputs", [[1, 0.5, [3], [0.25]]])
    assert saved.read(0, "inputs") == [[1, 0.5, [3], [0.25]]]
    assert saved.read(0, "others") is saved.read(1, "inputs") is None
    (tmp_path / "blocks" / "block-00000.json").write_text("half a")
    assert saved.read(0, "inputs") is None


def test_output_of_a_part_is_a_folder_and_of_all_a_file(minilm, recipe, tmp_path) -> None:
    with pytest.raises(RecipeError, match="the output of a part is a folder"):
        run(minilm, recipe, tmp_path / "mined.jsonl", part="1/2")
    with pytest.raises(RecipeError, match=r"the output must be a \.jsonl file"):
        run(minilm, recipe, tmp_path / "mined")
