"""Nothing that stfit is given is executed: every way to smuggle code in, each with a canary that would sing."""

import io
import json
import os
import pickle
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from stfit.commands.check import check
from stfit.commands.train import train
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import StfitError
from stfit.recipe.load import load_recipe

ROWS = [{"anchor": f"question number {i}", "positive": f"answer number {i}"} for i in range(12)]
RECIPE = {
    "model": {"base": {"type": "scratch", "hidden_size": 16, "num_layers": 1, "num_heads": 2}, "max_seq_length": 8},
    "data": {"dataset": "./rows.jsonl", "format": "positive_pair"},
    "loss": "multiple_negatives_ranking",
    "train": {"max_steps": 2, "batch_size": 4, "save_every_steps": 1},
}


class Place:
    """A folder with a good model, rows and recipe, into which an attempt is planted."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, root / "model"
        shutil.copytree(model, self.model)
        self.canary = root / "canary"
        self.touched: set[bool] = set()
        """True: the model; False: anything else."""
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        (root / "recipe.yaml").write_text(json.dumps(RECIPE))

    @property
    def code(self) -> str:
        """Python that makes the canary sing."""
        return f"open({str(self.canary)!r}, 'w').close()\n"

    @property
    def shell(self) -> str:
        return f"touch {self.canary}"

    def __reduce__(self):
        return exec, (self.code,)

    def pickled(self) -> bytes:
        return pickle.dumps(self)

    def write(self, name: str, content: str | bytes) -> None:
        self.touched.add(name.startswith("model/"))
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def change(self, name: str, **changes) -> None:
        """Keys of a JSON file of the model."""
        self.write(f"model/{name}", json.dumps(json.loads((self.model / name).read_text()) | changes))

    def module(self, number: int, **changes) -> None:
        listed = json.loads((self.model / "modules.json").read_text())
        listed[number] |= changes
        self.write("model/modules.json", json.dumps(listed))

    def evil(self, name: str) -> None:
        """A Python file of the model that sings when it is imported."""
        self.write(f"model/{name}", self.code + "class Evil:\n    def __init__(self, *a, **k): " + self.code)

    def recipe(self, **sections) -> None:
        self.write("recipe.yaml", json.dumps(RECIPE | sections))


def as_module(kind):
    def plant(place):
        for name in ("evil.py", "custom_st.py", "1_Pooling/evil.py", "modeling.py"):
            place.evil(name)
        place.module(1, type=kind, path="1_Pooling")

    return plant


def as_auto_map(model_type, reference, file="config.json"):
    def plant(place):
        place.evil("evil.py")
        auto = dict.fromkeys(("AutoConfig", "AutoModel"), reference) | {"AutoTokenizer": [reference, reference]}
        place.change(file, auto_map=auto, **({"model_type": model_type} if model_type else {}))

    return plant


def pickle_in_place_of(name, new):
    def plant(place):
        (place.model / name).unlink()
        place.write(f"model/{new}", place.pickled())

    return plant


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def as_weights(content):
    """The only weights of the model, as older ones are saved."""

    def plant(place):
        (place.model / "model.safetensors").unlink()
        place.write("model/pytorch_model.bin", content(place))

    return plant


def in_torch_archive(place) -> bytes:
    stream = io.BytesIO()
    torch.save({"embeddings.word_embeddings.weight": place}, stream)
    return stream.getvalue()


def in_tar(place) -> bytes:
    """The oldest format, whose pickles torch before 2.6 loaded whatever it was told (CVE-2025-32434)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(place.pickled())
            archive.addfile(member, io.BytesIO(place.pickled()))
    return stream.getvalue()


def as_script(place) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    return stream.getvalue()


def pickle_beside(*names):
    def plant(place):
        for name in names:
            place.write(f"model/{name}", place.pickled())

    return plant


def shards_of_pickles(place):
    (place.model / "model.safetensors").unlink()
    place.write("model/pytorch_model-00001-of-00001.bin", place.pickled())
    index = {"weight_map": {"embeddings.word_embeddings.weight": "pytorch_model-00001-of-00001.bin"}}
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"):
        place.write(f"model/{name}", json.dumps(index))


def setting(file, **changes):
    return lambda place: place.change(
        file, **{key: value(place) if callable(value) else value for key, value in changes.items()}
    )


def template(place):
    code = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('%s') }}"
    place.change("tokenizer_config.json", chat_template=code % place.shell)
    place.write("model/chat_template.jinja", code % place.shell)


def shadows(place):
    """Files that would be imported in place of the real ones, if the model folder were on the path."""
    for name in ("torch.py", "transformers.py", "sitecustomize.py", "__init__.py", "conftest.py", "setup.py"):
        place.evil(name)
        place.write(name, place.code)


