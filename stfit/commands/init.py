"""`stfit init`: a dataset -> a commented recipe for it, which passes `stfit check`. Or the example of the README."""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stfit.data.infer_format import Proposal, infer_format
from stfit.data.reading.hub import Splits
from stfit.data.reading.load_table import find_splits, load_split
from stfit.data.reading.local_files import holds_documents
from stfit.data.source import ReadOptions, Source
from stfit.data.table import Table, concatenate, delimiter_hint
from stfit.errors import DataError, Problem, RecipeError
from stfit.generation.registry import choose_generators
from stfit.io.atomic import atomic_write, wrap_os_errors
from stfit.io.outputs import require_output
from stfit.io.unicode import require_text
from stfit.io.yaml_text import to_inline_yaml
from stfit.options import GenerationOptions
from stfit.paths import VECTOR_SUFFIXES, looks_like_path
from stfit.recipe.recipe import Recipe
from stfit.recipe.schema import schema_page
from stfit.workflows.generate.generate_pairs import generate_pairs
from stfit.workflows.generate.passages import Corpus, read_passages

SCHEMA = "recipe.schema.json"
"""Written beside a recipe, whose first line names it: editors complete and check keys with it."""

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"

EXAMPLE_FILES = (
    "quickstart.yaml",
    "recipe.schema.json",
    "data/questions.txt",
    "data/helpdesk/train.jsonl",
    "data/helpdesk/test.jsonl",
)
"""The recipe first."""

RATES = {"scratch": 1e-3, "static": 5e-2, "word_embeddings": 5e-2, "bag_of_words": 1e-3}
"""Type of an untrained base -> its learning rate; for other bases, the default of `train` is right."""
TABLES = ("static", "word_embeddings", "bag_of_words")
"""The untrained bases without dropout."""
VECTORS_RATE = 5e-3

LOSSES = {
    ("positive_pair", "none"): (
        "multiple_negatives_ranking",
        "Each anchor has to find its own positive among all positives of the batch; a larger batch is a harder task.",
    ),
    ("triplet", "none"): (
        "multiple_negatives_ranking",
        "Each anchor has to find its own positive among all positives and negatives of the batch.",
    ),
    ("labeled_pair", "score"): (
        "cosent",
        "A pair with a higher score should have a higher cosine similarity; only the order of the scores matters.",
    ),
    ("labeled_pair", "class"): (
        "softmax",
        "The classes have no order: a classifier on both embeddings learns to predict them.",
    ),
    ("labeled_text", "class"): (
        "batch_hard_soft_margin_triplet",
        "Texts of one class should be closer to each other than to texts of other classes. There is no margin to set.",
    ),
    ("text", "none"): (
        "multiple_negatives_ranking",
        "A text under another dropout mask is its own positive, and the other texts of the batch are the negatives. "
        "Labeled data or a teacher ({type: mse, teacher: ...}) gives better models.",
    ),
}
"""(format, kind of label) -> the proposed loss and the reason."""

EVALUATORS = {
    ("labeled_pair", "score"): "similarity",
    ("labeled_pair", "binary"): "binary_classification",
    ("triplet", "none"): "triplet",
    ("positive_pair", "none"): "retrieval",
    ("labeled_text", "class"): "classification",
}
"""(format, kind of label) -> the proposed evaluator."""

EVALUATION_SPLITS = ("validation", "valid", "val", "dev", "development", "test")
"""By preference: the test split is used only if there is no other."""
EVALUATION_ROWS = 2000
"""Maximum number of rows: an evaluation runs six times by default and should take seconds."""


LONG = 20
"""Median of words from which on two parts of a text are worth a pair; of shorter ones, dropout makes two."""
MIN_GROUPS = 10
"""Documents from which on whole documents are held out."""


