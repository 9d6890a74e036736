"""`stfit init`: whatever it proposes is a recipe that passes the check."""

import csv
import json

import pytest
from draws import every

from stfit.commands.init import init, write_example
from stfit.data.source import ReadOptions
from stfit.errors import DataError, RecipeError
from stfit.recipe.load import load_recipe
from stfit.recipe.read_options import read_options
from stfit.workflows.check.validate import load_and_validate

TOPICS = ["rain", "bread", "trains", "cats", "stars", "music", "chess", "tea"]


def words(i: int, of: str) -> str:
    return f"{of} {TOPICS[i % len(TOPICS)]} number {i}"


def score(i: int) -> dict:
    return {"first": words(i, "about"), "second": words(i, "on"), "similarity_score": i % 6}


def duplicate(i: int) -> dict:
    return {"id": i, "question1": words(i, "about"), "question2": words(i, "on"), "is_duplicate": i % 2}


def inference(i: int) -> dict:
    label = ["entailment", "neutral", "contradiction"][i % 3]
    return {"premise": words(i, "about"), "hypothesis": words(i, "on"), "label": label}


def topic(i: int) -> dict:
    return {"title": words(i, "about"), "body": words(i, "on"), "topic": TOPICS[i % 8]}


def nested(i: int) -> dict:
    return {"set": {"query": words(i, "about"), "pos": [words(i, "on")], "neg": [words(i + 1, "on"), words(i, "no")]}}


def listed(i: int) -> dict:
    return {"captions": [words(i, of) for of in ("about", "on", "of")[: 2 + i % 2]]}


def two(i: int) -> dict:
    return {"pair": [words(i, "about"), words(i, "on")]}


def answer(i: int) -> dict:
    return {"answer": words(i, "on"), "question": words(i, "about"), "uuid": f"{i:x}"}


def alone(i: int) -> dict:
    return {"id": i, "body": f"{words(i, 'about')} and nothing else, {i} times"}


@pytest.fixture
def propose(tmp_path):
    """Writes 64 rows, asks for a recipe, and gives the loaded recipe with its prepared data."""

    def run(row, splits=("train", "test")):
        for split in splits:
            lines = (json.dumps(row(i)) + "\n" for i in range(64))
            (tmp_path / f"{split}.jsonl").write_text("".join(lines))
        init(str(tmp_path), tmp_path / "recipe.yaml", "scratch")
        recipe = load_recipe(tmp_path / "recipe.yaml").recipe
        return recipe, load_and_validate(recipe)

    return run


def test_a_score_is_rescaled_and_trained_by_its_order(propose):
    recipe, prepared = propose(score)
    assert (recipe.data.format, recipe.loss.type, recipe.data.label_range) == ("labeled_pair", "cosent", [0, 5])
    assert set(prepared.training[0].label.tolist()) == {0, 0.2, 0.4, 0.6, 0.8, 1}
    assert recipe.eval[0].label_range == recipe.data.label_range


def test_duplicates_train_on_the_similar_pairs_and_are_measured_on_both_kinds(propose):
    recipe, prepared = propose(duplicate)
    assert recipe.data.format == "positive_pair"
    assert prepared.training[0].row.tolist() == list(range(2, 65, 2))
    assert set(prepared.evaluation[0].label.tolist()) == {0, 1}


def test_the_class_of_dissimilar_pairs_may_be_1(propose, tmp_path):
    (tmp_path / "labels.json").write_text('{"is_duplicate": ["same", "not_same"]}')
    recipe, prepared = propose(duplicate)
    assert recipe.data.where == {"is_duplicate": 0}
    assert prepared.training[0].row.tolist() == list(range(1, 65, 2))
    assert prepared.evaluation[0].label.tolist() == [1, 0] * 32


