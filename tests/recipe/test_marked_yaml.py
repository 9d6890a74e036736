import math
from pathlib import Path

import pytest

from stfit.errors import RecipeError
from stfit.paths import Located
from stfit.recipe.marked_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, decode, read_yaml

FOLDER = Path("/somewhere")


def value_of(text):
    root, problems = read_yaml(text, "r.yaml", FOLDER)
    assert problems == []
    return root.plain()


def problems_of(text):
    try:
        return read_yaml(text, "r.yaml", FOLDER)[1]
    except RecipeError as error:
        return error.problems


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5), ("2.0e-5", 2e-5), (".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("1E3", 1000.0), ("+4", 4),
        ("-3", -3), ("0", 0), ("0.0", 0.0), ("1234567890123456789", 1234567890123456789),
        ("-.inf", -math.inf), (".INF", math.inf),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("off", "off"), ("YES", "YES"), ("n", "n"),  # YAML 1.1: booleans
        ("010", "010"), ("1_000", "1_000"), ("1:30", "1:30"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("00.5", "00.5"),
        ("2020-01-01", "2020-01-01"), ("12345678901234567890123", "12345678901234567890123"), ("1e", "1e"), (".", "."),
        ("'3'", "3"), ('"true"', "true"), ("train[:50%]", "train[:50%]"), ("set.neg[0]", "set.neg[0]"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2_and_never_surprise(written, value):
    read = value_of(f"key: {written}\n")["key"]
    assert read == value
    assert isinstance(read, bool) == isinstance(value, bool)
    assert isinstance(read, float) == isinstance(value, float)


def test_nan_is_read_as_a_number():
    assert math.isnan(value_of(".nan"))


def test_every_string_remembers_the_folder_of_its_file():
    read = value_of("a: [./x, 'y']\nb: |\n  z\n")
    strings = [*read["a"], read["b"]]
    assert [type(text) for text in strings] == [Located] * 3
    assert {text.folder for text in strings} == {FOLDER}


def test_a_byte_order_mark_changes_nothing():
    plain, _ = read_yaml("a: {b: 1}\n", "r.yaml", FOLDER)
    marked, problems = read_yaml("\ufeffa: {b: 1}\n", "r.yaml", FOLDER)
    assert problems == []
    assert marked == plain


def test_windows_line_ends_change_no_value_and_no_line():
    root, _ = read_yaml("a: 1\r\nb: two\r\n", "r.yaml", FOLDER)
    assert root.plain() == {"a": 1, "b": "two"}
    assert root.child("b").mark.line == 2


def test_keys_and_values_know_their_line_and_column():
    root, _ = read_yaml("a:\n  - {key: word}\n", "r.yaml", FOLDER)
    word = root.child("a").child(0).child("key")
    assert (word.mark.line, word.mark.column, word.mark.width) == (2, 11, 4)
    assert (word.key.line, word.key.column, word.key.width) == (2, 6, 3)


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("a: 1\nb: *x\n", 2, 4, "alias"),
        ("a: &x 1\n", 1, 4, "anchor"),
        ("a: !!int 3\n", 1, 4, "tag"),
        ("a: !thing {}\n", 1, 4, "tag"),
        ("<<: {b: 1}\n", 1, 1, "extends"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key, first used on line 1"),
        ("a: {b: 1, b: 2}\n", 1, 11, "duplicate key"),
        ("1: 2\n", 1, 1, "quotes"),
        ("true: 2\n", 1, 1, "quotes"),
        ("? [a]\n: b\n", 1, 3, "quotes"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("a:\n\tb: 1\n", 2, 1, "tab"),
        ("a: 'x\nb: 2\n", 1, 4, "quote opened here"),
        ("a: [1\nb: 2\n", 1, 4, "`[` opened"),
        ("a: {b: 1\n", 1, 4, "`{` opened"),
        ("a: b: c\n", 1, 5, "not allowed here"),
        ("a:\n  b: 1\n c: 2\n", 3, 2, "indentation"),
        ("- a\nb: 1\n", 2, 1, "indentation"),
        ("a: @x\n", 1, 4, "cannot start with `@`"),
        ('a: "\\q"\n', 1, 5, "single quotes"),
        ("a: 1\nb: \0\n", 2, 4, "U+0000"),
        ("a: \x1b[31m\n", 1, 4, "U+001B"),
        ("a: 1\nb: x\ufeff\n", 2, 5, "U+FEFF"),
        ("a: hf_abcdefghijklmnopqrstuvwxyz\n", 1, 4, "token"),
        ("# hf_abcdefghijklmnopqrstuvwxyz\n", 1, 3, "token"),
    ],
)
def test_what_a_recipe_must_not_hold_is_refused_where_it_stands(text, line, column, word):
    first, *rest = problems_of(text)
    assert (first.file, first.line, first.column) == ("r.yaml", line, column)
    assert word in first.message
    assert rest == []


def test_all_mistakes_of_a_file_are_found_at_once():
    found = problems_of("a: &x 1\nb: *x\nb: 2\n3: 4\nc: [1\n")
    assert [problem.line for problem in found] == [1, 2, 3, 4, 5]


def test_the_snippet_shows_the_line_and_carets_under_the_word():
    assert problems_of("a: 1\n日本: {b: *word}\n")[0].snippet == "   2 | 日本: {b: *word}\n     |           ^^^^^"


def test_long_lines_are_cut_around_the_word():
    snippet = problems_of(f"a: [{'x, ' * 500}*word, {'y, ' * 500}]\n")[0].snippet
    line, carets = snippet.splitlines()
    assert len(line) < 120
    assert line[carets.index("^") : carets.rindex("^") + 1] == "*word"


def test_a_token_is_never_repeated():
    secret = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
    for text in (f"a: {secret}\n", f"{secret}: 1\n{secret}: 2\n", f"a: *{secret}\n", f"a: [{secret}\n"):
        found = problems_of(text)
        assert found
        assert secret not in "".join(map(str, found))


@pytest.mark.parametrize("text", ["[" * 40_000, "- " * 40_000, "? " * 40_000, "{a: " * 40_000, "[1, " * 40_000])
def test_forty_thousand_levels_are_refused_before_the_parser_dies(text):
    assert f"more than {MAX_DEPTH} levels" in problems_of(text)[-1].message


def test_as_deep_as_allowed_is_read():
    assert value_of("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert problems_of("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))


def test_too_many_values_are_refused():
    assert f"more than {MAX_VALUES} values" in problems_of("- a\n" * (MAX_VALUES + 1))[0].message


def test_a_huge_file_is_refused_before_it_is_parsed():
    with pytest.raises(RecipeError, match="larger than"):
        decode(b"a" * (MAX_BYTES + 1), "r.yaml")


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"a: 1\nb: caf\xe9\n", 2, 7), ("a: 1".encode("utf-16"), 1, 1), (b"\xc3\xa9 \xff", 1, 3)],
)
def test_bad_utf_8_is_refused_where_it_stands(data, line, column):
    with pytest.raises(RecipeError) as caught:
        decode(data, "r.yaml")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (line, column)
