"""The order of training: what an epoch holds, what the ranks get, and where a resumed run goes on."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vcr1.data import LoaderSettings, MixedDataset, MixtureDataModule, MixtureSampler, Order, TaskDataModule
from vcr1.data.dataset import Loaded, VideoDataset
from vcr1.data.order import Key
from vcr1.errors import UserError
from vcr1.policy import load_encoder
from vcr1.readers import Annotations
from vcr1.records import Batch, Interval, Sample, VideoClip
from vcr1.tasks import GroundingTask, QATask, Task
from vcr1.video import FrameBudget

torch.set_num_threads(1)

NAMES = ("grounding", "qa", "tracking")


def order_of(*sizes: int, weights: tuple[float, ...] = (), **more: Any) -> Order:
    named = dict(zip(NAMES, sizes, strict=False))
    return Order(named, dict(zip(named, weights or (1.0,) * len(named), strict=True)), **more)


def keys(order: Order, *epochs: int) -> list[Key]:
    return [key for epoch in epochs for batch in order.epoch(epoch) for key in batch]


def seen(order: Order, name: str, epochs: int) -> Counter[int]:
    return Counter(index for task, index in keys(order, *range(epochs)) if task == name)


# ------------------------------------------------------------------------------------------- an epoch


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_shows_every_sample_once(shuffle: bool) -> None:
    order = order_of(6, 4, batch_size=2, shuffle=shuffle)
    assert order.batches == {"grounding": 3, "qa": 2}
    assert len(order) == len(list(order.epoch(0))) == 5
    everything = [("grounding", index) for index in range(6)] + [("qa", index) for index in range(4)]
    for epoch in range(3):
        assert sorted(keys(order, epoch)) == everything


def test_a_micro_batch_holds_one_task() -> None:
    order = order_of(9, 6, 3, batch_size=3)
    for epoch in range(4):
        assert all(len({name for name, _ in batch}) == 1 for batch in order.epoch(epoch))


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_half_weight_shows_each_half_in_turn(shuffle: bool) -> None:
    order = order_of(6, 4, weights=(0.5, 1.0), shuffle=shuffle)
    assert order.batches == {"grounding": 3, "qa": 4}
    first, second = seen(order, "grounding", 1), seen(order, "grounding", 2)
    assert sorted(first.values()) == [1, 1, 1]
    assert sorted(second.items()) == [(index, 1) for index in range(6)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_double_weight_shows_all_twice(shuffle: bool) -> None:
    order = order_of(3, 4, weights=(2.0, 1.0), shuffle=shuffle)
    assert order.batches == {"grounding": 6, "qa": 4}
    assert seen(order, "grounding", 1) == {0: 2, 1: 2, 2: 2}
    assert seen(order, "qa", 1) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_what_a_batch_cannot_hold_comes_in_the_next_epoch() -> None:
    # 7 samples in batches of 2: three batches an epoch. Seven epochs are 42 = 6 * 7 samples.
    order = order_of(7, batch_size=2)
    assert order.batches == {"grounding": 3}
    assert set(seen(order, "grounding", 7).values()) == {6}
    plain = order_of(7, batch_size=2, shuffle=False)
    assert [index for _, index in keys(plain, 0, 1)] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]


def test_weights_count_as_they_are_written() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert order_of(100, weights=(0.29,)).batches == {"grounding": 29}
    # 1.3 * 10 = 13 samples, four batches of 3; 0.7 * 10 = 7 samples, two.
    assert order_of(10, 10, weights=(1.3, 0.7), batch_size=3).batches == {"grounding": 4, "qa": 2}


@settings(max_examples=50)
@given(
    size=st.integers(1, 12),
    weight=st.sampled_from([0.3, 0.5, 1.0, 1.3, 2.0, 2.5]),
    batch_size=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_all_samples_are_seen_equally_often(size: int, weight: float, batch_size: int, seed: int) -> None:
    if round(size * weight, 6) < batch_size:
        return
    order = order_of(size, weights=(weight,), batch_size=batch_size, seed=seed)
    counts = seen(order, "grounding", 5)
    times = [counts[index] for index in range(size)]
    assert sum(times) == 5 * len(order) * batch_size
    assert max(times) - min(times) <= 1  # the last pass may be under way


def test_the_order_is_a_function_of_the_seed() -> None:
    def order(seed: int) -> list[Key]:
        return keys(order_of(8, 8, seed=seed), 0, 1)

    assert order(3) == order(3)
    assert len({tuple(order(seed)) for seed in range(10)}) == 10
    # Seed 1 in epoch 2 and seed 2 in epoch 1 are told apart, though they hold the same digits.
    assert keys(order_of(8, 8, seed=1), 2) != keys(order_of(8, 8, seed=2), 1)


def test_every_pass_and_every_task_has_an_order_of_its_own() -> None:
    order = order_of(12, 12)

    def indices(name: str, epoch: int) -> list[int]:
        return [index for task, index in keys(order, epoch) if task == name]

    assert indices("grounding", 0) != indices("grounding", 1)
    assert indices("grounding", 0) != indices("qa", 0)
    assert [name for name, _ in keys(order, 0)] != [name for name, _ in keys(order, 1)]


def test_without_shuffling_tasks_are_spread_and_samples_keep_their_order() -> None:
    # Two batches of qa stand at 1/4 and 3/4 of the epoch, four of grounding at 1/8, 3/8, 5/8 and 7/8.
    order = order_of(4, 2, shuffle=False)
    assert keys(order, 0) == [
        ("grounding", 0),
        ("qa", 0),
        ("grounding", 1),
        ("grounding", 2),
        ("qa", 1),
        ("grounding", 3),
    ]
    assert keys(order, 1) == keys(order, 0)
    # One batch of qa stands in the middle of three of grounding, at 1/6, 1/2 and 5/6; of equals the first.
    alone = [name for name, _ in keys(order_of(3, 1, shuffle=False), 0)]
    assert alone == ["grounding", "grounding", "qa", "grounding"]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match=r"data\.sources\.qa\.weight=.* is no positive number"):
        order_of(4, 4, weights=(1.0, weight))


def test_a_task_without_a_batch_is_refused() -> None:
    message = r"batch_size=3 on 2 rank\(s\), but there are only 5 training samples of qa \(weight 1\)"
    with pytest.raises(UserError, match=message):
        order_of(6, 5, batch_size=3, world_size=2)
    with pytest.raises(UserError, match=r"only 4 training samples of grounding \(weight 0\.5\)"):
        order_of(4, weights=(0.5,), batch_size=3)


# ------------------------------------------------------------------------------------ ranks and sampler


class Nothing(VideoDataset):
    """As many samples as asked for, which nobody fetches."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def sampler(order: Order, rank: int = 0, progress: Callable[[], int] | None = None) -> MixtureSampler:
    dataset = MixedDataset({name: Nothing(size) for name, size in order.sizes.items()})
    return MixtureSampler(dataset, order, rank, progress)