def test_relations_of_inference_are_read_as_a_similarity(propose):
    recipe, _ = propose(inference)
    assert recipe.data.label_map == {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
    assert recipe.loss.type == "cosent"


def test_many_classes_are_subjects_of_every_text_of_a_row(propose):
    recipe, prepared = propose(topic)
    assert (recipe.data.format, recipe.data.columns["text"]) == ("labeled_text", ["title", "body"])
    assert len(prepared.training[0]) == 128


def test_columns_that_hold_negatives_make_triplets(propose):
    recipe, prepared = propose(nested)
    assert recipe.data.columns == {"anchor": "set.query", "positive": "set.pos[0]", "negative": "set.neg[:5]"}
    assert list(prepared.training[0].texts) == ["anchor", "positive", "negative_1", "negative_2"]


def graded(i: int) -> dict:
    found = [{"id": f"d{k}", "score": 0.5, "title": "short", "text": f"{words(i, 'none')} {k}"} for k in range(3)]
    return {"query": words(i, "query"), "positives": found[:1], "negatives": found[1:]}


def test_negatives_may_be_objects_with_a_text_and_more(propose):
    recipe, prepared = propose(graded)
    selectors = {"anchor": "query", "positive": "positives[0].text", "negative": "negatives[:5].text"}
    assert recipe.data.columns == selectors
    assert prepared.training[0].texts["negative_2"][0] == graded(0)["negatives"][1]["text"]


def test_without_a_second_split_rows_are_held_out(propose):
    recipe, prepared = propose(nested, splits=["train"])
    assert recipe.eval[0].from_ == "holdout"
    assert len(prepared.training[0]) + len(prepared.evaluation[0]) == 64


def test_similar_pairs_without_a_second_split_are_searched_among_those_held_out(propose):
    recipe, prepared = propose(duplicate, splits=["train"])
    assert (recipe.eval[0].type, recipe.eval[0].from_) == ("retrieval", "holdout")
    searched = len(prepared.evaluation[0].queries)
    assert searched > 0
    assert searched + len(prepared.training[0]) == 32  # the similar ones of 64


def test_a_list_of_equals_makes_a_pair_of_every_two(propose):
    recipe, prepared = propose(listed)
    assert recipe.data.columns == {"anchor": "captions[*]", "positive": "captions[*]"}
    assert len(prepared.training[0]) == 32 * 1 + 32 * 3


def test_lists_of_two_are_pairs(propose):
    assert propose(two)[0].data.columns == {"anchor": "pair[0]", "positive": "pair[1]"}


def test_names_decide_which_text_is_the_positive_and_ids_are_left_out(propose):
    assert propose(answer)[0].data.columns == {"anchor": "question", "positive": "answer"}


def test_texts_alone_are_told_apart_under_dropout(propose, tmp_path):
    recipe, prepared = propose(alone)
    assert (recipe.data.format, recipe.data.columns) == ("text", {"text": "body"})
    assert (recipe.loss.type, recipe.eval) == ("multiple_negatives_ranking", [])
    assert (len(prepared.training[0]), prepared.warnings) == (64, [])
    for base in ("static", "vectors.txt"):
        with pytest.raises(RecipeError, match="a table of vectors has none"):
            init(str(tmp_path / "train.jsonl"), tmp_path / "other.yaml", base)


def test_a_table_of_text_files_is_read_by_its_cells(tmp_path):
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(score(0)))
        writer.writeheader()
        writer.writerows(score(i) for i in range(64))
    init(str(tmp_path / "pairs.csv"), tmp_path / "recipe.yaml", "scratch")
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert (recipe.name, recipe.data.label_range) == ("recipe", [0, 5])  # the name is that of the file
    assert set(load_and_validate(recipe).training[0].label.tolist()) == {0, 0.2, 0.4, 0.6, 0.8, 1}


