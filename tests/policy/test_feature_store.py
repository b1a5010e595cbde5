"""Files of a feature store: whole, bounded, shared, and never the end of a run."""

import logging
import multiprocessing
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from vcr1.policy.features.store import STALE_SECONDS, FeatureStore, digest, pack, unpack

KEYS = [f"{number:064x}" for number in range(6)]
ONES = torch.ones(25, 10)  # 1,000 bytes
FILE = len(pack(KEYS[0], ONES))
PLENTY = 10**9


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(folder: Path, key: str, seconds: float) -> None:
    """Make a file one that was used at a time, in seconds since 2001."""
    os.utime(folder / f"{key}.safetensors", (978307200 + seconds,) * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_tensor_comes_back_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    features = torch.randn(7, 3).to(dtype)
    FeatureStore(tmp_path / "a" / "b", PLENTY).put(KEYS[0], features.t())  # not contiguous
    found = FeatureStore(tmp_path / "a" / "b", PLENTY).get(KEYS[0])
    assert found is not None
    assert found.dtype == dtype
    assert found.equal(features.t())
    assert names(tmp_path / "a" / "b") == [f"{KEYS[0]}.safetensors"]


def test_what_was_not_kept_is_missed_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FeatureStore(tmp_path / "new", PLENTY)
    assert store.get(KEYS[0]) is None
    store.put(KEYS[0], ONES)
    assert store.get(KEYS[1]) is None
    assert (store.damaged, caplog.records) == (0, [])


def test_a_digest_knows_bytes_type_shape_and_facts() -> None:
    zeros = torch.zeros(2, 3)
    others = [digest(torch.zeros(3, 2)), digest(zeros.int()), digest(zeros, "x"), digest(-zeros)]
    assert len({digest(zeros), *others}) == 5  # -0.0 equals 0.0, but not to the bit
    assert digest(zeros) == digest(torch.zeros(3, 2).t())


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "header", "other key"])
def test_a_damaged_file_is_a_miss_that_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = FeatureStore(tmp_path, PLENTY)
    for key in KEYS[:2]:
        store.put(key, ONES)
        path = tmp_path / f"{key}.safetensors"
        data = bytearray(path.read_bytes())
        if damage == "cut":
            data = data[: FILE // 2]
        elif damage == "empty":
            data.clear()
        elif damage == "flipped":
            data[-500] ^= 1  # among the tensor's 1,000 bytes, which stand last
        elif damage == "header":
            data[:8] = b"\xff" * 8
        else:
            data = bytearray(pack(KEYS[5], ONES))
        path.write_bytes(data)
    assert [store.get(key) for key in KEYS[:2]] == [None, None]
    assert (store.damaged, names(tmp_path)) == (2, [])
    (record,) = caplog.records  # one warning for both
    assert f"{KEYS[0]}.safetensors was damaged" in record.getMessage()
    store.put(KEYS[0], ONES)
    assert store.get(KEYS[0]) is not None


def test_every_flipped_bit_of_a_file_is_noticed_or_harmless() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    data = pack(KEYS[0], tensor)
    for place in range(len(data)):
        for bit in (1, 4, 32):
            flipped = bytearray(data)
            flipped[place] ^= bit
            found = unpack(KEYS[0], bytes(flipped))
            assert found is None or (found.dtype == tensor.dtype and found.equal(tensor)), place


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    limit = 4 * FILE + FILE // 2
    store = FeatureStore(tmp_path, limit)
    for second, key in enumerate(KEYS[:4]):
        store.put(key, ONES)
        age(tmp_path, key, second)
    assert store.get(KEYS[0]) is not None  # which makes it the one used last
    store.put(KEYS[4], ONES)
    assert names(tmp_path) == [f"{KEYS[number]}.safetensors" for number in (0, 2, 3, 4)]
    store.put(KEYS[5], ONES)
    assert names(tmp_path) == [f"{KEYS[number]}.safetensors" for number in (0, 3, 4, 5)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit


def test_the_folder_is_looked_through_once_for_many_writes(tmp_path: Path) -> None:
    """A twentieth of the bound, five files, between two looks; the bound holds all the same."""
    limit = 100 * FILE
    store = FeatureStore(tmp_path, limit)
    store.put(KEYS[0], ONES)  # the first look
    for number in range(1, 201):  # from elsewhere, and all at once
        other = tmp_path / f"{number:064d}.safetensors"
        other.write_bytes(bytes(FILE))
        os.utime(other, (number, number))
    present = []
    for number in range(6):
        store.put(f"{number:062x}ff", ONES)
        present.append(len(names(tmp_path)))
    # Four more without a look; then down to 95 and a new one, and again without a look.
    assert present == [202, 203, 204, 205, 96, 97]
    assert len(names(tmp_path)) * FILE <= limit


def test_files_of_others_stay(tmp_path: Path) -> None:
    for name in ("model.safetensors", "notes.txt", f".{KEYS[0]}.0a.part"):
        (tmp_path / name).write_bytes(bytes(5000))
    dead = tmp_path / f".{KEYS[1]}.0b.part"
    dead.write_bytes(bytes(5000))
    os.utime(dead, (dead.stat().st_mtime - STALE_SECONDS - 60,) * 2)
    store = FeatureStore(tmp_path, 2 * FILE)
    for key in KEYS[:3]:
        store.put(key, ONES)
    # Unfinished files are another process's, unless that must have died.
    kept = [name for name in names(tmp_path) if name not in {f"{key}.safetensors" for key in KEYS}]
    assert kept == [f".{KEYS[0]}.0a.part", "model.safetensors", "notes.txt"]
    assert len(names(tmp_path)) == 3 + 2


def test_features_larger_than_the_bound_are_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path / "new", FILE - 1)
    for key in KEYS:
        store.put(key, ONES)
    assert not (tmp_path / "new").exists()
    (record,) = caplog.records
    assert "model.feature_cache_gb=1.1" in record.getMessage()


@pytest.fixture
def four_ranks() -> Iterator[None]:
    """A group of four, of which this process is the first and the others do nothing."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield
    torch.distributed.destroy_process_group()


def test_ranks_leave_room_for_one_another(tmp_path: Path, four_ranks: None) -> None:
    """Each of four may write a file until the next look: a bound of six lets two stay before this one's."""
    store = FeatureStore(tmp_path, 6 * FILE)
    present = []
    for second, key in enumerate(KEYS):
        store.put(key, ONES)
        age(tmp_path, key, second)
        present.append(len(names(tmp_path)))
    assert present == [1, 2, 3, 3, 3, 3]
    small = FeatureStore(tmp_path / "small", 3 * FILE)
    small.put(KEYS[0], ONES)
    assert not (tmp_path / "small").exists()


# ------------------------------------------------------------------------------ a folder that does not serve


def test_a_folder_that_cannot_be_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file" / "folder", PLENTY)
    for key in KEYS:
        assert store.get(key) is None
        store.put(key, ONES)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "file/folder cannot be read (Not a directory); going on without it" in record.getMessage()


@pytest.fixture
def small_files() -> Iterator[None]:
    """This process may write 500 bytes to a file, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_writing_and_leaves_nothing_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    store = FeatureStore(tmp_path, PLENTY)
    store.put(KEYS[0], ONES)
    request.getfixturevalue("small_files")
    store.put(KEYS[1], ONES)
    store.put(KEYS[2], ONES)
    assert names(tmp_path) == [f"{KEYS[0]}.safetensors"]
    assert store.get(KEYS[0]) is not None  # what is there still serves
    (record,) = caplog.records
    assert "cannot be written to (File too large)" in record.getMessage()


# ------------------------------------------------------------------------------------------ many processes


def _write_and_read(folder: str, rounds: int) -> None:
    """What one of several processes does with the same few keys; fails where it ever sees a wrong tensor."""
    torch.set_num_threads(1)
    store = FeatureStore(Path(folder), 3 * FILE)  # so small that they remove each other's files
    for number in range(rounds):
        key = KEYS[number % len(KEYS)]
        found = store.get(key)
        assert found is None or found.equal(ONES)
        store.put(key, ONES)
    assert store.damaged == 0
    assert store._writes


def test_processes_write_the_same_keys_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_and_read, args=(str(tmp_path), 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = [name for name in names(tmp_path) if name.endswith(".safetensors")]
    assert found == names(tmp_path)
    assert found != []
