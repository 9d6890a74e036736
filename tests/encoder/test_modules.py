"""Every module but the transformer: a recipe builds it from nothing, it trains, and folders mean the same both ways.

`pytest -s tests/encoder/test_modules.py` prints the table.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from st_reference import largest_error, st_encode

from stfit.encoder.bases.word_vectors import read_vectors, read_word_weights
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.encoder.pooling import TokenStates, compute_pooled, without_prompts
from stfit.errors import ModelError

sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")

VECTORS = """\
the 0.5 1.5 -1 0.25
cat 1 0 0 2
rain -1 0.5 2 0.5
. 0.1 0.2 0.3 0.4
a 3 1 -2 0.5
sleeps 0 -1 1e-1 2
guitar 2 2 -2 1
"""
WORDS = {"type": "word_embeddings", "embedding_dim": 12}
BAG = {"type": "bag_of_words", "vocab_size": 40}
DENSE = {"type": "dense", "out_features": 8}
CNN = {"type": "cnn", "out_channels": 6, "kernel_sizes": [1, 3, 5]}
LSTM = {"type": "lstm", "hidden_dim": 5, "num_layers": 2}
ALL_POOLINGS = ["mean", "max", "cls", "mean_sqrt_len", "weighted_mean", "last_token"]
WORD_POOLINGS = [mode for mode in ALL_POOLINGS if mode != "cls"]
SCRATCH = {"type": "scratch", "hidden_size": 16, "num_layers": 2, "vocab_size": 200}

RECIPES = {
    "static, random": {"base": {"type": "static", "embedding_dim": 16}},
    "static, from vectors": {"base": {"type": "static", "vectors": "VECTORS"}, "layers": ["normalize"]},
    "static, cut": {"base": {"type": "static", "embedding_dim": 16}, "max_seq_length": 5},
    "bag of words, dense": {"base": BAG, "layers": [DENSE]},
    "words, mean": {"base": WORDS},
    "words from vectors, cut": {"base": {"type": "word_embeddings", "vectors": "VECTORS"}, "max_seq_length": 6},
    "words, CNN": {"base": WORDS, "token_layers": [CNN], "pooling": "max"},
    "words, LSTM": {"base": WORDS, "token_layers": [LSTM], "pooling": ["max", "mean"]},
    "words, word weights": {"base": WORDS, "token_layers": ["word_weights"], "pooling": WORD_POOLINGS},
    "words, weights, LSTM, CNN, dense": {"base": WORDS, "token_layers": ["word_weights", LSTM, CNN], "layers": [DENSE]},
    "transformer, word weights": {"base": SCRATCH, "token_layers": ["word_weights"], "pooling": ALL_POOLINGS},
    "transformer, weighted layers": {
        "base": SCRATCH,
        "token_layers": [{"type": "weighted_layer_pooling", "layer_start": 0}],
    },
    "transformer, weighted layers, CNN": {
        "base": SCRATCH,
        "token_layers": [{"type": "weighted_layer_pooling", "layer_start": 1}, CNN],
    },
    "transformer, CNN": {"base": SCRATCH, "token_layers": [CNN]},
    "transformer, all poolings": {"base": SCRATCH, "pooling": ALL_POOLINGS},
}


@pytest.fixture
def texts(sentences) -> list[str]:
    """With one without any known word, and an empty one."""
    return [*sentences, "Rain, rain, CAT... the guitar!", "zzzz", ""]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text(VECTORS)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_it_from_nothing_and_its_folder_agrees_with_st(
    name, vectors, two_steps, sentences, texts, tmp_path, table
):
    recipe = json.loads(json.dumps(RECIPES[name]).replace('"VECTORS"', json.dumps(str(vectors))))
    torch.manual_seed(3)
    encoder = build_encoder(Model.model_validate(recipe), lambda: sentences)
    untrained = encoder.encode(texts)
    moved = two_steps(encoder)
    save_encoder(encoder, tmp_path / "model")
    ours = encoder.encode(texts)
    # In sentence-transformers, a convolution over a transformer sees padding: no text is padded in a batch of 1.
    theirs = st_encode(tmp_path / "model", texts, batch_size=1 if name.endswith("CNN") else 32)
    if "max" in encoder.config.pooling:  # of no token, which is -inf there and 0 in stfit
        theirs[np.isinf(theirs)] = 0
    loaded = load_encoder(tmp_path / "model")
    table.append(
        {
            "modules": name,
            "trains": f"{len(moved)} of {len(list(encoder.parameters()))} weights move",
            "saves": "yes, and loads again",
            "error": f"{largest_error(ours, theirs):.0e}",
            "layout": encoder.layout.name,
        }
    )
    assert ours.shape == (len(texts), encoder.embedding_dim)
    assert largest_error(ours, untrained) > 1e-3
    assert largest_error(ours, theirs) < 1e-5
    assert largest_error(loaded.encode(texts), ours) < 1e-6
    assert loaded.config.token_layers == encoder.config.token_layers


def leave_prompts_out(model: Path) -> None:
    (pooling,) = model.glob("*_Pooling/config.json")
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))


# sentence-transformers 6.2 always pools the prompts of word embeddings.
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("transformer")])
def test_prompts_can_be_left_out_of_every_pooling_after_every_token_layer(name, sentences, tmp_path):
    recipe = RECIPES[name] | {"prompts": {"query": "the cat sleeps "}, "max_seq_length": 40}
    torch.manual_seed(3)
    save_encoder(build_encoder(Model.model_validate(recipe), lambda: sentences), tmp_path / "model")
    pooled = load_encoder(tmp_path / "model").encode(sentences, prompt_name="query")
    leave_prompts_out(tmp_path / "model")
    ours = load_encoder(tmp_path / "model").encode(sentences, prompt_name="query")
    batch_size = 1 if name.endswith("CNN") else 32
    theirs = st_encode(tmp_path / "model", sentences, prompt_name="query", batch_size=batch_size)
    assert largest_error(ours, theirs) < 1e-5
    assert largest_error(ours, pooled) > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_are_left_out_whatever_side_is_padded(tiny_base, sentences, tmp_path, side):
    settings = {"base": str(tiny_base("qwen3")), "pooling": ALL_POOLINGS, "prompts": {"query": "the cat sleeps "}}
    save_encoder(build_encoder(Model.model_validate(settings)), tmp_path / "model")
    leave_prompts_out(tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": side}))
    ours = load_encoder(tmp_path / "model").encode(sentences, prompt_name="query")
    assert largest_error(ours, st_encode(tmp_path / "model", sentences, prompt_name="query")) < 1e-5


def test_positions_are_counted_from_the_prompt_on():
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    tokens = TokenStates(states, torch.tensor([3]), torch.zeros(3, dtype=torch.int64))
    pooled = compute_pooled(("weighted_mean",), without_prompts(tokens, torch.tensor([1])))
    torch.testing.assert_close(pooled, torch.tensor([[4.2, 5.2]]))


def word_embeddings(vectors: Path):
    from sentence_transformers.sentence_transformer.modules import WordEmbeddings

    return WordEmbeddings.from_text_file(str(vectors), update_embeddings=True)


def st_models(vectors: Path, bert: Path) -> dict:
    """Models made of sentence-transformers' own classes."""
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import (
        CNN,
        LSTM,
        BoW,
        Pooling,
        StaticEmbedding,
        WeightedLayerPooling,
        WordWeights,
    )
    from tokenizers import Tokenizer as HFTokenizer

    words = word_embeddings(vectors)
    vocabulary = words.tokenizer.get_vocab()
    with_layers = Transformer(str(bert), config_kwargs={"output_hidden_states": True})
    counts = BoW(["cat", "rain", "The", "plays", "cat"], {"cat": 2.0, "the": 0.5}, unknown_word_weight=3)
    return {
        "StaticEmbedding": [StaticEmbedding(HFTokenizer.from_file(str(bert / "tokenizer.json")), embedding_dim=6)],
        "BoW": [counts, Dense(4, 3), Normalize()],
        "BoW, each word once": [BoW(["cat", "rain"], cumulative_term_frequency=False)],
        "WordEmbeddings": [words, Pooling(4, "mean")],
        "WordEmbeddings, CNN": [words, CNN(4, 3, [1, 3]), Pooling(6, "max")],
        "WordEmbeddings, LSTM": [words, LSTM(4, 3), Pooling(6, "mean")],
        "WordEmbeddings, WordWeights": [
            words,
            WordWeights(vocabulary, {"cat": 2.0, "rain": 0.25}, 0.75),
            Pooling(4, ("mean", "weightedmean")),
        ],
        "WeightedLayerPooling": [with_layers, WeightedLayerPooling(32, 2, 1), Pooling(32, ("mean", "cls"))],
    }