def test_options_of_reading_are_followed_and_written_into_the_recipe(tmp_path):
    lines = [f"{words(i, 'one')};{words(i, 'two')}\n" for i in range(8)]
    (tmp_path / "pairs.csv").write_bytes("".join(["anchor;positive\n", *lines, "café;thé\n"]).encode("cp1252"))
    with pytest.raises(DataError, match="--read encoding=cp1252"):
        init(str(tmp_path / "pairs.csv"), tmp_path / "recipe.yaml", "scratch")
    read = ReadOptions(encoding="cp1252")
    with pytest.raises(DataError, match="--read 'delimiter="):
        init(str(tmp_path / "pairs.csv"), tmp_path / "recipe.yaml", "scratch", read=read)
    read = read_options(["encoding=cp1252", "delimiter=;"])
    init(str(tmp_path / "pairs.csv"), tmp_path / "recipe.yaml", "scratch", read=read)
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert (recipe.data.read, recipe.data.format) == (read, "positive_pair")


def test_rows_that_no_format_fits_are_refused_with_what_was_seen(propose):
    with pytest.raises(DataError, match=r"width \(number\)"):
        propose(lambda i: {"width": i, "height": [i]})


def test_a_retrieval_set_is_no_training_data(propose):
    with pytest.raises(DataError, match="retrieval"):
        propose(two, splits=["corpus", "queries"])


def test_a_file_that_exists_is_never_overwritten(propose, tmp_path):
    propose(two)
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match="exists"):
        propose(two)
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_a_recipe_finds_its_data_from_any_folder(propose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(two(i)) + "\n" for i in range(8)))
    init("rows.jsonl", tmp_path / "recipes" / "rows.yaml", "./base")
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "recipes" / "rows.yaml").recipe
    assert recipe.data.dataset == str(tmp_path / "rows.jsonl")
    assert recipe.model.base == str(tmp_path / "base")


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        ("scratch", {"type": "scratch"}),
        ("static", {"type": "static"}),
        ("word_embeddings", {"type": "word_embeddings"}),
        ("bag_of_words", {"type": "bag_of_words"}),
        ("vectors.txt", {"type": "static", "vectors": "FOLDER/vectors.txt"}),
        ("base", "FOLDER/base"),
        ("owner/base", "owner/base"),
    ],
)
def test_any_base_can_be_asked_for(base, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "vectors.txt").write_text("rain 1 2\nbread 2 3\n")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(two(i)) + "\n" for i in range(8)))
    init("rows.jsonl", tmp_path / "rows.yaml", base)
    recipe = load_recipe(tmp_path / "rows.yaml").recipe
    found = (
        recipe.model.base if isinstance(recipe.model.base, str) else recipe.model.base.model_dump(exclude_unset=True)
    )
    assert json.loads(json.dumps(found).replace(str(tmp_path), "FOLDER")) == kind
    if not isinstance(kind, str):  # a base that is here
        load_and_validate(recipe)


SETS = {
    "stsb": "cosent", "sick": "cosent", "snli": "cosent", "snli_cad": "cosent",
    "quora_duplicates": "multiple_negatives_ranking", "quora_pairs": "multiple_negatives_ranking",
    "sentence_compression": "multiple_negatives_ranking", "flickr8k": "multiple_negatives_ranking",
    "asset": "multiple_negatives_ranking", "nli_pairs": "multiple_negatives_ranking",
    "tatoeba_en_de": "multiple_negatives_ranking", "qqp_triplets": "multiple_negatives_ranking",
    "allnli_triplets": "multiple_negatives_ranking", "trec": "batch_hard_soft_margin_triplet",
    "banking77": "batch_hard_soft_margin_triplet",
}  # fmt: skip


