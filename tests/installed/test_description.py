"""What a package index shows of a built package."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "https://example.org/team/stfit"


@pytest.fixture
def absolute():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("description", ROOT / ".github" / "description.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.absolute


def targets(text):
    return re.findall(r"\]\(([^)]*)\)", text)


def test_without_an_address_no_link_leads_into_the_repository(absolute):
    text = absolute(README, "")
    assert all(target.startswith("https://") for target in targets(text))
    assert "![" not in text
    assert "two to four times as fast" in text


def test_with_an_address_every_link_and_the_picture_lead_there(absolute):
    text = absolute(README, ADDRESS)
    assert len(targets(text)) == len(targets(README))
    assert all(target.startswith("https://") for target in targets(text))
    for target in targets(README):
        if not target.startswith("https://"):
            kind = "raw" if target.endswith(".svg") else "blob"
            assert f"]({ADDRESS}/{kind}/main/{target})" in text
