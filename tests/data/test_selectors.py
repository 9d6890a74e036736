from itertools import combinations

import pytest

from stfit.data.mapping.selectors import WILDCARD, expand, parse_selector, select
from stfit.data.table import build_table
from stfit.errors import DataError, RecipeError


def table_of(*rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return build_table("rows", {name: [row.get(name) for row in rows] for name in names}, {})


def expanded(table, *selectors, max_per_row=None):
    values, parent = expand(table, [parse_selector(text, list(table.columns)) for text in selectors], max_per_row)
    return list(zip(*values, strict=True)), parent.tolist()


def test_a_path_is_a_column_and_steps():
    assert parse_selector("set.pos[0].text") == ("set.pos[0].text", "set", ("pos", 0, "text"), None, ())
    assert parse_selector("set.neg[1:-2]").path == ("neg", slice(1, -2))
    assert parse_selector("set[*].text")[1:4] == ("set", (), ("text",))
    assert parse_selector("my column").column == "my column"


def test_an_exact_column_name_wins_over_the_path():
    table = table_of({"set.query": "exact", "set": {"query": "path"}, "a[": "odd"})
    assert [select(table, text) for text in ("set.query", "a[")] == [["exact"], ["odd"]]
    assert select(table_of({"set": {"query": "path"}}), "set.query") == ["path"]


def test_a_template_joins_what_is_there():
    table = table_of(
        {"title": "On rain", "text": "It rains.", "n": 3.0, "set": {"by": "Ann"}},
        {"title": None, "text": "It rains.", "n": None, "set": None},
        {"title": None, "text": float("nan"), "n": None, "set": {}},
    )
    assert select(table, "{title} {text}") == ["On rain It rains.", "It rains.", None]
    assert select(table, "{set.by}: {text} ({n})") == ["Ann: It rains. (3)", ": It rains. ()", None]
    assert parse_selector("{set.by}: {text}").columns == ["set", "text"]
    assert select(table_of({"{a} {b}": "odd", "a": "x", "b": "y"}), "{a} {b}") == ["odd"]


@pytest.mark.parametrize("text", ["{a", "{}", "{a!r}", "{a:3}", "{a} {b[*]}", "{a[:2]}", "{{a}} {b}", "a} {b}"])
def test_what_is_no_template_is_a_recipe_error(text):
    with pytest.raises(RecipeError, match=r"template|selector"):
        parse_selector(text)


def test_a_template_takes_no_lists():
    with pytest.raises(DataError, match=r"row 2: the template `\{a\} x` joins texts and numbers, and found \['y'\]"):
        select(table_of({"a": "y"}, {"a": ["y"]}), "{a} x")


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", "a[", "a[]", "a[x]", "a]b", "a[1:2:3]", "a[**]", f"a{WILDCARD}.b{WILDCARD}"]
)
def test_what_is_no_selector_is_a_recipe_error(text):
    with pytest.raises(RecipeError, match="selector"):
        parse_selector(text)


def test_indices_count_from_both_ends_and_a_short_list_gives_null():
    table = table_of({"a": ["x", "y"]}, {"a": ["z"]}, {"a": []}, {"a": None})
    assert select(table, "a[0]") == ["x", "z", None, None]
    assert select(table, "a[-1]") == ["y", "z", None, None]
    assert select(table, "a[1]") == ["y", None, None, None]


def test_a_slice_takes_several_and_steps_go_on_inside():
    table = table_of({"a": [{"t": "1"}, {"t": "2"}, {"t": "3"}]}, {"a": []}, {"a": [{"t": "4"}]})
    assert expanded(table, "a[:2].t") == ([(["1", "2"],), ([],), (["4"],)], [0, 1, 2])


def test_each_makes_one_example_per_element():
    table = table_of({"q": "a", "p": ["1", "2"]}, {"q": "b", "p": []}, {"q": "c", "p": ["3"]}, {"q": "d", "p": None})
    assert expanded(table, "q", "p[*]") == ([("a", "1"), ("a", "2"), ("c", "3")], [0, 0, 2])


def test_equal_selectors_of_one_list_make_every_pair_in_order():
    captions = list("abcde")
    examples, parent = expanded(table_of({"set": captions}, {"set": ["x"]}), "set[*]", "set[*]")
    assert examples == list(combinations(captions, 2))
    assert parent == [0] * 10


def test_different_selectors_of_one_list_take_the_same_element():
    table = table_of({"turns": [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]})
    assert expanded(table, "turns[*].q", "turns[*].a")[0] == [("1", "2"), ("3", "4")]
    with pytest.raises(RecipeError, match="all equal or all different"):
        expanded(table, "turns[*].q", "turns[*].q", "turns[*].a")


def test_different_lists_combine_as_a_cross_product_up_to_max_per_row():
    table = table_of({"q": "a", "s": {"p": ["1", "2"], "n": ["3", "4"]}})
    product = [("a", "1", "3"), ("a", "1", "4"), ("a", "2", "3"), ("a", "2", "4")]
    assert expanded(table, "q", "s.p[*]", "s.n[*]")[0] == product
    assert expanded(table, "q", "s.p[*]", "s.n[*]", max_per_row=3)[0] == product[:3]


def test_a_path_that_does_not_fit_is_an_error_with_rows():
    table = table_of({"s": {"q": "x"}, "t": "x"}, {"s": ["x"], "t": "y"})
    with pytest.raises(DataError, match=r"`s` is followed by `\.q`, but is not a mapping in row 2"):
        select(table, "s.q")
    with pytest.raises(DataError, match="`t` is used as a list, but is not a list in rows 1, 2"):
        expanded(table, "t[*]")
    with pytest.raises(DataError, match=r"no row has `s\.qeury`: did you mean `query`"):
        select(table_of({"s": {"query": "x"}}, {"s": None}), "s.qeury")
    with pytest.raises(DataError, match="no column `tt`: did you mean `text`"):
        select(table_of({"text": "x"}), "tt")
    with pytest.raises(RecipeError, match="several values"):
        select(table, "t[*]")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("set.pos.0", "set.pos[0]"),
        ("set.pos.-1", "set.pos[-1]"),
        ("set/pos/0", "set.pos[0]"),
        ("set['query']", "set.query"),
        ('set["pos"][0]', "set.pos[0]"),
        ("set->query", "set.query"),
        ("set->>query", "set.query"),
        ("$.set.pos[0]", "set.pos[0]"),
        ("set.pos[]", "set.pos[*]"),
    ],
)
def test_a_path_as_another_tool_writes_it_is_answered_with_the_selector(written, meant):
    table = table_of({"set": {"query": "x", "pos": ["y"]}})
    with pytest.raises((RecipeError, DataError)) as error:
        select(table, written)
    assert str(error.value).endswith(f"write `{meant}`")
    assert expanded(table, meant)[0]
    with pytest.raises(DataError, match="there is no column `other/0`: known: set"):
        select(table, "other/0")
