"""What users build on is written down in public_api.txt, so that a change to it is made on purpose.

After such a change: `python tests/test_public_api.py`, and an entry in recipes/guides/changelog.md.
"""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

WRITTEN = Path(__file__).with_name("public_api.txt")


def public_api() -> str:
    return "\n".join([*_functions(), *_classes(), *_errors(), *_encoder(), *_plugins(), *_verbs()]) + "\n"


def _functions() -> Iterator[str]:
    import stfit

    yield from (f"stfit.{name}{inspect.signature(getattr(stfit, name))}" for name in sorted(stfit.__all__))


def _classes() -> Iterator[str]:
    """Fields of the dataclasses of stfit.events and stfit.options."""
    for module in ("stfit.events", "stfit.options"):
        for name, found in inspect.getmembers(importlib.import_module(module), dataclasses.is_dataclass):
            if found.__module__ == module:
                fields = ", ".join(f"{field.name}: {field.type}" for field in dataclasses.fields(found))
                yield f"{module}.{name}({fields})"


def _errors() -> Iterator[str]:
    from stfit import errors

    for name, found in inspect.getmembers(errors, inspect.isclass):
        if issubclass(found, BaseException) and found.__module__ == errors.__name__:
            code = getattr(found, "exit_code", None)
            yield f"stfit.errors.{name}: exit code {code if isinstance(code, int) else '128 + signal'}"


def _encoder() -> Iterator[str]:
    """Of what `load` returns, these alone are public."""
    from stfit.encoder.encoder import Encoder

    yield f"Encoder.encode{inspect.signature(Encoder.encode)}"
    for name in ("output_dim", "device"):
        assert isinstance(getattr(Encoder, name), property)
        yield f"Encoder.{name}"


def _plugins() -> Iterator[str]:
    from stfit.plugins import GROUP

    yield f"entry points {GROUP}: evaluator.NAME, loss.NAME, pooling.NAME"


def _verbs() -> Iterator[str]:
    """Every verb with its arguments and options."""
    from stfit.cli.app import app

    group: Any = typer.main.get_command(app)
    for verb, command in sorted(group.commands.items()):
        words = [
            max(option.opts, key=len) if option.param_type_name == "option" else (option.name or "").upper()
            for option in command.params
        ]
        yield f"stfit {verb} {' '.join(words)}"


def test_the_public_surface_is_the_one_that_is_written_down() -> None:
    assert public_api().splitlines() == WRITTEN.read_text(encoding="utf-8").splitlines()


def test_every_public_name_is_explained() -> None:
    import stfit

    assert all(inspect.getdoc(getattr(stfit, name)) for name in stfit.__all__)
    page = (Path(__file__).parents[1] / "recipes" / "guides" / "stability.md").read_text(encoding="utf-8")
    assert [name for name in stfit.__all__ if f"`{name}" not in page] == []


if __name__ == "__main__":
    WRITTEN.write_text(public_api(), encoding="utf-8")
    sys.stdout.write(f"{WRITTEN}: written\n")
