"""`--read KEY=VALUE` of the command line -> the options of reading a file."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from stfit.data.source import ReadOptions
from stfit.errors import RecipeError
from stfit.recipe.marked_yaml import COMMAND_LINE, Mark, Node, SourceText
from stfit.recipe.overrides import apply_overrides
from stfit.recipe.validation_errors import explain_errors


def read_options(arguments: Sequence[str] | None) -> ReadOptions:
    """Each argument is written as in `read` of a recipe. Raises RecipeError."""
    nothing = Node({}, Mark(SourceText(COMMAND_LINE, Path.cwd(), []), 1, 1))
    root, problems = apply_overrides(nothing, arguments or (), [ReadOptions])
    try:
        options = ReadOptions.model_validate(root.plain())
    except ValidationError as error:
        problems += explain_errors(error, root, ReadOptions)
    if problems:
        raise RecipeError(problems)
    return options