def test_a_folder_of_st_keeps_its_embeddings(vectors, tiny_base, texts, tmp_path):
    for name, modules in st_models(vectors, tiny_base("bert")).items():
        folder = tmp_path / name
        st_model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
        st_model.save_pretrained(str(folder))
        theirs = st_model.encode(texts)
        theirs[np.isinf(theirs)] = 0
        encoder = load_encoder(folder)
        assert largest_error(encoder.encode(texts), theirs) < 1e-5, name
        save_encoder(encoder, folder / "again")
        assert largest_error(load_encoder(folder / "again").encode(texts), theirs) < 1e-5, name
        info = inspect_model(Model(base=str(folder)))
        assert info.hidden_size == encoder.base.dim, name
        assert [list(ids) for ids in info.load_tokenizer()(texts)] == [list(ids) for ids in encoder.tokenizer(texts)], (
            name
        )


def test_shared_and_weighted_rows_of_model2vec_are_one_table(tiny_base, sentences, tmp_path):
    from safetensors.torch import save_file
    from tokenizers import Tokenizer as HFTokenizer

    tokenizer = HFTokenizer.from_file(str(tiny_base("bert") / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    rows = {
        "embeddings": torch.randn(5, 6).half(),
        "mapping": torch.arange(size) % 5,
        "weights": torch.linspace(0.5, 1, size),
    }
    save_file(rows, tmp_path / "model.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    kind = "sentence_transformers.models.StaticEmbedding"
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": ".", "type": kind}]))
    assert largest_error(load_encoder(tmp_path).encode(sentences), st_encode(tmp_path, sentences)) < 1e-2
    table = load_encoder(tmp_path).backbone.weight
    assert torch.equal(table[7], rows["embeddings"][2].float() * rows["weights"][7])


def test_vectors_are_read_as_they_stand_in_the_file(tmp_path):
    import gzip

    lines = "3 4\nNew York 1 2 3 4\nto 5 6 7 8\nto 0 0 0 0\nfar 9 9 9 9\n"
    (tmp_path / "v.vec.gz").write_bytes(gzip.compress(lines.encode()))
    settings = {"base": {"type": "static", "vectors": str(tmp_path / "v.vec.gz"), "vocab_size": 2}}
    with pytest.raises(ModelError, match=r"this line is not a word and 5 numbers"):
        build_encoder(Model.model_validate(settings), list)
    (tmp_path / "v.vec.gz").write_bytes(gzip.compress(lines.replace("New York", "York").encode()))
    encoder = build_encoder(Model.model_validate(settings), list)
    assert encoder.encode(["York to", "far", "to to"]).tolist() == [[3, 4, 5, 6], [0] * 4, [5, 6, 7, 8]]
    assert inspect_model(Model.model_validate(settings)).hidden_size == 4


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a 1 2\nb 1\n", r"v\.txt:2: this line is not a word and 2 numbers"),
        ("a 1 2\nb 1 x\n", r"v\.txt:2: this line is not a word and 2 numbers"),
        ("a 1 2\nb 1 nan\n", r"v\.txt:2: this line is not a word and 2 numbers"),
        ("", "has no vector"),
        (None, "can't be read"),
    ],
)
def test_a_damaged_file_of_vectors_is_refused_with_its_line(lines, reason, tmp_path):
    if lines is not None:
        (tmp_path / "v.txt").write_text(lines)
    settings = Model.model_validate({"base": {"type": "word_embeddings", "vectors": str(tmp_path / "v.txt")}})
    with pytest.raises(ModelError, match=reason):
        build_encoder(settings, list)


def test_idf_of_a_word_falls_with_the_texts_that_have_it(sentences, tmp_path):
    encoder = build_encoder(Model.model_validate({"base": BAG, "layers": [DENSE]}), lambda: sentences)
    weight = dict(zip(encoder.tokenizer.vocabulary(), encoder.backbone.weight.tolist(), strict=True))
    assert weight["guitar"] == pytest.approx(1 + np.log(8 / 2))
    assert weight["rain"] < weight["guitar"] or sentences.count("rain") == 1
    assert weight["a"] == pytest.approx(1 + np.log(8 / 4))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base": {"type": "static"}, "pooling": "mean"}, "`pooling` has no effect on a StaticEmbedding"),
        ({"base": BAG, "max_seq_length": 9, "attention": "padded"}, "`attention` .*; `max_seq_length` "),
        ({"base": WORDS, "pooling": ["cls", "max"]}, "`pooling` can't be cls"),
        ({"base": {"type": "static", "vectors": "./v.txt", "embedding_dim": 3}}, "remove it"),
        ({"base": WORDS, "token_layers": [{"type": "cnn", "kernel_sizes": [2]}]}, "must be odd"),
        ({"base": SCRATCH, "token_layers": [LSTM]}, "`token_layers` can't hold an lstm"),
        ({"base": SCRATCH, "token_layers": [CNN, "weighted_layer_pooling"]}, "must be the first"),
    ],
)
def test_what_has_no_effect_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        Model.model_validate(change)


