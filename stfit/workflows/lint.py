"""Checks of a valid recipe that need only the recipe and the files of its base, not the data.

ERRORS would stop the run later, after weights were downloaded and texts were tokenized; WARNINGS are probably mistakes.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from importlib.util import find_spec
from itertools import chain
from typing import get_args

from stfit.data.checks.compatibility import format_problem
from stfit.data.reading.local_files import shown_split
from stfit.data.reading.split import is_of_whole
from stfit.data.source import ROLES
from stfit.distributed import world_size
from stfit.encoder.config import unsupported_keys
from stfit.encoder.folder.model_config import ModelConfig, ModelInfo
from stfit.encoder.layers import Layer
from stfit.encoder.prompts import DOCUMENT_ALIASES, ROLE_PROMPTS, with_built_in
from stfit.errors import MAX_SHOWN, Problem, closest_hint, did_you_mean
from stfit.evaluation.base import When
from stfit.evaluation.measure import evaluator_of, known_metrics
from stfit.evaluation.precision import NO_BITS
from stfit.evaluation.slices import WORST, slice_of, with_slice
from stfit.losses.base import LossBase
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import LOSSES
from stfit.publish.destination import known_licenses
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Objective, Recipe, teacher_of

Findings = Iterator[tuple[str, str, str]]
"""Dotted key to change, stable code, and what is wrong."""
Check = Callable[[Recipe, ModelInfo], Findings]

NO_NEIGHBOR = 0.4
"""Distance at which a known metric is not what was meant, from 0 to 1."""
MAX_PRETRAINED_RATE = 1e-3
"""From this learning rate on, a pretrained transformer forgets what it has learned."""
MAX_RATE = 1.0
"""A static embedding table may learn at 0.2."""
MIN_SCRATCH_RATE = 1e-4
"""Below this learning rate, random weights hardly change."""
MIN_BATCH_SIZE = 8
"""A smaller batch teaches little if its other rows are the negatives."""


def lint_recipe(checks: list[Check], recipe: Recipe, base: ModelInfo, origins: Mapping[str, Mark]) -> list[Problem]:
    problems = []
    for key, code, message in chain.from_iterable(check(recipe, base) for check in checks):
        mark, text = origins.get(key), f"{key}: {message}"
        problems.append(mark.problem(text, code) if mark else Problem(text, code))
    return problems


def _incompatible_losses(recipe: Recipe, base: ModelInfo) -> Findings:
    fits = {loss.tag(): loss.fits for loss in LOSSES}
    for key, objective, loss in _each_loss(recipe):
        format = objective.format_of(loss)
        unknown = [name for name in loss.columns or [] if name not in objective.roles]
        if unknown:
            message = f"this data has no column `{unknown[0]}`: {did_you_mean(unknown[0], list(objective.roles))}"
            yield f"{key}.columns", "unknown-role", message
        elif format is None:
            names = " and ".join(loss.columns or [])
            message = f"`{loss.tag()}` can't learn from {names} alone: choose [anchor, positive], or remove this key"
            yield f"{key}.columns", "loss-format", message
        elif problem := format_problem(loss.tag(), format, fits):
            yield key, "loss-format", problem


def _absent_negatives(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, objective, loss in _each_loss(recipe):
        format = objective.format_of(loss)
        if isinstance(loss, MultipleNegativesRanking) and loss.negatives == "own" and format not in (None, "triplet"):
            message = f"`negatives: own` needs the negatives of format triplet; format {format} has none"
            yield f"{key}.negatives", "loss-format", message


def _each_loss(recipe: Recipe) -> Iterator[tuple[str, Objective, LossBase]]:
    for path, objective in recipe.objectives_by_path.items():
        for key, loss in objective.losses_by_key.items():
            yield f"{path}{key}", objective, loss


def missing_trackers(recipe: Recipe, base: ModelInfo) -> Findings:
    for i, tracker in enumerate(recipe.track):
        if find_spec(tracker.package) is None:
            message = f"{tracker.tag()} needs a package that is not installed: install the extra `{tracker.tag()}`"
            yield f"track.{i}", "missing-package", message


def _unknown_prompts(recipe: Recipe, base: ModelInfo) -> Findings:
    known = with_built_in(base.prompts | recipe.model.prompts)
    for key, roles, prompts in _prompt_choices(recipe):
        for role, name in prompts.items():
            if role not in roles:
                message = f"`{role}` is not a role of this data; its roles are {', '.join(roles)}"
                yield f"{key}.{role}", "unknown-role", message
            if name not in known:
                message = f"the model has no prompt `{name}`: {did_you_mean(name, list(known))}"
                yield f"{key}.{role}", "unknown-prompt", message
    default = recipe.model.default_prompt
    if default is not None and default not in known:
        message = f"the model has no prompt `{default}`: {did_you_mean(default, list(known))}"
        yield "model.default_prompt", "unknown-prompt", message


def _prompt_choices(recipe: Recipe) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """(key, roles, role -> name of a prompt) of every source that chooses prompts."""
    sources = [
        (f"{key}data", ROLES[objective.data.format], objective.data.prompts)
        for key, objective in recipe.objectives_by_path.items()
    ]
    sources += [(f"eval.{i}", evaluator.prompt_roles, evaluator.prompts) for i, evaluator in enumerate(recipe.eval)]
    return [(f"{key}.prompts", roles, prompts) for key, roles, prompts in sources if prompts]


def unknown_metrics(recipe: Recipe, base: ModelInfo) -> Findings:
    used: list[tuple[str, str | None, When]] = [("train.best", recipe.train.best, "during")]
    used += [(f"gate.{i}.metric", gate.metric, "end") for i, gate in enumerate(recipe.gate)]
    for key, metric, moment in used:
        if metric is not None and _of_worst_slice(recipe, metric) not in known_metrics(
            recipe.eval, moment, recipe.matryoshka_dims
        ):
            when = "during training" if moment == "during" else "after training"
            hint = _metric_hint(recipe, metric, moment)
            yield key, "unknown-metric", f"no evaluator computes `{metric}` {when}: {hint}"


def _of_worst_slice(recipe: Recipe, metric: str) -> str:
    """The metric of a slice, whose name only the rows tell, as that of the worst one."""
    label = evaluator_of(metric, [evaluator.label for evaluator in recipe.eval])
    return metric if slice_of(metric, label) is None else with_slice(metric, label, WORST)


def _unmeasurable(recipe: Recipe, base: ModelInfo) -> Findings:
    for i, evaluator in enumerate(recipe.eval):
        if evaluator.by is not None and not evaluator.can_slice:
            yield f"eval.{i}.by", "slices", f"{evaluator.tag()} compares all sentences with each other: remove this key"
        similarity = recipe.model.similarity or (base.config.similarity if base.config else "cosine")
        wrong = [precision for precision in evaluator.stored_precisions if precision.startswith("binary")]
        if wrong and similarity in NO_BITS:
            message = f"{wrong[0]}: signs have no {similarity} distance, which is the model's similarity"
            yield f"eval.{i}.precisions", "precision", message
        if "binary+rescore" in wrong and not evaluator.can_rescore:
            yield f"eval.{i}.precisions", "precision", f"{evaluator.tag()} searches no corpus: use binary"
    for i, gate in enumerate(recipe.gate):
        label = evaluator_of(gate.metric, [evaluator.label for evaluator in recipe.eval])
        if gate.guard and not any(evaluator.by for evaluator in recipe.eval if evaluator.label == label):
            yield f"gate.{i}.guard", "slices", f"evaluator `{label}` has no slices: set its `by` to a column"


def _metric_hint(recipe: Recipe, metric: str, moment: When) -> str:
    """What to write: a metric that is measured at this moment, or the moment."""
    evaluator_at = {
        name: number
        for number, evaluator in enumerate(recipe.eval)
        for name in known_metrics([evaluator], None, recipe.matryoshka_dims)
    }
    if not evaluator_at:
        return "add an evaluator to `eval`"
    known = known_metrics(recipe.eval, moment, recipe.matryoshka_dims)
    ordered = sorted(evaluator_at, key=lambda name: (name not in known, _distance(metric, name)))
    near = [name for name in ordered if _distance(metric, name) < NO_NEIGHBOR]
    nearest = metric if metric in evaluator_at else next(iter(near), None)
    meant = f"did you mean `{nearest}`? " if nearest not in (metric, None) else ""
    if nearest and nearest not in known:
        number = evaluator_at[nearest]
        when = recipe.eval[number].when
        moments = ", ".join(each for each in get_args(When) if each in (*when, moment))
        return f"{meant}`eval.{number}` measures it only at `when: [{', '.join(when)}]`: write `when: [{moments}]`"
    if not known:
        return f"{meant}add `{moment}` to the `when` of an evaluator"
    more = "; `stfit reference metrics` prints all" if len(known) > MAX_SHOWN else ""
    return f"{meant}known metrics: {', '.join(ordered[: min(MAX_SHOWN, len(known))])}{more}"


def _distance(metric: str, name: str) -> float:
    """How far a known name is from what was written; one that only adds an evaluator or a similarity is near."""
    own, last = metric.rpartition("/")[2], name.rpartition("/")[2]
    is_completed = last == own or last.startswith(f"{own}_")
    name = name.removesuffix(last.removeprefix(own)) if is_completed else name
    unlikeness = 1 - SequenceMatcher(None, metric, name).ratio()
    return min(NO_NEIGHBOR, unlikeness * (NO_NEIGHBOR if is_completed else 1))


def prefixes_of_weights(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, loss in recipe.losses_by_path.items():
        if loss.is_built and loss.matryoshka_dims:
            message = f"`{loss.tag()}` has weights of its own, which fit whole embeddings: remove this key"
            yield f"{key}.matryoshka_dims", "matryoshka", message


def _exceeded_positions(recipe: Recipe, base: ModelInfo) -> Findings:
    length = recipe.model.max_seq_length
    if length is not None and base.positions is not None and length > base.positions:
        yield "model.max_seq_length", "too-long", f"{length} exceeds the {base.positions} positions of the base"


def _exceeded_dimensions(recipe: Recipe, base: ModelInfo) -> Findings:
    dim = embedding_dim(recipe, base)
    sizes = {f"{key}.matryoshka_dims": max(loss.matryoshka_dims or [0]) for key, loss in recipe.losses_by_path.items()}
    for key, size in {**sizes, "model.truncate_dim": recipe.model.truncate_dim or 0}.items():
        if dim is not None and size > dim:
            yield key, "too-many-dimensions", f"{size} exceeds the {dim} dimensions of the embeddings"


def embedding_dim(recipe: Recipe, base: ModelInfo) -> int | None:
    if base.hidden_size is None:
        return None
    config, model = base.config or ModelConfig(pooling=("mean",)), recipe.model
    pooling = config.pooling if model.modes is None else model.modes
    token_layers = config.token_layers if model.token_layers is None else model.token_layers
    return ModelConfig(pooling, token_layers, layers_of(recipe, base)).embedding_dim(base.hidden_size)


def layers_of(recipe: Recipe, base: ModelInfo) -> list[Layer]:
    if recipe.model.layers is not None:
        return recipe.model.layers
    return base.config.layers if base.config else []


def _unreachable_margins(recipe: Recipe, base: ModelInfo) -> Findings:
    """A margin larger than any distance keeps pushing pairs apart that are as far apart as possible."""
    maximum = {"cosine": 2.0}
    if [layer.type for layer in layers_of(recipe, base)[-1:]] == ["normalize"]:
        maximum |= {"euclidean": 2.0, "squared_euclidean": 4.0}
    for key, loss in recipe.losses_by_path.items():
        settings = dict(loss)
        distance, margin = settings.get("distance"), settings.get("margin", 0.0)
        if distance in maximum and margin >= maximum[distance]:
            name = "cosine distance" if distance == "cosine" else f"{distance} distance of normalized embeddings"
            message = f"{margin:g} can't be reached: the {name} is at most {maximum[distance]:g}"
            yield f"{key}.margin", "margin", message


def _learning_rate(recipe: Recipe, base: ModelInfo) -> Findings:
    rate, lora = recipe.train.learning_rate, recipe.model.lora is not None
    pretrained = not base.is_random and base.st_name == "Transformer" and not lora
    if rate == 0:
        message = "is 0, so no weight will change"
    elif rate >= MAX_PRETRAINED_RATE and pretrained:
        message = f"{rate:g} is too high for a pretrained model: it will forget what it has learned. Use 1e-5 to 1e-4"
    elif rate > MAX_RATE:
        message = f"{rate:g} is too high for any model; values are written like 1.0e-3, which means 0.001"
    elif rate < MIN_SCRATCH_RATE and base.is_random:
        message = f"{rate:g} is too low for random weights. Use about 1e-3"
    elif rate < MIN_SCRATCH_RATE and lora:
        message = f"{rate:g} is too low for adapters. Use 1e-4 to 1e-3"
    else:
        return
    yield "train.learning_rate", "learning-rate", message


def _frozen_backbone(recipe: Recipe, base: ModelInfo) -> Findings:
    """If the transformer is frozen, only layers after pooling are trained, and most models have none."""
    patterns = [pattern for pattern in recipe.train.freeze if pattern in ("*", "backbone*", "backbone.*")]
    if patterns:
        yield "train.freeze", "frozen", f"`{patterns[0]}` freezes the whole transformer"


def _scale_for_temperature(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, loss in recipe.losses_by_path.items():
        scale = dict(loss).get("scale", 1.0)
        if scale < 1:
            message = f"{scale:g} multiplies the cosine. If you mean a temperature of {scale:g}, write {1 / scale:g}"
            yield f"{key}.scale", "scale", message


def few_negatives(recipe: Recipe, base: ModelInfo) -> Findings:
    size = recipe.train.batch_size * world_size()
    in_batch = any(loss.sampler == "no_duplicates" for loss in recipe.losses_by_path.values())
    if in_batch and size < MIN_BATCH_SIZE:
        advice = "Use 64 or more; with `mini_batch_size`, they fit into memory"
        yield "train.batch_size", "few-negatives", f"{size} rows give only {size - 1} negatives. {advice}"


def _unreachable_gates(recipe: Recipe, base: ModelInfo) -> Findings:
    """A limit given in percent is never reached."""
    for i, gate in enumerate(recipe.gate):
        if gate.min is not None and gate.min > 1:
            yield f"gate.{i}.min", "gate-out-of-reach", f"{gate.min:g} can't be reached: metrics are at most 1"


def _unsuitable_sampler(recipe: Recipe, base: ModelInfo) -> Findings:
    """A loss that mines its batches finds little in batches of another sampler."""
    for key, objective in recipe.objectives_by_path.items():
        needed = objective.best_sampler
        if needed not in ("shuffle", objective.sampler):
            place = "train.sampler" if objective.sampler == recipe.train.sampler else f"{key}sampler"
            loss = next(loss for loss in objective.losses if loss.sampler == needed)
            message = f"loss `{loss.tag()}` needs `sampler: {needed}`, not `{objective.sampler}`"
            yield place, "sampler", message


def _useless_mini_batch(recipe: Recipe, base: ModelInfo) -> Findings:
    size, batch_size = recipe.train.mini_batch_size, recipe.train.batch_size
    if size is not None and size >= batch_size:
        yield "train.mini_batch_size", "mini-batch", f"{size} saves no memory: a batch has only {batch_size} rows"


def _selection_on_test(recipe: Recipe, base: ModelInfo) -> Findings:
    used = [("train.best", "best-on-test", recipe.train.best or "")]
    used += [(f"gate.{i}.metric", "gate-on-test", gate.metric) for i, gate in enumerate(recipe.gate)]
    split_of = {evaluator.label: shown_split(evaluator) for evaluator in recipe.eval if evaluator.dataset is not None}
    for key, code, metric in used:
        split = split_of.get(evaluator_of(metric, split_of)) or ""
        if split.startswith("test"):
            effect = "which makes its score too high: use another split"
            yield key, code, f"selects the model on the split `{split}`, {effect}"


def _unused_evaluation(recipe: Recipe, base: ModelInfo) -> Findings:
    for i, evaluator in enumerate(recipe.eval):
        if not evaluator.when:
            yield f"eval.{i}.when", "never-measured", f"evaluator `{evaluator.label}` never runs"
    if any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        return
    for key, objective in recipe.objectives_by_path.items():
        if objective.data.holdout is not None:
            message = "holds out rows that no evaluator uses: set `from: holdout` in one, or remove this key"
            yield f"{key}data.holdout", "idle-holdout", message


def _unused_prompts(recipe: Recipe, base: ModelInfo) -> Findings:
    """A prompt that is not used in training makes embeddings worse when it is used later."""
    chosen = {name for _, _, prompts in _prompt_choices(recipe) for name in prompts.values()}
    roles = {role for objective in recipe.objectives_by_path.values() for role in ROLES[objective.data.format]}
    used = {*chosen, *map(ROLE_PROMPTS.get, roles), recipe.model.default_prompt}
    for name in recipe.model.prompts:
        if name not in used:
            message = "no column uses this prompt: assign it in `data.prompts`"
            yield f"model.prompts.{name}", "idle-prompt", message


def _documents_without_prompt(recipe: Recipe, base: ModelInfo) -> Findings:
    """Documents embedded without the prompt that the base was trained with are found less often."""
    if with_built_in(base.prompts | recipe.model.prompts)["document"]:
        return
    for key, objective in recipe.objectives_by_path.items():
        has_documents = "positive" in ROLES[objective.data.format]
        if not has_documents or "positive" in (objective.data.prompts or {}):
            continue
        for name in filter(base.prompts.get, DOCUMENT_ALIASES):
            message = (
                f"documents have the prompt `document`, which is empty, not the base's prompt `{name}`: if it is meant "
                f"for them, set `model.prompts: {{document: {json.dumps(base.prompts[name])}}}`"
            )
            yield f"{key}data.format", "idle-prompt", message


def _replaced_modules(recipe: Recipe, base: ModelInfo) -> Findings:
    """A base that was trained with other modules has to adapt to the new ones."""
    if base.config is None:
        return
    modes = recipe.model.modes
    if modes and modes != base.config.pooling:
        message = f"{', '.join(modes)} replaces the pooling of the base, {', '.join(base.config.pooling)}"
        yield "model.pooling", "replaced-pooling", message
    for key in ("token_layers", "layers"):
        old, new = getattr(base.config, key), getattr(recipe.model, key)
        if new is not None and new != old:
            old_types, new_types = (", ".join(layer.type for layer in layers) for layers in (old, new))
            message = f"[{new_types}] replaces the layers of the base, [{old_types}]"
            yield f"model.{key}", "replaced-layers", message


def _dropped_parts(recipe: Recipe, base: ModelInfo) -> Findings:
    """What is dropped was trained, and the base may have been another kind of model than the user believes."""
    if base.dropped:
        pooling = ", ".join(recipe.model.modes or ("mean, or last_token for a decoder",))
        yield "model.base", "dropped-parts", f"{base.dropped}; the transformer alone is trained, pooled by {pooling}"


def _misplaced_settings(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, message in unsupported_keys(recipe.model, base.st_name).items():
        yield f"model.{key}", "misplaced", message


def _nothing_to_train(recipe: Recipe, base: ModelInfo) -> Findings:
    if base.st_name == "BoW" and not any(layer.type in ("dense", "layer_norm") for layer in layers_of(recipe, base)):
        yield "model.layers", "nothing-to-train", "a bag of words has no weights to train: add a dense layer"


def _equal_views(recipe: Recipe, base: ModelInfo) -> Findings:
    if recipe.model.dropout != 0 and base.st_name == "Transformer":
        return
    for key, objective in recipe.objectives_by_path.items():
        if objective.views:
            problem = "needs dropout to tell the two views of a text apart, and this model has none"
            yield f"{key}loss", "one-view", f"{problem}: set `model.dropout`, or use a transformer"


def _unstreamable(recipe: Recipe, base: ModelInfo) -> Findings:
    if recipe.is_streamed:
        yield from ((key, "streaming", message) for key, is_wrong, message in _stream_conflicts(recipe) if is_wrong)


def _stream_conflicts(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    train, model = recipe.train, recipe.model
    unknown = "the number of rows of a stream is not known in advance"
    in_advance = "in advance, which a stream does not allow"
    yield "train.epochs", train.epochs is not None, f"{unknown}: set `train.max_steps` instead"
    yield "train.max_steps", train.epochs is None and train.max_steps is None, f"is missing, and {unknown}"
    for key, objective in recipe.objectives_by_path.items():
        data = objective.data
        if not data.streaming:
            continue
        yield f"{key}data.holdout", data.holdout is not None, "can't be taken from a stream: evaluate on other data"
        yield f"{key}data.shuffle", data.shuffle, "can't shuffle a stream as a whole: see `shuffle_buffer`"
        yield f"{key}data.limit", data.limit is not None, "does not apply to a stream: set `train.max_steps` instead"
        yield f"{key}data.split", not is_of_whole(data.split), f"`{data.split}`: a stream only reads one whole split"
        for loss_key, loss in objective.losses_by_key.items():
            yield f"{key}{loss_key}.teacher", teacher_of(loss) is not None, f"embeds all texts {in_advance}"
    weighted = recipe.objectives_by_path if recipe.objectives else {}
    for key, objective in weighted.items():
        message = f"is missing, and {unknown}: give each objective its share of the batches"
        yield f"{key}weight", objective.weight is None, message
    learned: dict[str, object] = {"model.base": model.base}
    learned |= {f"model.token_layers.{i}": layer for i, layer in enumerate(model.token_layers or [])}
    for key, part in learned.items():
        yield key, getattr(part, "learns_from_texts", False), f"is learned from all training texts {in_advance}"


def _unknown_license(recipe: Recipe, base: ModelInfo) -> Findings:
    license = recipe.push.license if recipe.push else None
    if license and license not in (known := known_licenses()):
        hint = closest_hint(license, known) or "use `other` for a license that it does not list"
        yield (
            "push.license",
            "license",
            f"`{license}` is not a known license of the Hub, which may reject it; {hint}",
        )


ERRORS: list[Check] = [
    _incompatible_losses,
    _absent_negatives,
    _unstreamable,
    _equal_views,
    unknown_metrics,
    _unmeasurable,
    _unknown_prompts,
    missing_trackers,
    prefixes_of_weights,
    _exceeded_positions,
    _exceeded_dimensions,
    _misplaced_settings,
    _nothing_to_train,
]
WARNINGS: list[Check] = [
    _unreachable_margins,
    _learning_rate,
    _frozen_backbone,
    _scale_for_temperature,
    few_negatives,
    _unreachable_gates,
    _unsuitable_sampler,
    _useless_mini_batch,
    _selection_on_test,
    _unused_evaluation,
    _unused_prompts,
    _documents_without_prompt,
    _replaced_modules,
    _dropped_parts,
    _unknown_license,
]
