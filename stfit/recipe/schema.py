"""The recipe language as a JSON Schema, for editors: completion, descriptions and defaults while one types."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from stfit.recipe.recipe import ALTERNATIVES
from stfit.spec import Spec


class RecipeSchema(GenerateJsonSchema):
    """Pydantic's schema, with the `type` of a choice required and every accepted name in it."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """The schema of one section."""
        made = super().model_schema(schema)
        section = schema["cls"]
        if issubclass(section, Spec) and "type" in section.model_fields:
            made["properties"]["type"] = {"enum": [section.tag(), *section.aliases]}
            made["required"] = ["type", *made.get("required", [])]
        return made


def json_schema(model: type[Spec]) -> dict[str, Any]:
    """The schema of a recipe file (draft-07, the newest that the editors' YAML plugins agree on).

    `name` may be left out, and a file that says `extends` may leave out any section.
    """
    made = model.model_json_schema(schema_generator=RecipeSchema, ref_template="#/definitions/{model}")
    schema: dict[str, Any] = _as_draft_07(made)
    schema["definitions"] = schema.pop("$defs", {})
    schema["properties"]["extends"] = {"type": "string", "description": "A recipe that this one overrides, key by key."}
    required = [key for key in schema.pop("required", []) if key != "name"]
    ways = [required] + [
        [key, *(other for other in required if other not in replaced)]
        for key, replaced in ALTERNATIVES.items()
        if key in schema["properties"]
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "stfit recipe",
        **schema,
        "anyOf": [{"required": way} for way in [*ways, ["extends"]]],
    }


def schema_page(model: type[Spec]) -> str:
    """The schema as the text of a file."""
    return json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"


def _as_draft_07(part: Any) -> Any:
    """Moves a `$ref` with neighbours into `allOf` (draft-07 ignores the neighbours), and drops the made-up titles."""
    if isinstance(part, list):
        return [_as_draft_07(item) for item in part]
    if not isinstance(part, dict):
        return part
    whole = {key: _as_draft_07(value) for key, value in part.items() if not (key == "title" and isinstance(value, str))}
    if "$ref" in whole and len(whole) > 1:
        whole["allOf"] = [{"$ref": whole.pop("$ref")}]
    return whole