@pytest.mark.parametrize("name", every(4, SETS))
def test_a_proposal_passes_the_check(name, shared, minilm, tmp_path, monkeypatch, capsys):
    from stfit.cli.main import main

    path = tmp_path / f"{name}.yaml"
    base = "scratch" if len(name) % 2 else str(minilm)
    proposed = init(str(shared / "data" / name), path, base)
    assert proposed["loss"] == SETS[name]
    monkeypatch.setattr("sys.argv", ["stfit", "check", str(path), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    said = json.loads(capsys.readouterr().out)
    assert end.value.code in (0, None), said
    assert said["errors"] == []


def test_a_path_is_seen_from_the_recipe_and_an_absolute_one_stays(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(score(i)) + "\n" for i in range(40)))
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, written in (("rows.jsonl", "../rows.jsonl"), (str(tmp_path / "rows.jsonl"),) * 2):
        recipe = tmp_path / "recipes" / "made.yaml"
        recipe.unlink(missing_ok=True)
        init(given, recipe, "BERT", None)
        assert f"dataset: {written}\n" in recipe.read_text()


def test_the_example_is_a_recipe_with_its_data(tmp_path):
    written = write_example(tmp_path / "new")
    loaded = load_recipe(tmp_path / "new" / "quickstart.yaml")
    assert len(load_and_validate(loaded.recipe, loaded.origins).training[0]) > 1000
    assert {str(path) for path in (tmp_path / "new").rglob("*") if path.is_file()} == set(written["files"])
    with pytest.raises(RecipeError, match="already there"):
        write_example(tmp_path / "new")


def test_a_schema_for_editors_lies_beside_the_recipe(propose, tmp_path):
    propose(score)
    schema = json.loads((tmp_path / "recipe.schema.json").read_text())
    assert "loss" in schema["properties"]
    first = (tmp_path / "recipe.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"


def test_a_dataset_for_retrieval_gets_pairs_and_a_search(tmp_path):
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    documents = [{"_id": str(i), "title": "", "text": f"document number {i}"} for i in range(30)]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(30)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no judgments in qrels/"):
        init(str(beir), tmp_path / "recipe.yaml", "scratch")
    for split, ids in (("train", range(20)), ("test", range(20, 30))):
        judged = "".join(f"q{i}\t{i}\t1\n" for i in ids)
        (beir / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    init(str(beir), tmp_path / "recipe.yaml", "scratch")
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert (recipe.data.split, recipe.data.holdout.by) == ("train", "anchor")
    searched, held_out = recipe.eval
    assert (searched.type, searched.split, held_out.from_) == ("retrieval", "test", "holdout")
    assert not load_and_validate(recipe).errors
    assert len(searched.load(0, None).corpus) == 30


def test_documents_become_pairs_with_whole_documents_held_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for number in range(12):
        body = " ".join(f"{TOPICS[(number * place) % 8]}{place}" for place in range(40))
        (tmp_path / "docs" / f"{TOPICS[number % 8]}{number}.md").write_text(f"# {words(number, 'about')}\n\n{body}\n")
    result = init("./docs", tmp_path / "recipe.yaml", "scratch")
    assert result["format"] == "positive_pair"
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert recipe.data.holdout.by == "document"
    assert recipe.loss.type == "multiple_negatives_ranking"
    assert [(evaluator.type, evaluator.from_) for evaluator in recipe.eval] == [("retrieval", "holdout")]
    assert "proxy" in (tmp_path / "recipe.yaml").read_text()
    prepared = load_and_validate(recipe)
    assert set(prepared.training[0].generated_by) == {"title", "crop"}
    rows = [json.loads(line) for line in (tmp_path / "recipe.pairs.jsonl").read_text().splitlines()]
    trained = {rows[row - 1]["document"] for row in prepared.training[0].row.tolist()}
    assert len({row["document"] for row in rows} - trained) >= 1
    with pytest.raises(RecipeError, match=r"recipe\.yaml exists"):
        init(str(tmp_path / "docs"), tmp_path / "recipe.yaml", "scratch")


def test_long_texts_alone_are_cropped_and_short_ones_are_not(tmp_path):
    rows = [{"body": " ".join(f"{TOPICS[(i * place) % 8]}{place}" for place in range(30))} for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(str(tmp_path / "texts.jsonl"), tmp_path / "recipe.yaml", "scratch")
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert set(load_and_validate(recipe).training[0].generated_by) == {"crop"}
