"""The weights that are loaded are the right ones, all of them, and a model folder leads nowhere else."""

import json
import re
import shutil

import pytest
import torch
from draws import every
from safetensors.torch import load_file, save_file
from tiny_bases import BUILDERS
from versions import since

from stfit.commands.check import check
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder import validate
from stfit.encoder.folder.files import read_shapes
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


def with_token_types(folder):
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 1}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
    }
    with_json("tokenizer.json", lambda content: content.update(post_processor=template))(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    with_json("tokenizer_config.json", lambda content: content.update(model_input_names=names))(folder)


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
    "cut": (with_bytes(lambda data: data[:-7]), r"has \d+ bytes, but its header describes \d+"),
    "longer": (with_bytes(lambda data: data + b"1234567"), r"has \d+ bytes, but its header describes \d+"),
    "empty": (with_bytes(lambda data: b""), "header can't be read"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no weights \(model.safetensors\)"),
    "graphs alone": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.onnx"),
        "ONNX graphs, which can't be trained",
    ),
    "lying header": (with_bytes(lambda data: (2**50).to_bytes(8, "little") + data[8:]), "header"),
    "no header": (with_bytes(lambda data: b"\xff" * 64), "header"),
    "layers without weights": (with_config(num_hidden_layers=1000), "declares 1000 layers"),
    "cut config": (with_bytes(lambda data: data[:20], "config.json"), r"config\.json: can't be read"),
    "deep config": (with_bytes(lambda data: b"[" * 100_000, "config.json"), r"config\.json: can't be read"),
    "config of another kind": (with_config(max_position_embeddings="many"), "can't be"),
    "cut tokenizer": (with_bytes(lambda data: data[:200], "tokenizer.json"), "tokenizer can't be loaded"),
    "code of its own": (
        with_config(model_type="their_own", auto_map={"AutoModel": "modeling.TheirOwn"}),
        r"config\.json: AutoModel of `auto_map` is code in a repository, which stfit never runs",
    ),
    "code under a known name": (
        with_config(auto_map={"AutoConfig": "x/y--c.C", "AutoModel": "x/y--m.M"}),
        "AutoConfig, AutoModel of `auto_map` is code in a repository, which stfit never runs",
    ),
    "alibi": (with_config(position_embedding_type="alibi"), "sets position_embedding_type: alibi, which the bert"),
    "relative": (with_config(position_embedding_type="relative_key"), "position_embedding_type: relative_key"),
    "rotary": (with_config(use_rotary=True), "use_rotary: True"),
    "half rotary": (with_config(rotary_emb_fraction=0.5), "rotary_emb_fraction: 0.5"),
    "whole rotary": (with_config(rotary_emb_fraction=1.0), "rotary_emb_fraction: 1.0"),
    "rotary by another name": (with_config(partial_rotary_factor=0.5), "partial_rotary_factor: 0.5"),
    "rotary of another class": (with_config(rope_theta=10_000.0), "rope_theta: 10000.0"),
    "ALiBi as a number": (with_config(alibi=1), "alibi: 1"),
    "prefix": (with_config(prefix_lm=True), "prefix_lm: True"),
    "bidirectional decoder": (with_config(use_bidirectional_attention=True, is_decoder=True), "bidirectional"),
    "LFS pointer": (with_bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\noid"), "pointer of Git LFS"),
    "LFS pointer as tokenizer": (
        with_bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\noid", "tokenizer.json"),
        "pointer of Git LFS",
    ),
    "quantized": (with_config(quantization_config={"quant_method": "fp8"}), r"weights are quantized \(fp8\)"),
    "quantized by MLX": (with_config(quantization={"group_size": 32, "bits": 4}), r"weights are quantized \(4 bits\)"),
    "SentencePiece alone": (
        lambda folder: [
            (folder / "tokenizer.json").rename(folder / "spiece.model"),
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}'),
        ],
        "it has spiece.model and no tokenizer.json. Convert it once",
    ),
    "vocabulary of Git LFS": (
        lambda folder: [
            (folder / "tokenizer.json").unlink(),
            (folder / "vocab.txt").write_text("version https://git-lfs.github.com/spec/v1\noid"),
        ],
        r"vocab\.txt: is a pointer of Git LFS",
    ),
    "no tokenizer": (
        lambda folder: [(folder / name).unlink(missing_ok=True) for name in ("tokenizer.json", "vocab.txt")],
        "has no tokenizer",
    ),
    "tokenizer of another class": (
        lambda folder: [
            (folder / "tokenizer.json").unlink(),
            (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\na\n"),
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}'),
        ],
        "(knows no letter|can't be loaded)",
    ),
    "shards without index": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors"),
        "has no weights",
    ),
    "a variant alone": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.fp16.safetensors"),
        "has no weights",
    ),
    "unknown type in the header": (
        with_bytes(lambda data: data.replace(b'"F32"', b'"Q32"', 1)),
        r"model\.safetensors: damaged: its header can't be read",
    ),
    "token types": (lambda folder: with_token_types(folder), "gives the tokens of a text several types"),
    "adapter without base": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "name the base of the"),
}


