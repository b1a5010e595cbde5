from pathlib import Path

import pytest

from data import demo_report, measured_share, moving_picture, read_shares, report, waiting_share, worker_costs
from vcr1.policy import load_encoder
from vcr1.video import write_mp4


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "720p.mp4"
    write_mp4(path, moving_picture(60), 30)
    return path


def test_waiting_is_counted_by_hand() -> None:
    # Four workers need 8 s each: data for a step comes every 2 s.
    assert waiting_share(2.0, 8.0, 4) == waiting_share(3.0, 8.0, 4) == 0
    assert waiting_share(1.0, 8.0, 4) == 0.5
    assert waiting_share(1.94, 8.0, 4) == pytest.approx(0.03)


def test_the_picture_moves_and_is_held_once() -> None:
    frames = moving_picture(3)
    assert frames.shape == (3, 720, 1280, 3)
    assert (frames[1, :, :-4] == frames[0, :, 4:]).all()
    assert (frames[1] != frames[0]).any()
    assert frames.base is not None


def test_a_worker_is_measured_on_the_papers_budget(video: Path) -> None:
    encoder = load_encoder("builtin:tiny")
    costs = {name: worker_costs(video, name, encoder, 1) for name in ("decord", "pyav")}
    for cost in costs.values():
        # 2 s at 2 frames a second; 720p is within the budget, at multiples of 28.
        assert (cost.frames, cost.size) == (4, (728, 1288))
        assert cost.read.median > 0 < cost.encode.median
    text = report(2, costs, [(1.0, 0.25, 0.33)])
    assert "| decord | 4 of " in text
    assert "| 1 s | 25.0% | 0.330 |" in text


def test_the_loader_is_waited_for(video: Path) -> None:
    share, seconds = measured_share(video, load_encoder("builtin:tiny"), step=0.01, steps=2)
    assert share == pytest.approx(seconds / (seconds + 0.01))
    assert 0 < share < 1


def test_the_demo_is_read_from_its_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,train/seconds/data,train/seconds/policy,val/grounding/mIoU\n"
        "0,2.0,2.0,\n,,,0.5\n1,0.1,0.9,\n2,0.2,2.8,\n"
    )
    waited, total = read_shares(tmp_path / "metrics.csv")
    assert (waited, total) == ([2.0, 0.1, 0.2], [4.0, 1.0, 3.0])
    text = demo_report(waited, total)
    assert "**7.5%**" in text  # 0.3 s of 4 s, the first update left out
    assert "150 ms of 2.00 s" in text
    assert "the first update, in which the worker starts, waits 2.00 s" in text
