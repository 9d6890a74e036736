"""A tokenizer reads its tokenizer.json as it is, whatever class its folder names, and so do others once it is saved."""

import json
import shutil

import pytest
import torch
from draws import every
from tiny_bases import SENTENCES, byte_pairs
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel

from stfit.encoder.bases.transformer_tokenizer import append_eos, load_tokenizer
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, ModelError

TEXTS = [*SENTENCES, "Don't stop   twice, naïve Café!", "two  spaces and ÀÉÎ"]


def unigram() -> HFTokenizer:
    """As XLM-R's, with another normalizer than its class would build."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = HFTokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=[*special, "<mask>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def word_pieces() -> HFTokenizer:
    """As BERT's, with another normalizer and pre-tokenizer than its class would build."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = HFTokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return backend


@pytest.fixture
def bert(tmp_path):
    """Writes a BERT with a tokenizer and the content of its tokenizer_config.json."""

    def write(backend: HFTokenizer, **config):
        torch.manual_seed(0)
        size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        module = BertModel(BertConfig(vocab_size=backend.get_vocab_size(), max_position_embeddings=64, **size))
        module.save_pretrained(tmp_path / "base")
        backend.save(str(tmp_path / "base" / "tokenizer.json"))
        (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64} | config))
        return tmp_path / "base"

    return write


def ids_of(encoder, texts=TEXTS):
    return [sequence.tolist() for sequence in encoder.tokenizer(texts)]


def read_by_transformers(folder):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    except TypeError:  # its class does not fit the file
        return read_by_stfit(folder)


def read_by_stfit(folder):
    return [ids.tolist() for ids in load_encoder(folder).tokenizer(TEXTS)]


CLASSES = [None, "BertTokenizer", "BertTokenizerFast", "RobertaTokenizer", "XLMRobertaTokenizer"]


@pytest.mark.parametrize("name", every(3, [*CLASSES, "PreTrainedTokenizerFast"]))
@pytest.mark.parametrize("backend", [unigram, word_pieces])
def test_whatever_class_a_folder_names_its_tokenizer_file_decides(bert, tmp_path, caplog, backend, name) -> None:
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    config = {"tokenizer_class": name} if name else {}
    folder = bert(backend(), **config | (special if backend is unigram else {}))
    expected = [encoding.ids for encoding in HFTokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(TEXTS)]
    encoder = load_encoder(folder)
    assert ids_of(encoder) == expected
    if read_by_transformers(folder) != expected:
        assert "reads its tokenizer.json in another way" in caplog.text
    save_encoder(encoder, tmp_path / "model")
    assert read_by_transformers(tmp_path / "model") == expected
    assert ids_of(load_encoder(tmp_path / "model")) == expected


def test_saved_tokenizers_cut_texts_for_every_runtime_and_a_base_s_own_cut_is_not_taken(tiny_base, tmp_path) -> None:
    backend = HFTokenizer.from_file(str(tiny_base("bert") / "tokenizer.json"))
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    backend.enable_truncation(4)
    backend.enable_padding(length=40)
    backend.save(str(tmp_path / "base" / "tokenizer.json"))
    text = "the cat sleeps near the sea " * 9
    encoder = build_encoder(Model(base=str(tmp_path / "base"), max_seq_length=12))
    assert len(encoder.tokenizer([text])[0]) == 12
    save_encoder(encoder, tmp_path / "model")
    saved = HFTokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert saved.encode(text).ids == encoder.tokenizer([text])[0].tolist()
    assert saved.encode("the cat").ids == encoder.tokenizer(["the cat"])[0].tolist()


