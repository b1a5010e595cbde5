"""The report of an evaluation as text: Markdown beside its pictures, or one HTML page with them inside.

The page needs no other file, runs no script and asks nobody for anything. Its policy forbids all three too,
beside the escaping of whatever a model or an annotation wrote.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

Table = list[list[str]]
"""Rows of cells, the heading first."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 sans-serif;color:#1a1a1a;background:#fff;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1,h2,h3{line-height:1.25;overflow-wrap:anywhere}
h2{border-top:1px solid #ccc;margin-top:3rem;padding-top:1rem}
a{color:#2056a8}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0}
td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left;vertical-align:top}
th{background:#f3f3f3}
figure{margin:1rem 0}
figcaption{color:#555}
.charts{display:flex;flex-wrap:wrap;gap:1rem}
.charts figure{flex:1 1 18rem;margin:0}
.charts img{width:100%;max-width:32rem}
.strips img{width:100%;min-width:44rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem 1rem;margin:1rem 0;
padding:.6rem .8rem;border:1px solid #ccc}
dt{color:#555}
dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:minmax(0,1fr)}dd{margin-bottom:.4rem}}
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and what is seen in it."""

    path: Path
    caption: str


@dataclass(slots=True)
class Part:
    """A part of a section, under its heading.

    Attributes:
        heading: of the part.
        table: of numbers, or of answers.
        pictures: before the table.
        charts: whether the pictures are small charts, to stand side by side.
        cards: whether each row of the table is shown by itself, since its cells are long texts.
    """

    heading: str
    table: Table = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    charts: bool = False
    cards: bool = False


@dataclass(slots=True)
class Section:
    """One benchmark."""

    title: str
    parts: list[Part] = field(default_factory=list)


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown; pictures lie beside it."""
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for part in section.parts:
            lines += [f"### {part.heading}", ""]
            lines += [f"![{one.caption}]({one.path.name})" for one in part.pictures]
            lines += [""] if part.pictures else []
            lines += [markdown_table(part.table), ""] if part.table else []
    return "\n".join(lines)


def markdown_table(table: Table) -> str:
    """Return a Markdown table; text from outside stays within its cell."""

    def row(cells: Sequence[str]) -> str:
        clean = (cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(clean)} |"

    return "\n".join([row(table[0]), "|---" * len(table[0]) + "|", *map(row, table[1:])])


def html(title: str, sections: Sequence[Section]) -> str:
    """Return the report as one page that needs no other file; all text is escaped."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    if len(sections) > 1:
        links = (f'<li><a href="#s{n}">{escape(one.title)}</a></li>' for n, one in enumerate(sections))
        parts.append(f"<nav><ul>{''.join(links)}</ul></nav>")
    for number, section in enumerate(sections):
        parts.append(f'<section id="s{number}"><h2>{escape(section.title)}</h2>')
        parts += [_html_part(part) for part in section.parts]
        parts.append("</section>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_part(part: Part) -> str:
    kind = "charts" if part.charts else "strips"
    pictures = "".join(map(_html_picture, part.pictures))
    lines = [f"<h3>{escape(part.heading)}</h3>"]
    lines += [f'<div class="{kind}">{pictures}</div>'] if pictures else []
    if part.table:
        lines.append(_html_cards(part.table) if part.cards else _html_table(part.table))
    return "\n".join(lines)


def _html_picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = escape(picture.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    # What does not fit a narrow screen is moved by itself; the page stands still.
    return f'<figure><div class="wide">{image}</div><figcaption>{caption}</figcaption></figure>'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table[1:])
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _html_cards(table: Table) -> str:
    """Each row as a list of names and texts."""
    cards = []
    for row in table[1:]:
        pairs = zip(table[0], row, strict=True)
        cards.append("".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs))
    return "\n".join(f"<dl>{card}</dl>" for card in cards)
