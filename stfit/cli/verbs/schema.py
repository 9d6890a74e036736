from stfit.cli.console import print_page
from stfit.cli.options import Json, Page


def schema_command(output: Page = None, json: Json = False) -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: stfit schema -o recipe.schema.json
    """
    from stfit.recipe.recipe import Recipe
    from stfit.recipe.schema import schema_page

    print_page(schema_page(Recipe), output, json)
