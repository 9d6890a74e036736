"""Every configuration of prompts means the same to stfit and to sentence-transformers, read and written."""

import json
from itertools import product

import numpy as np
import pytest
from st_reference import largest_error

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError

sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")

PROMPTS = [
    {},
    {"query": "find: "},
    {"document": "text: "},
    {"passage": "passage: "},
    {"query": "find: ", "document": "text: "},
    {"query": "find: ", "passage": "passage: "},
    {"query": "find: ", "document": "", "passage": "passage: "},
    {"query": "", "document": ""},
    {"query": "find: ", "corpus": "body: ", "topic": "about: "},
]
CONFIGURATIONS = [
    (prompts, default)
    for prompts, default in product(PROMPTS, (None, "query", "document", "passage", "topic"))
    if default is None or default in ("query", "document") or default in prompts
]


@pytest.fixture
def model(tmp_path, tiny_base):
    """Folder of a model with the prompts and the default in its settings."""

    def write(prompts, default):
        save_encoder(build_encoder(Model(base=str(tiny_base("bert")))), tmp_path / "model")
        settings = tmp_path / "model" / "config_sentence_transformers.json"
        content = json.loads(settings.read_text()) | {"prompts": prompts, "default_prompt_name": default}
        settings.write_text(json.dumps(content))
        return tmp_path / "model"

    return write


def embed_with_st(folder, texts) -> dict[str, np.ndarray]:
    st_model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    names = [*st_model.prompts, None]
    return {
        "queries": st_model.encode_query(texts),
        "documents": st_model.encode_document(texts),
        **{f"encode {name}": st_model.encode(texts, prompt_name=name) for name in names},
    }


def embed_with_stfit(folder, texts, names) -> dict[str, np.ndarray]:
    encoder = load_encoder(folder)
    return {
        "queries": encoder.encode(texts, prompt=encoder.role_prompt("query", None)),
        "documents": encoder.encode(texts, prompt=encoder.role_prompt("corpus", None)),
        **{f"encode {name}": encoder.encode(texts, prompt_name=name) for name in names},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "default"), CONFIGURATIONS, ids=str)
def test_queries_documents_and_texts_have_the_prompts_of_st(model, tmp_path, sentences, prompts, default) -> None:
    folder = model(prompts, default)
    theirs = embed_with_st(folder, sentences)
    names = [None if name == "encode None" else name[7:] for name in theirs if name.startswith("encode")]
    ours = embed_with_stfit(folder, sentences, names)
    assert all(largest_error(ours[name], embeddings) < 1e-5 for name, embeddings in theirs.items())
    save_encoder(load_encoder(folder), tmp_path / "saved")
    saved = embed_with_st(tmp_path / "saved", sentences)
    assert all(largest_error(saved[name], embeddings) < 1e-5 for name, embeddings in theirs.items())


@pytest.mark.parametrize("default", [None, "query", "passage"])
def test_every_role_looks_its_prompt_up_alike(model, default) -> None:
    encoder = load_encoder(model({"query": "find: ", "passage": "passage: "}, default))
    default_text = {None: "", "query": "find: ", "passage": "passage: "}[default]
    assert {encoder.role_prompt(role, None) for role in ("anchor", "query")} == {"find: "}
    assert {encoder.role_prompt(role, None) for role in ("positive", "negative", "negative_2", "corpus")} == {""}
    assert {encoder.role_prompt(role, None) for role in ("text", "sentence1", "sentence2")} == {default_text}
    assert encoder.role_prompt("positive", {"positive": "passage"}) == "passage: "


def test_unknown_prompts_are_refused(model) -> None:
    encoder = load_encoder(model({"passage": "passage: "}, None))
    with pytest.raises(ModelError, match="did you mean `passage`"):
        encoder.prompt("pasage")
    with pytest.raises(ModelError, match="default_prompt_name `topic`"):
        load_encoder(model({}, "topic"))
