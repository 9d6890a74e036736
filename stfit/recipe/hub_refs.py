"""What a recipe takes from the Hub, and the commits of it that a run stays with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from stfit.data.source import is_remote
from stfit.encoder.config import Model
from stfit.encoder.folder.resolve import is_on_hub
from stfit.hub.download import find_commit
from stfit.hub.explain import Kind
from stfit.losses.base import TeacherLoss
from stfit.spec import Spec


class HubRef(NamedTuple):
    """A repository that a recipe names."""

    kind: Kind
    id: str
    revision: str | None


def hub_ref(spec: Any) -> HubRef | None:
    """The repository that this part of a recipe names itself, if it does."""
    if isinstance(spec, Model):
        on_hub = isinstance(spec.base, str) and is_on_hub(spec.base)
        return HubRef("model", str(spec.base), spec.revision) if on_hub else None
    if isinstance(spec, TeacherLoss):
        on_hub = spec.teacher is not None and is_on_hub(spec.teacher)
        return HubRef("model", spec.teacher, spec.revision) if on_hub else None
    dataset = getattr(spec, "dataset", None)
    return HubRef("dataset", dataset, spec.revision) if dataset and is_remote(dataset) else None


def iter_hub_refs(spec: Any) -> Iterator[HubRef]:
    """Every repository that a recipe names, in its order."""
    if found := hub_ref(spec):
        yield found
    for part in _parts_of(spec):
        yield from iter_hub_refs(part)


def _parts_of(spec: Any) -> list[Any]:
    """What a part of a recipe is made of."""
    if isinstance(spec, Spec):
        return [getattr(spec, name) for name in type(spec).model_fields]
    return spec if isinstance(spec, list) else list(spec.values()) if isinstance(spec, dict) else []


def pin(spec: Any) -> Any:
    """The same with a commit for every revision, so that nothing moves during a run.

    Raises HubError where the Hub can't be asked, or shows no such repository or revision.
    """
    if isinstance(spec, list):
        return [pin(part) for part in spec]
    if isinstance(spec, dict):
        return {key: pin(part) for key, part in spec.items()}
    if not isinstance(spec, Spec):
        return spec
    pinned = {name: pin(getattr(spec, name)) for name in type(spec).model_fields}
    if found := hub_ref(spec):
        pinned["revision"] = find_commit(*found)
    return spec.model_copy(update=pinned)
