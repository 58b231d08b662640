"""What report pages are made of: short Markdown, and HTML that needs nothing but itself.

Every function that makes HTML escapes the text it is given, so that a coin's name cannot become markup.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

INLINE_CHARACTERS: Final = 1000
"""The UI shows Markdown below this length at once, longer Markdown behind a click."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6875; --line: #d9dfe5; --card: #f6f8fa; --ground: #fff;
  --good: #2f7d4f; --poor: #b5432a; --open: #6b7785; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ed; --soft: #9aa7b4; --line: #36414c; --card: #1d252d;
  --ground: #12181e; --good: #5fbf85; --poor: #e5856d; --open: #9aa7b4; } }
body { margin: 0 auto; max-width: 960px; padding: 24px 20px 64px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p { margin: 8px 0; max-width: 75ch; } .soft { color: var(--soft); font-size: 13px; }
.verdict { border-left: 6px solid var(--open); background: var(--card); padding: 12px 18px; margin: 16px 0;
  border-radius: 4px; } .verdict b { font-size: 18px; } .good { border-color: var(--good); }
.poor { border-color: var(--poor); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 10px; margin: 14px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
.tile span { display: block; color: var(--soft); font-size: 13px; } .tile b { font-size: 22px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 10px 0; font-size: 13.5px;
  line-height: 1.35; }
caption { text-align: left; color: var(--soft); font-size: 13px; padding-bottom: 4px; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; } tbody th { font-weight: 400; }
td { font-variant-numeric: tabular-nums; }
td small { display: block; color: var(--soft); white-space: nowrap; } .short { white-space: nowrap; }
tr.aside { color: var(--soft); font-style: italic; }
img { display: block; max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  margin: 10px 0; } summary { cursor: pointer; } li { max-width: 75ch; margin: 3px 0; }
"""
_SHORT: Final = 26  # characters of a cell that stay on one line
# The page may load nothing, whatever a text in it says.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Page:
    """A report in three shapes."""

    markdown: str
    """The verdict and the main figures, below `INLINE_CHARACTERS`."""
    pictures: dict[str, bytes]
    """PNG by name, in the order of the page."""
    html: str
    """The whole report as one file that loads nothing."""


def marked(text: str) -> str:
    """A text from data for Markdown: it cannot become a link, a picture, a table's border or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|!#])", r"\\\1", " ".join(text.split()))


def short(lines: Iterable[str]) -> str:
    """Markdown of the first lines, as many as the UI shows at once."""
    said = ""
    for line in lines:
        if len(said) + len(line) + 1 >= INLINE_CHARACTERS:
            break
        said = f"{said}{line}\n"
    return said.rstrip("\n")


def document(title: str, parts: Iterable[str]) -> str:
    """One HTML file that loads nothing, from the parts that the other functions made."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([f"<h1>{escape(title)}</h1>", *parts])
        + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, soft: bool = False) -> str:
    """A paragraph; a soft one is small print."""
    return f"{'<p class=soft>' if soft else '<p>'}{escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def verdict_box(headline: str, sentences: Sequence[str], tone: str) -> str:
    """The verdict; `tone` is `good`, `poor` or `open`."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<div class="verdict {escape(tone)}"><b>{escape(headline)}</b>{said}</div>'


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Main figures side by side: (what, value, what to read beside it)."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{escape(what)}</span><b>{escape(value)}</b><span>{escape(beside)}</span></div>'
            for what, value, beside in figures
        )
        + "</div>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", aside: Sequence[str] = ()) -> str:
    """A table whose first column names the rows.

    Args:
        head: a column's title each.
        rows: a cell's text for each column; the last cell of a shorter row takes the columns that are left.
        caption: said above the table.
        aside: names of rows set in italics, because they are not comparable with the others.
    """
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'{"<tr class=aside>" if name in aside else "<tr>"}<th scope="row">{escape(name)}</th>'
        + "".join(_cell(cell) for cell in cells[:-1])
        + _cell(cells[-1], len(head) - len(cells))
        + "</tr>"
        for name, *cells in rows
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{said}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, columns: int = 1) -> str:
    """A figure's interval goes below it: side by side they would be broken anywhere."""
    figure = re.fullmatch(r"([-+]?[\d.,]+(?: %)?) \((.+)\)", text)
    shown = f"{escape(figure[1])}<small>{escape(figure[2])}</small>" if figure else escape(text)
    if columns > 1:
        return f'<td colspan="{columns}">{shown}</td>'
    # A figure is not broken between number and unit.
    return f"<td class=short>{shown}</td>" if len(text) <= _SHORT else f"<td>{shown}</td>"


def folded(summary: str, part: str) -> str:
    """A part that is opened by a click."""
    return f"<details><summary>{escape(summary)}</summary>{part}</details>"


def picture(png: bytes, description: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