@pytest.mark.parametrize("kind", ["bert", "qwen3-left"])
def test_padding_is_saved_on_the_right_with_a_token(tiny_base, tmp_path, kind) -> None:
    shutil.copytree(tiny_base(kind), tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"padding_side": "left"}
    if kind != "bert":
        config.pop("pad_token")
    path.write_text(json.dumps(config))
    save_encoder(load_encoder(tmp_path / "base"), tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert saved["padding_side"] == "right"
    assert saved["pad_token"] == (config["pad_token"] if kind == "bert" else config["eos_token"])
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"


SPECIAL = {"eos_token": "</s>", "bos_token": "<s>"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [(None, ["a", "</s>"]), ("<s> $A", ["<s>", "a", "</s>"]), ("$A </s>", ["a", "</s>"])],
)
@pytest.mark.parametrize("in_sequence", [False, True])
def test_an_end_token_extends_the_template_there_is(template, expected, in_sequence) -> None:
    tokenizer = byte_pairs(SPECIAL, template)
    backend = tokenizer.backend_tokenizer
    if in_sequence:
        steps = [processors.ByteLevel(trim_offsets=True)] + ([backend.post_processor] if template else [])
        backend.post_processor = processors.Sequence(steps)
    append_eos(tokenizer)
    append_eos(tokenizer)
    assert backend.encode("a").tokens == expected
    assert backend.encode("").tokens == expected[:-2] + expected[-1:]


def test_a_folder_s_add_eos_token_is_followed_and_its_absence_warned_of(tiny_base, tmp_path, caplog) -> None:
    save_encoder(build_encoder(Model(base=str(tiny_base("qwen3")), append_eos=False)), tmp_path / "model")
    eos = load_tokenizer(tmp_path / "model").eos_token_id
    assert not any(sequence[-1] == eos for sequence in load_encoder(tmp_path / "model").tokenizer(SENTENCES))
    assert "nothing ends the texts" in caplog.text
    caplog.clear()
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_eos_token": True}))
    encoder = load_encoder(tmp_path / "model")
    assert all(sequence[-1] == eos for sequence in encoder.tokenizer(SENTENCES))
    assert "nothing ends the texts" not in caplog.text
    save_encoder(encoder, tmp_path / "again")
    assert ids_of(load_encoder(tmp_path / "again")) == ids_of(encoder)


def test_only_a_text_with_a_token_without_a_vector_is_refused(bert) -> None:
    backend = word_pieces()
    folder = bert(backend)
    backend.add_special_tokens(["<image>"])
    backend.save(str(folder / "tokenizer.json"))
    encoder = load_encoder(folder)
    assert encoder.encode(["the cat sleeps"]).shape == (1, 32)
    with pytest.raises(DataError, match="no vector for the token `<image>` in 'look: <image>'"):
        encoder.encode(["the cat", "look: <image>"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"extra_special_tokens": ["<ask>"]}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<ask>"]}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<ask>"]}),
    ],
)
def test_tokens_that_other_files_add_are_kept(tiny_base, tmp_path, file, content) -> None:
    from transformers import AutoTokenizer, BertModel

    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    module = BertModel.from_pretrained(tmp_path / "base")
    size = module.config.vocab_size
    module.resize_token_embeddings(size + 1)
    module.save_pretrained(tmp_path / "base")
    path = tmp_path / "base" / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | content))
    expected = AutoTokenizer.from_pretrained(tmp_path / "base")(["the <ask> cat"])["input_ids"]
    assert size in expected[0]
    encoder = load_encoder(tmp_path / "base")
    assert ids_of(encoder, ["the <ask> cat"]) == expected
    save_encoder(encoder, tmp_path / "model")
    assert ids_of(load_encoder(tmp_path / "model"), ["the <ask> cat"]) == expected


def test_the_side_that_is_cut_is_kept(tiny_base, tmp_path) -> None:
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    encoder = build_encoder(Model(base=str(tmp_path / "base"), max_seq_length=6))
    whole = load_encoder(tiny_base("bert")).tokenizer(["one two the cat sleeps"])[0].tolist()
    assert encoder.tokenizer(["one two the cat sleeps"])[0].tolist() == [whole[0], *whole[-5:]]
    save_encoder(encoder, tmp_path / "model")
    assert ids_of(load_encoder(tmp_path / "model")) == ids_of(encoder)


def test_a_saved_tokenizer_that_cuts_is_no_reason_to_warn(tiny_base, tmp_path, caplog) -> None:
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), max_seq_length=5)), tmp_path / "model")
    load_encoder(tmp_path / "model")
    assert "in another way" not in caplog.text


def test_arguments_that_a_folder_stores_are_followed_or_refused(tiny_base, tmp_path) -> None:
    save_encoder(load_encoder(tiny_base("bert")), tmp_path / "model")
    path = tmp_path / "model" / "sentence_bert_config.json"
    harmless = {"model_args": {"add_pooling_layer": False}, "tokenizer_args": {"model_max_length": 7, "use_fast": True}}
    path.write_text(json.dumps(harmless))
    assert load_encoder(tmp_path / "model").tokenizer.max_seq_length == 7
    path.write_text(json.dumps({"config_kwargs": {"num_hidden_layers": 1}}))
    with pytest.raises(ModelError, match="sets num_hidden_layers, which stfit does not support"):
        load_encoder(tmp_path / "model")


def test_a_tokenizer_of_code_is_refused(tiny_base, tmp_path) -> None:
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    config = {"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}, "tokenizer_class": "OwnTokenizer"}
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="AutoTokenizer of `auto_map` is code in a repository, which stfit never runs"):
        load_encoder(tmp_path / "base")
