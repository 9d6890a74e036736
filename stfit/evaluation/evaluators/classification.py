"""How well can classes of texts be predicted from their embeddings?"""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stfit.data.checks.leakage import are_among, numbers_of
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.load_examples import load_examples
from stfit.data.reading.load_table import split_of
from stfit.data.source import ROWS_SEED
from stfit.data.table import name_rows
from stfit.errors import MAX_SHOWN, DataError, Problem
from stfit.evaluation.base import Embed, EvaluatorBase, TrainAndHoldout
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.neighbors.exact import nearest

METRICS = {
    "knn": ("knn_accuracy", "knn_f1"),
    "logistic": ("logistic_accuracy", "logistic_f1"),
    "clusters": ("v_measure",),
}
"""Method -> its metrics."""


@dataclass(frozen=True)
class Classes:
    """Texts with their classes: those to learn from (`known`), and those to classify (`measured`)."""

    known: Examples
    measured: Examples

    @property
    def texts(self) -> dict[str, list[str]]:
        return {"text": [*self.known.column("text"), *self.measured.column("text")]}


class Classification(EvaluatorBase):
    """Predicts the class of texts from their embeddings in three ways.

    By the nearest labeled texts (k-NN with the model's similarity function), by logistic regression, and without labels
    by k-means clusters (V-measure).
    """

    type: Literal["classification"] = "classification"
    format = "labeled_text"
    per_similarity = False
    train_split: str = "train"
    """Split of the labeled texts to learn from; with `from: holdout`, the training data is used."""
    train_limit: int | None = Field(None, gt=0)
    """Maximum number of texts to learn from, drawn at random. Logistic regression on many classes takes long."""
    methods: list[Literal["knn", "logistic", "clusters"]] = Field(["knn", "logistic", "clusters"], min_length=1)
    """Which of the three are measured. The first one gives the main metric."""
    k: int = Field(5, gt=0)
    """Number of nearest labeled texts that vote."""

    @property
    def metrics(self) -> list[str]:
        return [name for method, names in METRICS.items() if method in self.methods for name in names]

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return METRICS[self.methods[0]][0]

    def load(self, seed: int, training: TrainAndHoldout | None) -> Classes:
        if training is not None and self.from_ is not None:
            known, measured = training[0], self.held_out(training)
        else:
            source = self.model_copy(update={"split": self.train_split})
            if split_of(source) == split_of(self):
                raise DataError(
                    f"evaluator `{self.label}` would classify the texts that it learns from: set `train_split` and "
                    "`split` to different rows, such as `train[:80%]` and `train[80%:]`"
                )
            known = load_examples(source, self.format, seed)[0]
            measured = load_examples(self, self.format, seed, keep=self.kept_columns)[0]
        known = self._limited(known)
        if "score" in (known.label_kind, measured.label_kind):
            raise DataError(f"evaluator `{self.label}` needs labels that are classes, not scores")
        if known.label is None or np.ptp(known.label) == 0:
            message = f"evaluator `{self.label}` needs texts of several classes to learn from, but all are of one class"
            raise DataError(message)
        return Classes(known, _numbered_as(known, measured))

    def _limited(self, known: Examples) -> Examples:
        if self.train_limit is None or len(known) <= self.train_limit:
            return known
        chosen = np.random.default_rng(ROWS_SEED).permutation(len(known))[: self.train_limit]
        return known.take(np.sort(chosen))

    def _sliced_examples(self, rows: Classes) -> Examples:
        return rows.measured

    def measure(self, rows: Classes, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Of classes with equal votes, the one with the nearest voter wins; F1 is the mean over the classes.

        V-measure: Rosenberg and Hirschberg, 2007, https://aclanthology.org/D07-1043; a cluster for each class.
        """
        label, known_label = rows.measured.label, rows.known.label
        assert label is not None
        assert known_label is not None
        vectors = embed("text", rows.measured.column("text"))
        found: dict[str, Statistic] = {}
        if {"knn", "logistic"} & {*self.methods}:
            known = embed("text", rows.known.column("text"))
        if "knn" in self.methods:
            _, index_rk = nearest(vectors, [known], self.k, similarity)
            found |= _scores("knn", label, _vote(known_label[index_rk]))
        if "logistic" in self.methods:
            found |= _scores("logistic", label, _regress(known, known_label, vectors))
        if "clusters" in self.methods:
            found["v_measure"] = v_measure(label, _clusters(vectors, len(np.unique(label))))
        return found

    def examples_of(self, rows: Any) -> Examples:
        return rows.measured

    def problems_of(self, rows: Any) -> list[Problem]:
        label, problems = rows.measured.label, []
        if len(unknown := rows.measured.row[~np.isin(label, rows.known.label)].tolist()):
            share = f"{len(unknown)} of {len(label)} texts have a class that no text to learn from has"
            message = f"{share} ({name_rows(unknown)}), and count as wrong"
            problems.append(Problem(message, "unknown-classes", self.origin, row=unknown[0]))
        measured, known = (numbers_of(examples.texts["text"]) for examples in (rows.measured, rows.known))
        # Those of a holdout are reported as shared with training.
        if self.from_ is None and len(shared := rows.measured.row[are_among(measured, known)].tolist()):
            share = f"{len(shared)} of {len(label)} texts to classify are among those to learn from"
            message = f"{share} ({name_rows(shared)}), and so are easy: remove them from one of the two, `train_split`"
            message += " or `split`"
            problems.append(Problem(message, "shared-texts", self.origin, row=shared[0]))
        if np.ptp(label) == 0:
            message = "all texts to classify have one class, so `v_measure` can't tell models apart"
            problems.append(Problem(message, "one-class", self.origin))
        return problems


def _scores(method: str, label: np.ndarray, predicted: np.ndarray) -> dict[str, Statistic]:
    return {f"{method}_accuracy": mean_of(predicted == label), f"{method}_f1": macro_f1(label, predicted)}


def _regress(known: np.ndarray, known_label: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    from sklearn import exceptions, linear_model

    with warnings.catch_warnings():  # of a collapsed model, which the accuracy shows
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        return linear_model.LogisticRegression(max_iter=1000).fit(known, known_label).predict(vectors)


def _clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    from sklearn import cluster, exceptions

    with warnings.catch_warnings():  # a collapsed model gives fewer clusters, which V-measure shows
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        return cluster.KMeans(count, n_init=1, random_state=0).fit_predict(vectors)


def _numbered_as(known: Examples, measured: Examples) -> Examples:
    """With the numbers that the same classes have in `known`: splits may lack some, or name them in another order."""
    if measured.label is None or known.label_names == measured.label_names:
        return measured
    known_names, names = _class_names(known), _class_names(measured)
    number = {name: position for position, name in enumerate(known_names)}
    if not number.keys() & set(names):
        listed = [", ".join(shown[:MAX_SHOWN]) for shown in (names, known_names)]
        message = f"none of the classes to measure ({listed[0]}) is among those to learn from ({listed[1]})"
        raise DataError(Problem(f"{message}: `label_map` renames them", "bad-label", key="columns.label"))
    new = [number.get(name, len(known_names) + position) for position, name in enumerate(names)]
    return replace(measured, label=np.array(new)[measured.label], label_names=None)


def _class_names(examples: Examples) -> list[str]:
    return examples.label_names or [str(number) for number in range(examples.num_classes or 0)]


def _vote(label_rk: np.ndarray) -> np.ndarray:
    """The most frequent label of each row; of tied labels, the first."""
    votes_rk = (label_rk[:, :, None] == label_rk[:, None, :]).sum(axis=2)
    return np.take_along_axis(label_rk, votes_rk.argmax(axis=1)[:, None], axis=1)[:, 0]


def _contingency_cells(first_r: np.ndarray, second_r: np.ndarray) -> tuple[np.ndarray, int]:
    """Each row's cell in the table of both groupings [n, n] (flat), and n."""
    names, numbers = np.unique([first_r, second_r], return_inverse=True)
    first_r, second_r = numbers.reshape(2, -1)
    return first_r * len(names) + second_r, len(names)


def macro_f1(label_r: np.ndarray, predicted_r: np.ndarray) -> Statistic:
    """Mean F1 of the classes that occur as a label or as a prediction."""
    cell_r, classes = _contingency_cells(label_r, predicted_r)

    def at(weight_r: np.ndarray) -> float:
        table = np.bincount(cell_r, weight_r, classes**2).reshape(classes, classes)
        both = table.sum(axis=0) + table.sum(axis=1)
        return float((2 * table.diagonal()[both > 0] / both[both > 0]).mean())

    return Statistic(len(label_r), at)


def v_measure(label_r: np.ndarray, cluster_r: np.ndarray) -> Statistic:
    """Harmonic mean of homogeneity and completeness; 0 if clusters are independent of classes."""
    cell_r, groups = _contingency_cells(label_r, cluster_r)

    def at(weight_r: np.ndarray) -> float:
        table = np.bincount(cell_r, weight_r, groups**2).reshape(groups, groups) / weight_r.sum()
        labels, clusters = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
        shared = labels + clusters - _entropy(table.ravel())
        if labels == 0 or clusters == 0:
            return float(labels == clusters)
        return max(0.0, 2 * shared / (labels + clusters))

    return Statistic(len(label_r), at)


def _entropy(share: np.ndarray) -> float:
    """In nats."""
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
