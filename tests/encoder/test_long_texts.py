"""Of a long text, only what its tokens are taken from is read, and they are the same as if all of it were."""

import random
import tracemalloc

import numpy as np
import pytest
from tiny_bases import SENTENCES
from tokenizers import Tokenizer, models, normalizers, processors, trainers

from stfit.encoder import tokenizer as module
from stfit.encoder.tokenizer import FileTokenizer, WhitespaceTokenizer

KINDS = ["roberta", "xlm-roberta", "mpnet", "deberta-v2", "t5", "qwen3", "bert", "unigram"]
LIMIT = 12
ALPHABETS = [
    "abcdefghij klmnop qrs tuv wxyz ",
    "the cat sat on a mat. ",
    "aaaa    ",
    "東京都は日本の首都",
    "é̀ñ ü ß œ ",
    "[SEP]</s> a ",
]


def random_text(draws: random.Random) -> str:
    """Words, runs of one character, letters without spaces, combining marks, names of special tokens."""
    parts = []
    for _ in range(draws.randint(1, 6)):
        alphabet = draws.choice(ALPHABETS)
        parts.append("".join(draws.choices(alphabet, k=draws.choice([3, 30, 300, 1500]))))
        parts.append(draws.choice(alphabet) * draws.choice([0, 0, 5, 900]))
    return "".join(parts)


def unigram() -> Tokenizer:
    """The best segmentation of a whole text, of which the spaces are letters as any other."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([*SENTENCES, *ALPHABETS], trainer)
    special = [("<s>", 0), ("</s>", 1)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    return backend


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:-2]] + KINDS[-2:])
def test_tokens_of_random_texts_are_those_of_the_whole_text(tiny_base, kind) -> None:
    draws = random.Random(kind)
    backend = unigram() if kind == "unigram" else Tokenizer.from_file(str(tiny_base(kind) / "tokenizer.json"))
    backend.no_padding()
    backend.enable_truncation(LIMIT)
    texts = [random_text(draws) for _ in range(1250)]  # ten thousand, of all kinds
    assert sum(len(text) > module.CHARACTERS_PER_TOKEN * (LIMIT + module.MARGIN) for text in texts) > 400
    found = FileTokenizer(backend, special_tokens=True)(texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids.tolist() == backend.encode(text).ids, text


def test_text_without_end_takes_no_more_memory_than_its_tokens_need(tiny_base) -> None:
    backend = Tokenizer.from_file(str(tiny_base("bert") / "tokenizer.json"))
    backend.enable_truncation(128)
    tokenizer = FileTokenizer(backend, special_tokens=True)
    text = "the cat sat on the mat " * 2_000_000
    tracemalloc.start()
    assert len(tokenizer([text])[0]) == 128
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_whitespace_tokenizer_reads_no_further_than_its_limit() -> None:
    words = ["cat", "mat"]
    text = "cat unknown\x1cMat,\u3000mat cat " * 5
    whole = WhitespaceTokenizer(words)([text])[0]
    assert whole.tolist() == [0, 1, 1, 0] * 5
    assert np.array_equal(WhitespaceTokenizer(words, max_seq_length=7)([text])[0], whole[:7])
