"""`stfit generate`: rows, filters and bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_in_child

from stfit.errors import DataError, RecipeError, ResourceError
from stfit.options import GenerationOptions
from stfit.recipe.load import load_recipe

GUIDE = """---
title: The guide
---
# Ships

A ship is a large vessel that sails on the sea. It has a crew, who keep watch by day and by night.

## Anchors

An *anchor* holds a ship in its place. Drop [one](http://a.b) where the ground is sand or mud.

```
anchor --drop
```
"""


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "more").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE)
    words = " ".join(f"word{number}" for number in range(300))
    (folder / "more" / "notes.txt").write_text(f"Notes on words\n\n{words}\n")
    (folder / ".hidden.md").write_text("Nobody reads this.")
    return folder


@pytest.fixture
def rows(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_documents_become_passages_with_their_headings(docs, make):
    result = make(docs, "title")
    assert [(row["anchor"], row["passage"], row["document"]) for row in result["pairs"]] == [
        ("The guide: Ships", "guide.md#1", "guide.md"),
        ("The guide: Ships: Anchors", "guide.md#2", "guide.md"),
        ("Notes on words", "more/notes.txt#1", "more/notes.txt"),
    ]
    anchors = result["pairs"][1]["positive"]
    assert anchors == "An anchor holds a ship in its place. Drop one where the ground is sand or mud.\nanchor --drop"
    assert {row["generated_by"] for row in result["pairs"]} == {"title"}


def test_passages_overlap_and_hold_every_word(docs, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = make("./docs", "crop", passage_words=100, overlap=30, per_passage=40)["pairs"]
    passages = {row["passage"] for row in found if row["document"] == "more/notes.txt"}
    assert passages == {f"more/notes.txt#{number}" for number in (1, 2, 3, 4)}


def test_rows_are_split_only_where_it_is_asked_for(rows, make):
    path = rows({"id": "a", "text": " ".join(f"word{number}" for number in range(50))})
    assert {row["passage"] for row in make(path, "crop")["pairs"]} == {"a"}
    split = make(path, "crop", passage_words=20, overlap=0)["pairs"]
    assert [(row["passage"], row["document"]) for row in split] == [("a#1", "a"), ("a#2", "a"), ("a#3", "a")]


def test_several_methods_say_which_row_is_whose(docs, make):
    result = make(docs, "title", "crop", "sentence")
    by_method = {name: [row for row in result["pairs"] if row["generated_by"] == name] for name in ("title", "crop")}
    assert result["rows_by_method"]["title"] == len(by_method["title"])
    assert result["passages_without"] == {"title": 0, "crop": 0, "sentence": 3}
    assert result["rows"] == len(result["pairs"])


def test_the_rows_train_with_what_is_said_of_them(docs, make, tmp_path):
    make(docs, "crop", per_passage=4)
    (tmp_path / "recipe.yaml").write_text(
        "model: {base: {type: scratch}}\nloss: multiple_negatives_ranking\n"
        "data: {dataset: ./pairs.jsonl, format: positive_pair, holdout: {fraction: 0.3, by: document}}\n"
        "eval: [{type: retrieval, from: holdout}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stfit", "check", "recipe.yaml", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["errors"] == []


def test_equal_and_nearly_equal_anchors_are_left_out_with_examples(rows, make):
    long = " ".join(f"word{number}" for number in range(20))
    path = rows(
        {"title": "How to sail", "text": "Set the sails before the wind comes up."},
        {"title": "how to SAIL!", "text": "Another text of the same title."},
        {"title": long, "text": "The first of two that are nearly equal."},
        {"title": f"{long} again", "text": "The first of two that are nearly equal!!"},
        {"title": f"{long} once more", "text": "A title may nearly be that of another text."},
    )
    result = make(path, "title")
    assert [row["passage"] for row in result["pairs"]] == ["0", "2", "4"]
    assert result["dropped"] == {
        "anchor of an earlier row": {"rows": 1, "examples": ["how to SAIL!"]},
        "nearly an earlier row": {"rows": 1, "examples": [f"{long} again"[:119] + "…"]},
    }


def test_short_and_long_anchors_are_left_out(rows, make):
    path = rows(*({"title": " ".join("abcdefgh"[:size]), "text": f"a text {size}"} for size in (1, 2, 5, 6)))
    result = make(path, "title", options=GenerationOptions(words=(2, 5)))
    assert [row["anchor"] for row in result["pairs"]] == ["a b", "a b c d e"]
    assert result["dropped"]["too short or too long"]["rows"] == 2


def test_a_question_that_copies_its_passage_is_left_out_and_a_crop_is_not(rows, make, chat):
    path = rows({"text": "The crew of a ship keeps watch by day and by night."})
    chat.answer = lambda body: '["Crew of a ship", "Who keeps watch at night?"]'
    result = make(path, "endpoint", endpoint=chat.address, generator="x")
    assert [row["anchor"] for row in result["pairs"]] == ["Who keeps watch at night?"]
    assert result["dropped"] == {"copied from its passage": {"rows": 1, "examples": ["Crew of a ship"]}}
    assert make(path, "crop")["dropped"] == {}


def test_texts_of_an_evaluator_are_left_out(rows, make, tmp_path):
    path = rows(
        {"title": "A man is playing a guitar.", "text": "One of the evaluator's texts asks."},
        {"title": "Something else altogether", "text": "This is of no evaluator."},
    )
    (tmp_path / "eval.yaml").write_text(
        "model: {base: {type: scratch}}\nloss: multiple_negatives_ranking\n"
        "data: {dataset: ./rows.jsonl, format: positive_pair, columns: {anchor: title, positive: text}}\n"
        "eval: [{type: similarity, name: dev, dataset: ./dev.jsonl}]\n"
    )
    (tmp_path / "dev.jsonl").write_text(
        '{"sentence1": "a man is playing a guitar", "sentence2": "someone plays", "label": 0.9}\n'
        '{"sentence1": "a cat", "sentence2": "a dog", "label": 0.1}\n'
    )
    result = make(path, "title", not_in=load_recipe(tmp_path / "eval.yaml").recipe)
    assert [row["passage"] for row in result["pairs"]] == ["1"]
    assert result["dropped"]["text of an evaluator"]["rows"] == 1


def test_pairs_in_another_language_are_left_out(rows, make):
    pytest.importorskip("py3langid")
    path = rows(
        {"title": "How to sail a large ship at night", "text": "Set the sails before the wind comes up."},
        {"title": "Wie segelt man ein großes Schiff", "text": "Man setzt die Segel, bevor der Wind kommt."},
    )
    result = make(path, "title", options=GenerationOptions(language="de"))
    assert [row["passage"] for row in result["pairs"]] == ["1"]
    with pytest.raises(RecipeError, match=r"--language xx: write one of .*de, .*en"):
        make(path, "title", options=GenerationOptions(language="xx"))


def test_a_pair_stays_if_the_retriever_finds_its_passage(rows, make, minilm):
    texts = ["the sea is deep", "a guitar on stage", "bread from the oven", "the cat sleeps"]
    asked = ["how deep is the sea", "bread of the oven", "the bread from the oven", "sleeping cats"]
    path = rows(*({"title": title, "text": text} for title, text in zip(asked, texts, strict=True)))
    kept = make(path, "title", options=GenerationOptions(round_trip=1, retriever=str(minilm)))
    assert "1" not in {row["passage"] for row in kept["pairs"]}  # it asks for another passage
    assert "2" in {row["passage"] for row in kept["pairs"]}
    assert kept["dropped"]["passage not found by the retriever"]["examples"] == ["bread of the oven"]
    everything = make(path, "title", options=GenerationOptions(round_trip=4, retriever=str(minilm)))
    assert len(everything["pairs"]) == 4


def test_the_same_command_writes_the_same_bytes_and_leaves_nothing_behind(docs, make, tmp_path, minilm):
    options = GenerationOptions(round_trip=2, retriever=str(minilm))
    make(docs, "crop", "sentence", options=options, per_passage=5)
    first = (tmp_path / "pairs.jsonl").read_bytes()
    make(docs, "crop", "sentence", options=options, per_passage=5)
    assert (tmp_path / "pairs.jsonl").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs", "pairs.jsonl"]


def test_a_limit_takes_the_first_passages(docs, make):
    assert make(docs, "title", limit=2)["passages"] == 2


def test_the_card_and_the_vocabulary_of_a_model_are_no_documents(tmp_path, make, tiny_base):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("# On cats\n\nA cat sat near the sea.\n")
    shutil.copytree(tiny_base("bert"), tmp_path / "docs" / "model")
    (tmp_path / "docs" / "model" / "README.md").write_text("# A model\n\nWhat it can do.\n")
    assert {row["anchor"] for row in make(tmp_path / "docs", "title")["pairs"]} == {"On cats"}
    with pytest.raises(DataError, match="is the folder of a model"):
        make(tmp_path / "docs" / "model", "title")


def test_an_empty_folder_has_no_documents(tmp_path, make):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no documents \(\.txt, \.md\)"):
        make(tmp_path / "empty", "crop")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xd8", b"a text\0with a zero"])
def test_a_file_that_is_no_text_is_named(tmp_path, make, content):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"picture\.txt: .*line 1|picture\.txt:1: line 1"):
        make(tmp_path / "docs", "crop")


def test_passages_of_one_word_make_no_pair(rows, make):
    with pytest.raises(DataError, match=r"no pair can be made: 2 passages were read, which have too short a text"):
        make(rows({"text": "word"}, {"text": "another"}), "crop")


def test_filters_that_leave_nothing_say_why(rows, make):
    path = rows({"title": "one", "text": "a text of some words"})
    with pytest.raises(DataError, match=r"no pair is left of 1 \(too short or too long: 1\)"):
        make(path, "title")


def test_overlap_must_be_less_than_a_passage(rows, make):
    with pytest.raises(RecipeError, match="--overlap 20: must be less than --passage-words"):
        make(rows({"text": "a text"}), "crop", passage_words=20, overlap=20)


def test_the_round_trip_needs_both_options():
    with pytest.raises(RecipeError, match="--round-trip K and --retriever MODEL go together"):
        GenerationOptions(round_trip=3)


def test_an_output_that_is_no_jsonl_or_the_corpus_is_refused(rows, make, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"text": "a text of some words"}) + "\n")
    with pytest.raises(RecipeError, match="this command reads it"):
        make(tmp_path / "pairs.jsonl", "crop")


def test_a_damaged_file_of_answers_is_named(rows, make, chat, tmp_path):
    (tmp_path / "pairs.jsonl.answers.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ResourceError, match="the file of answers can't be used"):
        make(rows({"text": "a text of some words"}), "endpoint", endpoint=chat.address, generator="x")


def test_the_command_line_shows_what_was_made(docs, tmp_path):
    command = [sys.executable, "-m", "stfit", "generate", "./docs", "-o", "p.jsonl", "--method", "title"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("p.jsonl: 3 pairs of 5 passages (title 3)")
    assert "holdout: {fraction: 0.1, by: document}" in done.stdout
    assert (tmp_path / "p.jsonl").is_file()
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(done.stdout)["rows_by_method"] == {"title": 3}


@pytest.mark.slow
def test_a_million_passages_fit_into_little_memory(tmp_path, make, promise):
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for number in range(1_000_000):
            text = " ".join(f"w{(number * step) % 99991}" for step in range(1, 25))
            file.write(json.dumps({"text": text}) + "\n")

    def kib(name):
        return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if name in line).split()[1])

    def measure():
        before = kib("VmRSS")  # a child begins with the memory of the tests before it
        make(path, "crop")
        (tmp_path / "taken").write_text(str(kib("VmHWM") - before))

    assert run_in_child(measure) == 0
    taken = int((tmp_path / "taken").read_text())
    promise("memory of a million passages", f"{taken / 1024:.0f} MiB")
    assert taken < 2**19  # all rows in memory take more
