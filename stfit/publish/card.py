"""The model card: what a reader of the Hub wants to know of a model, from what a run recorded. Nothing is guessed.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Any

from stfit.io.display import format_duration, format_metric
from stfit.publish.destination import Push
from stfit.publish.markdown import block, code, plain, table
from stfit.spec import Spec

TASKS = {"similarity": "semantic-similarity", "retrieval": "information-retrieval"}
"""Evaluator -> sentence-transformers' name of its task, where it is another."""

SBERT = """\
@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing",
    year = "2019",
    url = "https://arxiv.org/abs/1908.10084",
}"""

EXAMPLES = ["How do I reset my password?", "I can't log in any more.", "When does the train to Bern leave?"]
"""Sentences of the usage snippets and of the Hub's widget: none of anybody's data."""


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset that was trained or measured on. `hub`: its id, where it is on the Hub; `name` without folders."""

    name: str
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    commit: str | None = None
    rows: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    format: str | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Rows that the card shows."""


@dataclass(frozen=True)
class Scores:
    """What an evaluator found. Metrics are named without the evaluator."""

    label: str
    type: str
    rows: DatasetFacts
    metrics: dict[str, float]


@dataclass(frozen=True)
class MetricRow:
    """A metric of the table: of the base, of this model, and of the model that was published before."""

    metric: str
    base: float | None = None
    tuned: float | None = None
    published: float | None = None
    gain_interval: tuple[float, float] | None = None
    """Interval of the gain over the published model."""
    base_interval: tuple[float, float] | None = None
    """Interval of the gain over the base."""


@dataclass(frozen=True)
class Training:
    """How the model came to be."""

    base: str | None
    """Hub id, or the name of a local folder; None for a model that began with random weights."""
    base_on_hub: bool
    base_commit: str | None
    data: list[DatasetFacts]
    losses: list[Spec]
    recipe: str
    steps: int
    seconds: float
    examples_per_second: float | None
    hardware: str
    versions: dict[str, str]
    has_curve: bool


@dataclass(frozen=True)
class CardData:
    """All that a card says. `training` and `scores` are empty for a model folder that no run of stfit left."""

    name: str
    """What a reader loads: `owner/name`, or the recipe's name before there is a repository."""
    embedding_dim: int | None
    max_seq_length: int | None
    parameters: int | None
    modules: list[str]
    """From the tokens to the embedding."""
    similarity: str
    prompts: dict[str, str]
    push: Push | None = None
    training: Training | None = None
    scores: list[Scores] = field(default_factory=list)
    lines: list[MetricRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader should know before anything else: that a gate was not passed, and it was published all the same."""


def metadata_of(facts: CardData) -> dict[str, Any]:
    """The card's metadata (https://huggingface.co/docs/hub/model-cards#model-card-metadata)."""
    from huggingface_hub import ModelCardData

    training = facts.training
    on_hub = training is not None and training.base_on_hub
    losses = [f"loss:{_name_of(loss)}" for loss in training.losses] if training else []
    sources = [*(training.data if training else []), *(scores.rows for scores in facts.scores)]
    shown = [text for source in sources for row in source.samples for text in row.values() if isinstance(text, str)]
    texts = shown if len(shown) > 1 else EXAMPLES
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", "stfit", *losses],
        license=facts.push.license if facts.push else None,
        language=(facts.push.language or None) if facts.push else None,
        base_model=training.base if training and on_hub else None,
        base_model_relation="finetune" if on_hub else None,
        datasets=list(dict.fromkeys(source.hub for source in sources if source.hub)) or None,
        widget=[{"source_sentence": texts[0], "sentences": texts[1:4]}],
    )
    found: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    # Not by the client's EvalResult, which throws evaluators on the same kind of dataset together.
    results = {"name": facts.name, "results": [_results_of(scores) for scores in facts.scores]}
    return found | ({"model-index": [results]} if facts.scores else {})


def _results_of(scores: Scores) -> dict[str, Any]:
    """An evaluator's metrics as an entry of the model index."""
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


