"""The base of every choice a recipe can make.

A choice is one frozen class: a `type` tag, fields documented by the string under them, and the behaviour itself.
Classes become alternatives of one another in a union, and the union is the registry::

    Loss = Annotated[Contrastive | CoSENT | Triplet, CHOICE]

From that one line come parsing, bare names (`loss: cosent`), the class names of sentence-transformers as aliases, the
JSON schema and the reference page. Installed packages add choices to a union with `Choice("loss", ...)` in the place
of CHOICE: see installed.py.
"""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stfit.errors import RecipeError
from stfit.plugins import installed_choices


class Spec(BaseModel):
    """Settings of one thing: immutable, strict about types, closed to unknown keys."""

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
        """The name by which a recipe chooses this class."""
        return str(cls.model_fields["type"].default)


def accepted_names(choices: list[type[Spec]]) -> dict[str, str]:
    """Every accepted spelling -> the tag it stands for."""
    return {name: choice.tag() for choice in choices for name in (choice.tag(), *choice.aliases)}


class Choice:
    """Annotation on a union of Specs: a bare name or a mapping with `type` picks one of them."""

    def __init__(self, kind: str | None = None, *needs: str) -> None:
        self.kind = kind
        """What installed packages call such a choice; None keeps the union closed to them."""
        self.needs = needs
        """Attributes that a choice of theirs must have."""

    @property
    def added(self) -> list[type[Spec]]:
        """The choices of installed packages."""
        return installed_choices(self.kind, Spec, self.needs) if self.kind else []

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = [*union_members(source), *self.added]
        tags = [member.tag() for member in members]
        if twice := {tag for tag in tags if tags.count(tag) > 1}:
            raise RecipeError(f"several packages add the choice `{twice.pop()}`: uninstall one of them")
        names = accepted_names(members)

        def spell_out(value: Any) -> Any:
            if isinstance(value, str):
                return {"type": names.get(value, value)}
            if isinstance(value, dict) and isinstance(value.get("type"), str):
                return {**value, "type": names.get(value["type"], value["type"])}
            return value

        tagged = core_schema.tagged_union_schema(
            {member.tag(): handler.generate_schema(member) for member in members}, discriminator="type"
        )
        return core_schema.no_info_before_validator_function(spell_out, tagged, metadata={"names": names})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        tags: dict[str, str] = schema["metadata"]["names"]
        union = handler(schema["schema"])
        return {"anyOf": [{"type": "string", "enum": list(tags)}, *union["oneOf"]]}


CHOICE = Choice()


def union_members(union: Any) -> list[type[Spec]]:
    """The classes of a union of Specs, annotated or not; one class counts as a union of one."""
    arguments = get_args(union)
    if not arguments:
        return [union]
    marks = [argument for argument in arguments[1:] if isinstance(argument, Choice)]
    if marks:
        return union_members(arguments[0]) + [choice for mark in marks for choice in mark.added]
    return [member for argument in arguments for member in union_members(argument)]
