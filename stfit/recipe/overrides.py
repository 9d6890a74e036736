"""Merge a recipe into the recipe that it extends, and apply command-line overrides."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stfit.errors import Problem, RecipeError
from stfit.recipe.marked_yaml import COMMAND_LINE, MAX_DEPTH, Mark, Node, SourceText, quoted, read_yaml
from stfit.recipe.type_tree import Types, child_types, choices_in, normalize_choices

VERSIONED = ("dataset", "base")
"""Keys that a `revision` next to them refers to."""


def merge(parent: Node, child: Node, types: Types) -> Node:
    """Merge mappings key by key; anything else in `child` replaces the value in `parent`.

    Another `type` drops the keys of the parent's choice, another `dataset` or `base` the parent's `revision`.
    """
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict) or _changes_choice(parent, child, types):
        return child
    entries = _without_stale_revision(parent.value, child)
    for key, value in child.value.items():
        entries[key] = merge(entries[key], value, child_types(types, key)) if key in entries else value
    return replace(child, value=entries)


def _changes_choice(parent: Node, child: Node, types: Types) -> bool:
    before, after = parent.child("type"), child.child("type")
    return bool(choices_in(types)) and before is not None and after is not None and before.value != after.value


def _without_stale_revision(entries: dict[str, Node], child: Node) -> dict[str, Node]:
    """Drop the revision if `child` has another dataset or base; a revision from the command line is kept."""
    pairs = [(entries.get(key), child.child(key)) for key in VERSIONED]
    is_replaced = any(before and after and before.value != after.value for before, after in pairs)
    is_stale = is_replaced and "revision" in entries and str(entries["revision"].mark) != COMMAND_LINE
    return {key: value for key, value in entries.items() if key != "revision" or not is_stale}


def apply_overrides(root: Node, arguments: Sequence[str], types: Types) -> tuple[Node, list[Problem]]:
    """Apply `key.path=YAML` (list items by index) and `~key.path`, which deletes; also returns what was impossible."""
    problems: list[Problem] = []
    # A new `type` drops the keys of the old choice: apply it before the arguments that set keys of the new one.
    for argument in sorted(arguments, key=lambda argument: not argument.partition("=")[0].endswith(".type")):
        try:
            root = _apply(root, argument, types)
        except RecipeError as error:
            problems += error.problems
    return root, problems


def _apply(root: Node, argument: str, types: Types) -> Node:
    path, equals, value = argument.partition("=")
    deletes = path.startswith("~") and not equals
    path = path.removeprefix("~") if deletes else path
    mark = Mark(SourceText(COMMAND_LINE, Path.cwd(), argument.splitlines()), 1, 2 if deletes else 1, len(path))
    keys = path.split(".")
    if not all(keys) or len(keys) > MAX_DEPTH or not (equals or deletes):
        raise RecipeError(mark.problem("an override is `key.path=value`, or `~key.path` to delete a key", "override"))
    if keys[0] == "extends":
        raise RecipeError(mark.problem("`extends` cannot be overridden: write it in the file", "override"))
    if deletes:
        return _delete(root, keys, mark)
    # The key is replaced by spaces, so that columns are those of the argument.
    written, problems = read_yaml(" " * (len(path) + 1) + value, COMMAND_LINE, Path.cwd(), shown=argument)
    if problems:
        raise RecipeError(problems)
    return _set(root, keys, replace(written, key=mark), mark, types)


def _set(node: Node | None, keys: list[str], value: Node, mark: Mark, types: Types) -> Node:
    if not keys:
        return normalize_choices(value, types)
    if node is not None and isinstance(node.value, list):
        index = _list_index(node.value, keys[0], mark)
        item = _set(node.value[index], keys[1:], value, mark, child_types(types, index))
        return replace(node, value=[*node.value[:index], item, *node.value[index + 1 :]])
    entries = node.value if node is not None and isinstance(node.value, dict) else {}
    child = _set(entries.get(keys[0]), keys[1:], value, mark, child_types(types, keys[0]))
    if node is None or node.value is not entries:
        return Node({keys[0]: child}, mark, mark)
    new = normalize_choices(Node({keys[0]: child}, mark, mark), types)
    if _changes_choice(node, new, types):
        return new
    return replace(node, value={**_without_stale_revision(entries, new), keys[0]: child})


def _delete(node: Node, keys: list[str], mark: Mark) -> Node:
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
    return replace(node, value={name: value for name, value in node.value.items() if name != key})


def _list_index(items: list[Node], key: str, mark: Mark) -> int:
    index = next((index for index in range(len(items)) if str(index) == key), None)
    if index is None:
        valid = f"use 0 to {len(items) - 1}" if items else "the list is empty"
        raise RecipeError(mark.problem(f"{quoted(key)} is not an index of this list: {valid}", "override"))
    return index