def _name_of(loss: Spec) -> str:
    """A loss by its name in sentence-transformers, which the Hub's readers know, where it has one."""
    return (*loss.aliases, loss.tag())[0]


def body_of(facts: CardData) -> str:
    """The card below its metadata."""
    parts = [f"# {facts.name}", *(f"> **{plain(note)}**" for note in facts.notes), _introduction(facts), _usage(facts)]
    parts += _evaluation(facts)
    if facts.training:
        parts += _training_data(facts.training) + _training_run(facts.training) + _citation(facts.training)
    else:
        parts.append("## Training\n\nHow this model was trained is not recorded.")
    return "\n\n".join(parts) + "\n"


def _introduction(facts: CardData) -> str:
    """What it is, in a sentence and a list."""
    size = f"{facts.embedding_dim}-dimensional " if facts.embedding_dim else ""
    lines = [
        f"A [sentence-transformers](https://www.sbert.net) model that maps a text to a {size}embedding, trained with "
        "stfit. Texts of similar meaning have embeddings of high "
        f"{facts.similarity} similarity."
        if facts.training
        else f"A [sentence-transformers](https://www.sbert.net) model that maps a text to a {size}embedding.",
        "",
    ]
    if facts.training:
        lines.append(f"- Base: {_base_of(facts.training)}")
    if facts.max_seq_length:
        lines.append(f"- Longest text: {facts.max_seq_length} tokens; the rest is cut off")
    lines.append(f"- Modules: {', '.join(facts.modules)}")
    lines.append(f"- Similarity: {facts.similarity}")
    if facts.parameters:
        lines.append(f"- Parameters: {facts.parameters:,}")
    quoted = {name: f'"{text}"' for name, text in facts.prompts.items()}  # a space at an end would not be seen
    lines += [f"- Prompt {code(name)}: {code(text)}" for name, text in quoted.items()]
    return "\n".join(lines)


def _base_of(training: Training) -> str:
    """The base, with a link where there is something to link to."""
    if training.base is None:
        return "none; the weights were random at the start"
    if not training.base_on_hub:
        return code(training.base)
    commit = f" at commit {code(training.base_commit)}" if training.base_commit else ""
    return f"[{plain(training.base)}](https://huggingface.co/{training.base}){commit}"


def _usage(facts: CardData) -> str:
    """Snippets that run as they stand."""
    asymmetric = {"query", "document"} <= facts.prompts.keys()
    sentences = ",\n".join(f'    "{text}"' for text in EXAMPLES)
    encode = (
        'queries = model.encode(texts[:1], prompt_name="query")\n'
        'documents = model.encode(texts[1:], prompt_name="document")\n'
        "print(model.similarity(queries, documents))"
        if asymmetric
        else "embeddings = model.encode(texts)\nprint(model.similarity(embeddings, embeddings))"
    )
    python = (
        "from sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("{facts.name}")\n'
        f"texts = [\n{sentences},\n]\n{encode}"
    )
    lines = "\\n".join(text.replace("'", "'\\''") for text in EXAMPLES)
    shell = f"printf '{lines}\\n' > texts.txt\nstfit encode {facts.name} texts.txt -o embeddings.npy"
    return f"## Usage\n\n{block(python, 'python')}\n\nOr from a shell, with stfit:\n\n{block(shell, 'sh')}"


def _evaluation(facts: CardData) -> list[str]:
    """The table before and after, and what each line was measured on."""
    if not facts.lines:
        return ["## Evaluation\n\nThis model was not evaluated."]
    columns = {
        "Metric": [code(line.metric) for line in facts.lines],
        "Base": [format_metric(line.base) for line in facts.lines],
        "This model": [format_metric(line.tuned) for line in facts.lines],
        "Gain (interval)": [_gain_of(line.tuned, line.base, line.base_interval) for line in facts.lines],
        "Published before": [format_metric(line.published) for line in facts.lines],
        "Gain over it (interval)": [_gain_of(line.tuned, line.published, line.gain_interval) for line in facts.lines],
    }
    kept = {title: cells for title, cells in columns.items() if any(cells)}
    parts = ["## Evaluation", table(list(kept), [list(row) for row in zip(*kept.values(), strict=True)])]
    parts.append("Base is the model before its training. Intervals are of 95 %, by a paired bootstrap over the rows.")
    described = [f"- {code(scores.label)}: {_described_rows(scores.rows)}" for scores in facts.scores]
    return [*parts, "\n".join(described)] if described else parts