def dataset(name, content=None):
    def plant(place):
        place.write(name, place.pickled() if content is None else content(place))
        place.recipe(data=RECIPE["data"] | {"dataset": f"./{name}"})

    return plant


def dataset_folder(name, content):
    def plant(place):
        place.write(f"folder/{name}", content(place))
        place.write("folder/train.jsonl", (place.root / "rows.jsonl").read_text())
        place.recipe(data=RECIPE["data"] | {"dataset": "./folder"})

    return plant


def saved_dataset(**changes):
    def plant(place):
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(place.root / "saved")
        for file in ("state.json", "dataset_info.json"):
            path = place.root / "saved" / file
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        place.write("saved/evil.py", place.code)
        place.recipe(data=RECIPE["data"] | {"dataset": "./saved"})

    return plant


def extension_type(place):
    """What old versions of pyarrow unpickled."""
    import pyarrow as pa
    from pyarrow import parquet

    marks = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": place.pickled()}
    fields = [pa.field("anchor", pa.string(), metadata=marks), pa.field("positive", pa.string())]
    parquet.write_table(pa.Table.from_pylist(ROWS, schema=pa.schema(fields)), place.root / "rows.parquet")
    place.recipe(data=RECIPE["data"] | {"dataset": "./rows.parquet"})


def recipe_text(text):
    return lambda place: place.write("recipe.yaml", json.dumps(RECIPE)[:-1] + ", " + text(place) + "}")


def recipe(change):
    return lambda place: place.recipe(**change(place))


def run_folder(name, content=None):
    """A run that goes on from a checkpoint, with something beside it."""

    def plant(place):
        events = train(load_recipe(place.root / "recipe.yaml"), place.root / "runs")
        while getattr(next(events), "step", 0) < 2:
            pass
        events.close()
        place.write(f"runs/recipe/{name}", place.pickled() if content is None else content(place))

    return plant


def attempts():
    def expression(place):
        return f"__import__('os').system({place.shell!r})"

    for kind in (
        "os.system", "subprocess.Popen", "builtins.exec", "evil.Evil", "custom_st.Evil", "modeling.Evil",
        "sentence_transformers.models.Transformer.__init__", "sentence_transformers.evil.Evil", "model.1_Pooling.evil",
    ):  # fmt: skip
        yield f"module {kind}", as_module(kind)
    yield "auto_map of an unknown model", as_auto_map("evil", "evil.Evil")
    yield "auto_map of a known model", as_auto_map(None, "evil.Evil")
    yield "auto_map to another repository", as_auto_map("evil", "someone/evil--evil.Evil")
    yield "auto_map of the tokenizer", as_auto_map(None, "evil.Evil", "tokenizer_config.json")
    yield "pickled weights", pickle_in_place_of("model.safetensors", "pytorch_model.bin")
    yield "pickled weights of a layer", pickle_in_place_of("2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")
    yield "pickle in torch's archive", as_weights(in_torch_archive)
    yield "pickle in a tar", as_weights(in_tar)
    yield "script in place of weights", as_weights(as_script)
    yield (
        "pickle within torch's own loader",
        as_weights(lambda place: pickle.dumps(Call(torch.storage._load_from_bytes, in_torch_archive(place)))),
    )
    yield "command as weights", as_weights(lambda place: pickle.dumps({"weight": Call(os.system, place.shell)}))
    yield "pickle called safetensors", pickle_in_place_of("model.safetensors", "model.safetensors")
    yield "pickles beside", pickle_beside("pytorch_model.bin", "optimizer.pt", "training_args.bin", "tokenizer.pkl")
    yield "weights of other frameworks", pickle_in_place_of("model.safetensors", "tf_model.h5")
    yield "pickled shards", shards_of_pickles
    yield (
        "pickled adapter",
        lambda place: (
            place.write("model/adapter_config.json", '{"base_model_name_or_path": "/", "peft_type": "LORA"}'),
            place.write("model/adapter_model.bin", place.pickled()),
        ),
    )
    yield "activation of a dense layer", setting("2_Dense/config.json", activation_function="os.system")
    yield (
        "activation in a file",
        lambda place: (
            place.evil("evil.py"),
            place.change("2_Dense/config.json", activation_function="evil.Evil"),
        ),
    )
    yield "activation of the transformer", setting("config.json", hidden_act=expression)
    yield "architecture", setting("config.json", architectures=["os.system", "evil.Evil"])
    yield "attention from the Hub", setting("config.json", _attn_implementation="someone/evil-kernel")
    yield "quantisation", setting("config.json", quantization_config={"quant_method": "evil.Evil", "modules": ["os"]})
    yield "tokenizer class", setting("tokenizer_config.json", tokenizer_class="evil.Evil")
    yield "type of the weights", setting("config.json", dtype="os.system", torch_dtype="os.system")
    yield "chat template", template
    yield "files that shadow modules", shadows
    yield "pickled dataset", dataset("rows.pkl")
    yield "dataset in numpy's pickles", dataset("rows.npy")
    yield "pickle called jsonl", dataset("other.jsonl")
    yield "pickle called parquet", dataset("rows.parquet")
    yield "code as rows", dataset("code.csv", lambda place: f"anchor,positive\n=cmd|'{place.shell}'!A0,x\n" * 12)
    yield "script of a dataset folder", dataset_folder("folder.py", lambda place: place.code)
    yield "labels that are none", dataset_folder("labels.json", lambda place: place.pickled())
    yield "format of a saved dataset", saved_dataset(_format_type="evil.Evil")
    yield "feature of a saved dataset", saved_dataset(features={"anchor": {"_type": "os.system", "dtype": "string"}})
    yield "extension type of a parquet file", extension_type
    for tag in ("python/object/apply:os.system", "python/object/new:os.system", "python/name:os.system"):
        yield f"tag {tag}", recipe_text(lambda place, tag=tag: f'name: !!{tag} ["{place.shell}"]')
    yield "tag of a module", recipe_text(lambda place: "name: !!python/module:evil {}")
    yield "interpolation", recipe(lambda place: {"name": f"${{oc.env:$({place.shell})}}"})
    yield "shell in a name", recipe(lambda place: {"name": f"a; {place.shell}"})
    yield "shell in a path", recipe(lambda place: {"data": RECIPE["data"] | {"dataset": f"./$({place.shell}).jsonl"}})
    yield (
        "code as selector",
        recipe(lambda place: {"data": RECIPE["data"] | {"columns": {"anchor": expression(place)}}}),
    )
    yield "code as pattern", recipe(lambda place: {"train": RECIPE["train"] | {"freeze": [expression(place)]}})
    yield "code as device", recipe(lambda place: {"train": RECIPE["train"] | {"device": expression(place)}})
    yield "extends of code", lambda place: (place.write("evil.py", place.code), place.recipe(extends="./evil.py"))
    yield "pickles in a checkpoint", run_folder("checkpoints/step-00000001/optimizer.pt")
    yield "pickle called state.json", run_folder("checkpoints/step-00000001/state.json")
    yield "pickle called safetensors in a checkpoint", run_folder("checkpoints/step-00000001/optimizer.safetensors")
    yield (
        "tag in resolved.yaml",
        run_folder("resolved.yaml", lambda place: f"!!python/object/apply:exec ['{place.shell}']"),
    )
    yield "pickled lock", run_folder("stfit.lock")
    yield "pickled result", run_folder("result.json")


