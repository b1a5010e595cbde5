"""How a video's name in an annotation becomes a file: one rule for all readers.

Names are published as paths of somebody else's machine, without endings, or with other capitals. A name is
looked for below the data set's folder, and the first of these that exists is taken:

1. the whole name, then the name without its first folder, without its first two, and so on. So
   ``/mnt/cluster/GOT-10k/val/GOT-10k_Val_000001`` is found as ``FOLDER/val/GOT-10k_Val_000001``, and
   ``videos/clip.mp4`` as ``FOLDER/clip.mp4``;
2. each of these as it is written, then with each of `ENDINGS` behind it, then with other capitals (``A`` and
   ``a.mp4`` find ``A.MP4``) where only one file fits.

Outside of the folder a name leads in one case only: it is an absolute path, nothing below the folder fits,
and it leads to a file with one of `ENDINGS`, or to a folder. A name with ``..`` is looked for without what
stands before it. Two names that would be one file although their folders differ (``a/1.mp4`` and ``b/1.mp4``
where there is only ``FOLDER/1.mp4``) are an error: one of them is another video.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path

from vcr1.errors import UserError
from vcr1.readers.annotations import Purpose, keeps_missing, purpose

log = logging.getLogger(__name__)

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif")
"""Endings of the names of videos, in small or capital letters, in the order in which they are tried."""
_SHOWN = 4


class VideoFolder:
    """Finds a data set's videos by name; see the module's documentation.

    Args:
        folder: where the videos lie.
        extensions: tried in this order after the name.

    Raises:
        UserError: the folder does not exist.
    """

    def __init__(self, folder: str | Path, extensions: Iterable[str] = ENDINGS) -> None:
        self.folder = Path(folder)
        self.extensions = tuple(extensions)
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._warned = False
        if not self.folder.is_dir() and purpose() is not Purpose.SCORING:
            raise UserError(f"video folder {folder} does not exist")

    def below(self, name: str) -> VideoFolder:
        """Return the folder of this name in it, as a reader's setting gives it: there alone is looked."""
        other = copy(self)
        other.folder = self.folder / name
        return other

    def find(self, name: str) -> str | None:
        """Return path of the video file called ``name``; None where there is none.

        Where missing videos are kept, the path that it would have; None still of a folder of frames.

        Raises:
            UserError: another name has led to this file already.
        """
        found = self._search(name, folders=False)
        if found is not None or not keeps_missing() or self.find_frames(name) is not None:
            return found
        wanted = self.folder.joinpath(*_parts(name))
        try:
            wanted.exists()
        except (OSError, ValueError):  # no name that a file can have
            return None
        if not self._warned and purpose() is Purpose.EVALUATION:
            self._warned = True
            log.warning("%s; questions about missing videos count as wrong answers", self.tried(name))
        return str(wanted)

    def find_frames(self, name: str) -> str | None:
        """Return path of the folder of frames called ``name``; None where there is none."""
        return self._search(name, folders=True)

    def tried(self, name: str) -> str:
        """Return a sentence about where a missing video was looked for."""
        paths = [str(path) for path in self._places(name)]
        more = f" and {len(paths) - _SHOWN} more places" if len(paths) > _SHOWN else ""
        listed = ", ".join(paths[:_SHOWN]) or str(self.folder)
        return (
            f"no video {name[:200]!r}; tried {listed}{more}, with the endings {' '.join(self.extensions)} "
            "and in other capitals"
        )

    def _search(self, name: str, folders: bool) -> str | None:
        try:
            for place in self._places(name):
                if (found := self._at(place, folders)) is not None:
                    return self._claimed(found, name)
            if name.startswith("/") and ".." not in name.split("/") and _allowed(Path(name), folders):
                return name
        except (OSError, ValueError):  # no name that a file can have
            pass
        return None

    def _places(self, name: str) -> Iterator[Path]:
        """Yield the name below the folder, with fewer and fewer of its own folders."""
        parts = _parts(name)
        for first in range(len(parts)):
            yield self.folder.joinpath(*parts[first:])

    def _at(self, place: Path, folders: bool) -> str | None:
        """Return what stands at a place, under the name as it is, with an ending, or in other capitals."""
        names = [place.name] if folders else [place.name, *(place.name + end for end in self.extensions)]
        listing = self._listing(place.parent)
        exists = Path.is_dir if folders else Path.is_file
        for one in names:
            if one in listing.get(_plain(one), ()) and exists(place.with_name(one)):
                return str(place.with_name(one))
        for one in names:
            alike = [place.with_name(other) for other in listing.get(_plain(one), ())]
            if len(alike := [path for path in alike if exists(path)]) == 1:
                return str(alike[0])
        return None

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Return a folder's names by what they are in small letters; read once."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            for one in os.listdir(folder) if folder.is_dir() else ():  # noqa: PTH208 - names, not paths
                listing.setdefault(_plain(one), []).append(one)
            self._listings[folder] = listing
        return self._listings[folder]

    def _claimed(self, path: str, name: str) -> str:
        """Return the path, where no name of other folders has led there.

        Raises:
            UserError: one has.
        """
        parts = tuple(map(_plain, _parts(name)))
        known = self._names.get(path, parts)
        shorter, longer = sorted((parts, known), key=len)
        folders = shorter[:-1]
        if longer[:-1][len(longer) - len(shorter) :] != folders:
            other = "/".join(known)
            raise UserError(
                f"the names {other!r} and {name!r} would both be {path}, and one of them is another video; "
                f"lay the videos below {self.folder} in folders of these names"
            )
        self._names[path] = longer
        return path


def _parts(name: str) -> list[str]:
    """Return a name's folders and its last part; what stands before the last ``..`` does not count."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    return parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts


def _plain(name: str) -> str:
    """Return a name without the difference of capitals, and of the two ways to write accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _allowed(path: Path, folders: bool) -> bool:
    """Return whether an absolute path may be used as it stands."""
    return path.is_dir() if folders else path.is_file() and path.suffix.lower() in ENDINGS
