"""What the classes of a recipe allow at a place of the file.

A shape is the list of things one value may be: Specs, `dict[str, X]`, `list[X]`, Literals and plain types, with
Annotated and unions taken apart.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, reduce
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from stfit.recipe.marked_yaml import Node
from stfit.spec import Choice, Spec, accepted_names

Types: TypeAlias = list[Any]
Key: TypeAlias = str | int


def types_in(annotation: Any) -> Types:
    """Everything a value of this annotation may be."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        added = [spec for mark in arguments[1:] if isinstance(mark, Choice) for spec in mark.plugin_choices]
        return types_in(arguments[0]) + added
    if origin in (Union, UnionType):
        return [kind for argument in arguments for kind in types_in(argument)]
    return [annotation]


def _types_of_field(field: FieldInfo) -> Types:
    """Everything that a key may be; pydantic keeps the marks of an annotation apart from it."""
    return types_in(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def specs_in(shape: Types) -> list[type[Spec]]:
    """The classes among what a value may be."""
    return [kind for kind in shape if isinstance(kind, type) and issubclass(kind, Spec)]


def fields_of(spec: type[Spec]) -> dict[str, FieldInfo]:
    """The keys of a section, as a recipe spells them."""
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def child_types(shape: Types, key: Key) -> Types:
    """What may stand under `key`, whichever of the alternatives is chosen."""
    found: Types = []
    for kind in shape:
        origin: Any = get_origin(kind)
        if origin is (list if isinstance(key, int) else dict):
            found += types_in(get_args(kind)[-1])
        fields = [fields_of(spec).get(str(key)) for spec in specs_in([kind])]
        found += [inner for field in fields if field for inner in _types_of_field(field)]
    return found


def types_at(shape: Types, keys: tuple[Key, ...]) -> Types:
    """What may stand at the end of a path of keys."""
    return reduce(child_types, keys, shape)


def choices_in(shape: Types) -> list[type[Spec]]:
    """The classes that are chosen by their `type`."""
    return [spec for spec in specs_in(shape) if "type" in spec.model_fields]


def bare_names(shape: Types) -> dict[str, str]:
    """Accepted name -> tag, where a bare name is a choice; empty where any text may stand (a Hub id)."""
    return {} if str in shape else accepted_names(choices_in(shape))


def normalize_choices(node: Node, shape: Types) -> Node:
    """The same tree with every bare name written as `{type: name}` and every alias as the tag it stands for.

    Then both spellings are merged, overridden and explained alike.
    """
    names = bare_names(shape)
    if names and isinstance(node.value, str):
        return Node({"type": replace(node, value=names.get(node.value, node.value))}, node.mark, node.key)
    if isinstance(node.value, list):
        return replace(node, value=[normalize_choices(item, child_types(shape, 0)) for item in node.value])
    if not isinstance(node.value, dict):
        return node
    entries = {key: normalize_choices(child, child_types(shape, key)) for key, child in node.value.items()}
    chosen = entries.get("type")
    if chosen and isinstance(chosen.value, str) and chosen.value in names:
        entries["type"] = replace(chosen, value=names[chosen.value])
    return replace(node, value=entries)


@cache
def key_owners(model: type[Spec], section: str = "") -> dict[str, list[tuple[str, type[Spec]]]]:
    """Key -> the sections (dotted; empty for the top level) and classes that know it."""
    found: dict[str, list[tuple[str, type[Spec]]]] = {}
    for key, field in fields_of(model).items():
        found.setdefault(key, []).append((section, model))
        shape = _types_of_field(field)
        for spec in specs_in(shape + child_types(shape, 0)):
            for inner, places in key_owners(spec, f"{section}.{key}".lstrip(".")).items():
                found.setdefault(inner, []).extend(places)
    return found
