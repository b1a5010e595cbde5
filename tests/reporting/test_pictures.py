"""The pictures, looked at as pixels."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from vcr1.records import Box, Interval, VideoClip
from vcr1.reporting.pictures import (
    COLORS,
    TimelineEntry,
    TrackEntry,
    column_of,
    learning_curve,
    smooth,
    timelines,
    tracks,
)


def clip(frames: int, color: tuple[int, int, int] = (200, 40, 160)) -> VideoClip:
    """A clip of one colour, half a second per frame."""
    pixels = torch.tensor(color, dtype=torch.uint8)[None, :, None, None].expand(frames, 3, 8, 8)
    times = tuple(number / 2 for number in range(frames))
    return VideoClip(pixels, tuple(range(frames)), times, frames / 2, frames)


def entry(frames: int = 12, **answers: Interval | tuple[Interval, ...]) -> TimelineEntry:
    spans = {name: (one,) if isinstance(one, Interval) else one for name, one in answers.items()}
    return TimelineEntry(clip(frames), "the door opens", spans)


def pixels(path: Path) -> NDArray[np.float64]:
    return matplotlib.image.imread(path)[..., :3]


def where(picture: NDArray[np.float64], color: str | tuple[float, float, float]) -> NDArray[np.bool_]:
    return (np.abs(picture - np.array(to_rgb(color))) < 0.02).all(-1)


def columns_of(picture: NDArray[np.float64], color: str | tuple[float, float, float]) -> NDArray[np.intp]:
    """The columns in which a colour is seen."""
    return np.flatnonzero(where(picture, color).any(0))


def width_of(picture: NDArray[np.float64], color: str) -> int:
    """Most pixels of a colour in one row; the edges of letters have few."""
    return int(where(picture, color).sum(1).max())


def curve(path: Path, text: str, **constants: float) -> NDArray[np.float64]:
    """The picture that a metrics.csv gives."""
    (path / "metrics.csv").write_text(text)
    learning_curve(path / "metrics.csv", ["train/iou"], "val/mIoU", constants, path / "curve.png")
    return pixels(path / "curve.png")


def test_the_score_before_training_is_where_the_curve_begins(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,val/mIoU\n100,0.6\n")
    learning_curve(metrics, [], "val/mIoU", {}, tmp_path / "dot.png")
    learning_curve(metrics, [], "val/mIoU", {}, tmp_path / "line.png", before=0.4)
    dot, line = (pixels(tmp_path / f"{name}.png")[20:-80, 80:-20] for name in ("dot", "line"))
    assert len(columns_of(dot, "black")) < 100
    assert len(columns_of(line, "black")) > 400  # from update 0 to update 100


# ------------------------------------------------------------------------------------------- timelines


def test_bars_lie_where_the_intervals_do(tmp_path: Path) -> None:
    truth, after = Interval(0.0, 6.0), Interval(3.0, 4.5)
    timelines([entry(truth=truth, after=after)], tmp_path / "lines.png")
    picture = pixels(tmp_path / "lines.png")
    whole, part = columns_of(picture, COLORS["truth"]), columns_of(picture, COLORS["after"])
    length = whole[-1] - whole[0]  # the truth fills the clip: 6 s
    assert (part[0] - whole[0]) / length == pytest.approx(3.0 / 6, abs=0.01)
    assert (part[-1] - part[0]) / length == pytest.approx(1.5 / 6, abs=0.01)
    strip = columns_of(picture, (200 / 255, 40 / 255, 160 / 255))
    assert (strip[0], strip[-1]) == (pytest.approx(whole[0], abs=2), pytest.approx(whole[-1], abs=2))


def test_a_missing_answer_has_no_bar_but_a_word(tmp_path: Path) -> None:
    truth = Interval(1.0, 2.0)
    timelines([entry(truth=truth, before=(), after=truth)], tmp_path / "lines.png")
    picture = pixels(tmp_path / "lines.png")
    assert width_of(picture, COLORS["after"]) > 100
    assert width_of(picture, COLORS["before"]) < 20
    red = picture[..., 0] - picture[..., 2] > 0.3
    assert red.sum() > 20


def test_an_answer_may_have_several_spans(tmp_path: Path) -> None:
    truth, after = Interval(0.0, 6.0), (Interval(0.0, 1.0), Interval(4.0, 6.0))
    timelines([entry(truth=truth, after=after)], tmp_path / "lines.png")
    picture = pixels(tmp_path / "lines.png")
    whole, parts = columns_of(picture, COLORS["truth"]), columns_of(picture, COLORS["after"])
    second = (whole[-1] - whole[0]) / 6
    gap = int(np.diff(parts).argmax())  # between the bars
    ends = [(column - whole[0]) / second for column in (parts[0], parts[gap], parts[gap + 1], parts[-1])]
    assert ends == pytest.approx([0, 1, 4, 6], abs=0.05)


def test_each_clip_adds_its_height(tmp_path: Path) -> None:
    for count in (1, 3):
        timelines([entry(truth=Interval(0, 1))] * count, tmp_path / f"{count}.png")
    one, three = pixels(tmp_path / "1.png"), pixels(tmp_path / "3.png")
    assert one.shape[1] == three.shape[1] == 990
    assert three.shape[0] == pytest.approx(3 * one.shape[0], abs=3)


@pytest.mark.parametrize("frames", [1, 2, 10, 11, 64])
def test_a_strip_shows_clips_of_any_length(tmp_path: Path, frames: int) -> None:
    timelines([entry(frames, truth=Interval(0.0, 0.5))], tmp_path / "lines.png")
    strip = columns_of(pixels(tmp_path / "lines.png"), (200 / 255, 40 / 255, 160 / 255))
    assert strip[-1] - strip[0] > 800  # from edge to edge


# ---------------------------------------------------------------------------------------------- tracks

PINK = (200 / 255, 40 / 255, 160 / 255)


def track(frames: int = 4, **boxes: tuple[Box, ...]) -> TrackEntry:
    return TrackEntry(clip(frames), "the red car", boxes)


def drawn_in(picture: NDArray[np.float64], name: str) -> NDArray[np.bool_]:
    """Pixels that are nearer to an answer's colour than to any other: lines are thin, and their edges mix."""
    others = ["white", "black", PINK, *(color for other, color in COLORS.items() if other != name)]
    palette = np.array([to_rgb(color) for color in (COLORS[name], *others)])
    distances = np.abs(picture[..., None, :] - palette).sum(-1)
    return distances.argmin(-1) == 0


