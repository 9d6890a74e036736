"""`stfit mine`: negatives are near, and never what belongs to the anchor."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stfit.commands.mine import mine
from stfit.commands.similar import closest, similar
from stfit.commands.train import train
from stfit.data.source import Source
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.cross_encoder import CrossEncoder, load_cross_encoder
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, ModelError, RecipeError
from stfit.options import MiningOptions
from stfit.recipe.load import load_recipe
from stfit.workflows.encode.text_windows import Inputs

PAIRS = [
    ("how do I get to the sea", "way to the sea"),
    ("way to the sea", "the road that ends at the shore"),  # linked to the first row through its positive
    ("where is the cat", "the cat sleeps"),
    ("where is the cat", "in a box"),
    ("who bakes bread", "The Cat sleeps!"),  # the same as another positive, but for case and punctuation
    ("who plays a guitar", "a man on stage"),
    ("what is the weather", "it rained all day"),
    ("who reads", "parents read letters"),
]


@pytest.fixture
def recipe(tmp_path, minilm):
    rows = [{"anchor": anchor, "positive": positive} for anchor, positive in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{base: {minilm}}}\ndata: {{dataset: ./pairs.jsonl, format: positive_pair}}\n"
        "loss: multiple_negatives_ranking\n"
    )
    return load_recipe(tmp_path / "recipe.yaml").recipe


ANY = MiningOptions(margin=-9, relative_margin=-1e6, duplicate=2, per_row=9)
"""Takes every text that is no known positive."""


def mined(model, recipe, folder: Path, rules=ANY, corpus=None) -> dict[tuple[str, str], dict]:
    mine(str(model), recipe, folder / "mined.jsonl", rules, corpus=corpus, corpus_column=None, device="cpu")
    rows = [json.loads(line) for line in (folder / "mined.jsonl").read_text().splitlines()]
    return {(row["anchor"], row["positive"]): row for row in rows}


def test_known_positives_are_no_negatives_at_whatever_remove(minilm, recipe, tmp_path) -> None:
    rows = mined(minilm, recipe, tmp_path)
    assert list(rows) == PAIRS
    everything = {positive for _, positive in PAIRS}
    assert set(rows[PAIRS[0]]["negative"]) == everything - {PAIRS[0][1], PAIRS[1][1]}
    of_cats = {"the cat sleeps", "The Cat sleeps!", "in a box"}
    for pair in PAIRS[2:5]:
        assert set(rows[pair]["negative"]) == everything - of_cats


def test_negatives_are_ranked_by_cosine_and_written_with_it(minilm, recipe, tmp_path) -> None:
    rows = mined(minilm, recipe, tmp_path)
    encoder = load_encoder(minilm)
    for row in rows.values():
        anchor, *others = encoder.encode([row["anchor"], row["positive"], *row["negative"]], normalize=True)
        cosines = np.array(others) @ anchor
        np.testing.assert_allclose(cosines, [row["positive_score"], *row["negative_scores"]], atol=1e-5)
        assert row["negative_scores"] == sorted(row["negative_scores"], reverse=True)


@pytest.mark.parametrize(
    ("rules", "holds"),
    [
        (replace(ANY, margin=0.1), lambda score, positive, rank: score <= positive - 0.1),
        (replace(ANY, relative_margin=0.05), lambda score, positive, rank: score <= positive - 0.05 * abs(positive)),
        (replace(ANY, ranks=(2, 3), per_row=2), lambda score, positive, rank: 2 <= rank <= 3),
    ],
)
def test_rules_take_exactly_what_they_say(minilm, recipe, tmp_path, rules, holds) -> None:
    without = mined(minilm, recipe, tmp_path)
    found = mined(minilm, recipe, tmp_path, rules)
    for pair, row in without.items():  # of several positives of an anchor, the least similar counts
        least = min(row["positive_score"] for other, row in without.items() if other[0] == pair[0])
        scored = enumerate(zip(row["negative"], row["negative_scores"], strict=True), start=1)
        expected = [text for rank, (text, score) in scored if holds(score, least, rank)]
        assert found.get(pair, {"negative": []})["negative"] == expected


@pytest.fixture
def overflowing(tmp_path):
    """A table of word vectors whose sum overflows for `too big`."""
    words = {*" ".join(sum(PAIRS, ())).split()}
    lines = [f"{word} {i % 5} {i % 3} 1\n" for i, word in enumerate(sorted(words))]
    (tmp_path / "vectors.txt").write_text("".join([*lines, "too 3e38 1 1\n", "big 3e38 1 1\n"]))
    base = {"type": "word_embeddings", "vectors": str(tmp_path / "vectors.txt")}
    save_encoder(build_encoder(Model.model_validate({"base": base}), lambda: [*words, "too big"]), tmp_path / "model")
    return tmp_path / "model"


def test_a_text_whose_embedding_is_not_a_number_takes_no_place(overflowing, recipe, tmp_path, caplog) -> None:
    (tmp_path / "corpus.txt").write_text("too big\nthe weather\ntoo big too\nthe sea\nbread\n")
    corpus = Source(dataset=str(tmp_path / "corpus.txt"))
    rows = mined(overflowing, recipe, tmp_path, ANY, corpus)
    assert {text for row in rows.values() for text in row["negative"]} == {"the weather", "the sea", "bread"}
    assert "2 of 5 texts have an embedding that is not finite, and are no negatives, such as 'too big'" in caplog.text
    (found,) = similar(str(overflowing), Inputs(corpus), ["the sea"], 8, "cpu")["queries"]
    assert {near["text"] for near in found["nearest"]} == {"the weather", "the sea", "bread"}
    pairs = closest(str(overflowing), Inputs(corpus), 99, "cpu")
    assert (pairs["texts"], len(pairs["pairs"])) == (3, 3)
    assert caplog.text.count("2 texts have an embedding that is not finite") == 2
    with pytest.raises(ModelError, match="its embedding of a query is not finite"):
        similar(str(overflowing), Inputs(corpus), ["too big"], 8, "cpu")


def test_fewer_negatives_than_asked_for_are_counted(minilm, recipe, tmp_path) -> None:
    arguments = {"corpus": None, "corpus_column": None, "device": "cpu"}
    result = mine(str(minilm), recipe, tmp_path / "m.jsonl", replace(ANY, ranks=(1, 9)), **arguments)
    assert (result["rows_with_fewer"], result["negatives_missing"], result["rows_without"]) == (8, 24, 0)


def test_what_says_the_same_is_no_negative(minilm, recipe, tmp_path) -> None:
    near = sorted(score for row in mined(minilm, recipe, tmp_path).values() for score in row["negative_scores"])
    found = mined(minilm, recipe, tmp_path, replace(ANY, duplicate=near[-1]))
    assert max(score for row in found.values() for score in row["negative_scores"]) < near[-1]


def test_negatives_of_a_corpus_and_a_training_on_them(minilm, recipe, tmp_path) -> None:
    corpus = [f"a text about {word}" for word in ("cats", "bread", "rain", "guitars", "the sea")]
    (tmp_path / "corpus.txt").write_text("\n".join([*corpus, "", "the cat sleeps"]))
    rows = mined(minilm, recipe, tmp_path, ANY, Source(dataset=str(tmp_path / "corpus.txt")))
    assert set(rows[PAIRS[0]]["negative"]) == {*corpus, "the cat sleeps"}
    assert set(rows[PAIRS[3]]["negative"]) == set(corpus)


def test_mined_file_is_a_triplet_dataset_as_its_line_says(minilm, recipe, tmp_path) -> None:
    result = mine(
        str(minilm),
        recipe,
        tmp_path / "mined.jsonl",
        MiningOptions(per_row=2),
        corpus=None,
        corpus_column=None,
        device="cpu",
    )
    first = (tmp_path / "mined.jsonl").read_bytes()
    (tmp_path / "triplets.yaml").write_text(
        f"model: {{base: {minilm}}}\n{result['data']}\nloss: multiple_negatives_ranking\n"
    )
    mined_recipe = load_recipe(tmp_path / "triplets.yaml").recipe
    from stfit.commands.mine import load_pairs

    assert len(load_pairs(mined_recipe)[0]) == result["rows"]
    mined(minilm, recipe, tmp_path, MiningOptions(per_row=2))
    assert (tmp_path / "mined.jsonl").read_bytes() == first


def test_mine_needs_pairs_and_has_to_find_something(minilm, recipe, tmp_path) -> None:
    with pytest.raises(DataError, match="no row has a negative"):
        mined(minilm, recipe, tmp_path, MiningOptions(margin=3.0))
    with pytest.raises(RecipeError, match="--ranks starts at 20, and there are only 8 texts to choose from"):
        mined("./no-model", recipe, tmp_path, MiningOptions(ranks=(20, 30)))
    labeled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"format": "labeled_pair"})})
    with pytest.raises(RecipeError, match="this one has labeled_pair"):
        mined(minilm, labeled, tmp_path)


@pytest.mark.slow
def test_texts_have_the_prompts_of_the_recipe_that_the_model_knows(minilm, recipe, tmp_path) -> None:
    """As in training; a prompt that only the recipe's own base has is that of the model's role."""
    encoder = load_encoder(minilm)
    encoder.config = replace(encoder.config, prompts=encoder.config.prompts | {"ask": "who asks: "})
    save_encoder(encoder, tmp_path / "model")
    for names, prompt in ({"anchor": "ask"}, "who asks: "), ({"anchor": "unknown"}, ""), (None, ""):
        data = recipe.data.model_copy(update={"prompts": names})
        row = mined(tmp_path / "model", recipe.model_copy(update={"data": data}), tmp_path)[PAIRS[5]]
        anchor, positive = (encoder.encode([text], normalize=True)[0] for text in (prompt + PAIRS[5][0], PAIRS[5][1]))
        assert row["positive_score"] == pytest.approx(float(anchor @ positive), abs=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.002])
@pytest.mark.parametrize("per_row", [1, 2, 9])
def test_a_reranker_drops_what_it_scores_above_a_positive(minilm, recipe, tmp_path, tiny_base, margin, per_row) -> None:
    rules = replace(ANY, margin=margin, relative_margin=0.0, per_row=per_row, reranker=str(tiny_base("reranker")))
    near, found = mined(minilm, recipe, tmp_path), mined(minilm, recipe, tmp_path, rules)
    model = load_cross_encoder(str(tiny_base("reranker")))
    positives = dict(zip(PAIRS, model.score(PAIRS).tolist(), strict=True))
    dropped = 0
    for pair, row in near.items():
        limit = min(score for other, score in positives.items() if other[0] == pair[0]) - margin
        scores = model.score([(pair[0], text) for text in row["negative"]]).tolist()
        kept = [i for i, score in enumerate(scores) if score <= limit]
        dropped += len(scores) - len(kept)
        if not kept:
            assert pair not in found
            continue
        kept = kept[:per_row]
        assert found[pair]["negative"] == [row["negative"][i] for i in kept]
        assert found[pair]["negative_scores"] == [row["negative_scores"][i] for i in kept]
        assert found[pair]["scores"] == pytest.approx([positives[pair], *(scores[i] for i in kept)], abs=1e-5)
    assert dropped > 0
    assert found


def test_scores_of_a_reranker_are_learned_from(minilm, recipe, tmp_path, tiny_base) -> None:
    rules = replace(ANY, relative_margin=0.0, margin=-9.0, per_row=2, reranker=str(tiny_base("reranker")))
    mined(minilm, recipe, tmp_path, rules)
    (tmp_path / "scored.yaml").write_text(
        f"model: {{base: {minilm}}}\nloss: margin_mse\ntrain: {{max_steps: 2, batch_size: 4}}\n"
        'data: {dataset: ./mined.jsonl, format: triplet, columns: {negative: "negative[:]", scores: scores}}\n'
    )
    *_, finished = train(load_recipe(tmp_path / "scored.yaml"), tmp_path / "runs")
    assert finished.result["steps"] == 2


def test_a_reranker_asks_for_no_more_than_it_needs(minilm, recipe, tmp_path, tiny_base, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    asked, score = [], CrossEncoder.score
    monkeypatch.setattr(CrossEncoder, "score", lambda self, pairs: asked.extend(pairs) or score(self, pairs))
    rules = replace(ANY, margin=-99.0, per_row=1, reranker=str(tiny_base("roberta-reranker")))
    assert len(mined(minilm, recipe, tmp_path, rules)) == len(PAIRS)
    assert len(asked) == len(set(asked))
    assert len(PAIRS) < len(asked) <= 2 * len(PAIRS)  # of each row its positive, and the nearest negative
