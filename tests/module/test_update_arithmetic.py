"""The gradient of an update does not depend on its cut: micro-batches, ranks, passes, leftovers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import cuts
import pytest
import torch
from cuts import ALGORITHMS, Gradients, gradients

torch.set_num_threads(1)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*module.s. in eval mode.*"),
]

CUTS = {
    "two micro-batches": (2, 2, None),
    "four micro-batches": (1, 4, None),
    "an epoch that ends before its update is full": (1, 8, None),
    "many passes": (4, 1, 150),
    "many passes of two micro-batches": (2, 2, 150),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    cuts.samples(folder)
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path) -> dict[str, Gradients]:
    """The gradients of updates that are one micro-batch on one rank."""
    return {algorithm: gradients(clips, algorithm, 4, 1) for algorithm in ALGORITHMS}


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert float(other.abs().max()) > 1e-3
        assert float((one - other).abs().max()) <= 1e-6 * max(1.0, float(other.abs().max()))


# A rollout of several updates needs whole updates: what fills none comes in the next epoch.
REPEATED = ("cispo", "gspo")
CASES = [
    (algorithm, cut)
    for algorithm in ALGORITHMS
    for cut, (_, accumulate, _) in CUTS.items()
    if accumulate <= 4 or algorithm not in REPEATED
]


@pytest.mark.parametrize(("algorithm", "cut"), CASES)
def test_a_cut_changes_no_gradient(
    clips: Path, whole: dict[str, Gradients], algorithm: str, cut: str
) -> None:
    batch_size, accumulate, tokens = CUTS[cut]
    watch = gradients(clips, algorithm, batch_size, accumulate, tokens)
    assert_equal(watch.gradients, whole[algorithm].gradients)
    assert watch.losses == pytest.approx(whole[algorithm].losses, abs=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        ("algorithm.mask_truncated=true",),
        ("algorithm.objective.delta=1.5", "algorithm.updates_per_rollout=2"),
        ("algorithm.max_resamples=1", "algorithm.overlong_buffer=0.5"),
        ("algorithm.objective.average=token", "algorithm.objective.advantage=batch"),
    ],
)
def test_an_option_depends_on_no_cut(clips: Path, more: tuple[str, ...]) -> None:
    expected = gradients(clips, "grpo", 4, 1, more=more)
    plain = gradients(clips, "grpo", 4, 1)
    found = gradients(clips, "grpo", 1, 4, more=more)
    assert_equal(found.gradients, expected.gradients)
    if "delta" not in more[0]:  # which bounds nothing where all ratios are 1
        assert float((expected.gradients[0] - plain.gradients[0]).abs().max()) > 1e-5


def test_two_ranks_have_the_gradient_of_one(clips: Path, whole: dict[str, Gradients], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ours |= {"CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
    ranks = [
        subprocess.Popen(
            [sys.executable, cuts.__file__, str(clips), str(tmp_path / "found.pt")],
            env=os.environ | ours | {"LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in ranks:
            said = process.communicate(timeout=600)[1]
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in ranks:
            process.kill()
    found = torch.load(tmp_path / "found.pt")
    # The rank whose own numbers are fine leaves the updates out, too.
    same, totals = found.pop("one rank has numbers that are not finite")
    assert same
    assert totals["skipped_updates"] == 2
    assert tuple(found) == ALGORITHMS
    for algorithm, (gradient, losses) in found.items():
        assert_equal(gradient, whole[algorithm].gradients)
        assert losses == pytest.approx(whole[algorithm].losses, abs=1e-6)
