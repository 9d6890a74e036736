"""Rooms import only from rooms below them, files never in a circle, and quick commands load no heavy package."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stfit"

FLOORS = {
    "errors": 0,
    "events": 0,
    "lazy": 0,
    "paths": 0,
    "progress": 0,
    "options": 0.3,
    "plugins": 0.3,
    "similarity": 0.3,
    "rendezvous": 0.2,
    "distributed": 0.3,
    "spec": 0.6,
    "io": 1,
    "hub": 1.5,
    "runtime": 1.5,
    "encoder": 2,
    "data": 2,
    "losses": 2,
    "neighbors": 2.5,
    "generation": 3,
    "training": 3,
    "evaluation": 3,
    "publish": 3,
    "tracking": 3,
    "report": 3,
    "recipe": 4,
    "workflows": 5,
    "commands": 6,
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}


def module_name(path: Path) -> str:
    parts = ("stfit", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports: at once, inside a function, for type checkers, or on first use."""
    source = path.read_text()
    names = set(re.findall(r'lazy\("(stfit[\w.]+)"\)', source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    names &= MODULES.keys()
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}  # no packages


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def test_a_room_imports_only_from_rooms_below_it() -> None:
    for module, imported in IMPORTS.items():
        for other in imported:
            below = FLOORS[room_of(other)] < FLOORS[room_of(module)]
            assert below or room_of(other) == room_of(module), f"{module} imports {other}, which is not below it"


def test_files_never_import_each_other_in_a_circle() -> None:
    tuple(TopologicalSorter(IMPORTS).static_order())  # raises CycleError, which names the circle


def test_no_verb_imports_another() -> None:
    verbs = {module for module in MODULES if module.startswith("stfit.commands.")} - {"stfit.commands.api"}
    assert not {(verb, other) for verb in verbs for other in IMPORTS[verb] & verbs}


def test_only_the_command_line_prints() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "cli":
            assert "sys.stdout" not in path.read_text(), f"{path} writes to stdout"


HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib", "sklearn", "scipy")


def modules_after(arguments: list[str], folder: Path) -> set[str]:
    code = (
        "import sys\nfrom stfit.cli.main import main\n"
        f"sys.argv = ['stfit', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "sys.stderr.write('\\n@' + str(code) + ' ' + ' '.join(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.rpartition("@")[2].split()
    assert code in ("0", "None"), done.stderr
    return set(modules)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = "".join(f'{{"anchor": "question {i}", "positive": "answer {i}"}}\n' for i in range(8))
    (tmp_path / "pairs.jsonl").write_text(rows)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: {base: {type: scratch}}\n"
        "data: {dataset: ./pairs.jsonl, format: positive_pair}\n"
        "loss: multiple_negatives_ranking\n"
    )
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["check", "recipe.yaml"],
        ["schema"],
        ["init", "./pairs.jsonl", "-o", "new.yaml"],
        ["reference"],
        ["runs"],
    ],
)
def test_quick_commands_load_no_heavy_package(arguments: list[str], recipe: Path) -> None:
    loaded = modules_after(arguments, recipe.parent)
    assert not loaded & set(HEAVY), f"stfit {' '.join(arguments)} loads {loaded & set(HEAVY)}"


def test_help_loads_not_even_pydantic(tmp_path: Path) -> None:
    assert "pydantic" not in modules_after(["--help"], tmp_path)
