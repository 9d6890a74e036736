import json

import pytest

from stfit.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=1", "train.epochs", 1.0),
        ("train.learning_rate=3e-4", "train.learning_rate", 3e-4),
        ("eval.0.split=test", "eval.0.split", "test"),
        ("eval.1.margin=0.5", "eval.1.margin", 0.5),
        ("model.pooling=[max, cls]", "model.pooling", ["max", "cls"]),
        ("data.split=train[:10%]", "data.split", "train[:10%]"),
        ("data.columns={anchor: q}", "data.columns", {"anchor": "q"}),
        ("data.columns.anchor=q=r", "data.columns.anchor", "q=r"),
        ("loss=cosent", "loss.type", "cosent"),
        ("loss.type=CoSENTLoss", "loss.type", "cosent"),
        ("train.max_grad_norm=", "train.max_grad_norm", None),
        ("train.early_stopping.patience=9", "train.early_stopping.patience", 9),
        ("model.base.type=scratch", "model.base.hidden_size", 128),
        ("~eval.0", "eval.0.name", "kept"),
        ("~loss.margin", "loss.margin", 5.0),
        ("~train", "train.epochs", None),
    ],
)
def test_an_override_changes_one_place_by_the_rules_of_a_file(write, valid, override, path, value):
    valid = valid.replace("warmup_steps: null", "best: kept/accuracy_cosine")
    found = load_recipe(write(valid), [override]).recipe
    for key in path.split("."):
        found = found[int(key)] if key.isdigit() else found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == value


def test_a_new_choice_and_its_keys_may_come_in_any_order(write, valid):
    path = write(valid)
    one = load_recipe(path, ["loss.type=cosent", "loss.scale=3"]).recipe
    other = load_recipe(path, ["loss.scale=3", "loss.type=cosent"]).recipe
    assert one == other
    assert one.loss.scale == 3.0


@pytest.mark.parametrize("key", ["data.dataset", "model.base"])
def test_a_revision_is_of_the_repository_that_was_named_beside_it(write, key, tmp_path):
    section = key.partition(".")[0]
    recipe = {"model": {"base": "a/b"}, "data": {"dataset": "a/c", "format": "triplet"}, "loss": "triplet"}
    recipe[section]["revision"] = "v1"
    path = write(json.dumps(recipe))

    def revision(*overrides, of=path):
        return getattr(load_recipe(of, overrides).recipe, section).revision

    assert (revision(), revision(f"{key}=a/{'b' if section == 'model' else 'c'}")) == ("v1", "v1")
    assert revision(f"{key}=x/y") is None
    assert revision(f"{section}.revision=v2", f"{key}=x/y") == revision(f"{key}=x/y", f"{section}.revision=v2") == "v2"
    other = write(json.dumps({"extends": "./recipe.yaml", section: {key.partition(".")[2]: "x/y"}}), "other.yaml")
    assert revision(of=other) is None


def test_an_evaluator_from_the_data_reads_another_split_as_the_data_says(write):
    data = "data: {dataset: a/c, config: en, split: train, format: labeled_pair, columns: {label: score}, limit: 9}\n"
    evaluators = "eval: [{type: similarity, from: data, split: validation}, {type: similarity, dataset: a/d}]\n"
    path = write(f"model: {{base: a/b}}\n{data}loss: cosent\n{evaluators}")
    loaded = load_recipe(path, ["data.dataset=x/y"])
    evaluator, other = loaded.recipe.eval
    said = (evaluator.dataset, evaluator.config, evaluator.split, evaluator.columns, evaluator.limit, evaluator.from_)
    assert said == ("x/y", "en", "validation", {"label": "score"}, None, None)
    assert str(loaded.origins["eval.0.dataset"]) == "command line"
    assert other.config is None


def test_an_evaluator_from_the_data_needs_one_dataset(write, problems_of):
    path = write(
        "model: {base: a/b}\n"
        "objectives: [{data: {dataset: a/c, format: triplet}, loss: triplet}]\n"
        "eval: [{type: triplet, from: data}]\n"
    )
    assert "`from: data`, but the recipe has `objectives`" in problems_of(path)[0].message


def test_later_overrides_win(write, valid):
    assert load_recipe(write(valid), ["seed=1", "seed=2"]).recipe.seed == 2


def test_paths_of_overrides_start_from_the_current_folder(write, valid, tmp_path, monkeypatch):
    path = write(valid, "deep/recipe.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(path, ["data.dataset=./x.csv"]).recipe.data.dataset == str(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("override", "word", "under"),
    [
        ("train.epochs=ten", "expected a number", "ten"),
        ("train.epoch=1", "did you mean `epochs`", "train.epoch"),
        ("eval.7.split=x", "use 0 to 1", "eval.7.split"),
        ("eval.x.split=x", "not an index", "eval.x.split"),
        ("~gaet", "nothing to delete", "gaet"),
        ("~data.nothing.here", "nothing to delete", "data.nothing.here"),
        ("~data.format", "is missing", None),
        ("train", "key.path=value", "train"),
        ("=3", "key.path=value", None),
        ("a..b=3", "key.path=value", "a..b"),
        ("train.freeze=[a", "`[` opened", "["),
        ("train.freeze=*x", "alias", "*x"),
        ("extends=x.yaml", "cannot be overridden", "extends"),
        ("model.base=hf_abcdefghijklmnopqrstuvwxyz", "token", "hf_***********************" + "***"),
        ("seed=1\0", "U+0000", "?"),
        ("seed=\udcff", "U+DCFF", "?"),
        (".".join("a" * 60) + "=1", "key.path=value", None),
    ],
)
def test_a_wrong_override_is_shown_with_a_caret(write, valid, override, word, under, problems_of):
    found = problems_of(write(valid), override)
    assert word in found[-1].message
    if under is not None:
        assert found[-1].file == "command line"
        line, carets = found[-1].snippet.splitlines()
        assert line[carets.index("^") : carets.rindex("^") + 1] == under
