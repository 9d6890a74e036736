"""stfit owns a marked section of a README; what people write is theirs."""

import pytest
import yaml
from huggingface_hub import RepoCard

from stfit.publish.readme import BEGIN, END, merge_readme, write_readme

METADATA = {"library_name": "sentence-transformers", "tags": ["stfit", "loss:New"], "model-index": [{"name": "new"}]}
BODY = "# New\n\nThe new body."

HAND_WRITTEN = {
    "text only": "# My model\n\nI wrote this.\n",
    "metadata and text": "---\nlicense: mit\n---\n# My model\n",
    "one marker": f"---\nlicense: mit\n---\nMine\n{BEGIN}\nstill mine\n",
    "markers in the wrong order": f"{END}\nmine\n{BEGIN}\n",
    "marker inside a line": f"see {BEGIN} and {END}\n",
    "metadata that is no YAML": "---\na: [\n---\n" + f"{BEGIN}\n{END}\n",
    "metadata that is a list": "---\n- a\n---\n" + f"{BEGIN}\n{END}\n",
}


@pytest.mark.parametrize("old", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_readme_written_by_hand_is_left_alone(old):
    assert merge_readme(old, METADATA, BODY) is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_stands_outside_of_the_section_is_kept(end):
    handwritten = [f"# Mine{end}{end}Before: `code` --- é{end}{end}", f"{end}## After{end}no end of line"]
    old = f"---{end}license: mit{end}---{end}{handwritten[0]}{BEGIN}{end}old body{end}{END}{end}{handwritten[1]}"
    new = merge_readme(old, METADATA, BODY)
    text = RepoCard(new).text
    assert text.startswith(handwritten[0])
    assert text.endswith(handwritten[1])
    assert BODY in text
    assert "old body" not in text


def test_merging_again_changes_nothing():
    old = f"---\nlicense: mit\ntags: [mine]\n---\nBefore\n{BEGIN}\nold\n{END}\nAfter\n"
    once = merge_readme(old, METADATA, BODY)
    assert merge_readme(once, METADATA, BODY) == once
    generated = write_readme(METADATA, BODY)
    assert merge_readme(generated, METADATA, BODY) == generated


def test_keys_that_people_gave_are_kept_and_those_of_stfit_renewed():
    old = write_readme({"license": "mit", "tags": ["mine", "loss:Old"], "model-index": [{"name": "old"}]}, "old")
    front = RepoCard(merge_readme(old, METADATA, BODY)).data.to_dict()
    assert front == {
        "license": "mit",
        "tags": ["mine", "stfit", "loss:New"],
        "model-index": [{"name": "new"}],
        "library_name": "sentence-transformers",
    }


def test_readme_of_metadata_only_gets_the_section():
    assert merge_readme("---\nlicense: mit\n---\n", METADATA, BODY) == write_readme(
        {"license": "mit", **METADATA, "tags": METADATA["tags"]}, BODY
    )


def test_a_body_that_quotes_the_markers_does_not_end_the_section():
    body = f"```yaml\nprompts:\n  query: |\n    {END}\n```"
    once = write_readme(METADATA, body) + "mine\n"
    assert merge_readme(once, METADATA, body) == once
    assert yaml.safe_load(once.split("---")[1]) == METADATA