ATTEMPTS = dict(attempts())


@pytest.fixture(scope="module")
def good_model(tiny_base, tmp_path_factory):
    layers = [{"type": "dense", "out_features": 4}]
    encoder = build_encoder(Model.model_validate({"base": str(tiny_base("bert")), "layers": layers}))
    save_encoder(encoder, tmp_path_factory.mktemp("good") / "model")
    return tmp_path_factory.getbasetemp() / "good0" / "model"


def use_everything(place):
    """Do with the planted files what a user would; errors are fine, of stfit's own kinds."""
    if True in place.touched:
        with suppress(StfitError):
            inspect_model(Model(base=str(place.model)))
        with suppress(StfitError):
            load_encoder(place.model).encode(["a text"])
    if False in place.touched:
        check(place.root / "recipe.yaml", [])
        with suppress(StfitError):
            list(train(load_recipe(place.root / "recipe.yaml"), place.root / "runs"))


@pytest.mark.parametrize("plant", ATTEMPTS.values(), ids=ATTEMPTS)
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_executed(tmp_path, good_model, monkeypatch, plant):
    place = Place(tmp_path, good_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plant(place)
    assert place.touched
    use_everything(place)
    assert not place.canary.exists()


def test_there_are_enough_attempts():
    assert len(ATTEMPTS) >= 35


@pytest.mark.parametrize(
    "sing",
    [
        lambda place: pickle.loads(place.pickled()),
        lambda place: exec(place.code),
        lambda place: os.system(place.shell),
        lambda place: torch.load(place.model / "bad.bin", weights_only=False),
        lambda place: np.load(place.model / "bad.bin", allow_pickle=True),
    ],
    ids=["pickle", "exec", "shell", "torch.load", "np.load"],
)
def test_canaries_sing_when_they_are_executed(tmp_path, good_model, sing):
    place = Place(tmp_path, good_model)
    place.write("model/bad.bin", place.pickled())
    with suppress(Exception):
        sing(place)
    assert place.canary.exists()
