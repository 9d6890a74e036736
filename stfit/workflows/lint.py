"""What a valid recipe says that can't be meant, or can't work: found from the recipe and a glance at its base alone.

Every check is a function that gives its doubts; its docstring says what happens when they are ignored. IMPOSSIBLE ones
would stop the run later, after weights were fetched and texts were tokenised; UNLIKELY ones are warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

from stfit.data.checks.compatibility import format_problem
from stfit.data.reading.split import is_of_whole
from stfit.data.source import ROLES
from stfit.distributed import world_size
from stfit.encoder.config import unsupported_keys
from stfit.encoder.folder.model_config import ModelConfig, ModelInfo
from stfit.encoder.layers import Layer
from stfit.encoder.prompts import ROLE_PROMPTS
from stfit.errors import Problem, closest_hint, did_you_mean
from stfit.evaluation.base import When
from stfit.evaluation.measure import evaluator_of, known_metrics
from stfit.losses.registry import LOSSES
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Recipe


class Finding(NamedTuple):
    """One of them: the dotted key to change, a stable code, and what is wrong."""

    key: str
    code: str
    message: str


Check = Callable[[Recipe, ModelInfo], list[Finding]]

HIGH_RATE = 1e-3
"""A pretrained transformer forgets everything at a rate from here on."""
HIGHEST_RATE = 1.0
"""A table of vectors may learn at 0.2."""
LOW_SCRATCH_RATE = 1e-4
"""Random weights hardly move at a rate below."""
FEW_NEGATIVES = 8
"""A batch smaller than this teaches little where its other rows are the negatives."""


def lint_recipe(checks: list[Check], recipe: Recipe, base: ModelInfo, origins: Mapping[str, Mark]) -> list[Problem]:
    """What the checks find; `origins` says where each key was written."""
    return [_place(doubt, origins) for check in checks for doubt in check(recipe, base)]


def _place(doubt: Finding, origins: Mapping[str, Mark]) -> Problem:
    """A doubt with the place of its key, where the recipe says it; a default has none."""
    mark, message = origins.get(doubt.key), f"{doubt.key}: {doubt.message}"
    return mark.problem(message, doubt.code) if mark else Problem(message, doubt.code)


def _unfit_losses(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A loss can't learn from rows of another format."""
    fits_of = {loss.tag(): loss.fits for loss in LOSSES}
    return [
        Finding(f"{key}loss", "loss-format", problem)
        for key, objective in recipe.objectives_by_path.items()
        if (problem := format_problem(objective.loss.type, objective.data.format, fits_of))
    ]


