"""The Hub repositories that a recipe uses, and pinning them to commits."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from stfit.data.source import is_remote
from stfit.encoder.config import Model
from stfit.encoder.folder.resolve import is_on_hub
from stfit.evaluation.evaluators.mse import MSEToTeacher
from stfit.hub.download import find_commit
from stfit.hub.explain import Kind
from stfit.losses.base import CrossEncoderTeacher, TeacherLoss
from stfit.spec import Spec


class HubRef(NamedTuple):
    kind: Kind
    id: str
    revision: str | None


def hub_refs(spec: Any) -> dict[str, HubRef]:
    """Key of the revision -> repository, of all that a section names itself."""
    refs = {"revision": hub_ref(spec)}
    if isinstance(spec, MSEToTeacher):
        refs["teacher_revision"] = _model_ref(spec.teacher, spec.teacher_revision)
    return {key: ref for key, ref in refs.items() if ref}


def hub_ref(spec: Any) -> HubRef | None:
    """The repository of a section's rows or weights."""
    if isinstance(spec, Model):
        on_hub = isinstance(spec.base, str) and is_on_hub(spec.base)
        return HubRef("model", str(spec.base), spec.revision) if on_hub else None
    if isinstance(spec, TeacherLoss):
        return _model_ref(spec.teacher, spec.revision) if isinstance(spec.teacher, str) else None
    if isinstance(spec, CrossEncoderTeacher):
        return _model_ref(spec.cross_encoder, spec.revision)
    dataset = getattr(spec, "dataset", None)
    return HubRef("dataset", dataset, spec.revision) if dataset and is_remote(dataset) else None


def _model_ref(base: str, revision: str | None) -> HubRef | None:
    return HubRef("model", base, revision) if is_on_hub(base) else None


def iter_hub_refs(spec: Any) -> Iterator[HubRef]:
    if isinstance(spec, Spec):
        yield from hub_refs(spec).values()
        spec = dict(spec)
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from iter_hub_refs(part)


def pin(spec: Any) -> Any:
    """Replace every revision with a commit, so that nothing changes during a run. Raises HubError."""
    if isinstance(spec, list):
        return [pin(part) for part in spec]
    if isinstance(spec, dict):
        return {key: pin(part) for key, part in spec.items()}
    if not isinstance(spec, Spec):
        return spec
    pinned = {name: pin(value) for name, value in spec}
    pinned |= {key: find_commit(*ref) for key, ref in hub_refs(spec).items()}
    return spec.model_copy(update=pinned)
