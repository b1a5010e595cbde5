"""Tables of results, and the file that they are written into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vcr1.errors import UserError


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers and stand on the right."""
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def write_section(file: Path, name: str, text: str) -> None:
    """Put ``text`` between a section's two marks, whole or not at all.

    Args:
        file: Markdown with the lines ``<!-- name: begin -->`` and ``<!-- name: end -->``.
        name: which section.
        text: what stands there from now on.

    Raises:
        UserError: there is no such file, or no such section in it.
    """
    if not file.is_file():
        raise UserError(f"--out {file}: no such file")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    new, count = pattern.subn(lambda _: f"{begin}\n{text.strip()}\n{end}", file.read_text())
    if count != 1:
        raise UserError(f"--out {file}: needs the lines {begin} and {end}, once; found {count} such sections")
    scratch = file.with_name(f".{file.name}.new")
    scratch.write_text(new)
    scratch.replace(file)


def publish(name: str, text: str, file: Path | None) -> None:
    """Print a section, and write it into ``file`` where one is given."""
    print(text)
    if file is not None:
        write_section(file, name, text)
