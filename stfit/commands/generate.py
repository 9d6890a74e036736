"""`stfit generate`: documents -> pairs of texts to train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stfit.data.checks.leakage import numbers_in
from stfit.data.reading.local_files import input_paths
from stfit.errors import RecipeError
from stfit.generation.base import GeneratorBase
from stfit.io.outputs import require_output
from stfit.options import GenerationOptions
from stfit.recipe.recipe import Recipe
from stfit.workflows.check.leakage import measured_texts
from stfit.workflows.check.validate import prepare_evaluation
from stfit.workflows.generate.generate_pairs import NOTHING, generate_pairs
from stfit.workflows.generate.passages import Corpus


def generate(
    corpus: Corpus,
    output: Path,
    methods: Sequence[GeneratorBase],
    options: GenerationOptions,
    *,
    not_in: Recipe | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """`not_in`: a recipe whose evaluators' texts are left out. After InterruptedRun, the same command resumes."""
    if output.suffix != ".jsonl":
        raise RecipeError(f"{output}: the output must be a .jsonl file")
    require_output(output, input_paths(corpus.source))
    evaluated = NOTHING if not_in is None else numbers_in(measured_texts(not_in, prepare_evaluation(not_in)))
    result = generate_pairs(corpus, output, methods, options, evaluated=evaluated, device=device)
    holdout = "{fraction: 0.1, by: document}"
    return result | {"data": f"data: {{dataset: ./{output.name}, format: positive_pair, holdout: {holdout}}}"}