OLD = {"huge vocabulary": since("transformers", "5.1", "makes the table of words before it looks at the file's")}
DAMAGES = [pytest.param(*case, id=name, marks=OLD.get(name, ())) for name, case in WRONG.items()]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_wrong_weights_are_refused_by_name(tmp_path, tiny_base, damage, message):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


def check_recipe(tmp_path, base, model="", **options):
    (tmp_path / "pairs.jsonl").write_text("".join(f'{{"anchor": "a {i}", "positive": "b {i}"}}\n' for i in range(64)))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{base: {base}{model}}}\n"
        "data: {dataset: ./pairs.jsonl, format: positive_pair}\n"
        "loss: multiple_negatives_ranking\n"
    )
    return [problem.message for problem in check(path, [], **options)["errors"]]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_check_refuses_what_training_would_refuse(tmp_path, tiny_base, damage, message):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    damage(folder)
    (error,) = check_recipe(tmp_path, "./base", full="not finite" in message)
    assert re.search(message, error)


@pytest.mark.parametrize("full", [False, True])
def test_check_refuses_an_adapter_that_the_base_has_no_layer_for(tmp_path, tiny_base, full):
    assert check_recipe(tmp_path, tiny_base("bert"), ", lora: {target: [query]}", full=full) == []
    (error,) = check_recipe(tmp_path, tiny_base("bert"), ", lora: {target: [nothing]}", full=full)
    assert error.startswith("model.lora.target: `nothing` matches no linear layer")