def runs(found: NDArray[np.intp]) -> list[tuple[int, int]]:
    """First and last of every stretch of neighbouring numbers."""
    pieces = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    return [(int(piece[0]), int(piece[-1])) for piece in pieces]


def drawing(path: Path, *entries: TrackEntry) -> NDArray[np.float64]:
    tracks(entries, path / "tracks.png")
    return pixels(path / "tracks.png")


def above_the_legend(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows of the picture down to the last one of a clip."""
    return picture[: int(np.flatnonzero(where(picture, PINK).any(1))[-1]) + 2]


def test_boxes_lie_where_they_are_in_their_frame(tmp_path: Path) -> None:
    # A second box only in the third of four frames: the lower right quarter.
    quarter, nothing = Box(0.5, 0.5, 1.0, 1.0), Box(0.0, 0.0, 0.0, 0.0)
    picture = above_the_legend(drawing(tmp_path, track(after=(nothing, nothing, quarter, nothing))))
    frames = runs(columns_of(picture, PINK))
    blue = np.flatnonzero(drawn_in(picture, "after").any(0))
    assert len([one for one in frames if one[1] - one[0] > 20]) >= 4
    left, right = picture.shape[1] * 2 / 4, picture.shape[1] * 3 / 4
    wide = blue[(blue > left) & (blue < right)]
    middle = (left + right) / 2
    assert wide[0] == pytest.approx(middle, abs=4)
    assert wide[-1] - wide[0] > 40
    rows = np.flatnonzero(drawn_in(picture[:, wide[0] : wide[-1]], "after").sum(1) > 30)
    shown = np.flatnonzero(where(picture, PINK).any(1))
    assert rows[0] == pytest.approx((shown[0] + shown[-1]) / 2, abs=4)  # a frame's lower half


def test_every_name_has_its_colour_and_its_place_in_the_legend(tmp_path: Path) -> None:
    box = Box(0.2, 0.2, 0.8, 0.8)
    both = drawing(tmp_path, track(truth=(box,) * 4, after=(Box(0.1, 0.1, 0.5, 0.5),) * 4))
    picture = above_the_legend(both)
    assert drawn_in(picture, "truth").sum() > 100
    assert drawn_in(picture, "after").sum() > 100
    legend = both[len(picture) :]
    assert width_of(legend, COLORS["truth"]) > 10
    assert width_of(legend, COLORS["after"]) > 10


def test_a_missing_answer_has_no_boxes(tmp_path: Path) -> None:
    whole = drawing(tmp_path, track(truth=(Box(0.2, 0.2, 0.8, 0.8),) * 4, after=()))
    picture = above_the_legend(whole)
    assert drawn_in(picture, "truth").sum() > 100
    assert drawn_in(picture, "after").sum() == 0
    assert width_of(whole[len(picture) :], COLORS["after"]) > 10  # the legend names it all the same


def test_each_tracked_clip_is_a_row_and_each_frame_a_column(tmp_path: Path) -> None:
    box = Box(0.2, 0.2, 0.8, 0.8)
    one = drawing(tmp_path, track(4, truth=(box,) * 4))
    three = drawing(tmp_path, track(4, truth=(box,) * 4), track(2, truth=(box,) * 2), track(4, truth=(box,)))
    assert one.shape[1] == three.shape[1] == pytest.approx(4 * 1.2 * 110, abs=1)
    assert three.shape[0] - one.shape[0] == pytest.approx(2 * (1.2 + 0.25) * 110, abs=3)  # one legend for all
    assert plt.get_fignums() == []


def test_a_title_is_text_and_pushes_no_frame_away(tmp_path: Path) -> None:
    boxes = (Box(0.2, 0.2, 0.8, 0.8),) * 4
    short, long = (
        drawing(tmp_path, TrackEntry(clip(4), name, {"truth": boxes})) for name in ("a", "the $x_{\ndog " * 9)
    )
    assert columns_of(short, COLORS["truth"]).tolist() == columns_of(long, COLORS["truth"]).tolist()
    timelines([TimelineEntry(clip(4), "costs $5 or $x_{", {})], tmp_path / "lines.png")
    assert not columns_of(pixels(tmp_path / "lines.png"), COLORS["truth"]).size


# --------------------------------------------------------------------------------------- learning curve


def test_a_curve_shows_what_the_file_holds(tmp_path: Path) -> None:
    text = "step,train/iou,val/mIoU\n0,,0.1\n0,0.2,\n1,0.4,\n1,,0.3\n"
    everything = curve(tmp_path, text, constant=0.25)
    plain = curve(tmp_path, "step,train/iou\n0,0.2\n1,0.4\n")
    assert everything.shape == plain.shape == (440, 770, 3)
    assert len(columns_of(everything, "C0")) > 600  # from the first update to the last
    assert len(columns_of(plain, "C0")) > 600
    assert grey_in_the_plot(everything) > 100
    assert grey_in_the_plot(plain) < 20
    assert (tmp_path / "curve.png").stat().st_size > 1000


def grey_in_the_plot(picture: NDArray[np.float64]) -> int:
    """Most grey pixels in one row of the plot's right part, where neither frame nor legend is."""
    plot = picture[60:370, 450:740]
    grey = (np.ptp(plot, -1) < 0.02) & (plot[..., 0] > 0.3) & (plot[..., 0] < 0.95)
    return int(grey.sum(1).max())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["step,train/iou\n", "step,other\n0,1\n", "", "step,train/iou\n0,nan\n"])
def test_a_run_without_values_still_gives_a_picture(tmp_path: Path, text: str) -> None:
    assert curve(tmp_path, text).shape == (440, 770, 3)


def test_columns_skip_rows_without_a_value() -> None:
    rows = [{"step": "0", "a": "0.5"}, {"step": "0", "a": ""}, {"step": "3", "a": "0.0"}]
    assert column_of(rows, "a") == ([0, 3], [0.5, 0.0])
    assert column_of(rows, "b") == ([], [])


def test_smoothing_weighs_by_age_and_has_no_cold_start() -> None:
    assert smooth([1.0, 1.0, 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    assert smooth([1.0, 0.0], weight=0.5) == pytest.approx([1.0, 1 / 3])  # (1/2·0 + 1/4·1) / (3/4)


def test_pictures_are_written_whole_and_closed(tmp_path: Path) -> None:
    (tmp_path / "lines.png").write_bytes(b"an older picture")
    open_before = plt.get_fignums()
    timelines([entry(truth=Interval(0, 1))], tmp_path / "lines.png")
    assert pixels(tmp_path / "lines.png").shape[1] == 990
    assert [path.name for path in tmp_path.iterdir()] == ["lines.png"]
    assert plt.get_fignums() == open_before
