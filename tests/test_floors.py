"""The house keeps its floors, and what must be quick loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stfit"

FLOORS = {
    "errors": 0,
    "lazy": 0,
    "paths": 0,
    "plugins": 0.3,
    "similarity": 0.3,
    "distributed": 0.3,
    "spec": 0.6,
    "io": 1,
    "hub": 1.5,
    "runtime": 1.5,
    "encoder": 2,
    "data": 2,
    "losses": 2,
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


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def rooms_imported_by(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "stfit" else {node.module}
            )
    return {name.split(".")[1] for name in names if name and name.startswith("stfit.")}


def test_a_room_imports_only_from_rooms_below_it() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        for other in rooms_imported_by(path) - {room}:
            assert FLOORS[other] < FLOORS[room], (
                f"{path.relative_to(PACKAGE)} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
            )


def test_only_the_command_line_prints() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "cli":
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