def test_too_few_layers_and_settings_that_mean_nothing_to_a_folder_are_model_errors(sentences, tmp_path):
    settings = Model.model_validate({"base": SCRATCH, "token_layers": ["weighted_layer_pooling"]})
    with pytest.raises(ModelError, match="starts at layer 4, but the base has only 2"):
        build_encoder(settings, lambda: sentences)
    save_encoder(build_encoder(Model.model_validate({"base": {"type": "static"}}), lambda: sentences), tmp_path)
    with pytest.raises(ModelError, match=r"model\.pooling has no effect on a StaticEmbedding"):
        build_encoder(Model(base=str(tmp_path), pooling="max"))


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (["Pooling", "WordEmbeddings"], "starts with Pooling"),
        (["WordEmbeddings", "CNN"], "has no Pooling"),
        (["WordEmbeddings", "Dense", "Pooling"], "Dense is not possible at this position, only"),
        (["StaticEmbedding", "Pooling"], "Pooling is not possible at this position, only"),
    ],
)
def test_modules_in_an_order_without_meaning_are_refused(order, reason, tmp_path):
    entries = [
        {"idx": index, "name": str(index), "path": str(index), "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(order)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    for index in range(len(order)):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "config.json").write_text('{"out_features": 3, "pooling_mode": "mean"}')
    with pytest.raises(ModelError, match=reason):
        load_encoder(tmp_path)


def test_words_that_st_does_not_train_stay(vectors, two_steps, tmp_path):
    settings = {"base": {"type": "word_embeddings", "vectors": str(vectors)}, "layers": [DENSE]}
    save_encoder(build_encoder(Model.model_validate(settings), list), tmp_path)
    config = tmp_path / "wordembedding_config.json"
    config.write_text(config.read_text().replace('"update_embeddings": true', '"update_embeddings": false'))
    encoder = load_encoder(tmp_path)
    assert {name.partition(".")[0] for name in two_steps(encoder)} == {"layers"}
    save_encoder(encoder, tmp_path / "again")
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "again"))
    assert torch.equal(before["emb_layer.weight"], after["emb_layer.weight"])


