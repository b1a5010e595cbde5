"""Videos whose frames carry their own number, in every codec and container that PyAV can write."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.packet import Packet
from numpy.typing import NDArray

COUNT = 60
_X264 = "keyint=20:min-keyint=20:scenecut=0:bframes=3:b-adapt=0"
# Threads would make files that differ from run to run; x265 may still, so it gets bits enough to be read.
_X265 = "log-level=none:pools=none:frame-threads=1:crf=8:keyint=20:min-keyint=20:scenecut=0:bframes=3"
_VPX = {"g": "20", "b": "500k", "cpu-used": "8"}
_PLAIN = {"g": "12", "b": "800k"}

KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"x264-params": _X264, "threads": "1"}),
    "h264 open": ("libx264", {"x264-params": f"{_X264}:open-gop=1", "threads": "1"}),
    "h264 no b": ("libx264", {"x264-params": "keyint=20:scenecut=0:bframes=0", "threads": "1"}),
    "h264 refresh": (
        "libx264",
        {"x264-params": "keyint=20:scenecut=0:bframes=0:intra-refresh=1", "threads": "1"},
    ),
    "hevc": ("libx265", {"x265-params": f"{_X265}:open-gop=0"}),
    "hevc open": ("libx265", {"x265-params": _X265}),
    "mpeg4": ("mpeg4", _PLAIN),
    "mpeg4 b": ("mpeg4", {**_PLAIN, "bf": "2"}),
    "mpeg2 b": ("mpeg2video", {**_PLAIN, "bf": "2"}),
    "mpeg2 closed": ("mpeg2video", {**_PLAIN, "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}),
    "mpeg1 b": ("mpeg1video", {**_PLAIN, "bf": "2"}),
    "vp8": ("libvpx", {"g": "20", "b": "500k", "cpu-used": "8", "deadline": "realtime"}),
    "vp9": ("libvpx-vp9", {**_VPX, "deadline": "realtime"}),
    "vp9 alt": ("libvpx-vp9", {**_VPX, "auto-alt-ref": "1", "lag-in-frames": "12"}),
    "av1": ("libsvtav1", {"preset": "8", "g": "20", "crf": "10", "svtav1-params": "lp=1"}),
    "wmv2": ("wmv2", _PLAIN),
    "msmpeg4": ("msmpeg4", _PLAIN),
    "flv1": ("flv", _PLAIN),
    "mjpeg": ("mjpeg", {}),
    "ffv1": ("ffv1", {"g": "12"}),
    "prores": ("prores_ks", {}),
    "gif": ("gif", {}),
}
"""Name -> encoder and its options. Groups of 20 or 12 frames; reordered (b) and closed or open."""

_PIXELS = {"mjpeg": "yuvj420p", "prores": "yuv422p10le", "gif": "rgb8"}


def picture(number: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """``[H, W, 3]``: 4 x 4 blocks, black or white by the bits of a number, the highest first."""
    bits = np.array([number >> (15 - place) & 1 for place in range(16)], np.uint8).reshape(4, 4)
    blocks = np.kron(bits * 225 + 15, np.ones((height // 4, width // 4), np.uint8))
    return np.repeat(blocks[..., None], 3, 2)


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers that frames ``[T, 3, H, W]`` carry."""
    gray = frames.float().mean(1)
    height, width = gray.shape[1:]
    rows = [int((place + 0.5) * height / 4) for place in range(4)]
    columns = [int((place + 0.5) * width / 4) for place in range(4)]
    bits = (gray[:, rows][:, :, columns] > 125).flatten(1).long()
    return [int(value) for value in (bits * 2 ** torch.arange(15, -1, -1)).sum(1)]


def rate_of(kind: str) -> int:
    """Frames per second; MPEG-1 and MPEG-2 know no 10."""
    return 25 if kind.startswith(("mpeg1", "mpeg2")) else 10


def write_numbered(
    path: Path,
    kind: str,
    *,
    times: Sequence[int] | None = None,
    count: int = COUNT,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    **options: str,
) -> Path:
    """Write numbered frames.

    Args:
        path: whose ending names the container.
        kind: a key of ``KINDS``.
        times: in milliseconds, one for each frame; None for a constant rate.
        count: frames.
        prepare: is given the stream before the first frame.
        options: of the container.
    """
    codec, settings = KINDS[kind]
    rate, tick = rate_of(kind), Fraction(1, 1000) if times else Fraction(1, rate_of(kind))
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, options=settings)
        stream.width = stream.height = 64
        stream.pix_fmt = _PIXELS.get(kind, "yuv420p")
        if times:
            stream.codec_context.time_base = tick
        prepare(stream)
        for number, time in enumerate(times or range(count)):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_packets(
    source: Path,
    path: Path,
    change: Callable[[int, Packet], bool | None] = lambda number, packet: None,
    **options: str,
) -> Path:
    """Copy a stream without decoding it.

    Args:
        source: to copy from.
        path: whose ending names the container.
        change: is given each packet with its number and may change it; False leaves it out.
        options: of the container.
    """
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(old.demux(stream)):
            packet.dts = packet.pts if packet.dts is None else packet.dts
            if packet.size and change(number, packet) is not False:
                packet.stream = copy
                new.mux(packet)
    return path


def cut_off(source: Path, path: Path, share: float = 0.5) -> Path:
    """The first part of a file, as a broken download leaves it."""
    content = source.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path
