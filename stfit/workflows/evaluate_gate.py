"""Whether a model may take the place of the published one: both measured by the same code on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stfit.commands.evaluate import evaluate
from stfit.encoder.folder.resolve import ALL_FILES
from stfit.evaluation.gate import GateResult
from stfit.hub.download import fetch
from stfit.publish.commit import BranchState
from stfit.recipe.recipe import Recipe

PUBLISHED = "published"


def evaluate_gate(model: Path, recipe: Recipe, repo: str, head: BranchState) -> dict[str, Any]:
    """Hold a model against the recipe's gate: `gate`, `error` where it does not pass, and `compared` with `published`.

    Raises what `stfit eval` raises.
    """
    there = str(fetch("model", repo, head.commit, ALL_FILES)) if head.commit and head.has_model else None
    asked = [gate for gate in recipe.gate if there or gate.against != PUBLISHED]
    gates = [gate.model_copy(update={"against": there}) if gate.against == PUBLISHED else gate for gate in asked]
    measured, _ = evaluate(str(model), recipe.model_copy(update={"gate": gates}), there)
    lines = [
        line | {"against": PUBLISHED} if there and line["against"] == there else line
        for line in measured.get("gate", [])
    ]
    note = f"nothing is published at {repo} yet"
    skipped = [
        vars(GateResult(gate.metric, measured["metrics"][gate.metric], None, None, PUBLISHED, note=note))
        for gate in recipe.gate
        if gate not in asked
    ]
    verdict: dict[str, Any] = {"repo": repo, "published": head.commit if there else None, "gate": lines + skipped}
    verdict["compared"] = measured["compare"]["metrics"] if there else {}
    return verdict | ({"error": measured["error"]} if "error" in measured else {})
