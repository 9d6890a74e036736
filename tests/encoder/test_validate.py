"""The weights that are loaded are the right ones, all of them, and a model folder leads nowhere else."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder import validate
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError

LAYER = "encoder.layer.1.output.dense.weight"


def with_weights(change):
    def damage(folder):
        path = folder / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def with_bytes(change, name="model.safetensors"):
    def damage(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def with_config(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def with_json(name, change):
    def damage(folder):
        (path,) = folder.rglob(name)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def put(value):
    return lambda weights: weights[LAYER].__setitem__((0, 0), value)


WRONG = {
    "missing": (with_weights(lambda weights: weights.pop(LAYER)), f"missing: {LAYER}"),
    "left over": (with_weights(lambda weights: weights.update({f"{LAYER}_2": torch.ones(2)})), f"{LAYER}_2"),
    "a layer too many": (with_config(num_hidden_layers=1), f"not part of this model: encoder.layer.1.*{LAYER[:15]}"),
    "a layer too few": (with_config(num_hidden_layers=3), r"missing: encoder\.layer\.2"),
    "other shape": (with_weights(lambda weights: weights.update({LAYER: torch.ones(3, 5)})), rf"{LAYER} \[3, 5\] inst"),
    "other width": (with_config(hidden_size=48), r"word_embeddings\.weight \[\d+, 32\] instead of \[\d+, 48\]"),
    "huge vocabulary": (with_config(vocab_size=10**9), r"word_embeddings\.weight .* instead of \[1000000000, 32\]"),
    "nan": (with_weights(put(float("nan"))), f"not finite: {LAYER}"),
    "inf": (with_weights(put(-float("inf"))), f"not finite: {LAYER}"),
    "cut": (with_bytes(lambda data: data[:-7]), "not fully covered"),
    "empty": (with_bytes(lambda data: b""), "header too small"),
    "lying header": (with_bytes(lambda data: (2**50).to_bytes(8, "little") + data[8:]), "header"),
    "no header": (with_bytes(lambda data: b"\xff" * 64), "header"),
    "layers without weights": (with_config(num_hidden_layers=1000), "declares 1000 layers"),
    "cut config": (with_bytes(lambda data: data[:20], "config.json"), r"config\.json: can't be read"),
    "deep config": (with_bytes(lambda data: b"[" * 100_000, "config.json"), r"config\.json: can't be read"),
    "config of another kind": (with_config(max_position_embeddings="many"), "can't be"),
    "cut tokenizer": (with_bytes(lambda data: data[:200], "tokenizer.json"), "tokenizer can't be loaded"),
    "code of its own": (
        with_config(model_type="their_own", auto_map={"AutoModel": "modeling.TheirOwn"}),
        r"architecture \(their_own\) is defined by code in its repository, which stfit never runs",
    ),
    "adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "contains an adapter"),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG)
def test_wrong_weights_are_refused_by_name(tmp_path, tiny_base, damage, message):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


def with_another_token(backend):
    """A tokenizer of one token more than it had."""
    content = json.loads(backend)
    token = {"id": len(content["model"]["vocab"]), "content": "<new>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return json.dumps(content | {"added_tokens": [*content["added_tokens"], token | flags]}).encode()


@pytest.mark.parametrize("kind", ["transformer", "static", "words"])
def test_tokenizer_with_tokens_that_have_no_vector_is_refused(tmp_path, tiny_base, sentences, kind):
    base = {"transformer": str(tiny_base("bert")), "static": {"type": "static"}, "words": {"type": "word_embeddings"}}
    save_encoder(build_encoder(Model.model_validate({"base": base[kind]}), lambda: sentences), tmp_path / "model")
    if kind == "words":
        with_json("whitespacetokenizer_config.json", lambda content: content["vocab"].append("<new>"))(
            tmp_path / "model"
        )
    else:
        with_bytes(with_another_token, next((tmp_path / "model").rglob("tokenizer.json")))(tmp_path)
    with pytest.raises(ModelError, match=r"its tokenizer has \d+ tokens, up to `<new>`, but its table has \d+ vectors"):
        load_encoder(tmp_path / "model")


def test_pooler_and_the_head_of_another_task_are_no_error(tmp_path, tiny_base, sentences):
    from transformers import BertForMaskedLM

    expected = load_encoder(tiny_base("bert")).encode(sentences)
    with_head = tmp_path / "with_head"
    shutil.copytree(tiny_base("bert"), with_head)
    model = BertForMaskedLM.from_pretrained(with_head)  # has no pooler, and a head
    model.save_pretrained(with_head)
    assert not [name for name in load_file(with_head / "model.safetensors") if "pooler" in name]
    assert (load_encoder(with_head).encode(sentences) == expected).all()


DENSE = {
    "cut": (with_bytes(lambda data: data[:-7], "2_Dense/model.safetensors"), "damaged"),
    "missing": (lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "missing"),
    "nan": (
        lambda folder: save_file(
            {"linear.weight": torch.full((4, 32), float("nan")), "linear.bias": torch.zeros(4)},
            folder / "2_Dense" / "model.safetensors",
        ),
        r"not finite: linear\.weight",
    ),
    "other shape": (
        lambda folder: save_file({"linear.weight": torch.ones(4, 31)}, folder / "2_Dense" / "model.safetensors"),
        "don't fit",
    ),
}


@pytest.fixture
def model_folder(tmp_path, tiny_base):
    """A sentence-transformers folder with a dense layer."""
    layers = [{"type": "dense", "out_features": 4}]
    encoder = build_encoder(Model.model_validate({"base": str(tiny_base("bert")), "layers": layers}))
    save_encoder(encoder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("damage", "message"), DENSE.values(), ids=DENSE)
def test_wrong_weights_after_pooling_are_refused(model_folder, damage, message):
    damage(model_folder)
    with pytest.raises(ModelError, match=message):
        load_encoder(model_folder)


def modules_at(path):
    """The dense layer's folder has another name."""

    def change(folder):
        listed = json.loads((folder / "modules.json").read_text())
        listed[2]["path"] = path
        (folder / "modules.json").write_text(json.dumps(listed))

    return change


