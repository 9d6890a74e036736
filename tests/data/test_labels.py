import json

import numpy as np
import pytest

from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import Source
from stfit.errors import DataError


def load(write, labels, names=None, csv=False, **keys):
    if names is not None:
        write(json.dumps({"label": names}), "labels.json")
    if csv:
        path = write("text,label\n" + "".join(f"t,{label}\n" for label in labels), "rows.csv")
    else:
        path = write([{"text": "t", "label": label} for label in labels])
    return load_examples(Source(dataset=path, **keys), "labeled_text", 1)[0]


@pytest.mark.parametrize(
    ("labels", "values", "kind", "names"),
    [
        ([0, 1, 1], [0, 1, 1], "binary", None),
        ([True, False], [1, 0], "binary", None),
        ([3, 0, 7], [3, 0, 7], "class", None),
        ([0, 0.5], [0.0, 0.5], "score", None),
        ([1.0, 0.0], [1, 0], "binary", None),
        ([1.0, None, 2.0], [1, 2], "class", None),
        (["no", "yes", "maybe"], [1, 2, 0], "class", ["maybe", "no", "yes"]),
        (["b", "a"], [1, 0], "class", ["a", "b"]),
    ],
)
def test_labels_become_numbers_of_a_kind(write, labels, values, kind, names):
    examples = load(write, labels)
    assert examples.label.tolist() == values
    assert (examples.label_kind, examples.label_names) == (kind, names)
    assert examples.label.dtype == (np.float64 if kind == "score" else np.int64)


@pytest.mark.parametrize(
    ("labels", "values", "kind"),
    [
        (["1", "0"], [1, 0], "binary"),
        (["10", "9"], [10, 9], "class"),
        (["0.5", "1"], [0.5, 1.0], "score"),
        (["1.0", "", "0.0"], [1, 0], "binary"),
        (["x", "1"], [1, 0], "class"),
    ],
)
def test_numbers_of_a_csv_file_are_numbers(write, labels, values, kind):
    examples = load(write, labels, csv=True)
    assert (examples.label.tolist(), examples.label_kind) == (values, kind)


def test_whole_floats_are_found_by_label_map_and_label_names(write):
    assert load(write, [1.0, None, 2.0], label_map={"1": 1, "2": 0}).label.tolist() == [1, 0]
    assert load(write, [1.0, 2.0], label_map={"1.0": 1, "2.0": 0}).label.tolist() == [1, 0]
    assert load(write, [0.0, 5.0], label_range=[0, 5]).label_kind == "score"
    assert load(write, [1.0, None, 0.0], names=["no", "yes"]).label_names == ["no", "yes"]


def test_the_dataset_s_own_names_are_kept(write):
    examples = load(write, [2, 0], names=["a", "b", "c"])
    assert (examples.label.tolist(), examples.label_names, examples.num_classes) == ([2, 0], ["a", "b", "c"], 3)
    assert load(write, ["c", "a"], names=["c", "b", "a"]).label.tolist() == [0, 2]
    with pytest.raises(DataError, match=r"names classes 0 to 2; found 3 \(row 2\)"):
        load(write, [2, 3], names=["a", "b", "c"])


def test_label_map_takes_labels_as_written_or_the_dataset_s_names(write):
    assert load(write, ["no", "yes"], label_map={"yes": 1, "no": 0}).label_names == ["no", "yes"]
    assert load(write, [1, 5], label_map={"1": 0.25, "5": 1}).label.tolist() == [0.25, 1.0]
    assert load(write, [True, False], label_map={"true": 4, "false": 2}).label.tolist() == [4, 2]
    merged = load(write, [0, 1, 2], names=["same", "near", "far"], label_map={"same": 1, "near": 1, "far": 0})
    assert (merged.label.tolist(), merged.label_names, merged.label_kind) == ([1, 1, 0], None, "binary")


def test_every_label_that_the_map_lacks_is_named_with_its_rows(write):
    with pytest.raises(DataError) as caught:
        load(write, ["no", "yse", None, "-", "yse"], label_map={"yes": 1, "no": 0})
    assert [(problem.message, problem.row) for problem in caught.value.problems] == [
        ("`label_map` has no entry for the label `yse` of rows 2, 5 (did you mean `yes`?)", 2),
        ("`label_map` has no entry for the label `-` of row 4 (known: yes, no)", 4),
    ]


def test_label_range_rescales_to_zero_to_one(write):
    assert load(write, [1, 2, 5], label_range=[1, 5]).label.tolist() == [0.0, 0.25, 1.0]
    assert load(write, ["2.5", "5"], csv=True, label_range=[0, 5]).label_kind == "score"
    with pytest.raises(DataError, match=r"`label_range` is \[0, 5\]; found 5\.5 \(row 3\)"):
        load(write, [1.0, 2.0, 5.5], label_range=[0, 5])
    with pytest.raises(DataError, match="these labels are names"):
        load(write, ["a", "b"], label_range=[0, 5])


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 10**30, [1], {"a": 1}, "text among numbers"])
def test_labels_that_can_not_be_used_are_named_by_row(write, label):
    with pytest.raises(DataError) as caught:
        load(write, [0, 1, label] if not isinstance(label, str) else [label, label, 1])
    assert caught.value.problems[0].row == 3
