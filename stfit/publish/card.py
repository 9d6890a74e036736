"""The model card (https://huggingface.co/docs/hub/model-cards), from what a run has recorded."""

import inspect
import math
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stfit.io.display import format_duration, format_gain, format_interval, format_metric
from stfit.io.templates import build_environment
from stfit.losses.base import LossBase
from stfit.publish.destination import Push
from stfit.publish.markdown import block, code, plain

TASKS = {"similarity": "semantic-similarity", "retrieval": "information-retrieval"}
"""Evaluator type -> its task in sentence-transformers, if the name differs."""

EXAMPLES = ["How do I reset my password?", "I can't log in any more.", "When does the train to Bern leave?"]
"""Sentences for the usage snippets and the Hub's widget, so that these contain no user data."""


@dataclass(frozen=True)
class DatasetFacts:
    name: str
    """File or folder name, without its parent folders."""
    hub: str | None = None
    """Id on the Hub, if it is there."""
    config: str | None = None
    split: str | None = None
    commit: str | None = None
    rows: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    format: str | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    generated: dict[str, int] = field(default_factory=dict)
    """What wrote rows -> how many."""


@dataclass(frozen=True)
class Scores:
    """The metrics of one evaluator, by their names without the evaluator."""

    label: str
    type: str
    rows: DatasetFacts
    metrics: dict[str, float]


@dataclass(frozen=True)
class MetricRow:
    metric: str
    value: float
    base: dict[str, Any] = field(default_factory=dict)
    """The fields of a Comparison with the model before training; empty without one."""
    published: dict[str, Any] = field(default_factory=dict)
    """The same for the model that was published before."""


@dataclass(frozen=True)
class Training:
    base: str | None
    """Hub id, or the name of a local folder; None if training started from random weights."""
    base_on_hub: bool
    base_commit: str | None
    data: list[DatasetFacts]
    losses: list[LossBase]
    recipe: str
    steps: int
    seconds: float
    examples_per_second: float | None
    hardware: str
    versions: dict[str, str]
    has_curve: bool


@dataclass(frozen=True)
class CardData:
    name: str
    """`owner/name` of the repository, or the recipe's name if there is none yet."""
    embedding_dim: int | None
    max_seq_length: int | None
    parameters: int | None
    modules: list[str]
    """In order, from the tokens to the embedding."""
    similarity: str
    prompts: dict[str, str]
    """Name -> text of those that are not empty."""
    is_asymmetric: bool
    """Whether queries and documents have different prompts."""
    push: Push | None = None
    training: Training | None = None
    scores: list[Scores] = field(default_factory=list)
    metrics: list[MetricRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Warnings for the top of the card, for example that the model was published although a gate failed."""


def card_metadata(card: CardData) -> dict[str, Any]:
    from huggingface_hub import ModelCardData

    training = card.training
    base = training.base if training and training.base_on_hub else None
    datasets = [*(training.data if training else []), *(scores.rows for scores in card.scores)]
    shown = [text for rows in datasets for row in rows.samples for text in row.values() if isinstance(text, str)]
    texts = shown if len(shown) > 1 else EXAMPLES
    metadata: dict[str, Any] = ModelCardData(  # type: ignore[no-untyped-call]
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", "stfit", *_training_tags(training)],
        license=card.push.license if card.push else None,
        language=(card.push.language or None) if card.push else None,
        base_model=base,
        base_model_relation="finetune" if base else None,
        datasets=list(dict.fromkeys(rows.hub for rows in datasets if rows.hub)) or None,
        widget=[{"source_sentence": texts[0], "sentences": texts[1:4]}],
    ).to_dict()
    if card.scores:
        # Not as EvalResult: huggingface_hub merges evaluators with the same task and split under the first one's name.
        metadata["model-index"] = [{"name": card.name, "results": list(map(_model_index_entry, card.scores))}]
    return metadata


def _training_tags(training: Training | None) -> list[str]:
    """Those that sentence-transformers writes, by which people filter models on the Hub."""
    if training is None:
        return []
    rows = [dataset.rows for dataset in training.data if dataset.rows is not None]
    size = [f"dataset_size:{sum(rows)}"] if len(rows) == len(training.data) else []
    outer = ["MatryoshkaLoss"] if any(loss.matryoshka_dims for loss in training.losses) else []
    names = [*outer, *((*loss.aliases, loss.tag())[0] for loss in training.losses)]
    return ["generated_from_trainer", *size, *dict.fromkeys(f"loss:{name}" for name in names)]


def _model_index_entry(scores: Scores) -> dict[str, Any]:
    task = TASKS.get(scores.type, scores.type.replace("_", "-"))
    rows = scores.rows
    dataset = {"name": scores.label, "type": rows.hub or "unknown", "config": rows.config, "split": rows.split}
    return {
        "task": {"type": task, "name": task.replace("-", " ").title()},
        "dataset": {key: value for key, value in (dataset | {"revision": rows.commit}).items() if value is not None},
        "metrics": [
            {"type": metric, "value": value, "name": metric.replace("_", " ").title()}
            for metric, value in scores.metrics.items()
            if math.isfinite(value)
        ],
    }


@cache
def _environment() -> Any:
    """Once: an environment keeps its compiled templates."""
    filters: dict[str, Any] = {"block": block, "code": code, "duration": format_duration, "row_values": dict.values}
    return build_environment("stfit.publish", plain, filters)


def card_body(card: CardData) -> str:
    losses = card.training.losses if card.training else []
    columns = _metric_columns(card.metrics)
    return (
        _environment()
        .get_template("card.md.jinja")
        .render(
            card=card,
            training=card.training,
            examples=EXAMPLES,
            metric_titles=list(columns),
            metric_rows=list(zip(*columns.values(), strict=True)),
            losses=[(loss.tag(), _first_sentence(loss)) for loss in losses],
            references=dict.fromkeys(reference for loss in losses for reference in references_of(loss)),
        )
    )


def _metric_columns(rows: list[MetricRow]) -> dict[str, list[str]]:
    """Title -> cells of each column of the metric table that is not empty."""
    columns: dict[str, list[str]] = {
        "Metric": [code(row.metric) for row in rows],
        "Base": [format_metric(row.base.get("other")) for row in rows],
        "This model": [format_metric(row.value) for row in rows],
        "Gain (interval)": [_format_gain(row.base) for row in rows],
        "Published before": [format_metric(row.published.get("other")) for row in rows],
        "Gain over it (interval)": [_format_gain(row.published) for row in rows],
    }
    return {title: cells for title, cells in columns.items() if any(cells)}


def _format_gain(compared: dict[str, Any]) -> str:
    interval = format_interval(compared.get("low"), compared.get("high"))
    return format_gain(compared.get("gain")) + (f" ({interval})" if interval else "")


def _first_sentence(loss: LossBase) -> str:
    return " ".join(inspect.getdoc(type(loss)).split("\n\n")[0].split())  # type: ignore[union-attr]


def references_of(loss: LossBase) -> list[tuple[str, str]]:
    """(authors and year or "", URL) of each source in the docstring of a loss."""
    text = " ".join(inspect.getdoc(type(loss)).split())  # type: ignore[union-attr]
    sources = re.findall(r"(?:^|[(;.] ?)((?:[\w -]+(?: et al\.)?, (?:\d{4}, )?)?)(https?://[^\s;),]+[^\s;),.])", text)
    references = [(authors.rstrip(", "), url) for authors, url in sources]
    matryoshka = [("Kusupati et al., 2022", "https://arxiv.org/abs/2205.13147")]
    return references + (matryoshka if loss.matryoshka_dims else [])
