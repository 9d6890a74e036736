import json
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.recipe.schema import json_schema
from stfit.spec import CHOICE, Spec


class Round(Spec):
    """A round shape."""

    type: Literal["round"] = "round"
    aliases: ClassVar[tuple[str, ...]] = ("RoundShape",)
    radius: float = Field(1.0, gt=0)
    """Half the width."""


class Square(Spec):
    """A square shape."""

    type: Literal["square"] = "square"
    side: int
    """Length of one side."""


class Paint(Spec):
    """What it is painted with."""

    colour: str = "red"
    """Any colour."""


class Drawing(Spec):
    name: str
    """What it is called."""
    shape: Annotated[Round | Square, CHOICE]
    """What is drawn."""
    paint: Paint = Paint()
    """How it is painted."""


def parts(value):
    """Every mapping in a schema."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from parts(inner)


@pytest.mark.parametrize("model", [Drawing, Recipe])
def test_the_schema_says_nothing_that_draft_07_ignores(model):
    schema = json_schema(model)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in json.dumps(schema)
    for part in parts(schema):
        assert "$ref" not in part or len(part) == 1
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/definitions/") in schema["definitions"]


def test_fields_bring_their_descriptions_and_defaults():
    schema = json_schema(Drawing)
    assert schema["properties"]["paint"]["description"] == "How it is painted."
    assert schema["properties"]["paint"]["default"] == {"colour": "red"}
    assert schema["definitions"]["Round"]["properties"]["radius"] == {
        "default": 1.0, "description": "Half the width.", "exclusiveMinimum": 0, "type": "number"
    }  # fmt: skip


def test_every_field_of_a_recipe_is_described():
    for name, definition in json_schema(Recipe)["definitions"].items():
        for key, field in definition["properties"].items():
            assert key == "type" or "description" in field, f"{name}.{key}"


def test_a_choice_requires_its_type_and_knows_every_spelling():
    schema = json_schema(Drawing)
    assert schema["definitions"]["Round"]["properties"]["type"] == {"enum": ["round", "RoundShape"]}
    assert schema["definitions"]["Square"]["required"] == ["type", "side"]
    assert {"type": "string", "enum": ["round", "RoundShape", "square"]} in schema["properties"]["shape"]["anyOf"]


def test_a_file_may_leave_out_its_name_or_extend_another():
    schema = json_schema(Drawing)
    assert schema["properties"]["extends"]["type"] == "string"
    assert schema["anyOf"] == [{"required": ["shape"]}, {"required": ["extends"]}]


def test_any_model_can_be_loaded(tmp_path):
    (tmp_path / "house.yaml").write_text("shape: RoundShape\n")
    assert load_recipe(tmp_path / "house.yaml", ["shape.radius=2"], Drawing).recipe == Drawing(
        name="house", shape=Round(radius=2.0)
    )
