"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch file beside ``path`` to write to; it takes the path's name if nothing goes wrong.

    Raises:
        OSError: the file cannot be given its name; what was there before is left.
    """
    scratch = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; make its folder where it is missing.

    Raises:
        OSError: the file cannot be written; what was there before is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