def shares(order: Order, rank: int = 0, epochs: int = 1) -> list[list[Key]]:
    """What a rank is given over some epochs, told the epoch as Lightning does."""
    one = sampler(order, rank)
    result: list[list[Key]] = []
    for epoch in range(epochs):
        one.set_epoch(epoch)
        result += list(one)
    return result


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_what_one_rank_would_get(shuffle: bool) -> None:
    more: dict[str, Any] = {"weights": (1.0, 0.5), "shuffle": shuffle, "seed": 4}
    alone = shares(order_of(7, 8, batch_size=4, **more), epochs=3)
    both = order_of(7, 8, batch_size=2, world_size=2, **more)
    first, second = shares(both, 0, epochs=3), shares(both, 1, epochs=3)
    assert len(alone) == len(first) == len(second) == 3 * len(both) == 6
    for whole, ours, theirs in zip(alone, first, second, strict=True):
        assert ours + theirs == whole
        assert len(ours) == len(theirs) == 2
        assert not set(ours) & set(theirs)
        assert len({name for name, _ in ours + theirs}) == 1


def test_two_ranks_with_one_sample_see_the_batches_of_one_rank_with_two() -> None:
    one, two = order_of(6, 4, batch_size=2), order_of(6, 4, batch_size=1, world_size=2)
    steps = zip(shares(two, 0), shares(two, 1), strict=True)
    assert [set(ours + theirs) for ours, theirs in steps] == [set(batch) for batch in shares(one)]


@pytest.mark.parametrize("start", range(13))
def test_the_endless_sequence_is_one_epoch_after_another(start: int) -> None:
    # Five steps an epoch: 5 is the start of the second one, 8 its middle, 12 the middle of the third.
    order = order_of(7, 4, batch_size=1, world_size=2, seed=2)
    assert len(order) == 5
    whole = [batch for epoch in range(4) for batch in order.epoch(epoch)]
    assert list(islice(order.batches_from(start), 20 - start)) == whole[start:]


@pytest.mark.parametrize("start", [0, 2, 5, 8, 12])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_sampler_goes_on_where_the_run_stands(start: int, rank: int) -> None:
    order = order_of(7, 4, batch_size=1, world_size=2, seed=2)
    whole, done = shares(order, rank, epochs=6), start
    resumed = sampler(order, rank, lambda: done)
    resumed.set_epoch(17)  # whatever Lightning counts: the run's own progress decides
    assert len(resumed) == 5
    assert list(resumed) == whole[start : start + 5]
    assert list(resumed) == whole[start : start + 5]  # nothing was trained in between
    done = start + 3
    assert list(resumed) == whole[start + 3 : start + 8]


def test_without_progress_a_sampler_gives_the_epoch_that_was_set() -> None:
    order = order_of(6, 4)
    one = sampler(order)
    assert len(one) == 10
    assert list(one) == list(one) == list(order.epoch(0))
    one.set_epoch(3)
    assert list(one) == list(order.epoch(3))


# ---------------------------------------------------------------------------- a resume through Lightning


