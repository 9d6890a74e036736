from enum import StrEnum
from typing import Annotated

import typer

from stfit.cli.console import print_page
from stfit.cli.options import Page


class Topic(StrEnum):
    recipe = "recipe"
    metrics = "metrics"


def reference_command(
    topic: Annotated[
        Topic, typer.Argument(help="The whole page in Markdown, or the names of all metrics.")
    ] = Topic.recipe,
    output: Page = None,
) -> None:
    """Print the reference page of the recipe language, or the names of all metrics.

    Example: stfit reference metrics
    """
    from stfit.recipe.reference import metric_names, reference_page

    print_page(metric_names() if topic is Topic.metrics else reference_page(), output)
