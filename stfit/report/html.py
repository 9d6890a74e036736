"""Text of others inside HTML: it stays text, whatever it holds. What a page is put together from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from stfit.publish.markdown import visible

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a page may load and run: nothing but its own styles."""


def text(value: object) -> str:
    """Plain text, on one line."""
    return escape(visible(str(value)))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """A table of cells that are HTML already; all columns but the first are numbers, or none is."""
    kind = ' class="numbers"' if numbers else ""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption)}"><table{kind}>'
        f"<caption><span>{escape(caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def figure(svg: str, caption: str) -> str:
    """A picture with what it shows in words."""
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption></figure>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of what is called what; values are HTML already."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{value}</dd>' for name, value in pairs)}</dl>"


def lines(content: str, label: str) -> str:
    """Lines of a file as they are."""
    return f'<pre tabindex="0" role="group" aria-label="{escape(label)}">{escape(content)}</pre>'


def section(name: str, title: str, *parts: str) -> tuple[str, str, str] | None:
    """A part of a page: its id, its title and itself; None where there is nothing to show."""
    shown = [part for part in parts if part]
    if not shown:
        return None
    body = "\n".join(shown)
    return name, title, f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{body}\n</section>'


def page(title: str, lead: str, sections: Iterable[tuple[str, str, str] | None]) -> str:
    """A whole page that needs nothing from anywhere. `lead` is HTML that stands below the title."""
    shown = [each for each in sections if each]
    style = files("stfit.publish").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in shown)
    body = "\n".join(content for _, _, content in shown)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{lead}
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}
</main>
</body>
</html>
"""
