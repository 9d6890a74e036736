import random

from draws import few_or_many

from stfit.errors import RecipeError
from stfit.recipe.load import load_recipe

PIECES = [
    "\t", "\n", " ", ":", "- ", "[", "{", "}", "]", "&a", "*a", "!", "#", "'", '"', "null", "1e-5", "no", "~", "\0",
    "\ufeff", "é", "type: ", "<<: ", "-1", ",", "|", ">", "?", "%", "@", "\r", "\x85", "---\n", "type", "triplet",
    ".", "=", "0",
]  # fmt: skip


def is_refused(path, *overrides):
    """Whether a recipe is refused, with a reason; anything but a RecipeError fails the test."""
    try:
        load_recipe(path, overrides)
    except RecipeError as error:
        return bool(str(error))
    return False


@few_or_many(500)
def test_mutated_recipes_load_or_are_refused(count, write, valid):
    rng, path, refused = random.Random(count), write(valid), 0
    for _ in range(count):
        text = valid
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(text))
            end = start + rng.choice([0, 0, 1, 5, 30])
            text = text[:start] + rng.choice([*PIECES, text[start : end + 5], ""]) + text[end:]
        path.write_bytes(text.encode())
        refused += is_refused(path)
    assert count / 20 < refused < count


def test_random_overrides_are_applied_or_refused(write, valid):
    rng, path, refused = random.Random(8), write(valid), 0
    keys = [
        "~",
        "eval",
        "0",
        "type",
        "loss",
        "train",
        "epochs",
        "model",
        "layers",
        "where",
        "data",
        "columns",
        "base",
        "",
    ]
    for _ in range(500):
        where = ".".join(rng.choices(keys, k=rng.randint(1, 4)))
        override = (
            rng.choice(["", "~"]) + where + rng.choice(["", "="]) + "".join(rng.choices(PIECES, k=rng.randint(0, 3)))
        )
        refused += is_refused(path, override)
    assert 50 < refused < 500