def linked(name, target):
    """A file or folder of the model is a link to one outside that is as good."""

    def change(folder):
        outside = folder.parent / "outside"
        if not outside.exists():
            shutil.copytree(folder, outside)
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target.format(outside=outside))

    return change


def sharded(name):
    def change(folder):
        (folder.parent / "outside.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        (folder / "model.safetensors").rename(folder / "shard.safetensors")
        index = {"weight_map": dict.fromkeys(load_file(folder / "shard.safetensors"), name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


LEADING_OUT = {
    "module above": modules_at("../outside/2_Dense"),
    "module far above": modules_at("../../../../../../etc"),
    "absolute module": modules_at("/etc"),
    "module up and down": modules_at("2_Dense/../../outside/2_Dense"),
    "module with backslashes": modules_at("..\\outside"),
    "module of a drive": modules_at("C:\\outside"),
    "module that is no text": modules_at(["..", "outside"]),
    "module with a NUL": modules_at("2_Dense\0/../../outside"),
    "linked module": linked("2_Dense", "{outside}/2_Dense"),
    "linked module, relative": linked("2_Dense", "../outside/2_Dense"),
    "linked pooling": linked("1_Pooling", "{outside}/1_Pooling"),
    "linked file of a module": linked("2_Dense/config.json", "{outside}/2_Dense/config.json"),
    "linked weights": linked("model.safetensors", "{outside}/model.safetensors"),
    "linked weights of a module": linked("2_Dense/model.safetensors", "{outside}/2_Dense/model.safetensors"),
    "linked tokenizer": linked("tokenizer.json", "{outside}/tokenizer.json"),
    "linked config": linked("config.json", "../outside/config.json"),
    "linked list of modules": linked("modules.json", "{outside}/modules.json"),
    "linked prompts": linked("config_sentence_transformers.json", "/etc/passwd"),
    "shard above": sharded("../outside.safetensors"),
    "absolute shard": sharded("/etc/passwd"),
    "shard below": sharded("2_Dense/model.safetensors"),
}


@pytest.mark.parametrize("change", LEADING_OUT.values(), ids=LEADING_OUT)
def test_model_folder_that_leads_out_of_itself_is_refused(model_folder, change):
    change(model_folder)
    with pytest.raises(ModelError, match=r"outside the|in the same folder"):
        load_encoder(model_folder)
    with pytest.raises(ModelError, match=r"outside the|in the same folder"):
        inspect_model(Model(base=str(model_folder)))


def test_links_of_the_hubs_own_cache_and_links_that_a_user_types_are_fine(model_folder, sentences):
    expected = load_encoder(model_folder).encode(sentences)
    repo = model_folder.parent / "models--me--encoder"
    snapshot = repo / "snapshots" / "0123456789"
    for number, path in enumerate(path for path in sorted(model_folder.rglob("*")) if path.is_file()):
        blob, link = repo / "blobs" / str(number), snapshot / path.relative_to(model_folder)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(blob)
    typed = model_folder.parent / "typed"
    typed.symlink_to(model_folder)
    assert (load_encoder(snapshot).encode(sentences) == expected).all()
    assert (load_encoder(typed).encode(sentences) == expected).all()


def test_json_of_a_model_that_is_no_small_file_is_not_read(model_folder, monkeypatch):
    monkeypatch.setattr(validate, "MAX_JSON_BYTES", 1_000)
    with pytest.raises(ModelError, match=r"tokenizer\.json: is larger than"):
        load_encoder(model_folder)
