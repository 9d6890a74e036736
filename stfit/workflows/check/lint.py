"""Checks of a valid recipe that need only the recipe and the files of its base, not the data.

ERRORS would stop the run later, after weights were downloaded and texts were tokenized; WARNINGS are probably mistakes.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec

from stfit.data.reading.split import is_of_whole
from stfit.data.source import ROLES
from stfit.encoder.config import unsupported_keys
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.prompts import DOCUMENT_ALIASES, ROLE_PROMPTS, with_built_in
from stfit.errors import closest_hint, did_you_mean
from stfit.publish.destination import known_licenses
from stfit.recipe.recipe import Recipe, teacher_of
from stfit.workflows.check.findings import Check, Findings, layers_of
from stfit.workflows.check.lint_evaluation import (
    selection_on_test,
    unknown_metrics,
    unmeasurable,
    unreachable_gates,
    unused_evaluation,
)
from stfit.workflows.check.lint_losses import (
    absent_negatives,
    equal_views,
    exceeded_dimensions,
    few_negatives,
    incompatible_losses,
    prefixes_of_weights,
    scale_for_temperature,
    unreachable_margins,
    unsuitable_sampler,
)

MAX_PRETRAINED_RATE = 1e-3
"""From this learning rate on, a pretrained transformer forgets what it has learned."""
MAX_RATE = 1.0
"""A static embedding table may learn at 0.2."""
MIN_SCRATCH_RATE = 1e-4
"""Below this learning rate, random weights hardly change."""


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


def _exceeded_positions(recipe: Recipe, base: ModelInfo) -> Findings:
    length = recipe.model.max_seq_length
    if length is not None and base.positions is not None and length > base.positions:
        yield "model.max_seq_length", "too-long", f"{length} exceeds the {base.positions} positions of the base"


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


def _useless_mini_batch(recipe: Recipe, base: ModelInfo) -> Findings:
    size, batch_size = recipe.train.mini_batch_size, recipe.train.batch_size
    if size is not None and size >= batch_size:
        yield "train.mini_batch_size", "mini-batch", f"{size} saves no memory: a batch has only {batch_size} rows"


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
    incompatible_losses,
    absent_negatives,
    _unstreamable,
    equal_views,
    unknown_metrics,
    unmeasurable,
    _unknown_prompts,
    missing_trackers,
    prefixes_of_weights,
    _exceeded_positions,
    exceeded_dimensions,
    _misplaced_settings,
    _nothing_to_train,
]
WARNINGS: list[Check] = [
    unreachable_margins,
    _learning_rate,
    _frozen_backbone,
    scale_for_temperature,
    few_negatives,
    unreachable_gates,
    unsuitable_sampler,
    _useless_mini_batch,
    selection_on_test,
    unused_evaluation,
    _unused_prompts,
    _documents_without_prompt,
    _replaced_modules,
    _dropped_parts,
    _unknown_license,
]
