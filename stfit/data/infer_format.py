"""Infer the training format of a table, with a selector for every role and the kind of its labels.

Names of columns are hints, and their cells decide: a label is what holds a few values or numbers, a text is what does
not. Whatever is proposed comes with its reason, so that a wrong guess is seen and put right in the recipe.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stfit.data.mapping.filters import number_in
from stfit.data.mapping.labels import LabelKind
from stfit.data.table import Table
from stfit.errors import DataError, Problem

Kind = Literal["text", "texts", "classes", "number", "other"]

ID = re.compile(r"(^|.*[._-])(id|idx|ids|index|guid|uuid|qid|pid)\d*", re.IGNORECASE)
LABEL = re.compile(
    r".*(label|score|similarity|relatedness|rating|class|categor|topic|intent|target|gold|duplicate|paraphrase|^is_)",
    re.IGNORECASE,
)
NEGATIVE = re.compile(r"(.*[._ -])?(hard_?)?neg(ative)?(s|_.*|\d+)?", re.IGNORECASE)
POSITIVE = re.compile(r"(.*[._ -])?(pos(itive)?(s|_.*)?|answers?|response|document|passage)", re.IGNORECASE)
OPPOSITE = ("not", "non", "no_", "un", "dis")
"""How the name of the class of dissimilar pairs starts."""
NLI = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
MAX_CLASSES = 300
MAX_CLASS_CHARACTERS = 60
MAX_NEGATIVES = 5
MAX_PAIR_CLASSES = 3
"""Beside two texts, more classes than these are subjects of either text, and not relations between the two."""


@dataclass(frozen=True)
class ColumnProfile:
    """A column, or a key inside a column of mappings, and its cells that are not null."""

    selector: str
    kind: Kind
    cells: list[Any]

    @property
    def name(self) -> str:
        """The last key."""
        return self.selector.rpartition(".")[2]


@dataclass(frozen=True)
class Proposal:
    """The keys of a source that say what its rows mean."""

    format: str
    columns: dict[str, str | list[str]]
    label_kind: LabelKind = "none"
    options: dict[str, Any] = field(default_factory=dict)
    """`where`, `label_map`, `label_range`: those that are needed."""
    reasons: list[str] = field(default_factory=list)
    similar: int | bool = 1
    """The label of similar pairs, where it is binary."""

    def similar_only(self) -> Proposal:
        """Binary labelled pairs as positive pairs: the rows whose label says that they are similar."""
        label = str(self.columns["label"])
        return Proposal(
            "positive_pair",
            {"anchor": self.columns["sentence1"], "positive": self.columns["sentence2"]},
            options={"where": {label: self.similar}},
            reasons=[
                *self.reasons,
                f"Trains on the pairs whose {label} is {str(self.similar).lower()}; the other texts of a batch are "
                "their negatives. To learn from the dissimilar pairs too, use format labeled_pair with loss "
                "online_contrastive.",
            ],
        )


def infer_format(table: Table) -> Proposal:
    """The most telling format that the columns allow. Raises DataError, with what was seen, where there is none."""
    leaves = [leaf for name, cells in table.columns.items() for leaf in _leaves_of(name, cells)]
    leaves = [leaf for leaf in leaves if not _is_id(leaf)]
    negatives = [leaf for leaf in leaves if leaf.kind in ("text", "texts") and NEGATIVE.fullmatch(leaf.name)]
    texts = [leaf for leaf in leaves if leaf.kind == "text" and leaf not in negatives]
    lists = [leaf for leaf in leaves if leaf.kind == "texts" and leaf not in negatives]
    label = _choose_label(table, leaves, alone=len(texts) == 1 and not lists)
    if negatives and len(texts) + len(lists) >= 2:
        return _propose_triplet(texts, lists, negatives)
    if label and len(texts) >= 2 and not _is_subject(label):
        return _propose_labeled_pair(table, texts, label)
    if label and texts:
        return _propose_labeled_text(texts, label)
    if len(texts) + len(lists) >= 2 or lists:
        return _propose_positive_pair(texts, lists)
    if texts:
        reason = f"{texts[0].selector} is the only text column, and no column has class labels."
        return Proposal("text", {"text": texts[0].selector}, reasons=[reason])
    seen = ", ".join(f"{leaf.selector} ({leaf.kind})" for leaf in leaves) or ", ".join(table.columns) or "nothing"
    message = (
        f"no format fits these columns: {seen}. Training needs one or two texts per row, with or without a label, "
        "or a list of texts with the same meaning. If the data has these, write the recipe by hand"
    )
    raise DataError(Problem(message, "no-format", table.origin))


def _leaves_of(selector: str, cells: list[Any]) -> list[ColumnProfile]:
    """The leaves of one column, those inside mappings under their keys."""
    known = [cell for cell in cells if cell is not None and cell != "" and cell != []]
    if known and all(isinstance(cell, dict) for cell in known):
        keys = dict.fromkeys(key for cell in known for key in cell)
        return [
            leaf
            for key in keys
            if not set(key) & set(".[]")  # which no selector can spell
            for leaf in _leaves_of(f"{selector}.{key}", [cell.get(key) for cell in known])
        ]
    return [ColumnProfile(selector, _kind_of(known), known)]


def _kind_of(cells: list[Any]) -> Kind:
    if not cells:
        return "other"
    if all(isinstance(cell, list) and all(isinstance(item, str) for item in cell) for cell in cells):
        return "texts"
    if all(isinstance(cell, (bool, int, float)) for cell in cells):
        return "number"
    if not all(isinstance(cell, str) for cell in cells):
        return "other"
    if all(number_in(cell) is not None for cell in cells):
        return "number"  # a CSV file
    distinct = set(cells)
    few = len(distinct) <= min(MAX_CLASSES, len(cells) // 4)
    return "classes" if few and max(map(len, distinct)) <= MAX_CLASS_CHARACTERS else "text"


def _is_id(leaf: ColumnProfile) -> bool:
    return leaf.kind not in ("texts", "other") and ID.fullmatch(leaf.name) is not None


def _choose_label(table: Table, leaves: list[ColumnProfile], alone: bool) -> ColumnProfile | None:
    """The column to take as the label: scores before classes, then the first one without classes of a single row.

    `alone`: a single text has a class and no score, and any column of classes will do, whatever its name.
    """
    named = [
        leaf
        for leaf in leaves
        if leaf.kind in ("number", "classes")
        and (LABEL.match(leaf.name) or leaf.selector in table.label_names or (alone and leaf.kind == "classes"))
        and not (alone and _label_kind_of(leaf) == "score")
    ]
    order = {"score": 0, "binary": 1, "class": 2}
    return min(
        named, key=lambda leaf: (order[_label_kind_of(leaf)], _is_subject(leaf) and _has_singles(leaf)), default=None
    )


def _label_kind_of(leaf: ColumnProfile) -> Literal["binary", "class", "score"]:
    if leaf.kind == "classes":
        return "class"
    numbers = {number_in(cell) for cell in leaf.cells}
    if numbers <= {0, 1}:
        return "binary" if all(isinstance(number, int) for number in numbers) else "score"
    graded = re.search("score|similarity|relatedness|rating", leaf.name, re.IGNORECASE)
    return "score" if graded or not all(isinstance(number, int) for number in numbers) else "class"


def _is_subject(leaf: ColumnProfile) -> bool:
    """Whether the label has more classes than there are relations between two texts."""
    return _label_kind_of(leaf) == "class" and len(set(leaf.cells)) > MAX_PAIR_CLASSES + 1  # SNLI has a fourth: -1


def _has_singles(leaf: ColumnProfile) -> bool:
    """Whether some class has only one row, which is no positive for any other."""
    return min(Counter(leaf.cells).values()) == 1


def _propose_triplet(
    texts: list[ColumnProfile], lists: list[ColumnProfile], negatives: list[ColumnProfile]
) -> Proposal:
    """An anchor, its positive, and its negatives: one column, several, or a list."""
    anchor, positive = _anchor_and_positive([*texts, *lists])
    columns: dict[str, str | list[str]] = {"anchor": _first_of(anchor), "positive": _each_of(positive)}
    if len(negatives) > 1:
        columns["negative"] = [_first_of(leaf) for leaf in negatives]
    else:
        listed = negatives[0].kind == "texts"
        columns["negative"] = f"{negatives[0].selector}[:{MAX_NEGATIVES}]" if listed else negatives[0].selector
    reason = f"Each row has its own negatives: {', '.join(leaf.selector for leaf in negatives)}."
    return Proposal("triplet", columns, reasons=[reason, *_notes([anchor, positive], texts)])


def _propose_positive_pair(texts: list[ColumnProfile], lists: list[ColumnProfile]) -> Proposal:
    if lists and len(texts) + len(lists) == 1:
        selector = lists[0].selector
        if all(len(cell) == 2 for cell in lists[0].cells):
            return Proposal(
                "positive_pair",
                {"anchor": f"{selector}[0]", "positive": f"{selector}[1]"},
                reasons=[f"{selector} has two texts per row, which are taken to mean the same."],
            )
        return Proposal(
            "positive_pair",
            {"anchor": f"{selector}[*]", "positive": f"{selector}[*]"},
            reasons=[f"{selector} has several texts per row that mean the same: every two of them form a pair."],
        )
    anchor, positive = _anchor_and_positive([*texts, *lists])
    reason = f"{anchor.selector} and {positive.selector} of a row belong together, and no column has labels."
    return Proposal(
        "positive_pair",
        {"anchor": _first_of(anchor), "positive": _each_of(positive)},
        reasons=[reason, *_notes([anchor, positive], texts)],
    )


def _anchor_and_positive(leaves: list[ColumnProfile]) -> tuple[ColumnProfile, ColumnProfile]:
    positive = next((leaf for leaf in leaves if POSITIVE.fullmatch(leaf.name)), None) or leaves[1]
    return next(leaf for leaf in leaves if leaf is not positive), positive


def _first_of(leaf: ColumnProfile) -> str:
    return f"{leaf.selector}[0]" if leaf.kind == "texts" else leaf.selector


def _each_of(leaf: ColumnProfile) -> str:
    several = leaf.kind == "texts" and any(len(cell) > 1 for cell in leaf.cells)
    return f"{leaf.selector}[*]" if several else _first_of(leaf)


def _notes(used: list[ColumnProfile], texts: list[ColumnProfile]) -> list[str]:
    unused = [leaf.selector for leaf in texts if leaf not in used]
    return [f"Not used: {', '.join(unused)}."] if unused else []


def _propose_labeled_text(texts: list[ColumnProfile], label: ColumnProfile) -> Proposal:
    """A text and its class; several texts of a row are each one of that class."""
    selectors = [leaf.selector for leaf in texts]
    columns: dict[str, str | list[str]] = {"text": selectors if len(texts) > 1 else selectors[0]}
    reason = f"{label.selector} assigns each row to one of {len(set(label.cells))} classes."
    return Proposal("labeled_text", columns | {"label": label.selector}, "class", reasons=[reason])


def _propose_labeled_pair(table: Table, texts: list[ColumnProfile], label: ColumnProfile) -> Proposal:
    """Two texts and what is said of them: a score, a yes or no, or a class."""
    columns: dict[str, str | list[str]] = {
        "sentence1": texts[0].selector,
        "sentence2": texts[1].selector,
        "label": label.selector,
    }
    kind = _label_kind_of(label)
    proposal = Proposal("labeled_pair", columns, kind, reasons=_notes(texts[:2], texts))
    names = table.label_names.get(label.selector) or sorted({cell for cell in label.cells if isinstance(cell, str)})
    if kind == "score":
        return _score_labels(proposal, label)
    if kind == "binary":
        return _binary_labels(proposal, label, names)
    return _class_labels(proposal, label, names)


def _score_labels(proposal: Proposal, label: ColumnProfile) -> Proposal:
    """A score, rescaled where it does not go from 0 to 1."""
    numbers = [number for cell in label.cells if (number := number_in(cell)) is not None]
    low, high = min(numbers), max(numbers)
    summary = f"{label.selector} is a similarity score from {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return replace(proposal, reasons=[f"{summary}.", *proposal.reasons])
    bounds = [math.floor(low), math.ceil(high)]
    reason = f"{summary}: label_range rescales it to 0..1. If the scale is wider than the data, set its ends here."
    return replace(proposal, options={"label_range": bounds}, reasons=[reason, *proposal.reasons])


def _binary_labels(proposal: Proposal, label: ColumnProfile, names: list[str]) -> Proposal:
    """Similar or not; the names of the classes say which is which, else 1 is taken to mean similar."""
    swapped = len(names) == 2 and names[1].lower().startswith(OPPOSITE)
    similar: int | bool = 0 if swapped else 1
    if all(isinstance(cell, bool) for cell in label.cells):
        similar = bool(similar)
    reason = f"{label.selector} is 0 or 1; {str(similar).lower()} is taken to mean that the texts are similar."
    options = {"label_map": {names[0]: 1, names[1]: 0}} if swapped else {}
    return replace(proposal, options=options, similar=similar, reasons=[reason, *proposal.reasons])


def _class_labels(proposal: Proposal, label: ColumnProfile, names: list[str]) -> Proposal:
    """A relation between the texts; that of natural language inference is also a score."""
    # The Hub's NLI sets write -1 where the annotators did not agree.
    unsure = any(isinstance(cell, int) and cell < 0 for cell in label.cells)
    options: dict[str, Any] = {"where": {label.selector: {"min": 0}}} if unsure else {}
    by_name = {name: NLI[name.lower()] for name in names if name.lower() in NLI}
    if set(by_name.values()) == set(NLI.values()) and len(by_name) == len(names):
        reason = f"{label.selector} is the relation of natural language inference, read as a similarity by label_map."
        options["label_map"] = by_name
        return replace(proposal, label_kind="score", options=options, reasons=[reason, *proposal.reasons])
    reason = f"{label.selector} has {len(set(label.cells))} classes of pairs."
    return replace(proposal, options=options, reasons=[reason, *proposal.reasons])
