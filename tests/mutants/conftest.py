import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from stfit.commands.check import check
from stfit.errors import Problem


@dataclass
class Verdict:
    """What `stfit check` says about a mutant, beyond what it says about the recipe it was made of."""

    kind: str
    """refused, warned, silent, or the traceback's exception."""
    new: list[Problem]


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """Checks a recipe text against the text it was made of."""
    monkeypatch.chdir(tmp_path)

    def problems_of(text: str | bytes) -> tuple[list[Problem], list[Problem]]:
        path = Path("mutant.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        result = check(path, [])
        return result["errors"], result["warnings"]

    def judge_mutant(mutant: str | bytes, known: set[str]) -> Verdict:
        try:
            errors, warnings = problems_of(mutant)
        except Exception as error:
            return Verdict(f"traceback: {error!r:.200}", [])
        new = [problem for problem in errors + warnings if problem.message not in known]
        return Verdict("refused" if errors else "warned" if new else "silent", new)

    judge_mutant.problems_of = problems_of
    return judge_mutant


def show_table(capsys, title: str, kinds: list[str]) -> None:
    """The counts, where everybody who runs the proof sees them."""
    counts = Counter(kind.partition(":")[0] for kind in kinds)
    columns = ("refused", "warned", "silent", "traceback")
    with capsys.disabled():
        cells = [f"{title:<14}{len(kinds):>4} mutants", *(f"{counts[name]:>4} {name}" for name in columns)]
        sys.stdout.write("\n" + "".join(cells))


@pytest.fixture
def table(capsys):
    return lambda title, kinds: show_table(capsys, title, kinds)
