import datasets
import pytest

from stfit.data.reading.split import parse_split, slice_rows
from stfit.errors import RecipeError

BOUNDS = ["", "0", "1", "3", "7", "-1", "-2", "-9", "100"]
PERCENTS = ["", "0%", "1%", "10%", "25%", "33%", "50%", "67%", "99%", "100%", "-10%", "-50%"]
EXPRESSIONS = ["train"] + [f"train[{a}:{b}]" for kind in (BOUNDS, PERCENTS) for a in kind for b in kind]


@pytest.mark.parametrize("rows", range(1, 13))
def test_slices_equal_those_of_datasets(rows):
    all_rows = list(range(rows))
    for expression in EXPRESSIONS:
        [absolute] = datasets.ReadInstruction.from_spec(expression).to_absolute({"train": rows})
        [part] = parse_split(expression)
        assert all_rows[slice_rows(part, rows)] == all_rows[absolute.from_ : absolute.to], expression


def test_terms_are_joined_by_plus():
    assert [(part.name, part.start, part.stop) for part in parse_split("train[:10] + validation+dev-x[5%:]")] == [
        ("train", None, "10"),
        ("validation", None, None),
        ("dev-x", "5%", None),
    ]


@pytest.mark.parametrize(
    "text", ["", "train[", "train[1]", "train[a:b]", "train+", "train[::2]", "train[1:50%]", "train[:101%]"]
)
def test_what_is_no_split_is_a_recipe_error(text):
    with pytest.raises(RecipeError, match="split"):
        parse_split(text)