@dataclass(frozen=True)
class DatasetSummary:
    """The training split of a dataset, its evaluation split (None if it has none), and the inferred format."""

    split: str
    rows: int
    evaluation_split: str | None
    evaluation_rows: int
    proposal: Proposal
    is_judged: bool = False
    """Whether it is in BEIR's layout, where a corpus is searched."""
    has_long_texts_alone: bool = False
    """Whether it has no more than texts, of which parts are worth searching for."""
    group: str | None = None
    """Of generated pairs, the column whose rows are held out together."""


def init(
    dataset: str,
    output: Path,
    base: str = DEFAULT_BASE,
    config: str | None = None,
    read: ReadOptions | None = None,
) -> dict[str, Any]:
    """`base`: a Hub id, a folder, a file of word vectors, or the type of an untrained base."""
    if output.exists():
        raise RecipeError(f"{output} exists: choose another file with -o, or delete it")
    require_output(output, [])
    for path in (output, Path(dataset)):
        require_text(path)
    source = Source(dataset=dataset, config=config, read=read or ReadOptions())
    summary = None if holds_documents(source.dataset) else _inspect(source)
    if summary is None or summary.has_long_texts_alone:
        dataset, summary = _generate(source, summary, output)
        source = Source(dataset=dataset)
    training = summary.proposal
    if training.label_kind == "binary":
        training = training.similar_only()
    if training.format == "text" and (base in TABLES or base.endswith(VECTOR_SUFFIXES)):
        raise RecipeError(
            f"{dataset} has only single texts, whose loss needs dropout, and a table of vectors has none: choose a "
            "transformer, or `scratch`, as the base"
        )
    loss, reason = LOSSES[training.format, training.label_kind]
    atomic_write(output, _write_recipe(dataset, source, summary, training, base, output))
    atomic_write(output.with_name(SCHEMA), schema_page(Recipe))
    return {
        "recipe": str(output),
        "format": training.format,
        "columns": training.columns,
        "loss": loss,
        "reasons": [*training.reasons, reason],
    }


def write_example(folder: Path) -> dict[str, Any]:
    """Write the recipe of the quickstart and its data into a folder."""
    texts = {folder / name: (_example_folder() / name).read_text(encoding="utf-8") for name in EXAMPLE_FILES}
    recipe, *_ = texts
    if existing := [str(path) for path in texts if path.exists()]:
        raise RecipeError(f"{', '.join(existing)}: already there; choose another folder with -o, or delete them")
    for path, text in texts.items():
        with wrap_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.replace("stfit train recipes/", "stfit train "))
    return {"recipe": str(recipe), "files": [str(path) for path in texts]}


def _example_folder() -> Path:
    """In a wheel, they are within the package; in a clone, beside it."""
    package = Path(__file__).parents[1]
    packaged = package / "example"
    return packaged if packaged.is_dir() else package.with_name("recipes")


def _inspect(source: Source) -> DatasetSummary:
    splits = find_splits(source)
    if {"corpus", "queries"} <= set(splits):
        return _inspect_judgments(source, splits)
    evaluation_split = next((name for name in EVALUATION_SPLITS if name in splits), None)
    # Without a split named train, the test split is the last choice for training.
    split = min(splits, key=lambda name: (name != "train", name == "test"))
    if evaluation_split == split:
        evaluation_split = "test" if "test" in splits and split != "test" else None
    table = load_split(splits[split](None))
    if not len(table):
        raise DataError(Problem(f"the split `{split}` has no rows", "no-rows", table.origin))
    if (hint := delimiter_hint(list(table.columns))) and source.read.delimiter is None:
        raise DataError(
            Problem(f"there is one column, `{next(iter(table.columns))}`: {hint}", "no-format", table.origin)
        )
    evaluation = load_split(splits[evaluation_split](None)) if evaluation_split else None
    if evaluation_split is None or not evaluation:
        proposal = infer_format(table)
        return DatasetSummary(
            split, len(table), None, 0, proposal, has_long_texts_alone=_has_long_texts(table, proposal)
        )
    # From both splits: one of them may not contain the lowest or highest score.
    proposal = infer_format(concatenate([table, evaluation]))
    return DatasetSummary(split, len(table), evaluation_split, len(evaluation), proposal)


