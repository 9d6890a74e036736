import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hub.server import Server
from tiny_bases import BUILDERS, RERANKERS, SENTENCES, WITHOUT_PADDING


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small only lose by threads: on a busy machine they wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture
def promise(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Callable[[str, str], None]:
    """Notes what a proof has shown, for the table at the end: the promise, and the figure."""
    command = f"pytest {request.node.nodeid}".partition("[")[0]
    return lambda what, figure: record_property("promise", (what, command, figure))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Halves of surrogate pairs, which tests put into messages, would end pytest-xdist when it sends the report."""
    report = yield
    report.sections = [(name, _encodable(text)) for name, text in report.sections]
    if (text := str(report.longrepr)) != _encodable(text):
        report.longrepr = _encodable(text)
    return report


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table: promise, figure, command."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == "promise"]
    if rows:
        terminalreporter.section("promises")
    for what, command, figure in rows:
        terminalreporter.write_line(f"{what}: {figure}   [{command}]")


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for each of some hundred trainings: only the tests that use `pictures` have them drawn."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("stfit.workflows.train.finish.write_report", lambda folder: None)
        monkeypatch.setattr(
            "stfit.workflows.report.card_data.draw_loss_curve", lambda *data: data[-1].write_bytes(b"\x89PNG")
        )


@pytest.fixture
def pictures() -> None:
    """Trainings in this process end with a report and a picture in the card, as they do for users."""


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts what it puts in the background deaf to SIGINT, and so would be all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, models and oracles that is handed to developers beside the project."""
    folder = os.environ.get("STFIT_SHARED")
    if not folder:
        pytest.skip("STFIT_SHARED is not set: it names the folder of real data, models and oracles")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm(shared: Path) -> Path:
    """A real, plain BERT encoder of 6 layers."""
    return shared / "models" / "plain-minilm-l6-h384"


@pytest.fixture
def hub() -> Iterator[Server]:
    """An empty Hub with two accounts: `me` (token `hf_me`), of the organisation `team`, and `guest` (`hf_guest`)."""
    with Server() as server:
        server.account("hf_me", "me", orgs=("team",))
        server.account("hf_guest", "guest")
        yield server


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return SENTENCES


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind -> folder of a plain checkpoint of that architecture: two layers, random weights large enough to matter."""
    folder = tmp_path_factory.mktemp("bases")

    def build(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            torch.manual_seed(7)
            model, tokenizer = (BUILDERS | WITHOUT_PADDING | RERANKERS)[kind]()
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.ndim == 2:  # as drawn, attention would hardly show a wrong mask or position
                        weight.mul_(4)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return build
