"""A report in a real browser: no errors, no requests, and no violation that axe-core finds."""

import json
import os
import shutil
import subprocess
from contextlib import chdir
from html import unescape
from pathlib import Path

import pytest

from stfit.commands.report import report
from stfit.commands.train import train
from stfit.recipe.load import load_recipe
from stfit.report.render import POLICY
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.report.summarize_run import write_report

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes"
DARK = "--blink-settings=preferredColorScheme=0"
RUN = """
<script>
const failed = [];
addEventListener("error", event => failed.push(String(event.message)));
addEventListener("securitypolicyviolation", event => failed.push(event.blockedURI));
</script>
<script>%s</script>
<script>
axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}).then(found => {
  const shown = document.createElement("pre");
  shown.id = "found";
  shown.textContent = JSON.stringify({
    violations: found.violations.map(each => `${each.id}: ${each.nodes[0].html.slice(0, 200)}`),
    passes: found.passes.map(each => each.id),
    requests: performance.getEntriesByType("resource").map(each => each.name),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    scrolled: [...document.querySelectorAll(".wide")].filter(each => each.scrollWidth > each.clientWidth)
      .map(each => each.getAttribute("aria-label")),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    failed,
  });
  document.body.appendChild(shown);
});
</script>
"""


@pytest.fixture(scope="module")
def chromium():
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no chromium: apt-get install chromium")
    return browser


@pytest.fixture(scope="module")
def axe():
    path = os.environ.get("STFIT_AXE")
    if not path:
        pytest.skip("STFIT_AXE is not set: it names axe.min.js, from npm install axe-core")
    return Path(path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of two real runs, and the page that compares them, each named three times."""
    folder = tmp_path_factory.mktemp("runs")
    runs = []
    for name in ("labeled_text", "labeled_pair"):
        loaded = load_recipe(RECIPES / f"{name}.yaml", ["train.epochs=null", "train.max_steps=20"])
        with chdir(folder):
            list(train(loaded, folder))
        runs.append(folder / name)
        write_report(RunFolder(runs[-1]))
    report(runs * 3)
    return {run.name: run / "report.html" for run in runs} | {"comparison": folder / "comparison.html"}


def browse(chromium, page, folder, *options):
    """What a browser makes of a page."""
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--no-first-run"),
        *("--enable-logging=stderr", "--virtual-time-budget=20000", *options, page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def look(chromium, axe, page, folder, *options):
    """What a browser and axe-core find on a page; the page's own policy would let neither in."""
    policy = f"{POLICY}; script-src 'unsafe-inline'"
    text = page.read_text(encoding="utf-8").replace(POLICY, policy)
    watched = folder / "watched.html"
    watched.write_text(text.replace("</body>", (RUN % axe) + "</body>"), encoding="utf-8")
    process = browse(chromium, watched, folder, "--dump-dom", *options)
    findings = json.loads(unescape(process.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]))
    return findings | {"console": [line for line in process.stderr.splitlines() if "CONSOLE" in line]}


@pytest.mark.parametrize("options", [[], [DARK], ["--window-size=360,800"]], ids=["light", "dark", "narrow"])
@pytest.mark.parametrize("name", ["labeled_text", "labeled_pair", "comparison"])
def test_nothing_is_wrong_with_a_page_in_a_browser(chromium, axe, pages, tmp_path, name, options):
    findings = look(chromium, axe, pages[name], tmp_path, *options)
    assert {"violations", "requests", "failed", "console"} <= findings.keys()
    assert [findings[key] for key in ("violations", "requests", "failed", "console")] == [[], [], [], []]
    assert {"color-contrast", "landmark-one-main", "region", "svg-img-alt"} <= set(findings["passes"])
    assert findings["dark"] == (DARK in options)
    assert not findings["wide"]


def test_six_runs_fit_on_a_page_of_ordinary_width(chromium, axe, pages, tmp_path):
    assert look(chromium, axe, pages["comparison"], tmp_path, "--window-size=1200,800")["scrolled"] == []


def test_a_page_as_it_is_opens_without_a_word_on_the_console(chromium, pages, tmp_path):
    for page in pages.values():
        process = browse(chromium, page, tmp_path, "--dump-dom")
        assert "CONSOLE" not in process.stderr
        assert "Before and after" in process.stdout or "Metrics" in process.stdout


def test_a_page_can_be_printed(chromium, pages, tmp_path):
    browse(chromium, pages["labeled_text"], tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