def _has_long_texts(table: Table, proposal: Proposal) -> bool:
    texts = table.columns.get(str(proposal.columns["text"]), []) if proposal.format == "text" else []
    lengths = [len(text.split()) for text in texts if isinstance(text, str)]
    return bool(lengths) and median(lengths) >= LONG


def _generate(source: Source, summary: DatasetSummary | None, output: Path) -> tuple[str, DatasetSummary]:
    """Pairs beside the recipe, by methods that need no model, and their summary."""
    column = str(summary.proposal.columns["text"]) if summary else None
    corpus = Corpus(source, column)
    has_titles = any(passage.title for passage in read_passages(corpus))
    pairs = output.with_name(f"{output.stem}.pairs.jsonl")
    if pairs.exists():
        raise RecipeError(f"{pairs} exists: delete it, or choose another recipe with -o")
    methods = choose_generators([*(["title"] if has_titles else []), "crop"], {})
    made = generate_pairs(corpus, pairs, methods, GenerationOptions())
    listed = " and ".join(f"{count} by `{name}`" for name, count in made["rows_by_method"].items())
    reason = (
        f"There were no pairs, so {pairs.name} was made from {made['passages']} passages: {listed}. A language model "
        "writes questions that are more like those of people: `stfit generate --method endpoint`."
    )
    proposal = Proposal("positive_pair", {"anchor": "anchor", "positive": "positive"}, reasons=[reason])
    group = "document" if made["documents"] >= MIN_GROUPS else "passage"
    return str(pairs), DatasetSummary("train", made["rows"], None, 0, proposal, group=group)


def _inspect_judgments(source: Source, splits: Splits) -> DatasetSummary:
    """Of a dataset in BEIR's layout."""
    judged = [name for name in splits if name not in ("corpus", "queries")]
    if not judged:
        message = "it has a corpus and queries, but no judgments in qrels/ that say what is relevant"
        raise DataError(Problem(message, "no-format", source.dataset))
    split = min(judged, key=lambda name: (name != "train", name == "test"))
    others = [name for name in judged if name != split]
    evaluation_split = min(others, key=lambda name: name != "test", default=None)
    rows = len(load_split(splits[split](None)))
    reason = "The queries with the documents that are relevant to them (score above 0): title and text, as one text."
    proposal = Proposal("positive_pair", {"anchor": "anchor", "positive": "positive"}, reasons=[reason])
    return DatasetSummary(split, rows, evaluation_split, 0, proposal, is_judged=True)


def _write_recipe(
    dataset: str, inspected: Source, summary: DatasetSummary, training: Proposal, base: str, output: Path
) -> str:
    loss, reason = LOSSES[training.format, training.label_kind]
    how = inspected.model_dump(include={"config", "read"}, exclude_defaults=True)
    source = {"dataset": _relative_to(output, dataset), **how}
    evaluators = _choose_evaluators(source, summary, training)
    group = "anchor" if summary.is_judged else summary.group
    holdout = {"fraction": 0.1} | ({"by": group} if group else {})
    held_out = {"holdout": holdout} if any("from" in evaluator for evaluator in evaluators) else {}
    data = source | {"split": summary.split, "format": training.format, "columns": training.columns}
    model, rate = _choose_model(base, output)
    train: dict[str, Any] = {"epochs": 1, "batch_size": 64 if loss == "multiple_negatives_ranking" else 32}
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        *_comment(f"Written by `stfit init` based on {summary.rows} rows. Correct anything that it guessed wrong."),
        "#",
        f"#   stfit check {output.name}",
        f"#   stfit train {output.name}",
        "version: 1",
        "",
        *_section("model", model),
        "",
        *_comment(*training.reasons),
        *_section("data", data | training.options | held_out),
        "",
        *_comment(reason),
        f"loss: {loss}",
        "",
        *_section("train", train | rate),
        "",
        *_comment(_explain_evaluation(evaluators, summary)),
        *(["eval:"] if evaluators else []),
        *(line for evaluator in evaluators for line in _item(evaluator)),
    ]
    return "\n".join(lines) + "\n"


