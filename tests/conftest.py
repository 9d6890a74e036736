import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hub.server import Server

SENTENCES = [
    "A man is playing a guitar on stage.",
    "Someone plays an instrument in front of a crowd.",
    "The cat sleeps.",
    "Two children are building a castle of wet sand near the sea while their parents read.",
    "Cat!",
    "It rained all day, so we stayed inside and baked bread, then we read old letters aloud to each other.",
    "rain",
]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small only lose by threads: on a busy machine they wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture
def promise(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Callable[[str, str], None]:
    """Notes what a proof has shown, for the table at the end: the promise, and the figure."""
    command = f"pytest {request.node.nodeid}".partition("[")[0]
    return lambda what, figure: record_property("promise", (what, command, figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table: promise, figure, command."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == "promise"]
    if rows:
        terminalreporter.section("promises")
    for what, command, figure in rows:
        terminalreporter.write_line(f"{what}: {figure}   [{command}]")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, models and oracles that is handed to developers beside the project."""
    folder = os.environ.get("STFIT_SHARED")
    if not folder:
        pytest.skip("STFIT_SHARED is not set: it names the folder of real data, models and oracles")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm(shared: Path) -> Path:
    """A real, plain BERT encoder of 6 layers."""
    return shared / "models" / "plain-minilm-l6-h384"


@pytest.fixture
def hub() -> Iterator[Server]:
    """An empty Hub with two accounts: `me` (token `hf_me`), of the organisation `team`, and `guest` (`hf_guest`)."""
    with Server() as server:
        server.account("hf_me", "me", orgs=("team",))
        server.account("hf_guest", "guest")
        yield server


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return SENTENCES


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind -> folder of a plain checkpoint of that architecture: two layers, random weights large enough to matter."""
    folder = tmp_path_factory.mktemp("bases")

    def build(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            torch.manual_seed(7)
            model, tokenizer = BUILDERS[kind]()
            with torch.no_grad():
                for weight in model.parameters():
                    if (
                        weight.ndim == 2
                    ):  # as drawn, attention would be almost uniform and hide a wrong mask or position
                        weight.mul_(4)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return build


def word_pieces():
    from stfit.encoder.scratch import train_tokenizer

    return train_tokenizer(SENTENCES, 300)


def byte_pairs(special: dict[str, str], template: str | None):
    """A byte-level BPE tokenizer as RoBERTa (with a template) and the decoders (without) have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special.values()),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if template:
        tokens = [(token, backend.token_to_id(token)) for token in special.values()]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert():
    from transformers import BertConfig, BertModel

    tokenizer = word_pieces()
    return BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)), tokenizer


def roberta():
    from transformers import RobertaConfig, RobertaModel

    tokenizer = byte_pairs(
        {
            "bos_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "cls_token": "<s>",
            "sep_token": "</s>",
        },
        "<s> $A </s>",
    )
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        **SMALL,
    )
    return RobertaModel(config), tokenizer


def distilbert():
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = word_pieces()
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    return DistilBertModel(config), tokenizer


def qwen3():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = byte_pairs({"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}, None)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SMALL,
    )
    return Qwen3ForCausalLM(config), tokenizer


BUILDERS = {"bert": bert, "roberta": roberta, "distilbert": distilbert, "qwen3": qwen3}