def missing_trackers(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A tracker whose package is not installed can't be told anything."""
    return [
        Finding(f"track.{i}", "missing-package", f"{tracker.tag()} needs a package: pip install stfit[{tracker.tag()}]")
        for i, tracker in enumerate(recipe.track)
        if find_spec(tracker.package) is None
    ]


def _unknown_prompts(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A prompt that the model does not have can't be put before a text, and one for an unknown role never is."""
    known = {**base.prompts, **recipe.model.prompts}
    found = []
    for key, roles, prompts in _prompt_choices(recipe):
        for role, name in prompts.items():
            if role not in roles:
                found.append(Finding(f"{key}.{role}", "unknown-role", f"is no role here: {', '.join(roles)}"))
            if name not in known:
                hint = did_you_mean(name, list(known)) or "it has none"
                found.append(Finding(f"{key}.{role}", "unknown-prompt", f"the model has no prompt `{name}`: {hint}"))
    default = recipe.model.default_prompt
    if default is not None and default not in known:
        found.append(Finding("model.default_prompt", "unknown-prompt", f"the model has no prompt `{default}`"))
    return found


def _prompt_choices(recipe: Recipe) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """(key, roles, role -> name of a prompt) of every source that chooses prompts."""
    sources = [
        (f"{key}data", ROLES[each.data.format], each.data.prompts) for key, each in recipe.objectives_by_path.items()
    ]
    sources += [(f"eval.{i}", evaluator.prompt_roles, evaluator.prompts) for i, evaluator in enumerate(recipe.eval)]
    return [(f"{key}.prompts", roles, prompts) for key, roles, prompts in sources if prompts]


def unknown_metrics(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A metric that no evaluation gives can't choose a model, and can't let one pass."""
    wanted: list[tuple[str, str | None, When]] = [("train.best", recipe.train.best, "during")]
    wanted += [(f"gate.{i}.metric", gate.metric, "end") for i, gate in enumerate(recipe.gate)]
    found = []
    for key, metric, moment in wanted:
        known = known_metrics(recipe.eval, moment, recipe.matryoshka_dims)
        if metric is not None and metric not in known:
            when = "during the run" if moment == "during" else f"at the {moment}"
            there = f"known: {', '.join(known)}" if known else "see `eval`"
            hint = f"{closest_hint(metric, known)} {there}".lstrip()
            found.append(Finding(key, "unknown-metric", f"no evaluation {when} gives `{metric}`: {hint}"))
    return found


def _too_long(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """Tokens after the last position have no embedding."""
    wanted = recipe.model.max_seq_length
    if wanted is None or base.positions is None or wanted <= base.positions:
        return []
    return [
        Finding("model.max_seq_length", "too-long", f"{wanted} is more than the {base.positions} positions of the base")
    ]


def _too_many_dimensions(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A prefix longer than the embedding does not exist."""
    dim = embedding_dim(recipe, base)
    if dim is None:
        return []
    wanted = {
        f"{key}loss.matryoshka_dims": max(each.loss.matryoshka_dims or [0])
        for key, each in recipe.objectives_by_path.items()
    }
    wanted["model.truncate_dim"] = recipe.model.truncate_dim or 0
    message = f"embeddings have {dim} dimensions"
    return [Finding(key, "too-many-dimensions", f"{size}, but {message}") for key, size in wanted.items() if size > dim]


def embedding_dim(recipe: Recipe, base: ModelInfo) -> int | None:
    """Size of the embeddings; None where the base is out of reach."""
    if base.hidden_size is None:
        return None
    own, said = base.config or ModelConfig(pooling=("mean",)), recipe.model
    pooling = (
        own.pooling if said.pooling is None else (said.pooling,) if isinstance(said.pooling, str) else said.pooling
    )
    token_layers = own.token_layers if said.token_layers is None else said.token_layers
    return ModelConfig(tuple(pooling), token_layers, _layers_of(recipe, base)).embedding_dim(base.hidden_size)


def _layers_of(recipe: Recipe, base: ModelInfo) -> list[Layer]:
    """The layers after pooling."""
    own = base.config.layers if base.config else []
    return own if recipe.model.layers is None else recipe.model.layers


def _margin_out_of_reach(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A margin that no two embeddings can differ by keeps pushing at pairs that are as far apart as they can be."""
    farthest = {"cosine": 2.0}
    if _is_normalized(recipe, base):
        farthest |= {"euclidean": 2.0, "squared_euclidean": 4.0}
    found = []
    for key, each in recipe.objectives_by_path.items():
        settings = dict(each.loss)
        distance, margin = settings.get("distance"), settings.get("margin", 0.0)
        if distance not in farthest or margin < farthest[distance]:
            continue
        of = "the cosine distance" if distance == "cosine" else f"the {distance} distance of normalised embeddings"
        message = f"{margin:g} can't be reached: {of} is at most {farthest[distance]:g}"
        found.append(Finding(f"{key}loss.margin", "margin", message))
    return found


def _is_normalized(recipe: Recipe, base: ModelInfo) -> bool:
    """Whether the last layer scales embeddings to length 1."""
    return [layer.type for layer in _layers_of(recipe, base)[-1:]] == ["normalize"]


def _learning_rate(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """The run takes its time, and the model is as it was, or worse."""
    rate, pretrained = recipe.train.learning_rate, not base.is_random and base.st_name == "Transformer"
    pretrained = pretrained and recipe.model.lora is None
    if rate == 0:
        message = "is 0: no weight will change"
    elif rate >= HIGH_RATE and pretrained:
        message = f"{rate:g} is so high that a pretrained model forgets what it knows; 1e-5 to 1e-4 is usual"
    elif rate > HIGHEST_RATE:
        message = f"{rate:g} is higher than any in use: write 1.0e-3, say, for 0.001"
    elif rate < LOW_SCRATCH_RATE and base.is_random:
        message = f"{rate:g} is too low for random weights; 1e-3 is usual"
    elif rate < LOW_SCRATCH_RATE and recipe.model.lora is not None:
        message = f"{rate:g} is too low for adapters; 1e-4 to 1e-3 is usual"
    else:
        return []
    return [Finding("train.learning_rate", "learning-rate", message)]


def _frozen_whole(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """With the transformer frozen, only layers after pooling learn, and most models have none."""
    whole = [pattern for pattern in recipe.train.freeze if pattern in ("*", "backbone*", "backbone.*")]
    message = f"`{whole[0]}` freezes the whole transformer" if whole else ""
    return [Finding("train.freeze", "frozen", message)] if whole else []


def _scale_for_temperature(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A scale below 1 is mostly a temperature: the softmax stays flat, and nothing is learnt."""
    scales = {f"{key}loss.scale": dict(each.loss).get("scale", 1.0) for key, each in recipe.objectives_by_path.items()}
    return [
        Finding(key, "scale", f"multiplies the cosine: for a temperature of {scale:g} write {1 / scale:g}")
        for key, scale in scales.items()
        if scale < 1
    ]


def few_negatives(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """Where the other rows of a batch are the negatives, a small batch makes the task too easy."""
    size = recipe.train.batch_size * world_size()
    in_batch = any(each.loss.sampler == "no_duplicates" for each in recipe.objectives_by_path.values())
    if not in_batch or size >= FEW_NEGATIVES:
        return []
    message = f"{size} rows give {size - 1} negatives; with `mini_batch_size`, 64 and more fit into memory"
    return [Finding("train.batch_size", "few-negatives", message)]


def _gate_out_of_reach(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A share that was meant in percent lets no model pass."""
    return [
        Finding(f"gate.{i}.min", "gate-out-of-reach", f"{gate.min:g} can't be reached: metrics go up to 1")
        for i, gate in enumerate(recipe.gate)
        if gate.min is not None and gate.min > 1
    ]


def _other_sampler(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A loss that mines its batches gets batches with little to mine."""
    return [
        Finding(
            "train.sampler" if each.sampler == recipe.train.sampler else f"{key}sampler",
            "sampler",
            f"`{each.sampler}`, but loss `{each.loss.type}` learns from what `{each.loss.sampler}` puts together",
        )
        for key, each in recipe.objectives_by_path.items()
        if each.loss.sampler not in ("shuffle", each.sampler)
    ]


def _idle_mini_batch(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A mini-batch as large as the batch saves nothing."""
    size = recipe.train.mini_batch_size
    if size is None or size < recipe.train.batch_size:
        return []
    return [
        Finding("train.mini_batch_size", "mini-batch", f"{size} is no part of a batch of {recipe.train.batch_size}")
    ]


def _chosen_on_test(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A model chosen by its test score has a test score that is too good to be true."""
    best = [("train.best", "best-on-test", recipe.train.best or "")]
    gates = [(f"gate.{i}.metric", "gate-on-test", gate.metric) for i, gate in enumerate(recipe.gate)]
    split_of = {evaluator.label: evaluator.split for evaluator in recipe.eval if evaluator.origin is not None}
    return [
        Finding(key, code, f"chooses the model on the split `{split}`: use another one")
        for key, code, metric in best + gates
        if (split := split_of.get(evaluator_of(metric), "")).startswith("test")
    ]


def _idle_evaluators(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """An evaluator that never runs measures nothing, and held-out rows without one are lost to training."""
    found = [
        Finding(f"eval.{i}.when", "never-measured", f"evaluator `{evaluator.label}` never runs")
        for i, evaluator in enumerate(recipe.eval)
        if not evaluator.when
    ]
    if not any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        message = "no evaluator says `from: holdout`, so its rows are wasted"
        holding_out = [key for key, each in recipe.objectives_by_path.items() if each.data.holdout is not None]
        found += [Finding(f"{key}data.holdout", "idle-holdout", message) for key in holding_out]
    return found


def _idle_prompts(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A prompt that no text gets while training makes embeddings worse where it is used later."""
    names = {name for _, _, prompts in _prompt_choices(recipe) for name in prompts.values()}
    usual = {ROLE_PROMPTS.get(role) for each in recipe.objectives_by_path.values() for role in ROLES[each.data.format]}
    return [
        Finding(f"model.prompts.{name}", "idle-prompt", "no column is given this prompt: name it in `data.prompts`")
        for name in recipe.model.prompts
        if name not in {*names, *usual, recipe.model.default_prompt}
    ]


def _replaced_modules(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A base that was trained with other modules has to learn anew what its token embeddings mean together."""
    if base.config is None:
        return []
    found = []
    modes = recipe.model.modes
    if modes and modes != base.config.pooling:
        message = f"{', '.join(modes)} replaces the base's own {', '.join(base.config.pooling)}"
        found.append(Finding("model.pooling", "replaced-pooling", message))
    for key in ("token_layers", "layers"):
        own, given = getattr(base.config, key), getattr(recipe.model, key)
        if given is not None and given != own:
            names = [", ".join(layer.type for layer in layers) for layers in (given, own)]
            found.append(
                Finding(f"model.{key}", "replaced-layers", f"[{names[0]}] replaces the base's own [{names[1]}]")
            )
    return found


def _misplaced_settings(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """A setting of transformers says nothing to a table."""
    found = unsupported_keys(recipe.model, base.st_name)
    return [Finding(f"model.{key}", "misplaced", message) for key, message in found.items()]


def _nothing_to_train(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """Counts of words have no weights, so that those of a layer after them are all that can learn."""
    if base.st_name != "BoW" or any(layer.type in ("dense", "layer_norm") for layer in _layers_of(recipe, base)):
        return []
    return [Finding("model.layers", "nothing-to-train", "a bag of words has nothing to train: add a dense layer")]


def _one_view(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """Without dropout, a text is its own positive at a cosine of 1, and nothing is learnt."""
    if recipe.model.dropout != 0 and base.st_name == "Transformer":
        return []
    message = "tells the dropouts of a text apart in the format text, and the model has none: see `model.dropout`"
    return [Finding(f"{key}loss", "one-view", message) for key, each in recipe.objectives_by_path.items() if each.views]


def _unstreamable(recipe: Recipe, base: ModelInfo) -> list[Finding]:
    """What has to see all rows before the first step never sees them in a stream."""
    if not recipe.is_streamed:
        return []
    unknown, never = "how many rows a stream has is known at its end", "and a stream never has them"
    train, model = recipe.train, recipe.model
    wrong: list[tuple[str, bool, str]] = [
        ("train.epochs", train.epochs is not None, f"{unknown}: say `max_steps` instead"),
        ("train.max_steps", train.epochs is None and train.max_steps is None, f"{unknown}: say how long to train"),
    ]
    for key, each in recipe.objectives_by_path.items():
        data = each.data
        if not data.streaming:
            continue
        wrong += [
            (f"{key}data.holdout", data.holdout is not None, f"is drawn from all rows, {never}: evaluate on others"),
            (f"{key}data.shuffle", data.shuffle, f"needs all rows, {never}: see `shuffle_buffer`"),
            (f"{key}data.limit", data.limit is not None, "is for rows in memory: `train.max_steps` ends a stream"),
            (f"{key}data.split", not is_of_whole(data.split), f"`{data.split}`, but a stream is one whole split"),
            (f"{key}loss.teacher", each.teacher is not None, f"embeds all texts before the first step, {never}"),
        ]
    if recipe.objectives:
        unweighted = [f"{key}weight" for key, each in recipe.objectives_by_path.items() if each.weight is None]
        wrong += [(key, True, f"{unknown}: say what share of the batches each objective has") for key in unweighted]
    learning: list[tuple[str, object]] = [("model.base", model.base)]
    learning += [(f"model.token_layers.{i}", layer) for i, layer in enumerate(model.token_layers or [])]
    wrong += [
        (key, getattr(part, "learns_from_texts", False), f"is learnt from all training texts, {never}")
        for key, part in learning
    ]
    return [Finding(key, "streaming", message) for key, is_wrong, message in wrong if is_wrong]


ERRORS: list[Check] = [
    _unfit_losses,
    _unstreamable,
    _one_view,
    unknown_metrics,
    _unknown_prompts,
    missing_trackers,
    _too_long,
    _too_many_dimensions,
    _misplaced_settings,
    _nothing_to_train,
]
WARNINGS: list[Check] = [
    _margin_out_of_reach,
    _learning_rate,
    _frozen_whole,
    _scale_for_temperature,
    few_negatives,
    _gate_out_of_reach,
    _other_sampler,
    _idle_mini_batch,
    _chosen_on_test,
    _idle_evaluators,
    _idle_prompts,
    _replaced_modules,
]
