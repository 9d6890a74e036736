import sys

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Json, Overrides, RecipeArgument


def fetch_command(recipe: RecipeArgument, overrides: Overrides = None, json: Json = False) -> None:
    """Download the models and datasets of a recipe. It can then be trained without a network.

    Example: stfit fetch recipe.yaml && HF_HUB_OFFLINE=1 stfit train recipe.yaml
    """
    from stfit.commands.fetch import fetch
    from stfit.recipe.load import load_recipe

    result = fetch(load_recipe(recipe, overrides or []))
    if json:
        print_json(result)
        return
    for repo in result["fetched"]:
        sys.stdout.write(f"{repo['kind']} {repo['id']} {repo['commit']}\n")
    if not result["fetched"]:
        log_line("nothing to download: the recipe does not use the Hub")
