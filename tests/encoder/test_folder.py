"""A model folder means the same to stfit and to sentence-transformers, both ways."""

from pathlib import Path

import pytest
import torch
from draws import every
from safetensors.torch import load_file
from st_reference import largest_error, st_encode

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError

sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")

POOLINGS = ["mean", "cls", "max", "mean_sqrt_len", "weighted_mean", "last_token", ["mean", "max"], ["max", "cls"]]
LAYERS = {
    "none": [],
    "normalize": ["normalize"],
    "dense": [{"type": "dense", "out_features": 16}],
    "everything": [
        {"type": "dense", "out_features": 24, "activation": "gelu", "bias": False},
        "layer_norm",
        "dropout",
        {"type": "dense", "out_features": 8, "activation": "identity"},
        "normalize",
    ],
}


def build(base: Path, **settings):
    return build_encoder(Model.model_validate({"base": str(base), **settings}))


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("pooling", every(3, POOLINGS), ids=str)
def test_written_folder_gives_st_the_same_embeddings(tmp_path, tiny_base, sentences, pooling, layers) -> None:
    torch.manual_seed(3)
    encoder = build(tiny_base("bert"), pooling=pooling, layers=LAYERS[layers])
    save_encoder(encoder, tmp_path / "model")
    ours = encoder.encode(sentences)
    assert largest_error(ours, st_encode(tmp_path / "model", sentences)) < 1e-5
    assert largest_error(load_encoder(tmp_path / "model").encode(sentences), ours) < 1e-6


@pytest.mark.parametrize("pooling", [None, "mean", "last_token", "cls"])
@pytest.mark.parametrize("kind", every(2, ["bert", "roberta", "qwen3", "distilbert"]))
def test_every_architecture_agrees_with_st(tmp_path, tiny_base, sentences, kind, pooling) -> None:
    encoder = build(tiny_base(kind), pooling=pooling, prompts={"query": "find: "})
    save_encoder(encoder, tmp_path / "model")
    assert largest_error(encoder.encode(sentences), st_encode(tmp_path / "model", sentences)) < 1e-5
    with_prompt = st_encode(tmp_path / "model", sentences, prompt_name="query")
    assert largest_error(encoder.encode(sentences, prompt_name="query"), with_prompt) < 1e-5


def test_plain_checkpoint_gets_the_pooling_of_its_kind(tiny_base) -> None:
    assert build(tiny_base("bert")).config.pooling == ("mean",)
    assert build(tiny_base("qwen3")).config.pooling == ("last_token",)


def test_decoder_with_last_token_pooling_ends_every_text_with_eos(tiny_base, sentences) -> None:
    encoder = build(tiny_base("qwen3"))
    eos = encoder.tokenizer.hf_tokenizer.eos_token_id
    assert all(sequence[-1] == eos for sequence in encoder.tokenizer([*sentences, ""]))
    without = build(tiny_base("qwen3"), append_eos=False)
    assert not any(sequence[-1] == eos for sequence in without.tokenizer(sentences))


def test_folder_written_by_st_keeps_its_weights_and_embeddings(tmp_path, tiny_base, sentences) -> None:
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(5)
    transformer = Transformer(str(tiny_base("bert")), max_seq_length=20)
    modules = [
        transformer,
        Pooling(32, ("mean", "max")),
        Dense(64, 12, activation_function=torch.nn.GELU()),
        LayerNorm(12),
        Normalize(),
    ]
    st_model = sentence_transformers.SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts={"query": "q: ", "document": ""},
        similarity_fn_name="dot",
        truncate_dim=8,
    )
    st_model.save_pretrained(str(tmp_path / "theirs"))
    encoder = load_encoder(tmp_path / "theirs")
    assert encoder.tokenizer.max_seq_length == 20
    assert encoder.config.prompts == {"query": "q: ", "document": ""}
    assert encoder.config.similarity == "dot"
    assert encoder.config.truncate_dim == 8
    assert largest_error(encoder.encode(sentences), st_model.encode(sentences)) < 1e-5
    assert (
        largest_error(encoder.encode(sentences, prompt_name="query"), st_model.encode(sentences, prompt_name="query"))
        < 1e-5
    )
    save_encoder(encoder, tmp_path / "ours")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    for folder in ("2_Dense", "3_LayerNorm"):
        one, other = (load_file(tmp_path / whose / folder / "model.safetensors") for whose in ("theirs", "ours"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sentence-transformers warns about old names
@pytest.mark.parametrize(
    "entries",
    [
        # 2.x: the transformer in a folder of its own
        [
            ("0_Transformer", "sentence_transformers.models.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
        ],
        # 2.x to 5.3, with the class repeated as some tools write it
        [
            ("", "sentence_transformers.models.Transformer.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling.Pooling"),
        ],
        # 6.x
        [
            ("", "sentence_transformers.base.modules.transformer.Transformer"),
            ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ],
    ],
    ids=["2.x", "5.3", "6.x"],
)
def test_every_layout_is_read(tmp_path, tiny_base, sentences, entries) -> None:
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_base("bert"), folder / entries[0][0])
    (folder / entries[0][0] / "sentence_bert_config.json").write_text('{"max_seq_length": 24, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}'
    )
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(entries)]
    (folder / "modules.json").write_text(json.dumps(listed))
    encoder = load_encoder(folder)
    assert encoder.config.pooling == ("cls",)
    assert encoder.tokenizer.max_seq_length == 24
    theirs = st_encode(folder, sentences)
    assert largest_error(encoder.encode(sentences), theirs) < 1e-5


def test_prompt_tokens_stay_out_of_the_pooling_where_the_folder_says_so(tmp_path, tiny_base, sentences) -> None:
    import json

    encoder = build(tiny_base("bert"), prompts={"query": "the man says "})
    save_encoder(encoder, tmp_path / "model")
    path = tmp_path / "model" / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "include_prompt": False}))
    ours = load_encoder(tmp_path / "model").encode(sentences, prompt_name="query")
    assert largest_error(ours, st_encode(tmp_path / "model", sentences, prompt_name="query")) < 1e-5
    assert largest_error(ours, encoder.encode(sentences, prompt_name="query")) > 1e-3


def test_half_precision_weights_are_trained_and_saved_in_float32(tmp_path, tiny_base) -> None:
    from transformers import AutoModel, AutoTokenizer

    half = tmp_path / "half"
    AutoModel.from_pretrained(tiny_base("bert"), dtype=torch.float16).save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_base("bert")).save_pretrained(half)
    encoder = build(half)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    save_encoder(encoder, tmp_path / "model")
    assert {weight.dtype for weight in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}
    assert {weight.dtype for weight in build(half, precision="float16").parameters()} == {torch.float16}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("os.system", ""),
        ("stfit.encoder.Pooling", "1_Pooling"),
        ("sentence_transformers.models.Pooling", "../elsewhere"),
        ("sentence_transformers.models.Pooling", "/etc"),
        ("sentence_transformers.models.Nonsense", "1_Nonsense"),
    ],
)
def test_foreign_classes_and_paths_are_refused(tmp_path, tiny_base, kind, path) -> None:
    import json

    save_encoder(build(tiny_base("bert")), tmp_path / "model")
    listed = json.loads((tmp_path / "model" / "modules.json").read_text())
    listed[1] |= {"type": kind, "path": path}
    (tmp_path / "model" / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match=r"modules\.json"):
        load_encoder(tmp_path / "model")


def test_missing_weights_are_named(tmp_path, tiny_base) -> None:
    from safetensors.torch import save_file

    save_encoder(build(tiny_base("bert")), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(tmp_path / "model")
