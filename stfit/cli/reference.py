from stfit.cli.console import print_page
from stfit.cli.options import Page


def reference_command(output: Page = None) -> None:
    """Print the reference page of the recipe language, in Markdown.

    Example: stfit reference -o recipes.md
    """
    from stfit.recipe.reference import reference_page

    print_page(reference_page(), output)
