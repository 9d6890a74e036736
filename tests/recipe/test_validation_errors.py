import pytest

from stfit.errors import did_you_mean

WRONG = [
    ("learning_rate: 1e-5\n", 4, "belongs under `train:`"),
    ("train: {seed: 3}\n", 4, "belongs at the top level"),
    ("train:\n  dataset: x\n", 5, "belongs under `data:`"),
    ("train: {epoch: 3}\n", 4, "did you mean `epochs`"),
    ("trian: {}\n", 4, "did you mean `train`"),
    ("type: x\n", 4, "unknown key `type`"),
    ("train: {epochs: ten}\n", 4, "expected a number, found text `ten`"),
    ("train: {epochs: 0}\n", 4, "more than 0"),
    ("train: {batch_size: 0}\n", 4, "more than 0"),
    ("train: {batch_size: 1.5}\n", 4, "whole number"),
    ("train: {batch_size: 16.0}\n", 4, "write 16"),
    ("train: {batch_size: 1_000}\n", 4, "write 1000"),
    ('train: {batch_size: "8"}\n', 4, "write 8"),
    ("train: {batch_size: true}\n", 4, "found `true`"),
    ("train: {batch_size: null}\n", 4, "found nothing (null)"),
    ("train: {batch_size: [8]}\n", 4, "found a list"),
    ("train: {batch_size: {a: 8}}\n", 4, "found a mapping"),
    ("train: {warmup_ratio: 1.5}\n", 4, "less than 1"),
    ("train: {weight_decay: .nan}\n", 4, "finite number"),
    ("train: {weight_decay: 1e999}\n", 4, "finite number"),
    ("train: {learning_rate: 2e-5x}\n", 4, "expected a number"),
    ("train: {schedule: linaer}\n", 4, "did you mean `linear`"),
    ("train: {freeze: backbone}\n", 4, "write [backbone]"),
    ("train: {freeze: [1]}\n", 4, 'quotes, "1"'),
    ("train: {epochs: 1, max_steps: 2}\n", 4, "mutually exclusive"),
    ("train: {shard: true, precision: float16}\n", 4, "use bfloat16"),
    ("train: {early_stopping: {patience: 0}}\n", 4, "more than 0"),
    ("train: 3\n", 4, "expected a mapping"),
    ("seed: -1\n", 4, "at least 0"),
    ("seed: 1e3\n", 4, "write 1000"),
    ("seed: 010\n", 4, "found text `010`"),
    ("name: a/b\n", 4, "letters, digits"),
    ("name: 7\n", 4, 'quotes, "7"'),
    ("version: 2\n", 4, "version 2 of the recipe language"),
    ("version: 0\n", 4, "expected 1"),
    ("eval: [similarty]\n", 4, "did you mean `similarity`"),
    ("eval:\n  - {dataset: x}\n", 5, "needs a `type`"),
    ("eval:\n  - 3\n", 5, "a name, or a mapping with `type`"),
    ("eval:\n  - type: 3\n", 5, "needs a `type`"),
    ("eval:\n  - {type: triplet, dataset: x}\n  - {type: similarity, dataset: x, marign: 1}\n", 6, "`eval.1.marign`"),
    ("eval: [{type: similarity, dataset: x, margin: 1}]\n", 4, "it is a key of `triplet`"),
    ("eval: [{type: similarity, dataset: x, similarity: dot}]\n", 4, "belongs under `model:`"),
    ("eval: [{type: triplet}]\n", 4, "set exactly one of `dataset`, `from: holdout`"),
    ("eval: {type: triplet, dataset: x}\n", 4, "expected a list"),
    ("eval:\n  - type: retrieval\n    dataset: x\n    metrics: [ndcg@10, recal@5]\n", 7, "are accuracy, precision"),
    ("eval: [{type: retrieval, dataset: x, metrics: [ndcg]}]\n", 4, "such as ndcg@10"),
    ("eval: [{type: retrieval, dataset: x, metrics: []}]\n", 4, "at least 1"),
    ("loss: cosent\n", 4, "duplicate key"),
]  # fmt: skip

WRONG_INSIDE = [
    ("loss: triplet", "loss: {type: tripletloss}", 3, "did you mean"),
    ("loss: triplet", "loss: {type: cosent, margin: 3}", 3, "it is a key of"),
    ("loss: triplet", "loss: {margin: 3}", 3, "needs a `type`"),
    ("loss: triplet", "loss: null", 3, "`data` and `loss`, or several `objectives`"),
    ("loss: triplet", "", 1, "`loss` is missing"),
    (", format: triplet", "", 2, "`data.format` is missing"),
    ("format: triplet", "format: tripelt", 2, "did you mean `triplet`"),
    ("format: triplet", "format: triplet, shuffle: no", 2, "write false"),
    ("format: triplet", "format: triplet, shuffle: 1", 2, "write true"),
    ("format: triplet", "format: triplet, where: {a: {mim: 3}}", 2, "did you mean `min`"),
    ("format: triplet", "format: triplet, where: {a: null}", 2, "found nothing"),
    ("format: triplet", "format: triplet, columns: {anchor: [1]}", 2, "`data.columns.anchor.0`: expected text"),
    ("format: triplet", "format: triplet, label_range: [1]", 2, "at least 2 items"),
    ("format: triplet", "format: triplet, revision: 1234567", 2, 'quotes, "1234567"'),
    ("base: a/b", "base: a/b, pooling: meen", 1, "did you mean `mean`"),
    ("base: a/b", "base: a/b, layers: [dense]", 1, "`model.layers.0.out_features` is missing"),
    ("base: a/b", "base: a/b, append_eos: off", 1, "write false"),
    ("loss: triplet", "loss: triplet\neval: [{type: triplet, dataset: a, name: a b}]", 4, "a name without spaces"),
    ("loss: triplet", "loss: triplet\npush: {repo: a/b, language: [English]}", 4, "an ISO 639 code such as `en`"),
    ("loss: triplet", "loss: triplet\npush: {repo: a/b, license: MIT}", 4, "an identifier of the Hub in small"),
    ("base: a/b", "base: {type: scratch, hiden_size: 3}", 1, "did you mean `hidden_size`"),
    ("base: a/b", "base: {type: scratch, hidden_size: 3}", 1, "not a multiple"),
]


