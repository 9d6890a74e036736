"""Which types the classes of a recipe allow at each place in the file.

`Types` lists what one value can be: Specs, `dict[str, X]`, `list[X]`, Literals and plain types. Annotated and unions
are expanded.
"""

from dataclasses import replace
from functools import cache, reduce
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from pydantic.fields import FieldInfo

from stfit.recipe.marked_yaml import Node
from stfit.spec import Spec, accepted_names, union_members

Types: TypeAlias = list[Any]
Key: TypeAlias = str | int


def _types_of_field(field: FieldInfo) -> Types:
    """Pydantic stores the metadata of Annotated separately from the annotation."""
    return union_members(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def specs_in(types: Types) -> list[type[Spec]]:
    return [kind for kind in types if isinstance(kind, type) and issubclass(kind, Spec)]


def fields_of(spec: type[Spec]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def child_types(types: Types, key: Key) -> Types:
    children: Types = []
    for kind in types:
        origin: Any = get_origin(kind)
        if origin is (list if isinstance(key, int) else dict):
            children += union_members(get_args(kind)[-1])
        for spec in specs_in([kind]):
            if field := fields_of(spec).get(str(key)):
                children += _types_of_field(field)
    return children


def types_at(types: Types, keys: tuple[Key, ...]) -> Types:
    return reduce(child_types, keys, types)


def choices_in(types: Types) -> list[type[Spec]]:
    return [spec for spec in specs_in(types) if "type" in spec.model_fields]


def bare_names(types: Types) -> dict[str, str]:
    """Accepted name -> tag, if a bare name selects a choice; empty if any text is allowed (a Hub id)."""
    return {} if str in types else accepted_names(choices_in(types))


def normalize_choices(node: Node, types: Types) -> Node:
    """Write bare names as `{type: name}` and aliases as tags, so that merging and messages know one spelling only."""
    names = bare_names(types)
    if names and isinstance(node.value, str):
        return Node({"type": replace(node, value=names.get(node.value, node.value))}, node.mark, node.key)
    if isinstance(node.value, list):
        return replace(node, value=[normalize_choices(item, child_types(types, 0)) for item in node.value])
    if not isinstance(node.value, dict):
        return node
    entries = {key: normalize_choices(child, child_types(types, key)) for key, child in node.value.items()}
    chosen = entries.get("type")
    if chosen and isinstance(chosen.value, str) and chosen.value in names:
        entries["type"] = replace(chosen, value=names[chosen.value])
    return replace(node, value=entries)


@cache
def key_owners(model: type[Spec], section: str = "") -> dict[str, list[tuple[str, type[Spec]]]]:
    """Key -> the sections (dotted; empty for the top level) and classes that have it."""
    owners: dict[str, list[tuple[str, type[Spec]]]] = {}
    for key, field in fields_of(model).items():
        owners.setdefault(key, []).append((section, model))
        types = _types_of_field(field)
        for spec in specs_in(types + child_types(types, 0)):
            for inner, places in key_owners(spec, f"{section}.{key}".lstrip(".")).items():
                owners.setdefault(inner, []).extend(places)
    return owners
