"""Checkpoints on disk: which is the newest, which can be read, how one takes another's place."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from vcr1.checkpoints import newest_checkpoint
from vcr1.checkpoints.files import (
    META,
    UnreadableError,
    check_sums,
    complete_checkpoints,
    point_last,
    prune,
    publish,
    read_facts,
    remove_partials,
    scratch_path,
    set_aside,
)


def write(folder: Path, step: int, when: int) -> Path:
    """A checkpoint of so many updates, written at a time in seconds."""
    path = folder / f"step-{step}.ckpt"
    torch.save({"global_step": step, "state_dict": {"w": torch.full((1000,), float(step))}}, path)
    os.utime(path, (when, when))
    return path


def shards(folder: Path, step: int) -> Path:
    """The same in a folder, as sharded strategies write it."""
    dcp.save({"w": torch.full((1000,), float(step))}, checkpoint_id=folder, no_dist=True)
    torch.save({"global_step": step}, folder / META)
    return folder


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def test_the_newest_is_the_one_after_most_updates(tmp_path: Path) -> None:
    write(tmp_path, 20, when=1000)  # the clock was set back, or the folder was copied
    write(tmp_path, 10, when=2000)
    write(tmp_path, 9, when=3000)
    (tmp_path / "step-best.ckpt").write_bytes(b"of somebody else")
    point_last(tmp_path / "step-20.ckpt")
    (tmp_path / "step-30.ckpt.partial").write_bytes(b"unfinished")
    assert [path.name for path in complete_checkpoints(tmp_path)] == [
        "step-20.ckpt",
        "step-10.ckpt",
        "step-9.ckpt",
    ]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-20.ckpt"
    assert newest_checkpoint(tmp_path / "nowhere") is None
    remove_partials(tmp_path)
    prune(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-20.ckpt",
        "step-10.ckpt",
        "step-best.ckpt",
        "last.ckpt",
    }


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1, when=1000)
    cut(write(tmp_path, 2, when=2000), size)
    os.utime(tmp_path / "step-2.ckpt", (2000, 2000))
    assert newest_checkpoint(tmp_path) == tmp_path / "step-1.ckpt"
    assert "step-2.ckpt cannot be read" in caplog.text


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, tmp_path / "step-1.ckpt")
    with pytest.raises(UnreadableError, match="no checkpoint of a training"):
        read_facts(tmp_path / "step-1.ckpt")


def test_a_folder_of_shards_is_a_checkpoint_while_it_is_complete(tmp_path: Path) -> None:
    folder = shards(tmp_path / "step-3.ckpt", 3)
    assert read_facts(folder) == {"global_step": 3}
    (shard,) = folder.glob("*.distcp")
    cut(shard, shard.stat().st_size - 1000)
    with pytest.raises(UnreadableError, match=r"\.distcp has \d+ bytes instead of"):
        read_facts(folder)
    shard.unlink()
    with pytest.raises(UnreadableError, match=r"\.distcp has 0 bytes"):
        read_facts(folder)


def test_a_folder_without_its_index_is_none(tmp_path: Path) -> None:
    folder = shards(tmp_path / "step-3.ckpt", 3)
    (folder / ".metadata").unlink()
    with pytest.raises(UnreadableError):
        read_facts(folder)


def test_a_checkpoint_takes_the_place_of_another_file_or_folder(tmp_path: Path) -> None:
    path = tmp_path / "step-4.ckpt"
    for step in (1, 2):  # into an empty place, then over a folder
        publish(shards(scratch_path(path), step), path)
        assert read_facts(path) == {"global_step": step}
    write(tmp_path, 5, when=1000).rename(scratch_path(path))
    publish(scratch_path(path), path)
    assert read_facts(path)["global_step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-4.ckpt"]


def test_the_link_follows_and_can_be_copied_with_its_folder(tmp_path: Path) -> None:
    for step in (1, 2):
        point_last(write(tmp_path, step, when=step))
        assert read_facts(tmp_path / "last.ckpt")["global_step"] == step
    assert (tmp_path / "last.ckpt").readlink() == Path("step-2.ckpt")


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step-1.ckpt"
    scratch = scratch_path(path)
    scratch.write_bytes(b"weights")
    synced: list[tuple[str, bool]] = []

    def noted(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        synced.append((name, path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    publish(scratch, path)
    # The content first, and then the folder, which holds the name.
    assert synced == [(scratch.name, False), (tmp_path.name, True)]


def overwrite(path: Path, place: int, count: int = 64) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + count] = bytes(255 - value for value in content[place : place + count])
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["file", "shards"])
def test_a_checkpoint_whose_content_was_overwritten_gives_way_to_the_one_before(
    tmp_path: Path, kind: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        path = tmp_path / f"step-{step}.ckpt"
        if kind == "file":
            publish(write(tmp_path, step, when=1000).rename(scratch_path(path)), path)
        else:
            publish(shards(scratch_path(path), step), path)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-2.ckpt"
    inside = path if kind == "file" else next(path.glob("*.distcp"))
    overwrite(inside, int(share * inside.stat().st_size))
    assert newest_checkpoint(tmp_path) == tmp_path / "step-1.ckpt"
    assert "step-2.ckpt cannot be read" in caplog.text


def test_an_index_of_shards_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "step-2.ckpt"
    publish(shards(scratch_path(path), 2), path)
    index = path / ".metadata"
    index.write_bytes(index.read_bytes().replace(b"float32", b"float64"))
    with pytest.raises(UnreadableError, match="is not what was written"):
        check_sums(path)


def test_checkpoints_of_an_older_run_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 900):
        point_last(write(tmp_path, step, when=step))
    set_aside(tmp_path, after=20)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-20.ckpt", "step-10.ckpt"]
    assert (tmp_path / "last.ckpt").readlink() == Path("step-20.ckpt")
    assert read_facts(tmp_path / "aside-1" / "step-900.ckpt")["global_step"] == 900
    assert "aside-1 now: step-900.ckpt" in caplog.text
    set_aside(tmp_path, after=None)
    assert complete_checkpoints(tmp_path) == []
    assert not (tmp_path / "last.ckpt").is_symlink()
    assert {path.name for path in (tmp_path / "aside-2").iterdir()} == {"step-10.ckpt", "step-20.ckpt"}
    set_aside(tmp_path, after=None)  # nothing left to move
    set_aside(tmp_path / "nowhere", after=None)
    assert len(list(tmp_path.iterdir())) == 2
