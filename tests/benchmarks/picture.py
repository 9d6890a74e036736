"""The picture of the README: the quickstart as a terminal shows it, from a real run. `make docs` draws it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

LINES = [
    ["train", "recipes/quickstart.yaml", "--fresh"],
    ["similar", "runs/quickstart", "recipes/data/questions.txt", "--query", "has my refund been processed yet"],
]
WIDTH = 104
LIVE = re.compile(r" *\d\d?%  ")
"""Lines of the way that are many alike."""


def main() -> None:
    """Run the lines, and draw what they print."""
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=True)
    for line in LINES:
        shown = " ".join(f'"{word}"' if " " in word else word for word in line if word != "--fresh")
        console.print(Text(f"$ stfit {shown}", style="bold"))
        command = [sys.executable, "-m", "stfit", *line]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        for printed in done.stdout.splitlines():
            if printed.strip() and not LIVE.match(printed):
                console.print(Text(printed.replace(f"{Path.cwd()}/", "")))
        console.print()
    svg = console.export_svg(title="stfit", unique_id="stfit")
    no_fonts = re.sub(r"@font-face \{.*?\}\s", "", svg, flags=re.DOTALL)  # a viewer would fetch them
    Path(sys.argv[1]).write_text(no_fonts, encoding="utf-8")


main()
