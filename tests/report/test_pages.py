"""A page contains text of unknown origin as text, wherever it comes from."""

import re
from dataclasses import replace

import pytest
from report.pages import Page, assert_valid_page

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
        costs={HOSTILE: HOSTILE},
        machine={"hardware": HOSTILE, HOSTILE: HOSTILE},
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
    page = assert_valid_page(comparison_page([run, run], [{}, {HOSTILE: GAIN}], 0))
    assert not page.all("img")
    assert "The recipes are identical." in page.texts
    assert {"Metrics", "Curves", "Time and memory", "Hardware and versions"} <= set(page.texts)


def test_empty_sections_are_left_out(run):
    empty = {
        "log": [],
        "record": {},
        "seconds": {},
        "costs": {},
        "machine": {},
        "main": [],
        "before": {},
        "after": {},
        "gains": {},
    }
    text = report_page(RunSummary(**(vars(run) | empty)))
    page = assert_valid_page(text)
    assert [attributes["id"] for attributes in page.all("h2")] == ["verdict", "data", "recipe"]
    assert "This run was not evaluated" in text


RATES = ("2e-05", "5e-05")


@pytest.fixture
def sweep(run):
    """Two learning rates, each with three seeds; the second rate is 0.1 better."""
    return [
        replace(
            run,
            name=f"{rate}-{seed}",
            recipe={"name": f"{rate}-{seed}", "train.learning_rate": rate, "seed": str(seed)},
            main=["m"],
            after={"m": 0.5 + 0.1 * RATES.index(rate) + 0.01 * seed},
            machine={"hardware": "a CPU", "torch": "2.13"},
        )
        for rate in RATES
        for seed in (1, 2, 3)
    ]


def compared(runs, baseline):
    """What a comparison of runs says, if all were measured on the same rows."""
    other = runs[baseline].after["m"]
    gains = [{"m": GAIN | {"gain": run.after["m"] - other}} for run in runs]
    return assert_valid_page(comparison_page(runs, gains, baseline))


def test_runs_are_grouped_and_named_by_the_one_key_in_which_they_differ(sweep):
    texts = compared(sweep, 4).texts
    assert [texts.count(f"train.learning_rate: {rate}") for rate in RATES] == [1, 1]  # in the legend
    assert [texts.count(f"rate: {rate}") for rate in RATES] == [1, 1]  # in the table, where the key may be wrapped
    assert texts.count("mean of 3 runs") == 2
    means = [(texts[i - 1], texts[i], texts[i + 1].strip()) for i, text in enumerate(texts) if text.startswith("± ")]
    assert means == [("0.5200", "± 0.0100", "-0.1000"), ("0.6200", "± 0.0100", "")]


def test_gains_are_over_the_run_that_is_chosen(sweep):
    gains = [text for text in compared(sweep, 4).texts if re.fullmatch(r"[-+]\S+ better", text)]
    assert gains == [f"{gain} better" for gain in ("-0.1100", "-0.1000", "-0.0900", "-0.0100", "+0.0100")]


def test_a_mean_over_other_rows_has_no_gain(sweep):
    page = Page(comparison_page(sweep, [{}, {}, {}, *[{"m": GAIN}] * 3], 4))
    assert page.texts.count("other rows") == 3 + 1


def test_the_legend_stands_above_the_curves(sweep):
    text = comparison_page(sweep, [{}] * 6, 0)
    height = {shown: float(y) for y, shown in re.findall(r'<text [^>]*y="([-.\d]+)"[^>]*>([^<]+)</text>', text)}
    assert height[f"train.learning_rate: {RATES[1]}"] < height["Loss"] - 8


def test_no_evaluator_is_left_without_a_curve(run):
    names = [*(f"search/recall@{k}" for k in range(9)), "pairs/spearman_cosine"]
    log = [{"event": "eval", "step": step, **dict.fromkeys(names, 0.5)} for step in (0, 1)]
    changed = replace(run, main=names, log=log)
    for text in (report_page(changed), comparison_page([changed, changed], [{}, {}], 0)):
        assert ">pairs/spearman_cosine</text>" in text


def test_equal_hardware_and_versions_are_printed_once(sweep):
    texts = compared(sweep, 0).texts
    assert [text for text in texts if text in ("a CPU", "torch 2.13")] == ["a CPU", "torch 2.13"]
    newer = replace(sweep[5], machine={"hardware": "a CPU", "torch": "2.14"})
    texts = compared([*sweep[:5], newer], 0).texts
    assert [text for text in texts if text in ("a CPU", "2.13", "2.14")] == ["a CPU", *["2.13"] * 5, "2.14"]
