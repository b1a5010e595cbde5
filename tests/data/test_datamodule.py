"""The DataModule: which batches it gives, in which order, and what it refuses."""

from collections.abc import Mapping

import pytest
import torch

from vcr1.data import TaskDataModule
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, load_encoder
from vcr1.records import Batch
from vcr1.tasks import Annotations, GroundingTask
from vcr1.tasks.grounding import read_synthetic
from vcr1.video import FrameBudget

torch.set_num_threads(1)

BUDGET = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return load_encoder("builtin:tiny")


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Annotations]:
    """Five training samples of three clips, four held-out ones of two clips."""
    folder = str(tmp_path_factory.mktemp("worlds"))
    return {
        "train": read_synthetic(folder, "train", 3, seed=0, limit=5),
        "val": read_synthetic(folder, "val", 2, seed=0),
    }


def data(
    annotations: Mapping[str, Annotations], encoder: PromptEncoder, num_workers: int = 0, **settings: int
) -> TaskDataModule:
    task = GroundingTask()
    return TaskDataModule(
        task, annotations, encoder, encoder.grid, BUDGET, num_workers=num_workers, **settings
    )


def ids(batches: object) -> list[list[str]]:
    return [[sample.id for sample in batch.samples] for batch in batches]


def test_training_batches_are_whole(annotations: dict[str, Annotations], encoder: PromptEncoder) -> None:
    torch.manual_seed(0)
    batches = ids(data(annotations, encoder, batch_size=2).train_dataloader())
    assert [len(batch) for batch in batches] == [2, 2]  # of five samples one is left out
    flat = [id_ for batch in batches for id_ in batch]
    assert len(set(flat)) == 4
    assert set(flat) <= {sample.id for sample in annotations["train"].samples}


def test_training_samples_are_shuffled(annotations: dict[str, Annotations], encoder: PromptEncoder) -> None:
    torch.manual_seed(0)
    loader = data(annotations, encoder, batch_size=5).train_dataloader()
    orders = [ids(loader)[0] for _ in range(5)]
    assert all(sorted(order) == [sample.id for sample in annotations["train"].samples] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_without_shuffling_the_order_is_that_of_the_annotations(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    loader = data(annotations, encoder, batch_size=2, shuffle=False).train_dataloader()
    assert (
        ids(loader) == ids(loader) == [["train-00000-0", "train-00000-1"], ["train-00001-0", "train-00001-1"]]
    )


def test_held_out_samples_come_all_and_in_order(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    batches = ids(data(annotations, encoder, eval_batch_size=3).val_dataloader())
    assert batches == [["val-00000-0", "val-00000-1", "val-00001-0"], ["val-00001-1"]]


def test_equal_global_seeds_give_equal_batches(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    def order() -> list[list[str]]:
        torch.manual_seed(3)
        return ids(data(annotations, encoder, batch_size=2).train_dataloader())

    assert order() == order()


def test_the_seed_gives_the_order_of_training(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    def order(seed: int, noise: int) -> list[list[str]]:
        torch.manual_seed(noise)  # whatever else drew from the global generator
        loader = data(annotations, encoder, batch_size=1, seed=seed).train_dataloader()
        return ids(loader) + ids(loader)

    assert order(5, 0) == order(5, 1)
    assert order(5, 0) != order(6, 0)


def test_a_worker_process_gives_the_same_batches(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    here: list[Batch] = list(data(annotations, encoder, eval_batch_size=4).val_dataloader())
    there: list[Batch] = list(data(annotations, encoder, num_workers=1, eval_batch_size=4).val_dataloader())
    (one,), (other,) = here, there
    assert [sample.id for sample in one.samples] == [sample.id for sample in other.samples]
    assert one.clips[0].timestamps == other.clips[0].timestamps
    for ours, theirs in zip(one.inputs, other.inputs, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert other.task.judge("", other.samples[0]).failure == "no_answer"  # the task came along


def test_wrong_videos_of_the_held_out_samples(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    held_out = annotations["val"].samples
    assert held_out[0].duration == held_out[2].duration  # seed 0 draws two clips of one length
    first, second = held_out[0].video, held_out[2].video
    (batch,) = data(annotations, encoder, eval_batch_size=4).wrong_video_dataloader()
    assert [sample.video for sample in batch.samples] == [second, second, first, first]
    assert [sample.query for sample in batch.samples] == [sample.query for sample in held_out]


def test_a_split_may_be_missing(annotations: dict[str, Annotations], encoder: PromptEncoder) -> None:
    training_only = data({"train": annotations["train"]}, encoder)
    assert training_only.val_dataloader() == []
    with pytest.raises(UserError, match=r"data\.sources\.grounding\.val is not configured"):
        training_only.samples("val")
    with pytest.raises(UserError, match=r"data\.sources\.grounding\.train is not configured"):
        data({"val": annotations["val"]}, encoder).train_dataloader()


def test_a_batch_larger_than_the_data_is_refused(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    with pytest.raises(UserError, match=r"data\.loader\.batch_size=6 but there are only 5 training samples"):
        data(annotations, encoder, batch_size=6).train_dataloader()
    assert len(data(annotations, encoder, batch_size=5).train_dataloader()) == 1
