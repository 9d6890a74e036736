"""pyproject.toml declares every package that stfit imports, and no other."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in ("test", "dev")}


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


DECLARED = {name_of(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines}


def imported_packages() -> set[str]:
    """Top-level names, also of lazy imports, without the standard library and stfit."""
    names = set()
    for path in (ROOT / "stfit").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names |= set(re.findall(r'(?:lazy|import_module|find_spec)\("([\w.]+)"\)', text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"stfit"}


OTHER_NAMES = {"upath": {"universal-pathlib"}}
"""Package -> what it is installed as, if that does not begin like it."""


def distributions_of(package: str, installed: dict[str, list[str]]) -> set[str]:
    """Names under which it can be installed; of what is not here, all that are declared and begin like it."""
    names = {name.lower().replace("_", "-") for name in installed.get(package, [])}
    return (
        names
        or OTHER_NAMES.get(package)
        or {name for name in DECLARED if name == package or name.startswith(f"{package}-")}
    )


def test_every_import_is_declared() -> None:
    installed = packages_distributions()
    missing = {package for package in imported_packages() if not DECLARED & distributions_of(package, installed)}
    assert missing == set()


def test_what_is_declared_is_imported() -> None:
    installed = packages_distributions()
    imported = {name for package in imported_packages() for name in distributions_of(package, installed)}
    assert {name_of(line) for line in PROJECT["dependencies"]} - imported == set()
