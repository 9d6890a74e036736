"""The card says what the run recorded, in text that stays text; its snippets run."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, RepoCard
from markdown_it import MarkdownIt

from stfit.data.mapping.load_examples import load_examples
from stfit.losses.registry import LOSSES
from stfit.publish.card import CardData, DatasetFacts, MetricRow, Scores, card_body, card_metadata, references_of
from stfit.publish.readme import merge_readme, write_readme
from stfit.recipe.load import load_recipe
from stfit.workflows.report.card_data import describe_folder, describe_run, first_rows

NASTY = {
    "html": '<script src="https://evil.example/x.js"></script><img src=x>',
    "image": "![tracked](https://evil.example/pixel.png)",
    "link": "[click me](https://evil.example) www.evil.example https://evil.example",
    "table": "a | b \\| c",
    "backticks": "` `` ```sh\nrm -rf / ``` `````",
    "front matter": "---\nlicense: mine\n---",
    "jinja": "{{ 7 * 7 }} {% raw %}",
    "right to left": "abc \u202e dcba \u2066",
    "control": "bell\x07 null\x00 escape\x1b[31m",
    "markers": "<!-- stfit: end of the generated section -->",
    "quote": "he said \"no\", 'yes' and \\",
    "long": "word " * 2000,
    "markdown": "# title *bold* _it_ ~~no~~ $x$ $$y$$ @someone",
}


@pytest.fixture(scope="module")
def facts(trained):
    """The facts of the trained run's card."""
    recipe = load_recipe(trained / "resolved.yaml").recipe
    saved = json.loads((trained / "result.json").read_text())
    from stfit.runtime.run_folder import RunFolder

    return describe_run(RunFolder(trained), recipe, saved["result"], saved["main"], "me/tiny", None)


def rendered(facts: CardData) -> str:
    return MarkdownIt("gfm-like", {"linkify": False}).render(card_body(facts))