def _choose_model(base: str, output: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The section `model`, and the learning rate if the default does not suit the base."""
    if base.endswith(VECTOR_SUFFIXES):
        vectors = _relative_to(output, base)
        return {"base": {"type": "static", "vectors": vectors}}, {"learning_rate": VECTORS_RATE}
    if base not in RATES:
        is_folder = not looks_like_path(base) and Path(base).is_dir()
        return {"base": _relative_to(output, f"./{base}" if is_folder else base)}, {}
    # A bag of words has no weights of its own.
    layers = {"layers": [{"type": "dense", "out_features": 256}]} if base == "bag_of_words" else {}
    return {"base": {"type": base}} | layers, {"learning_rate": RATES[base]}


def _choose_evaluators(source: dict[str, Any], summary: DatasetSummary, training: Proposal) -> list[dict[str, Any]]:
    """With binary labels, dissimilar pairs are evaluated too, although only similar ones are used for training."""
    if summary.is_judged:
        test = {"type": "retrieval", **source, "split": summary.evaluation_split}
        return [*([test] if summary.evaluation_split else []), {"type": "retrieval", "from": "holdout"}]
    proposal = training if summary.evaluation_split is None else summary.proposal
    kind = EVALUATORS.get((proposal.format, proposal.label_kind))
    if kind is None:
        return []
    if summary.evaluation_split is None:
        return [{"type": kind, "from": "holdout"}]
    limit = {"shuffle": True, "limit": EVALUATION_ROWS} if summary.evaluation_rows > EVALUATION_ROWS else {}
    train_split = {"train_split": summary.split} if kind == "classification" and summary.split != "train" else {}
    evaluator = {"type": kind, **source, "split": summary.evaluation_split, **train_split, "columns": proposal.columns}
    return [evaluator | proposal.options | limit]


def _explain_evaluation(evaluators: list[dict[str, Any]], summary: DatasetSummary) -> str:
    if not evaluators:
        return "No evaluation: stfit has no evaluator for rows like these. To add one on another dataset, use `eval`."
    evaluator = evaluators[0]
    if len(evaluators) > 1:
        return (
            f"Search in the whole corpus for the queries of the split {summary.evaluation_split}; and, among the "
            "documents held out, for queries that are not trained."
        )
    if summary.group:
        return (
            "This measures how well generated anchors find their passages in documents that are held out: a proxy. "
            "Add an evaluator on questions that people have asked, with the documents that answer them."
        )
    if "from" in evaluator:
        return "There is no evaluation split, so some rows are held out of training."
    limit = f", {EVALUATION_ROWS} of its {summary.evaluation_rows} rows" if "limit" in evaluator else ""
    return f"Evaluated before, during and after training on the split {summary.evaluation_split}{limit}."


def _relative_to(output: Path, location: str) -> str:
    """A relative path, rewritten relative to the recipe's folder; Hub ids and absolute paths are unchanged."""
    if not looks_like_path(location) or os.path.isabs(location):
        return location
    path = os.path.relpath(os.path.expanduser(location), output.parent)
    return path if path.startswith("..") else f"./{path}"


def _section(key: str, values: dict[str, Any]) -> list[str]:
    """A mapping with one line per value."""
    return [f"{key}:", *(f"  {line}" for line in _lines(values))]


def _item(values: dict[str, Any]) -> list[str]:
    """The same as an item of a list."""
    first, *others = _lines(values)
    return [f"  - {first}", *(f"    {line}" for line in others)]


def _lines(values: dict[str, Any]) -> list[str]:
    return [f"{name}: {to_inline_yaml(value)}" for name, value in values.items()]


def _comment(*texts: str) -> list[str]:
    return [f"# {line}" for text in texts for line in textwrap.wrap(text, 100)]
