"""A page contains text of unknown origin as text, wherever it comes from."""

import pytest
from report.pages import assert_valid_page

from stfit.report.comparison import comparison_page
from stfit.report.page import report_page
from stfit.report.run_summary import RunSummary

HOSTILE = "<script>alert(1)</script><img src=x> & \" ' {{ 7 * 7 }} {% raw %} </title></pre></style> \u202e ]]> --> "
GAIN = {"value": 0.5, "other": 0.4, "gain": 0.1, "low": 0.02, "high": 0.18, "verdict": "better"}


def snapshot(scores):
    nearest = [[[0, 0.9, 1], [1, 0.5, -1], [1, 0.4, 0]]]
    kinds = {"positives": [0, None], "negatives": [1, 1], "positive": [0.9, 0.8], "negative": [0.1, 0.2]}
    return {"similarity": "cosine", "score": scores, "nearest": nearest, "map": [[0.0, 1.0], [1.0, 0.0]], **kinds}


@pytest.fixture
def run():
    """A finished run whose every text is hostile."""
    sample = {"name": HOSTILE, "left": [HOSTILE, "b"], "right": [HOSTILE, "d"], "labels": [HOSTILE, "B"]}
    steps = [{"event": "step", "step": step, "rows": 4, "loss": 1.0, "learning_rate": 0.1} for step in (1, 2)]
    evaluations = [{"event": "eval", "step": step, HOSTILE: 0.4} for step in (0, 2)]
    return RunSummary(
        name=HOSTILE,
        state=HOSTILE,
        date=HOSTILE,
        inputs=[(HOSTILE, HOSTILE)],
        recipe={HOSTILE: HOSTILE},
        resolved=f"key: {HOSTILE}\nother: {HOSTILE}",
        lock=HOSTILE,
        main=[HOSTILE],
        before={HOSTILE: 0.4},
        after={HOSTILE: 0.5},
        gains={HOSTILE: GAIN},
        log=steps + evaluations,
        record={
            "warnings": [{"message": HOSTILE, "code": HOSTILE}],
            "samples": [sample | {"gold": None, "beside": [0, 1]}],
            "seen": {"start": [snapshot([0.1, 0.2])], "end": [snapshot([0.3, 0.1])]},
            "lengths": {"tokens": [3, 9], "texts": [2, 1], "limit": 9},
        },
        seconds={"forward": 1.0, "backward": 2.0},
        machine=[(HOSTILE, HOSTILE)],
    )


def test_hostile_text_stays_text_on_a_report(run):
    text = report_page(run)
    page = assert_valid_page(text)
    assert "{{ 7 * 7 }}" in text
    assert not page.all("img")
    assert "key: <script>" in "".join(page.texts)
    headings = [
        "Before and after",
        "Similarities",
        "Examples",
        "Nearest neighbors",
        "Lengths",
    ]
    assert set(headings) <= set(page.texts)


def test_hostile_text_stays_text_on_a_comparison(run):
    page = assert_valid_page(comparison_page([run, run], [{}, {HOSTILE: GAIN}]))
    assert not page.all("img")
    assert "The recipes are identical." in page.texts
    assert {"Metrics", "Curves", "Time and memory"} <= set(page.texts)


def test_empty_sections_are_left_out(run):
    empty = {"log": [], "record": {}, "seconds": {}, "machine": [], "main": [], "before": {}, "after": {}, "gains": {}}
    text = report_page(RunSummary(**(vars(run) | empty)))
    page = assert_valid_page(text)
    assert [attributes["id"] for attributes in page.all("h2")] == ["verdict", "data", "recipe"]
    assert "This run was not evaluated" in text
