"""The JSON Schema of recipes, for completion and help in editors."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from stfit.recipe.recipe import ALTERNATIVES
from stfit.spec import Spec


class RecipeSchema(GenerateJsonSchema):
    """Pydantic's schema, in which the `type` of a choice is required and lists all accepted names."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        section_schema = super().model_schema(schema)
        section = schema["cls"]
        if issubclass(section, Spec) and "type" in section.model_fields:
            section_schema["properties"]["type"] = {"enum": [section.tag(), *section.aliases]}
            section_schema["required"] = ["type", *section_schema.get("required", [])]
        return section_schema


def json_schema(model: type[Spec]) -> dict[str, Any]:
    """In draft-07, the newest version that all YAML plugins support; with `extends`, any section is optional."""
    generated = model.model_json_schema(schema_generator=RecipeSchema, ref_template="#/definitions/{model}")
    schema: dict[str, Any] = _as_draft_07(generated)
    schema["definitions"] = schema.pop("$defs", {})
    schema["properties"]["extends"] = {"type": "string", "description": "Path of a recipe that this one overrides."}
    required = [key for key in schema.pop("required", []) if key != "name"]
    alternatives = [required] + [
        [key, *(name for name in required if name not in replaced)]
        for key, replaced in ALTERNATIVES.items()
        if key in schema["properties"]
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "stfit recipe",
        **schema,
        "anyOf": [{"required": keys} for keys in [*alternatives, ["extends"]]],
    }


def schema_page(model: type[Spec]) -> str:
    return json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"


def _as_draft_07(part: Any) -> Any:
    """Move a `$ref` with siblings into `allOf`, because draft-07 ignores the siblings; drop generated titles."""
    if isinstance(part, list):
        return [_as_draft_07(item) for item in part]
    if not isinstance(part, dict):
        return part
    draft = {key: _as_draft_07(value) for key, value in part.items() if key != "title" or not isinstance(value, str)}
    if "$ref" in draft and len(draft) > 1:
        draft["allOf"] = [{"$ref": draft.pop("$ref")}]
    return draft