@pytest.mark.parametrize(("added", "line", "word"), WRONG)
def test_a_wrong_line_is_found_and_explained(write, added, line, word, problems_of, small):
    (found,) = problems_of(write(small + added))
    assert found.line == line
    assert word in found.message
    assert "^" in found.snippet


@pytest.mark.parametrize(("old", "new", "line", "word"), WRONG_INSIDE)
def test_a_wrong_value_is_found_and_explained(write, old, new, line, word, problems_of, small):
    (found,) = problems_of(write(small.replace(old, new)))
    assert found.line == line
    assert word in found.message
    assert "^" in found.snippet


def test_no_advice_is_given_where_there_is_none(write, problems_of, small):
    (found,) = problems_of(write(small + "train: {batch_size: 8.5}\n"))
    assert found.message.endswith("found `8.5`")


def test_a_number_is_not_quoted_as_another_text_than_the_written_one(write, problems_of, small):
    (found,) = problems_of(write(small + "name: 1e3\n"))
    assert found.message.endswith("put it in quotes")


def test_of_words_that_only_go_on_the_first_is_meant():
    known = ["s/ap_cosine", "s/ap_dot", "s/spearman_cosine", "s/spearman_dot"]
    assert did_you_mean("s/spearman", known) == "did you mean `s/spearman_cosine`?"


def test_mistakes_come_in_the_order_of_the_file(write, problems_of, small):
    found = problems_of(write(small + "train:\n  seed: 1\n  epochs: x\nfoo: 1\nseed: -1\nseed: 1\n"))
    assert [problem.line for problem in found] == [5, 6, 7, 8, 9]


def test_a_key_that_is_called_as_the_choice_does_not_confuse_the_others(write, small, problems_of):
    found = problems_of(write(small + "eval: [{type: similarity, dataset: x, similarity: dot, split: 3}]\n"))
    assert [problem.column for problem in found] == [39, 63]
    assert "`eval.0.split`: expected text" in found[1].message


def test_a_line_that_yaml_refuses_is_not_complained_about_twice(write, small, problems_of):
    found = problems_of(write(small + "seed: *x\nname: 3\n"))
    assert [problem.line for problem in found] == [4, 5]


def test_arguments_of_a_script_are_known(write, problems_of, small):
    found = problems_of(write(small + "train: {per_device_train_batch_size: 8, lr: 1}\nnum_train_epochs: 3\n"))
    hints = [f"it is called `{name}` in stfit" for name in ("batch_size", "learning_rate", "epochs")]
    hints[2] += ", it belongs under `train:`"
    assert [problem.message.partition("; ")[2] for problem in found] == hints


def test_a_line_without_a_colon_is_the_one_that_is_shown(write, problems_of, small):
    (found,) = problems_of(write(small + "seed 1\nname: x\n"))
    assert (found.line, found.column) == (4, 1)


def test_a_broken_rule_points_at_the_key_it_names(write, problems_of, small):
    found = problems_of(write(small + "train:\n  batch_size: 8\n  epochs: 2\n  max_steps: 9\n"))
    assert [problem.line for problem in found] == [6]
    (found,) = problems_of(write(small + "seed: 1\neval:\n  - type: similarity\n    from: holdout\n"))
    assert (found.line, found.column) == (6, 5)


@pytest.mark.parametrize(("name", "column"), [("name: b, ", 12), ("", 5)])
def test_an_evaluator_that_is_called_like_another_is_shown(write, problems_of, small, name, column):
    """One without a name is called like the file of its dataset."""
    other, same = "  - {name: b, type: triplet, dataset: ./a.jsonl}\n", "type: triplet, dataset: ./b.jsonl}\n"
    (found,) = problems_of(write(f"{small}eval:\n{other}  - {{{name}{same}"))
    assert (found.line, found.column) == (6, column)
    assert "`eval.1.name`: `eval.0` is called b, too" in found.message


def test_a_file_of_nothing_but_mistakes_is_answered_with_the_first_of_them(write, problems_of):
    found = problems_of(write("".join(f"key{number}: 1\n" for number in range(5000))))
    assert len(found) < 300
    assert "more" in found[-1].message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "[]", "text", "3", "null"])
def test_a_file_without_a_mapping_is_no_recipe(write, text, problems_of):
    (found,) = problems_of(write(text))
    assert "the recipe: expected a mapping" in found.message


def test_a_missing_recipe_names_its_neighbour(write, tmp_path, problems_of, small):
    write(small, "recipe.yaml")
    (found,) = problems_of(tmp_path / "recpie.yaml")
    assert "did you mean `recipe.yaml`" in found.message
    assert "folder" in problems_of(tmp_path)[0].message
