"""Infer the training format of a table: which column plays which role, and what kind of label it has.

Names of columns suggest candidates, their cells decide. Each decision has a reason, which `stfit init` writes into the
recipe as a comment.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Any, Literal

from stfit.data.mapping.cells import is_missing, number_in
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
"""Prefixes in the name of the class of dissimilar pairs."""
NLI = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
MAX_CLASSES = 300
MAX_CLASS_CHARACTERS = 60
MAX_NEGATIVES = 5
MAX_PAIR_CLASSES = 4
"""Maximum number of classes for relations between two texts (SNLI has a fourth: -1). More are topics of a text."""


@dataclass(frozen=True)
class ColumnProfile:
    """A column, or a key inside a column of mappings, with its cells that are not empty."""

    selector: str
    kind: Kind
    cells: list[Any]
    inside: str = ""
    """Path to the text in each element of a list of mappings."""

    @property
    def name(self) -> str:
        return self.selector.rpartition(".")[2]


@dataclass(frozen=True)
class Proposal:
    format: str
    columns: dict[str, str | list[str]]
    label_kind: LabelKind = "none"
    options: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    similar: int | bool = 1
    """The label of similar pairs, if labels are binary."""

    def similar_only(self) -> Proposal:
        label, similar = str(self.columns["label"]), str(self.similar).lower()
        reason = (
            f"Trains on the pairs whose {label} is {similar}; the other texts of a batch are their negatives. To "
            "learn from the dissimilar pairs too, use format labeled_pair with loss online_contrastive."
        )
        columns = {"anchor": self.columns["sentence1"], "positive": self.columns["sentence2"]}
        options = {"where": {label: self.similar}}
        return Proposal("positive_pair", columns, options=options, reasons=[*self.reasons, reason])


def infer_format(table: Table) -> Proposal:
    """The most informative format that the columns allow. Raises DataError, with the columns, if there is none."""
    profiles = [
        profile
        for name, cells in table.columns.items()
        for profile in _profile(name, cells)
        if profile.kind in ("texts", "other") or not ID.fullmatch(profile.name)
    ]
    negatives = [column for column in profiles if column.kind in ("text", "texts") and NEGATIVE.fullmatch(column.name)]
    texts = [column for column in profiles if column.kind == "text" and column not in negatives]
    lists = [column for column in profiles if column.kind == "texts" and column not in negatives]
    label = _choose_label(table, profiles, single_text=len(texts) == 1 and not lists)
    if negatives and len(texts) + len(lists) >= 2:
        return _propose_triplet(texts, lists, negatives)
    if label and len(texts) >= 2 and not _is_topic(label):
        return _propose_labeled_pair(table, texts, label)
    if label and texts:
        return _propose_labeled_text(texts, label)
    if len(texts) + len(lists) >= 2 or lists:
        return _propose_positive_pair(texts, lists)
    if texts:
        reason = f"{texts[0].selector} is the only text column, and no column has class labels."
        return Proposal("text", {"text": texts[0].selector}, reasons=[reason])
    columns = ", ".join(f"{profile.selector} ({profile.kind})" for profile in profiles)
    message = (
        f"no format fits these columns: {columns or ', '.join(table.columns) or 'none'}. Training needs one or two "
        "texts per row, with or without a label, or a list of texts with the same meaning. If the data has these, "
        "write the recipe by hand"
    )
    raise DataError(Problem(message, "no-format", table.origin))


def _profile(selector: str, cells: list[Any]) -> list[ColumnProfile]:
    cells = [cell for cell in cells if not is_missing(cell) and cell != []]
    if cells and all(isinstance(cell, dict) for cell in cells):
        keys = dict.fromkeys(key for cell in cells for key in cell)
        return [
            profile
            for key in keys
            if not set(key) & set(".[]")  # a selector can't contain them
            for profile in _profile(f"{selector}.{key}", [cell.get(key) for cell in cells])
        ]
    if cells and all(isinstance(cell, list) and all(isinstance(item, dict) for item in cell) for cell in cells):
        return _profile_elements(selector, cells)
    return [ColumnProfile(selector, _kind_of(cells), cells)]


def _profile_elements(selector: str, cells: list[list[dict[str, Any]]]) -> list[ColumnProfile]:
    """A list of mappings is a list of texts: those under the key `text`, or under the one with the longest texts."""
    characters: Counter[str] = Counter()
    for name, item in chain.from_iterable(element.items() for cell in cells for element in cell):
        if isinstance(item, str) and not ID.fullmatch(name) and not set(name) & set(".[]"):
            characters[name] += len(item)
    if not characters:
        return [ColumnProfile(selector, "other", cells)]
    key = "text" if "text" in characters else characters.most_common(1)[0][0]
    texts = [[element.get(key) for element in cell] for cell in cells]
    return [ColumnProfile(selector, "texts", texts, f".{key}")]


def _kind_of(cells: list[Any]) -> Kind:
    if not cells:
        return "other"
    if all(isinstance(cell, list) and all(isinstance(item, str) for item in cell) for cell in cells):
        return "texts"
    if all(isinstance(cell, (bool, int, float, Decimal)) for cell in cells):
        return "number"
    if not all(isinstance(cell, str) for cell in cells):
        return "other"
    if all(number_in(cell) is not None for cell in cells):
        return "number"  # a CSV file
    distinct = set(cells)
    few = len(distinct) <= min(MAX_CLASSES, len(cells) // 4)
    return "classes" if few and max(map(len, distinct)) <= MAX_CLASS_CHARACTERS else "text"


def _choose_label(table: Table, profiles: list[ColumnProfile], single_text: bool) -> ColumnProfile | None:
    """A score before a class, and topics with a single row last. The label of a single text is a class, of any name."""
    candidates = [
        profile
        for profile in profiles
        if profile.kind in ("number", "classes")
        and (
            LABEL.match(profile.name)
            or profile.selector in table.label_names
            or (single_text and profile.kind == "classes")
        )
        and not (single_text and _label_kind(profile) == "score")
    ]
    order = ("score", "binary", "class")
    return min(
        candidates,
        key=lambda label: (
            order.index(_label_kind(label)),
            _is_topic(label) and min(Counter(label.cells).values()) == 1,
        ),
        default=None,
    )


def _label_kind(label: ColumnProfile) -> Literal["binary", "class", "score"]:
    if label.kind == "classes":
        return "class"
    numbers = {number_in(cell) for cell in label.cells}
    integers = all(number is not None and float(number).is_integer() for number in numbers)
    if numbers <= {0, 1}:
        return "binary"
    graded = re.search("score|similarity|relatedness|rating", label.name, re.IGNORECASE)
    return "score" if graded or not integers else "class"


def _is_topic(label: ColumnProfile) -> bool:
    return _label_kind(label) == "class" and len(set(label.cells)) > MAX_PAIR_CLASSES


def _propose_triplet(
    texts: list[ColumnProfile], lists: list[ColumnProfile], negatives: list[ColumnProfile]
) -> Proposal:
    anchor, positive = _choose_anchor_and_positive([*texts, *lists])
    columns: dict[str, str | list[str]] = {"anchor": _first_text(anchor), "positive": _every_text(positive)}
    if len(negatives) > 1:
        columns["negative"] = [_first_text(negative) for negative in negatives]
    else:
        is_list = negatives[0].kind == "texts"
        several = f"{negatives[0].selector}[:{MAX_NEGATIVES}]{negatives[0].inside}"
        columns["negative"] = several if is_list else negatives[0].selector
    reason = f"Each row has its own negatives: {', '.join(negative.selector for negative in negatives)}."
    return Proposal("triplet", columns, reasons=[reason, *_unused_note([anchor, positive], texts)])


def _propose_positive_pair(texts: list[ColumnProfile], lists: list[ColumnProfile]) -> Proposal:
    columns: dict[str, str | list[str]]
    if lists and len(texts) + len(lists) == 1:
        selector, inside = lists[0].selector, lists[0].inside
        columns = {"anchor": f"{selector}[*]{inside}", "positive": f"{selector}[*]{inside}"}
        reason = f"{selector} has several texts per row that mean the same: every two of them form a pair."
        if all(len(cell) == 2 for cell in lists[0].cells):
            columns = {"anchor": f"{selector}[0]{inside}", "positive": f"{selector}[1]{inside}"}
            reason = f"{selector} has two texts per row, which are taken to mean the same."
        return Proposal("positive_pair", columns, reasons=[reason])
    anchor, positive = _choose_anchor_and_positive([*texts, *lists])
    columns = {"anchor": _first_text(anchor), "positive": _every_text(positive)}
    reason = f"{anchor.selector} and {positive.selector} of a row belong together, and no column has labels."
    return Proposal("positive_pair", columns, reasons=[reason, *_unused_note([anchor, positive], texts)])


def _choose_anchor_and_positive(profiles: list[ColumnProfile]) -> tuple[ColumnProfile, ColumnProfile]:
    positive = next((profile for profile in profiles if POSITIVE.fullmatch(profile.name)), profiles[1])
    return next(profile for profile in profiles if profile is not positive), positive


def _first_text(profile: ColumnProfile) -> str:
    return f"{profile.selector}[0]{profile.inside}" if profile.kind == "texts" else profile.selector


def _every_text(profile: ColumnProfile) -> str:
    several = profile.kind == "texts" and any(len(cell) > 1 for cell in profile.cells)
    return f"{profile.selector}[*]{profile.inside}" if several else _first_text(profile)


def _unused_note(used: list[ColumnProfile], texts: list[ColumnProfile]) -> list[str]:
    unused = [profile.selector for profile in texts if profile not in used]
    return [f"Not used: {', '.join(unused)}."] if unused else []


def _propose_labeled_text(texts: list[ColumnProfile], label: ColumnProfile) -> Proposal:
    selectors = [profile.selector for profile in texts]
    columns: dict[str, str | list[str]] = {"text": selectors if len(texts) > 1 else selectors[0]}
    reason = f"{label.selector} assigns each row to one of {len(set(label.cells))} classes."
    return Proposal("labeled_text", columns | {"label": label.selector}, "class", reasons=[reason])


def _propose_labeled_pair(table: Table, texts: list[ColumnProfile], label: ColumnProfile) -> Proposal:
    names = table.label_names.get(label.selector) or sorted({cell for cell in label.cells if isinstance(cell, str)})
    kind: LabelKind = _label_kind(label)
    similar: int | bool = 1
    if kind == "score":
        options, reason = _read_scores(label)
    elif kind == "binary":
        swapped = len(names) == 2 and names[1].lower().startswith(OPPOSITE)
        is_bool = all(isinstance(cell, bool) for cell in label.cells)
        similar = not swapped if is_bool else int(not swapped)
        options = {"label_map": {names[0]: 1, names[1]: 0}} if swapped else {}
        reason = f"{label.selector} is 0 or 1; {str(similar).lower()} is taken to mean similar."
    else:
        kind, options, reason = _read_classes(label, names)
    first, second = (text.selector for text in texts[:2])
    columns: dict[str, str | list[str]] = {"sentence1": first, "sentence2": second, "label": label.selector}
    return Proposal("labeled_pair", columns, kind, options, [reason, *_unused_note(texts[:2], texts)], similar)


def _read_scores(label: ColumnProfile) -> tuple[dict[str, Any], str]:
    numbers = [number for cell in label.cells if (number := number_in(cell)) is not None]
    low, high = min(numbers), max(numbers)
    reason = f"{label.selector} is a similarity score from {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return {}, f"{reason}."
    advice = "label_range rescales it to 0..1. If the scale is wider than the data, set its ends here."
    return {"label_range": [math.floor(low), math.ceil(high)]}, f"{reason}: {advice}"


def _read_classes(label: ColumnProfile, names: list[str]) -> tuple[LabelKind, dict[str, Any], str]:
    # NLI sets on the Hub write -1 for rows without agreement between annotators.
    unsure = any(isinstance(cell, int) and cell < 0 for cell in label.cells)
    options: dict[str, Any] = {"where": {label.selector: {"min": 0}}} if unsure else {}
    if {name.lower() for name in names} == set(NLI):
        options["label_map"] = {name: NLI[name.lower()] for name in names}
        return "score", options, f"{label.selector} is an inference label; label_map turns it into a similarity score."
    return "class", options, f"{label.selector} has {len(set(label.cells))} classes of pairs."