def _gain_of(value: float | None, other: float | None, interval: tuple[float, float] | None) -> str:
    """What this model gained over another one."""
    if value is None or other is None:
        return ""
    between = "" if interval is None else f" ({interval[0]:+.4f} to {interval[1]:+.4f})"
    return f"{value - other:+.4f}{between}"


def _described_rows(rows: DatasetFacts) -> str:
    """A dataset in a few words."""
    name = f"[{plain(rows.hub)}](https://huggingface.co/datasets/{rows.hub})" if rows.hub else code(rows.name)
    more = [
        f"config {code(rows.config)}" if rows.config else "",
        f"split {code(rows.split)}" if rows.split else "",
        f"commit {code(rows.commit)}" if rows.commit else "",
        f"{rows.rows:,} rows" if rows.rows is not None else "",
        f"format {code(rows.format)}" if rows.format else "",
    ]
    return ", ".join([name, *filter(None, more)])


def _training_data(training: Training) -> list[str]:
    """Sources, mapping and, when asked for, rows."""
    parts = ["## Training data"]
    for rows in training.data:
        mapping = "; ".join(f"{code(role)} from {code(str(column))}" for role, column in rows.columns.items())
        parts.append(f"- {_described_rows(rows)}{f': {mapping}' if mapping else ''}")
        if rows.samples:
            roles = list(rows.samples[0])
            cells = [[code(str(row[role])) for role in roles] for row in rows.samples]
            parts.append(table([code(role) for role in roles], cells))
    return parts


def _training_run(training: Training) -> list[str]:
    """Loss, time, machine, versions and the whole recipe."""
    speed = f", {training.examples_per_second:.0f} examples a second" if training.examples_per_second else ""
    facts = [
        *(f"- Loss: {code(loss.tag())}: {plain(_first_sentence(loss))}" for loss in training.losses),
        f"- {training.steps} steps in {format_duration(training.seconds)}{speed}",
        f"- Hardware: {plain(training.hardware)}",
        f"- Versions: {', '.join(f'{name} {plain(version)}' for name, version in training.versions.items())}",
    ]
    parts = ["## Training", "\n".join(facts)]
    if training.has_curve:
        parts.append("![Training loss over the steps](loss_curve.png)")
    return [*parts, "The whole recipe; folders of local files are left out:", block(training.recipe, "yaml")]


def _first_sentence(loss: Spec) -> str:
    """What a loss does, by its own documentation."""
    return " ".join(inspect.getdoc(type(loss)).split("\n\n")[0].split())  # type: ignore[union-attr]


def _citation(training: Training) -> list[str]:
    """Papers of the model's kind and of its losses, the latter as their documentation names them."""
    found = [reference for loss in training.losses for reference in references_of(loss)]
    listed = "\n".join(f"- {text}<{url}>" for text, url in dict.fromkeys(found))
    return ["## Citation", block(SBERT, "bibtex"), *([f"The loss:\n\n{listed}"] if listed else [])]


def references_of(loss: Spec) -> list[tuple[str, str]]:
    """Authors and year (where they are given) and address of each source that a loss's documentation names."""
    text = " ".join(inspect.getdoc(type(loss)).split())  # type: ignore[union-attr]
    cited = re.findall(r"(?:^|[(;.] ?)((?:[\w -]+(?: et al\.)?, (?:\d{4}, )?)?)(https?://[^\s;),]+[^\s;),.])", text)
    named = [(f"{words.rstrip(', ')}: " if words else "", url) for words, url in cited]
    dims = getattr(loss, "matryoshka_dims", None)
    return named + ([("Kusupati et al., 2022: ", "https://arxiv.org/abs/2205.13147")] if dims else [])
