"""An encoder from nothing: the same in every process, and able to read its own texts."""

import os
import subprocess
import sys

import torch

from stfit.encoder.bases.bert_scratch import SPECIAL_TOKENS, Scratch, learn_pieces, train_tokenizer
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model


def test_vocabulary_is_the_same_in_every_process(sentences) -> None:
    code = (
        "from stfit.encoder.bases.bert_scratch import learn_pieces\n"
        f"print(learn_pieces({sentences!r} * 3, 200))"
    )  # fmt: skip
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_dropout_is_as_the_recipe_says(sentences) -> None:
    for rate, repeats in ((0.0, True), (0.3, False), (None, False)):
        encoder = build_encoder(Model(base=Scratch(), dropout=rate), lambda: sentences).train()
        tokens = encoder.tokenizer(sentences)
        assert torch.equal(encoder(tokens), encoder(tokens)) is repeats


def test_every_word_of_the_training_texts_can_be_spelt(sentences) -> None:
    tokenizer = train_tokenizer(sentences, 300)
    assert tokenizer.unk_token_id not in [token for text in sentences for token in tokenizer(text)["input_ids"]]


def test_frequent_words_become_one_piece_and_the_size_is_kept(sentences) -> None:
    tokenizer = train_tokenizer(["stfit embeds text"] * 20 + sentences, 150)
    assert tokenizer.tokenize("Stfit") == ["stfit"]
    assert len(tokenizer) <= 150
    assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == list(range(len(SPECIAL_TOKENS)))


def test_pieces_of_one_word_start_plain_and_go_on_with_the_prefix() -> None:
    pieces = learn_pieces(["lower", "lowest", "low"] * 10, 40)
    assert "low" in pieces
    assert "##e" in pieces
