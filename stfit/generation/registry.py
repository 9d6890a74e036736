"""The methods of generating pairs from passages. A new one is a file beside this, and one more mention here."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import ValidationError

from stfit.errors import RecipeError, did_you_mean
from stfit.generation.base import GeneratorBase
from stfit.generation.crop import Crop
from stfit.generation.endpoint import Endpoint
from stfit.generation.sentence import Sentence
from stfit.generation.seq2seq import Seq2Seq
from stfit.generation.title import Title
from stfit.spec import CHOICE

Generator = Annotated[Title | Crop | Sentence | Seq2Seq | Endpoint, CHOICE]

GENERATORS: dict[str, type[GeneratorBase]] = {each.tag(): each for each in get_args(get_args(Generator)[0])}


def choose_generators(names: list[str], settings: Mapping[str, Any]) -> list[GeneratorBase]:
    """Each method with those of the settings that it has. Raises RecipeError, with all mistakes."""
    unknown = [f"--method {name}: {did_you_mean(name, [*GENERATORS])}" for name in names if name not in GENERATORS]
    if unknown:
        raise RecipeError("\n".join(unknown))
    chosen = [GENERATORS[name] for name in dict.fromkeys(names)]
    mistakes = [
        f"{_option(key)} is for the method {' or '.join(_methods_with(key))}"
        for key in settings
        if not any(key in method.model_fields for method in chosen)
    ]
    methods = []
    for method in chosen:
        own = {key: value for key, value in settings.items() if key in method.model_fields}
        try:
            methods.append(method.model_validate(own))
        except ValidationError as error:
            mistakes += [f"{_explain(method, detail)}" for detail in error.errors(include_url=False)]
    if mistakes:
        raise RecipeError("\n".join(dict.fromkeys(mistakes)))
    return methods


def _methods_with(key: str) -> list[str]:
    return [name for name, method in GENERATORS.items() if key in method.model_fields]


def _explain(method: type[GeneratorBase], detail: Any) -> str:
    option = _option(str(detail["loc"][0])) if detail["loc"] else f"--method {method.tag()}"
    if detail["type"] == "missing":
        return f"--method {method.tag()} needs {option}"
    return f"{option}: {detail['msg'].removeprefix('Value error, ')}"


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"