def test_check_reads_no_values_of_weights(tmp_path, tiny_base):
    """A base that is as large as it is right is checked in no time: its weights take no memory."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    shapes = read_shapes(folder)
    encoder = build_encoder(Model(base=str(folder)), read_weights=False)
    parameters = encoder.backbone.state_dict()
    assert {name: shapes[name] for name in parameters} == {name: tuple(w.shape) for name, w in parameters.items()}
    assert all(weight.untyped_storage().nbytes() == weight.element_size() for weight in parameters.values())


def test_check_reads_the_shapes_of_a_pickle(tmp_path, tiny_base):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert check_recipe(tmp_path, "./base") == []
    torch.save({name: weight for name, weight in weights.items() if name != LAYER}, folder / "pytorch_model.bin")
    assert f"missing: {LAYER}" in check_recipe(tmp_path, "./base")[0]


def with_more_tokens(backend):
    """A tokenizer of ten tokens more than it had, the last of them <new>."""
    content = json.loads(backend)
    names = [*(f"<new {i}>" for i in range(9)), "<new>"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    size = len(content["model"]["vocab"])
    added = [{"id": size + i, "content": name} | flags for i, name in enumerate(names)]
    return json.dumps(content | {"added_tokens": [*content["added_tokens"], *added]}).encode()


@pytest.mark.parametrize("kind", ["transformer", "static", "words"])
def test_tokenizer_with_many_tokens_that_have_no_vector_is_refused(tmp_path, tiny_base, sentences, kind):
    base = {"transformer": str(tiny_base("bert")), "static": {"type": "static"}, "words": {"type": "word_embeddings"}}
    save_encoder(build_encoder(Model.model_validate({"base": base[kind]}), lambda: sentences), tmp_path / "model")
    if kind == "words":
        with_json("whitespacetokenizer_config.json", lambda content: content["vocab"].append("<new>"))(
            tmp_path / "model"
        )
    else:
        with_bytes(with_more_tokens, next((tmp_path / "model").rglob("tokenizer.json")))(tmp_path)
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


@pytest.mark.parametrize("change", every(3, LEADING_OUT.values()), ids=LEADING_OUT)
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


SAME = {
    "as Windows writes paths": with_json("modules.json", lambda listed: listed[1].update(path="1_Pooling\\")),
    "of DataParallel": with_weights(lambda weights: rename(weights, "module.")),
    "of torch.compile": with_weights(lambda weights: rename(weights, "_orig_mod.")),
    "of both": with_weights(lambda weights: rename(weights, "module._orig_mod.")),
    "of a module": with_weights(lambda weights: rename(weights, "model.")),
    "with keys that change nothing": with_config(
        position_embedding_type="absolute", gradient_checkpointing=False, rotary_emb_fraction=0.0
    ),
    "in a pickle": lambda folder: as_pickle(folder, {}),
    "in a pickle with LayerNorm's old names": lambda folder: as_pickle(
        folder, {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    ),
    "in a pickle of DataParallel": lambda folder: as_pickle(folder, {"": "module."}),
    "in parts": lambda folder: as_pickle(folder, {}, parts=3),
    "beside other files of weights": lambda folder: [
        save_file({"encoder.layer.9.x": torch.ones(2)}, folder / "optimizer.safetensors"),
        save_file({name: torch.zeros(2) for name in ("a", LAYER)}, folder / "model.fp16.safetensors"),
    ],
    "beside other pickles": lambda folder: [
        as_pickle(folder, {}, parts=2),
        torch.save({LAYER: torch.zeros(32, 64)}, folder / "pytorch_model.fp16.bin"),
        torch.save({LAYER: torch.zeros(32, 64)}, folder / "pytorch_model-00003-of-00003.bin"),
    ],
    "with arguments of one call": with_config(return_dict=False, chunk_size_feed_forward=4),
    "with modules numbered anew": with_json("modules.json", lambda listed: [entry.update(idx=9) for entry in listed]),
}


def rename(weights, prefix):
    for name in list(weights):
        weights[prefix + name] = weights.pop(name)


def as_pickle(folder, renamed, parts=1):
    """Save all modules as versions before safetensors did; `renamed`: part of a name -> the same in the file."""
    for path in folder.rglob("model.safetensors"):
        weights = load_file(path)
        for new, old in renamed.items():
            weights = {name.replace(new, old, 1) if new else old + name: weights[name] for name in weights}
        names = sorted(weights)
        if parts > 1:
            files = {name: f"pytorch_model-{i % parts + 1:05}-of-{parts:05}.bin" for i, name in enumerate(names)}
            path.with_name("pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
        for part in range(parts):
            suffix = f"-{part + 1:05}-of-{parts:05}" if parts > 1 else ""
            torch.save(
                {name: weights[name] for name in names[part::parts]}, path.with_name(f"pytorch_model{suffix}.bin")
            )
        path.unlink()


@pytest.mark.parametrize("change", every(3, SAME.values()), ids=SAME)
def test_folders_that_mean_the_same_give_the_same(model_folder, sentences, change):
    expected = load_encoder(model_folder).encode(sentences)
    change(model_folder)
    assert (load_encoder(model_folder).encode(sentences) == expected).all()


def reverse(listed):
    listed[1:] = listed[:0:-1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("modules.json", lambda listed: listed[2].update(name=listed[1]["name"]), "two modules have the same name"),
        ("modules.json", reverse, "Dense is not possible at this position"),
        ("config.json", lambda content: [content.clear(), content.update(pooling_mode=[])], "has no pooling mode"),
        ("config_sentence_transformers.json", lambda content: content.update(truncate_dim=-1), "truncate_dim is -1"),
        ("config_sentence_transformers.json", lambda content: content.update(truncate_dim="8"), "truncate_dim is '8'"),
    ],
)
def test_modules_are_those_of_the_list_in_its_order(model_folder, file, change, message):
    folder = model_folder / "1_Pooling" if file == "config.json" else model_folder
    path = folder / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        load_encoder(model_folder)


def test_the_positions_of_gpt2_limit_its_texts(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base("gpt2"), tmp_path / "base")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**30}))
    encoder = load_encoder(folder)
    assert encoder.tokenizer.max_seq_length == inspect_model(Model(base=str(folder))).positions == 64
    assert encoder.encode(["a word " * 200]).shape == (1, 32)


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}),
        ("2_Dense/config.json", {"use_residual": True}),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}),
        ("3_Normalize/config.json", {"module_output_name": "normed"}),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
        ("sentence_bert_config.json", {"module_output_name": "pooled"}),
        ("sentence_bert_config.json", {"query_length": 32}),
        ("sentence_bert_config.json", {"modality_config": {"image": {"method": "get_image_features"}}}),
    ],
)
def test_settings_of_version_6_that_stfit_can_not_follow_are_refused(tmp_path, tiny_base, file, keys):
    layers = [{"type": "dense", "out_features": 4}, {"type": "normalize"}]
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), layers=layers)), tmp_path / "model")
    path = tmp_path / "model" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(ModelError, match="not support"):
        load_encoder(tmp_path / "model")
    with pytest.raises(ModelError, match="not support"):
        inspect_model(Model(base=str(tmp_path / "model")))


def test_the_base_s_own_length_is_cut_to_its_positions_and_the_recipe_s_is_an_error(model_folder, caplog):
    with_json("sentence_bert_config.json", lambda content: content.update(max_seq_length=512))(model_folder)
    assert load_encoder(model_folder).tokenizer.max_seq_length == 64
    assert "the base's own max_seq_length, 512, exceeds its 64 positions, which are used" in caplog.text
    assert inspect_model(Model(base=str(model_folder))).max_seq_length == 64
    with pytest.raises(ModelError, match="max_seq_length 512 exceeds the 64 positions"):
        build_encoder(Model(base=str(model_folder), max_seq_length=512))


@pytest.mark.parametrize("positions", ["alibi", "relative_key_query"])
def test_check_refuses_other_positions_without_the_weights(tiny_base, tmp_path, positions):
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    with_config(position_embedding_type=positions)(tmp_path / "base")
    with pytest.raises(ModelError, match=f"sets position_embedding_type: {positions}, which the bert model"):
        inspect_model(Model(base=str(tmp_path / "base")))


def test_keys_that_the_class_ignores_are_named(tiny_base, tmp_path, caplog):
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    with_config(num_experts=8)(tmp_path / "base")
    load_encoder(tmp_path / "base")
    assert "config.json sets num_experts: 8, which BertConfig ignores" in caplog.text
    assert "ignores" not in caplog.text.replace("which BertConfig ignores", "")


BIDIRECTIONAL = since("transformers", "5.1", "knows no bidirectional Qwen3 before, which is refused")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=BIDIRECTIONAL if kind == "qwen3-bidirectional" else ()) for kind in BUILDERS]
)
def test_no_key_of_a_common_architecture_is_called_unread(kind, tiny_base, caplog):
    load_encoder(tiny_base(kind))
    assert "ignores" not in caplog.text


def test_a_folder_that_is_read_otherwise_than_written_is_an_error(tiny_base, tmp_path):
    encoder = build_encoder(Model(base=str(tiny_base("bert"))))
    torch.manual_seed(1)
    other = build_encoder(Model(base=str(tiny_base("roberta"))))
    encoder.base = other.base
    with pytest.raises(ModelError, match="does not give the embeddings of the trained one"):
        save_encoder(encoder, tmp_path / "model")


@pytest.mark.parametrize("same", [True, False])
def test_a_repeated_layer_keeps_the_base_s_weights(model_folder, sentences, caplog, same):
    caplog.set_level("INFO")
    base = load_encoder(model_folder)
    layer = {"type": "dense", "out_features": 4 if same else 6}
    again = build_encoder(Model.model_validate({"base": str(model_folder), "layers": [layer, "normalize"]}))
    kept = torch.equal(again.layers[0].linear.weight, base.layers[0].linear.weight) if same else False
    assert kept == same
    assert ("model.layers: dense keeps the weights of the base" in caplog.text) == same
    assert "replaces the base's own" in caplog.text


def test_a_repeated_token_layer_keeps_the_base_s_weights(tiny_base, tmp_path):
    layers = {"token_layers": [{"type": "cnn", "out_channels": 6, "kernel_sizes": [1, 3]}]}
    save_encoder(build_encoder(Model.model_validate({"base": str(tiny_base("bert")), **layers})), tmp_path / "model")
    base = load_encoder(tmp_path / "model")
    again = build_encoder(Model.model_validate({"base": str(tmp_path / "model"), **layers}))
    for name, weight in base.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
