"""One tree over another: a recipe over the one it extends, and the command line over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stfit.errors import Problem, RecipeError
from stfit.recipe.marked_yaml import COMMAND_LINE, MAX_DEPTH, Mark, Node, SourceText, quoted, read_yaml
from stfit.recipe.type_tree import Types, child_types, choices_in, normalize_choices

VERSIONED = ("dataset", "base")
"""Keys beside which a `revision` says which version is meant."""


def merge(parent: Node, child: Node, shape: Types) -> Node:
    """`child` over `parent`: mappings key by key, anything else replaced.

    When the child makes another choice (`type`), the keys of the parent's choice do not survive, and when it names
    another `dataset` or `base`, the `revision` of the parent's does not.
    """
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict) or _changes_choice(parent, child, shape):
        return child
    entries = _without_stale_revision(parent.value, child)
    for key, value in child.value.items():
        entries[key] = merge(entries[key], value, child_types(shape, key)) if key in entries else value
    return replace(child, value=entries)


def _changes_choice(parent: Node, child: Node, shape: Types) -> bool:
    """Whether `child` names another `type` than `parent`."""
    before, after = parent.child("type"), child.child("type")
    return bool(choices_in(shape)) and before is not None and after is not None and before.value != after.value


def _without_stale_revision(entries: dict[str, Node], child: Node) -> dict[str, Node]:
    """What `child` leaves of entries: a revision is none of another dataset or base, unless it is an override too."""
    pairs = [(entries.get(key), child.child(key)) for key in VERSIONED]
    anew = any(before and after and before.value != after.value for before, after in pairs)
    stale = anew and "revision" in entries and str(entries["revision"].mark) != COMMAND_LINE
    return {key: value for key, value in entries.items() if key != "revision" or not stale}


def apply_overrides(root: Node, arguments: Sequence[str], shape: Types) -> tuple[Node, list[Problem]]:
    """The tree after every argument, and what is wrong with those that could not be applied.

    `key.path=value` replaces what stands there; its value is YAML by the rules of a file. `~key.path` deletes. A number
    is the index of an item where a list stands.
    """
    problems: list[Problem] = []
    # A new `type` drops the old choice's keys; it goes first, so that it can't drop what another argument has just set.
    for argument in sorted(arguments, key=lambda argument: not argument.partition("=")[0].endswith(".type")):
        try:
            root = _apply(root, argument, shape)
        except RecipeError as error:
            problems += error.problems
    return root, problems


def _apply(root: Node, argument: str, shape: Types) -> Node:
    """The tree after one argument. Raises RecipeError."""
    path, equals, value = argument.partition("=")
    deletes = path.startswith("~") and not equals
    path = path.removeprefix("~") if deletes else path
    mark = Mark(SourceText.of(argument, COMMAND_LINE, Path.cwd()), 1, 2 if deletes else 1, len(path))
    keys = path.split(".")
    if not all(keys) or len(keys) > MAX_DEPTH or not (equals or deletes):
        raise RecipeError(mark.problem("an override is `key.path=value`, or `~key.path` to delete", "override"))
    if keys[0] == "extends":
        raise RecipeError(mark.problem("`extends` stands in a file, and can't be overridden", "override"))
    if deletes:
        return _delete(root, keys, mark)
    # The key is blanked, not cut off, so that columns are those of the argument.
    written, problems = read_yaml(" " * (len(path) + 1) + value, COMMAND_LINE, Path.cwd(), shown=argument)
    if problems:
        raise RecipeError(problems)
    return _set(root, keys, replace(written, key=mark), mark, shape)


def _set(node: Node | None, keys: list[str], value: Node, mark: Mark, shape: Types) -> Node:
    """`node` with `value` at the end of `keys`; mappings on the way are made where there are none."""
    if not keys:
        return normalize_choices(value, shape)
    if node is not None and isinstance(node.value, list):
        index = _list_index(node.value, keys[0], mark)
        item = _set(node.value[index], keys[1:], value, mark, child_types(shape, index))
        return replace(node, value=[*node.value[:index], item, *node.value[index + 1 :]])
    entries = node.value if node is not None and isinstance(node.value, dict) else {}
    child = _set(entries.get(keys[0]), keys[1:], value, mark, child_types(shape, keys[0]))
    if node is None or node.value is not entries:
        return Node({keys[0]: child}, mark, mark)
    new = normalize_choices(Node({keys[0]: child}, mark, mark), shape)
    return (
        new
        if _changes_choice(node, new, shape)
        else replace(node, value={**_without_stale_revision(entries, new), keys[0]: child})
    )


def _delete(node: Node, keys: list[str], mark: Mark) -> Node:
    """`node` with what stands at the end of `keys` taken out."""
    key, inner = keys[0], keys[1:]
    if isinstance(node.value, list):
        index = _list_index(node.value, key, mark)
        kept = [_delete(node.value[index], inner, mark)] if inner else []
        return replace(node, value=[*node.value[:index], *kept, *node.value[index + 1 :]])
    child = node.child(key)
    if not isinstance(node.value, dict) or child is None:
        raise RecipeError(mark.problem(f"nothing to delete: {quoted(key)} is not in the recipe", "override"))
    if inner:
        return replace(node, value={**node.value, key: _delete(child, inner, mark)})
    return replace(node, value={other: value for other, value in node.value.items() if other != key})


def _list_index(items: list[Node], key: str, mark: Mark) -> int:
    """`key` as an index of the list. Raises RecipeError where it is none."""
    index = next((index for index in range(len(items)) if str(index) == key), None)
    if index is None:
        have = f"the items are 0 to {len(items) - 1}" if items else "it is empty"
        raise RecipeError(mark.problem(f"{quoted(key)} is not an index of this list: {have}", "override"))
    return index