@pytest.mark.parametrize(("kind", "reason"), [("Router", "for queries and for documents"), ("SpladePooling", "sparse")])
def test_a_module_that_can_not_be_read_is_named_with_the_reason(kind, reason, tmp_path):
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.base.modules.{kind}"}]))
    with pytest.raises(ModelError, match=f"does not support {kind}, which .*{reason}"):
        load_encoder(tmp_path)


def test_words_of_a_phrase_tokenizer_are_refused(vectors, tmp_path):
    settings = {"base": {"type": "word_embeddings", "vectors": str(vectors)}}
    save_encoder(build_encoder(Model.model_validate(settings), list), tmp_path)
    config = tmp_path / "wordembedding_config.json"
    config.write_text(config.read_text().replace("WhitespaceTokenizer", "PhraseTokenizer"))
    with pytest.raises(ModelError, match="joins words to phrases with nltk"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("line", ["the nan", "the inf", "the x", "a x"])
def test_a_weight_of_a_word_is_a_finite_number(tmp_path, line):
    (tmp_path / "weights.txt").write_text(f"a 1\n{line}\n")
    with pytest.raises(ModelError, match="not a word and a number"):
        read_word_weights(tmp_path / "weights.txt")


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    (tmp_path / "weights.txt").write_text("\ufeffthe 2\n", encoding="utf-8")
    assert read_word_weights(tmp_path / "weights.txt") == {"the": 2.0}
    (tmp_path / "vectors.vec").write_text("\ufeff1 3\nthe 1 2 3\n", encoding="utf-8")
    words, vectors = read_vectors(tmp_path / "vectors.vec")
    assert words == ["the"]
    assert vectors.tolist() == [[1, 2, 3]]
