"""What the methods make of a passage, alone and in any company."""

import json
import shutil
from random import Random

import pytest

from stfit.errors import ModelError, RecipeError
from stfit.generation.answers import Answers
from stfit.generation.base import Passage
from stfit.generation.crop import Crop
from stfit.generation.registry import choose_generators
from stfit.generation.sentence import Sentence
from stfit.generation.title import Title

TEXT = "The tide is high. Ships leave the harbor (at dawn)! Who sails them? Nobody knows: e.g. the wind.\nA last line"
PASSAGES = [
    Passage(str(number), "doc", f"Title {number}", " ".join(f"w{Random(number).random()} {TEXT}" for _ in range(2)))
    for number in range(20)
]


def pairs_of(method, passages, seed=42, answers=None):
    return list(method.open(seed, answers)(passages))


def test_a_title_finds_its_text():
    assert pairs_of(Title(), [Passage("1", "d", "Ships", "They sail.")]) == [[("Ships", "They sail.")]]
    assert pairs_of(Title(), [Passage("1", "d", "", "They sail.")]) == [[]]


@pytest.mark.parametrize("text", ["Ships. They sail.", "SHIPS: They sail.", "ships\n\nThey sail.", "Ships They sail."])
def test_a_text_is_asked_for_without_the_title_that_it_begins_with(text):
    assert pairs_of(Title(), [Passage("1", "d", "Ships .", text)]) == [[("Ships .", "They sail.")]]


def test_crops_are_two_spans_of_one_passage():
    for passage, pairs in zip(PASSAGES, pairs_of(Crop(per_passage=3), PASSAGES), strict=True):
        assert len(pairs) == 3
        for anchor, positive in pairs:
            assert anchor in passage.text
            assert positive in passage.text
            assert 3 <= len(anchor.split()) <= len(passage.text.split()) / 2 + 1


def test_a_passage_of_few_words_has_no_crop():
    assert pairs_of(Crop(), [Passage("1", "d", "", "one two three four five")]) == [[]]
    assert pairs_of(Crop(), [Passage("1", "d", "", "word")]) == [[]]


@pytest.mark.parametrize("text", ["海は広い。船が港を出る。誰が乗るのか。", "ทะเลกว้าง เรือออกจากท่า"])
def test_scripts_without_spaces_have_words(text):
    ((anchor, positive),) = pairs_of(Crop(), [Passage("1", "d", "", text)])[0]
    assert 3 <= len(anchor) < len(text)
    assert positive in text


def test_a_sentence_finds_the_others():
    sentences = ["The tide is high.", "Ships leave the harbor (at dawn)!", "Who sails them?", "A last line"]
    for seed in range(20):
        ((anchor, positive),) = pairs_of(Sentence(keep=0), [Passage("1", "d", "", TEXT)], seed)[0]
        assert anchor in [*sentences, "Nobody knows: e.g.", "the wind."]
        assert anchor not in positive
        assert all(sentence in positive for sentence in sentences if sentence != anchor)


def test_some_passages_keep_their_sentence():
    passages = [Passage(str(i), "d", "", f"{TEXT} {i}") for i in range(1000)]
    kept = sum(anchor in positive for ((anchor, positive),) in pairs_of(Sentence(keep=0.1), passages))
    assert 60 <= kept <= 140
    assert all(positive == text for ((_, positive),), (_, _, _, text) in zip(
        pairs_of(Sentence(keep=1), passages), passages, strict=True
    ))  # fmt: skip


def test_a_passage_of_one_sentence_asks_nothing():
    assert pairs_of(Sentence(), [Passage("1", "d", "", "One sentence alone.")]) == [[]]
    assert pairs_of(Sentence(), [Passage("1", "d", "", "Japanese。日本語です。")])[0]


@pytest.mark.parametrize("method", [Crop(per_passage=2), Sentence(per_passage=2), Title()])
def test_pairs_depend_on_the_passage_and_the_seed_alone(method):
    whole = pairs_of(method, PASSAGES)
    assert whole == pairs_of(method, PASSAGES)
    assert whole[::-1] == pairs_of(method, PASSAGES[::-1])
    assert [pairs for passage in PASSAGES for pairs in pairs_of(method, [passage])] == whole
    if method.tag() != "title":
        assert whole != pairs_of(method, PASSAGES, seed=7)


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["crops"], {}, "--method crops: did you mean `crop`?"),
        (["crop"], {"keep": 0.1}, "--keep is for the method sentence"),
        (["title"], {"per_passage": 2}, "--per-passage is for the method crop or sentence or seq2seq or endpoint"),
        (["seq2seq"], {}, "--method seq2seq needs --generator"),
        (["endpoint"], {"generator": "x"}, "--method endpoint needs --endpoint"),
        (["endpoint"], {"generator": "x", "endpoint": "http://h/v1", "prompt": "ask!"}, "must hold {passage}"),
        (["sentence"], {"keep": 2.0}, "--keep: Input should be less than or equal to 1"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(names, settings, message):
    with pytest.raises(RecipeError) as caught:
        choose_generators(names, settings)
    assert message in str(caught.value)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": passage.text}) + "\n" for passage in PASSAGES[:7]))
    return path


@pytest.fixture
def generator(tiny_base, tmp_path):
    """A T5-like model that knows with which token an answer begins."""
    folder = shutil.copytree(tiny_base("t5"), tmp_path / "t5")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"decoder_start_token_id": 0}))
    return folder


def test_a_generator_is_asked_once_and_its_questions_are_those_of_an_undisturbed_run(generator, tmp_path):
    settings = {"generator": str(generator), "per_passage": 2, "batch_size": 2, "max_new_tokens": 8}
    store = tmp_path / "pairs.jsonl.answers.sqlite"
    method = choose_generators(["seq2seq"], settings)[0]
    passages = PASSAGES[:7]
    with Answers(store) as answers:
        whole = pairs_of(method, passages, answers=answers)
        assert answers.counts == {"written": 7, "kept": 0}
    assert any(len(pairs) == 2 for pairs in whole)
    assert all(
        positive == passage.text for passage, pairs in zip(passages, whole, strict=True) for _, positive in pairs
    )
    with Answers(store) as answers:
        assert pairs_of(method, passages, answers=answers) == whole
        assert answers.counts == {"kept": 7}
    store.unlink()
    with Answers(store) as answers:  # interrupted after two batches
        pairs_of(method, passages[:4], answers=answers)
        assert pairs_of(method, passages, answers=answers) == whole
    with Answers(store) as answers:
        assert pairs_of(method, passages, seed=7, answers=answers) != whole


def test_a_model_that_does_not_know_how_to_begin_is_refused(tiny_base, texts, make):
    with pytest.raises(ModelError, match="can't write as a generator"):
        make(texts, "seq2seq", generator=str(tiny_base("t5")))


def test_a_model_that_does_not_write_is_refused(tiny_base, texts, make):
    with pytest.raises(ModelError, match="can't be used as a generator"):
        make(texts, "seq2seq", generator=str(tiny_base("bert")))