def test_train_leaves_a_card_that_the_hubs_own_reader_takes(trained, facts):
    card = ModelCard.load(trained / "model" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en"]
    losses = {"loss:MatryoshkaLoss", "loss:MultipleNegativesRankingLoss"}
    assert {"sentence-transformers", "generated_from_trainer", "dataset_size:12"} | losses <= set(card.data.tags)
    assert (trained / "model" / "README.md").read_text() == write_readme(card_metadata(facts), card_body(facts))
    assert (trained / "model" / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_the_card_are_those_of_the_run(trained, facts):
    result = json.loads((trained / "result.json").read_text())["result"]
    results = ModelCard.load(trained / "model" / "README.md").data.eval_results
    assert {(entry.dataset_name, entry.metric_type): entry.metric_value for entry in results} == {
        tuple(name.split("/")): value for name, value in result["metrics"].items()
    }
    main = "scores/spearman_cosine"
    row = f"| `{main}` | {result['baseline'][main]:.4f} | {result['metrics'][main]:.4f} |"
    assert row in card_body(facts)
    assert re.search(rf"{re.escape(row)} [+-][0-9.]+ \([+-][0-9.]+ to [+-][0-9.]+\) \|", card_body(facts))
    assert "6 steps in" in card_body(facts)
    assert f"torch {facts.training.versions['torch']}" in card_body(facts)
    assert "12-dimensional" in card_body(facts)


def test_recipe_of_the_card_is_the_whole_recipe(trained, facts):
    block = re.search(r"```yaml\n(.*?)```", card_body(facts), re.DOTALL)[1]
    shown, resolved = yaml.safe_load(block), yaml.safe_load((trained / "resolved.yaml").read_text())
    for source in (shown["data"], shown["eval"][0]):
        assert source["dataset"] == "./rows.jsonl"
    for source in (resolved["data"], resolved["eval"][0]):
        source["dataset"] = "./rows.jsonl"
    assert shown == resolved


def test_card_names_no_folder_of_this_machine(trained, facts):
    text = (trained / "model" / "README.md").read_text()
    for word in ("secret-project", "somebodys-home", str(Path.home()), sys.prefix, "runs/"):
        assert word not in text


def test_card_shows_rows_only_when_asked(trained, facts):
    recipe = load_recipe(trained / "resolved.yaml").recipe
    examples, _ = load_examples(recipe.objectives_by_path[""].data, "positive_pair", recipe.seed)
    assert "about rain" not in (trained / "model" / "README.md").read_text()
    rows = replace(facts.training.data[0], samples=first_rows(examples, 2))
    with_samples = replace(facts, training=replace(facts.training, data=[rows]))
    assert "| `about rain` | `all of rains` |" in card_body(with_samples)
    assert card_metadata(with_samples)["widget"] == [
        {"source_sentence": "about rain", "sentences": ["all of rains", "about bread", "all of breads"]}
    ]


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_text_of_others_stays_text(facts, text):
    name = re.sub(r"[/@\s]+", "-", text)
    samples = [{"anchor": text, "positive": text, "label": 1}]
    rows = DatasetFacts(text, None, text, text, None, 3, {"anchor": text}, text, samples)
    nasty = replace(
        facts,
        prompts={"query": text, "document": text, text: text},
        notes=[text],
        scores=[Scores(name, "similarity", rows, {"spearman_cosine": 0.5})],
        metrics=[MetricRow(f"{name}/spearman_cosine", 0.5, {"other": 0.1, "gain": 0.4})],
        training=replace(
            facts.training,
            base=text,
            data=[rows],
            hardware=text,
            recipe=yaml.safe_dump({"prompts": {"query": text}}),
        ),
    )
    html = rendered(nasty)
    assert set(re.findall(r"<(\w+)", html)) <= set(re.findall(r"<(\w+)", rendered(facts))) | {
        "blockquote", "strong", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert re.findall(r'<img src="([^"]*)"', html) == ["loss_curve.png"]
    assert "evil.example" not in "".join(re.findall(r'href="([^"]*)"', html))
    assert html.count("<h2>") == rendered(facts).count("<h2>")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", card_body(nasty).replace("\n", ""))
    tables = re.findall(r"(?:^\|.*\n)+", card_body(nasty), re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    readme = write_readme(card_metadata(nasty), card_body(nasty))
    assert RepoCard(readme).data.to_dict() == card_metadata(nasty)
    assert merge_readme(readme, card_metadata(nasty), card_body(nasty)) == readme


def test_cuts_a_text_of_ten_kilobytes(facts):
    assert len(card_body(replace(facts, prompts={"query": "word " * 2000}))) < len(card_body(facts)) + 400


def test_unmeasured_model_says_so(trained):
    facts = describe_folder(trained / "model", "me/tiny")
    assert "This model was not evaluated." in card_body(facts)
    assert "There is no record of how this model was trained." in card_body(facts)
    assert "model-index" not in card_metadata(facts)


def test_interval_and_published_value_stand_in_the_table(facts):
    published = {"other": 0.4, "gain": 0.1, "low": 0.02, "high": 0.18}
    line = MetricRow("scores/spearman_cosine", 0.5, {"other": 0.1, "gain": 0.4}, published)
    body = card_body(replace(facts, metrics=[line]))
    assert "| `scores/spearman_cosine` | 0.1000 | 0.5000 | +0.4000 | 0.4000 | +0.1000 (+0.0200 to +0.1800) |" in body


def test_hub_base_and_datasets_are_linked_in_the_metadata(facts):
    training = replace(facts.training, base="org/base", base_on_hub=True, base_commit="c" * 40)
    rows = DatasetFacts("org/pairs", "org/pairs", None, "train", "d" * 40, 9, {})
    metadata = card_metadata(replace(facts, training=replace(training, data=[rows])))
    assert metadata["base_model"] == "org/base"
    assert metadata["base_model_relation"] == "finetune"
    assert metadata["datasets"] == ["org/pairs"]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.tag())
def test_references_of_a_loss_are_whole_addresses(loss):
    urls = re.findall(r"https?://", " ".join((loss.__doc__ or "").split()))
    references = references_of(loss.model_construct())
    assert len(references) == len(urls)
    assert all(re.fullmatch(r"https://[\w./-]+\w", url) for _, url in references)
    assert all(re.fullmatch(r"|[\w .-]+(, \d{4})?", words) for words, _ in references), references


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [{}, {"query": "ask: ", "document": "say: "}], ids=["plain", "prompts"])
def test_snippets_run_as_they_stand(trained, facts, tmp_path, prompts):
    pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "tiny").symlink_to(trained / "model")
    body = card_body(replace(facts, prompts=prompts))
    python, shell = (re.search(rf"```{kind}\n(.*?)```", body, re.DOTALL)[1] for kind in ("python", "sh"))
    stfit = f'#!/bin/sh\nexec {sys.executable} -m stfit "$@"\n'
    (tmp_path / "stfit").write_text(stfit)
    (tmp_path / "stfit").chmod(0o755)
    for command in ([sys.executable, "-c", python], ["sh", "-ec", f"PATH=$PWD:$PATH\n{shell}"]):
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "embeddings.npy").is_file()
