"""Values and gradients of 362 cases computed with sentence-transformers 6.2 (shared/oracles/oracle_losses.py)."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from stfit.errors import DataError, RecipeError
from stfit.losses.pairs import Softmax
from stfit.losses.registry import Loss, build_loss
from stfit.spec import union_members

TOLERANCES = {"float64": {"rel": 1e-9, "abs": 1e-12}, "float32": {"rel": 2e-5, "abs": 1e-6}}
CHOICES = {name: choice for choice in union_members(Loss) for name in choice.aliases}

PAIR = ["sentence1", "sentence2", "sentence3"]
ROLES = {
    "ContrastiveLoss": PAIR,
    "SoftmaxLoss": PAIR,
    "CosineSimilarityLoss": PAIR,
    "MultipleNegativesRankingLoss": ["anchor", "positive", "negative_1", "negative_2", "negative_3"],
    "MegaBatchMarginLoss": ["anchor", "positive", "negative"],
    "TripletLoss": ["anchor", "positive", "negative", "negative_2"],
    **{name: ["text", "text_2"] for name in CHOICES if name.startswith("Batch")},
}

SETTINGS = {
    "margin": lambda value: {"margin": float(value)},
    "triplet_margin": lambda value: {"margin": float(value)},
    "distance_metric": lambda value: {
        "distance": "squared_euclidean" if "squared" in value else value.lower().removesuffix("_distance")
    },
    "loss_fct": lambda value: {"error": {"L1Loss": "l1"}[value]},
    "cos_score_transformation": lambda value: {"transformation": value.lower()},
    "similarity_fct": lambda value: {"similarity": value.removesuffix("_score")},
    "partition_mode": lambda value: {"partition": value},
    "concatenation_sent_rep": lambda value: {"concatenate_embeddings": value},
    "concatenation_sent_difference": lambda value: {"concatenate_difference": value},
    "concatenation_sent_multiplication": lambda value: {"concatenate_product": value},
    "embedding_dimension": lambda value: {},  # this and the next are run-time facts
    "num_labels": lambda value: {},
    "use_mini_batched_version": lambda value: {},  # this and the next change no value
    "mini_batch_size": lambda value: {},
}
"""What the oracle calls a setting -> what a recipe calls it; any other has the same name."""


def spec_of(case):
    settings = {}
    for name, value in case["kwargs"].items():
        settings |= SETTINGS[name](value) if name in SETTINGS else {name: value}
    if "EUCLIDEAN" in case["case"]:  # some cases name the distance in their title only
        settings["distance"] = "euclidean"
    elif case["case"] == "TripletLoss/COSINE/m5/8x16/zero_row":
        settings["distance"] = "cosine"
    return CHOICES[case["loss_class"]](**settings)


class Run:
    """One case in one precision: the loss, ready to be called, and its inputs."""

    def __init__(self, case, arrays, dtype):
        self.dtype = getattr(torch, dtype)
        roles = ROLES[case["loss_class"]]
        self.columns = {
            role: self.tensor(arrays[key]).requires_grad_() for role, key in zip(roles, case["inputs"], strict=False)
        }
        self.label = None
        if case["labels"] is not None:
            self.label = torch.tensor(case["labels"], dtype=getattr(torch, case["label_dtype"]))
            if self.label.ndim == 2:
                self.label = self.label.to(self.dtype)
        spec = spec_of(case)
        self.loss = build_loss(spec, case["shape"][1], case["kwargs"].get("num_labels", 3))
        if isinstance(spec, Softmax):
            self.loss.to(self.dtype).load_state_dict(
                {
                    name: self.tensor(arrays[f"{case['case']}/{name}"])
                    for name in ("classifier.weight", "classifier.bias")
                }
            )

    def tensor(self, array):
        return torch.tensor(array, dtype=self.dtype)

    def value(self):
        return self.loss(self.columns, self.label)


def measure(case, run):
    """What the oracle recorded, measured on our loss."""
    value = run.value()
    value.backward()
    gradients = [column.grad.double() for column in run.columns.values()]
    probes = [
        np.random.default_rng(case["seed"] + 777 + i).standard_normal(case["shape"]) for i in range(len(gradients))
    ]
    found = {
        "loss": value.item(),
        "grad_norms": [gradient.norm().item() for gradient in gradients],
        "grad_probes": [(gradient.numpy() * probe).sum() for gradient, probe in zip(gradients, probes, strict=True)],
    }
    if isinstance(run.loss, torch.nn.Module):
        found["param_grads"] = {
            name: weight.grad.double().norm().item() for name, weight in run.loss.named_parameters()
        }
    return found


def matches(case, run, expected, tolerance):
    found = measure(case, run)
    for key, value in found.items():
        assert value == pytest.approx(expected[key], **tolerance), key


def refuses_the_columns(case, run, expected, tolerance):
    with pytest.raises(RecipeError, match="columns"):
        run.value()


def refuses_the_labels(case, run, expected, tolerance):
    with pytest.raises(DataError, match="label"):
        run.value()


def gives_a_zero_row_no_gradient(case, run, expected, tolerance):
    assert expected["grad_norms"][0] > 1e6, "the oracle's gradient no longer explodes: compare it"
    value = run.value()
    value.backward()
    gradient = run.columns["text"].grad
    assert value.item() == pytest.approx(expected["loss"], **tolerance)
    assert gradient[0].abs().max() == 0
    assert 0 < gradient[1:].norm() < 1


def behaviour_of(case):
    """What stfit documents for a case: to match, or one of its deviations."""
    name, kind = case["case"], case["loss_class"]
    wrong_labels = (
        "all_same_label",
        "too_few_labels",
        "label_out_of_range",
        "SoftmaxLoss/k3/default/8x16/float_labels",
    )
    if any(word in name for word in wrong_labels):
        return refuses_the_labels
    ignored = ("labels_ignored", "three_columns", "two_columns", "four_columns", "pairs_only", "s20/n1/")
    if any(word in name for word in ignored):
        return refuses_the_columns
    if kind.startswith("Batch") and "/cosine/" in name and name.endswith("zero_row/8x16"):
        return gives_a_zero_row_no_gradient
    return matches


def test_every_oracle_case_matches_or_deviates_as_documented(shared, record_property):
    cases = json.loads((shared / "oracles" / "oracle_losses.json").read_text())["cases"]
    arrays = np.load(shared / "oracles" / "oracle_inputs.npz")
    counts, failures = Counter(), []
    for case in cases:
        behaves = behaviour_of(case)
        counts[behaves.__name__] += 1
        for dtype, tolerance in TOLERANCES.items():
            try:
                behaves(case, Run(case, arrays, dtype), case["results"][dtype], tolerance)
            except Exception as error:
                failures.append(f"{case['case']} {dtype}: {type(error).__name__}: {error}")
    record_property("oracle cases", dict(counts))
    assert not failures, "\n".join(failures)
    assert counts == {
        "matches": 328,
        "refuses_the_columns": 11,
        "refuses_the_labels": 19,
        "gives_a_zero_row_no_gradient": 4,
    }
    assert counts.total() == 362


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_oracle_raises_only_where_stfit_refuses(shared, dtype):
    cases = json.loads((shared / "oracles" / "oracle_losses.json").read_text())["cases"]
    raising = [case for case in cases if "error" in case["results"][dtype]]
    assert len(raising) == 16
    assert not [case["case"] for case in raising if behaviour_of(case) is matches]
