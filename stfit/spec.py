"""Base class of every choice in a recipe.

A choice is one frozen class: a `type` tag, fields documented by the string below them, and its behavior. A union of
such classes is the registry::

    Loss = Annotated[Contrastive | CoSENT | Triplet, CHOICE]

This line defines parsing, bare names (`loss: cosent`), the class names of sentence-transformers as aliases, the JSON
schema and the reference page. With `Choice("loss", LossBase)` instead of CHOICE, installed packages can add to the
union: see plugins.py.
"""

import re
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stfit.errors import RecipeError
from stfit.plugins import installed_choices


class Spec(BaseModel):
    """Settings: immutable, strictly typed, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names for the same choice, accepted in recipes (sentence-transformers' class name)."""

    @classmethod
    def tag(cls) -> str:
        return str(cls.model_fields["type"].default)


class TextLike:
    """Annotation of a text that matches `pattern`: an error says `description`, which people understand."""

    def __init__(self, pattern: str, description: str) -> None:
        self._pattern, self._description = pattern, description

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._require_match, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"pattern": self._pattern}

    def _require_match(self, text: str) -> str:
        if re.fullmatch(self._pattern, text) is None:
            raise ValueError(f"expected {self._description}")
        return text


def accepted_names(choices: list[type[Spec]]) -> dict[str, str]:
    return {name: choice.tag() for choice in choices for name in (choice.tag(), *choice.aliases)}


class Choice:
    """Annotation of a union of Specs: a bare name, or a mapping with `type`, selects one of them."""

    def __init__(self, kind: str | None = None, base: type[Spec] = Spec, *required_attributes: str) -> None:
        """`kind`: prefix of such choices among the entry points of installed packages; None: packages can't add any."""
        self._kind, self._base, self._required_attributes = kind, base, required_attributes

    @property
    def plugin_choices(self) -> list[type[Spec]]:
        return installed_choices(self._kind, self._base, self._required_attributes) if self._kind else []

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = [*union_members(source), *self.plugin_choices]
        tags = [member.tag() for member in members]
        if duplicates := {tag for tag in tags if tags.count(tag) > 1}:
            raise RecipeError(f"several packages add the choice `{duplicates.pop()}`: uninstall all but one")
        names = accepted_names(members)

        def normalize_choice(value: Any) -> Any:
            entries = {"type": value} if isinstance(value, str) else value
            if isinstance(entries, dict) and isinstance(name := entries.get("type"), str):
                return {**entries, "type": names.get(name, name)}
            return value

        schemas = {member.tag(): handler.generate_schema(member) for member in members}
        tagged = core_schema.tagged_union_schema(schemas, discriminator="type")
        return core_schema.no_info_before_validator_function(normalize_choice, tagged, metadata={"names": names})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        tags: dict[str, str] = schema["metadata"]["names"]
        union = handler(schema["schema"])
        return {"anyOf": [{"type": "string", "enum": list(tags)}, *union["oneOf"]]}


CHOICE = Choice()


def union_members(annotation: Any) -> list[Any]:
    """The types that a value with this annotation can have, with the choices of installed packages."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        added = [choice for mark in arguments[1:] if isinstance(mark, Choice) for choice in mark.plugin_choices]
        return union_members(arguments[0]) + added
    if origin in (Union, UnionType):
        return [member for argument in arguments for member in union_members(argument)]
    return [annotation]