class Undecoded(VideoDataset):
    """The data set of a task without its videos: a sample's inputs are empty."""

    def __getitem__(self, index: int) -> Loaded:
        return self.samples[index], VideoClip(torch.empty(0), (0,), (0.0,), 1.0, 1.0), {}


class UndecodedDataModule(TaskDataModule):
    def dataset(self, samples: Any) -> VideoDataset:
        return Undecoded(samples, self.task, self.encode, self.budget, self.grid)


class Recorder(L.LightningModule):
    """A model of one number that notes which samples it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.ids: list[list[str]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.ids.append([sample.id for sample in batch.samples])
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(L.Callback):
    """Keeps a checkpoint of every step and of the end of every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"step{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"validation{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


def part(task: Task, sizes: Mapping[str, int], target: Any, loader: LoaderSettings) -> TaskDataModule:
    annotations = {
        split: Annotations(
            split, [Sample(f"{task.name}-{split}-{index}", "v", "q", target) for index in range(size)]
        )
        for split, size in sizes.items()
    }
    encoder = load_encoder("builtin:tiny")
    return UndecodedDataModule(task, annotations, encoder, encoder.grid, FrameBudget(), loader)


def train(
    folder: Path, resume: str | None = None, workers: int = 0, save: bool = False, **limits: Any
) -> list[list[str]]:
    """Train on 5 samples of one task and 4 of another (at half weight), in batches of 2: 3 an epoch.

    Returns:
        The ids of every micro-batch.
    """
    loader = LoaderSettings(batch_size=2, num_workers=workers, seed=7)
    parts = [
        part(GroundingTask(), {"train": 5, "val": 1}, Interval(0, 1), loader),
        part(QATask(), {"train": 4}, "A", loader),
    ]
    module = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[Saver(folder)] if save else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **limits,
    )
    checkpoint = None if resume is None else folder / f"{resume}.ckpt"
    data = MixtureDataModule(parts, {"qa": 0.5}, loader)
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    return module.ids


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """The folder of an uninterrupted run of four epochs with all its checkpoints, and what it saw."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, max_epochs=4, save=True)


def test_a_run_sees_the_order_of_its_seed(whole: tuple[Path, list[list[str]]]) -> None:
    _, ids = whole
    order = Order({"grounding": 5, "qa": 4}, {"grounding": 1.0, "qa": 0.5}, batch_size=2, seed=7)
    expected = [[f"{name}-train-{index}" for name, index in b] for e in range(4) for b in order.epoch(e)]
    assert ids == expected
    assert len(ids) == 12


# Step 3 is the last batch of the first epoch; the end of epoch 0 comes after its validation.
RESUMES = [
    *((f"step{step}", step) for step in (1, 2, 3, 4, 5, 6, 7)),
    *((f"validation{step}", step) for step in (3, 6)),
    *((f"epoch{epoch}", 3 * epoch + 3) for epoch in (0, 1)),
]


@pytest.mark.parametrize(("checkpoint", "behind"), RESUMES)
def test_a_resumed_run_goes_on_where_it_stopped(
    whole: tuple[Path, list[list[str]]], checkpoint: str, behind: int
) -> None:
    folder, ids = whole
    assert train(folder, checkpoint, max_epochs=4) == ids[behind:]


# Where Lightning's own counters mislead: workers ask for their first samples before the epoch is set; with
# max_steps the epoch number of a resumed run is one ahead; a limited epoch ends before the order's does.
# Of two micro-batches with the same number of steps, as with accumulated gradients, the later one is kept.
OTHERWISE: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"workers": 1, "max_epochs": 3}, {"step2": 2, "step3": 3, "epoch0": 3}),
    ({"max_steps": 9, "max_epochs": -1}, {"step3": 3, "step4": 4, "epoch0": 3, "epoch1": 6}),
    ({"max_epochs": 4, "limit_train_batches": 2}, {"step2": 2, "step3": 3, "epoch0": 2, "validation4": 4}),
    ({"max_epochs": 3, "val_check_interval": 1}, {"validation2": 2, "step2": 2, "validation3": 3}),
    ({"max_epochs": 3, "accumulate_grad_batches": 2}, {"step2": 4, "epoch0": 3, "step3": 5}),
]


@pytest.mark.parametrize(("limits", "checkpoints"), OTHERWISE)
def test_a_resume_is_exact_however_the_run_is_limited(
    tmp_path: Path, limits: dict[str, Any], checkpoints: dict[str, int]
) -> None:
    ids = train(tmp_path, save=True, **limits)
    for checkpoint, behind in checkpoints.items():
        assert train(tmp_path, checkpoint, **limits) == ids[behind:], checkpoint


def test_limited_epochs_show_all_samples_in_the_long_run(tmp_path: Path) -> None:
    # Two micro-batches of 2 an epoch: six epochs are 12 of them, as many as four whole epochs of 3.
    order = Order({"grounding": 5, "qa": 4}, {"grounding": 1.0, "qa": 0.5}, batch_size=2, seed=7)
    expected = [[f"{name}-train-{index}" for name, index in b] for e in range(4) for b in order.epoch(e)]
    assert train(tmp_path, max_epochs=6, limit_train_batches=2) == expected
