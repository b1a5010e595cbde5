"""Which files a visitor may ask about: what was uploaded, and what lies below one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vcr1.errors import UserError, VideoError
from vcr1.readers.videos import ENDINGS

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"RIFF",  # AVI
    b"FLV\x01",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"0&\xb2u",  # WMV
)


@dataclass(frozen=True, slots=True)
class Files:
    """The files that the page may read.

    Attributes:
        uploads: folder of what was uploaded.
        videos: folder whose videos may be named by their path in it; None: only uploads.
    """

    uploads: Path
    videos: Path | None = None

    def uploaded(self, path: str) -> str:
        """Return the path of an uploaded video.

        Raises:
            UserError: it was not uploaded, or is no file of video.
        """
        file = self._below(self.uploads, path)
        if file is None:
            raise UserError("the video was not uploaded; load it again")
        if file.suffix.lower() not in ENDINGS:
            raise UserError(f"{file.name}: its name must end in one of {', '.join(ENDINGS)}")
        try:
            with file.open("rb") as content:
                head = content.read(512)
        except OSError as error:
            raise VideoError(f"{file.name}: is no longer there; load it again") from error
        if not is_video(head):
            raise VideoError(
                f"{file.name}: not a readable video (no container that is known); fetch it again"
            )
        return str(file)

    def named(self, path: str) -> str:
        """Return the path of a video below the folder.

        Raises:
            UserError: there is no such folder or video.
        """
        if self.videos is None:
            raise UserError("no video is loaded: choose one (naming a path needs the server's videos=FOLDER)")
        file = self._below(self.videos, path)
        try:
            if file is not None and file.suffix.lower() in ENDINGS and file.is_file():
                return str(file)
        except OSError:  # too long a name
            pass
        raise UserError(f"{path[:200]}: there is no such video below the server's folder of videos")

    @staticmethod
    def _below(folder: Path, path: str) -> Path | None:
        """Return a path in a folder, links followed; None where it lies outside, or cannot be a path."""
        try:
            file = (folder / path).resolve()
            return file if file.is_relative_to(folder.resolve()) else None
        except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a zero byte
            return None


def is_video(head: bytes) -> bool:
    """Return whether a file begins as a container of video does.

    FFmpeg also reads playlists, which name other files or addresses to read: those of strangers are refused.
    """
    if not head:
        return True  # an empty file is said to be one when it is read
    packets = len(head) > 376 and any(
        head[at] == head[at + step] == 0x47 for at, step in ((0, 188), (4, 192))
    )
    return head[4:8] in _BOXES or head.startswith(_STARTS) or packets
