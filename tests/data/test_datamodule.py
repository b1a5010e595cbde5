"""The DataModules: which batches they give, in which order, and what they refuse."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from vcr1.data import LoaderSettings, MixtureDataModule, TaskDataModule
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, load_encoder
from vcr1.readers import Annotations, read_synthetic
from vcr1.records import Batch
from vcr1.tasks import GroundingTask, QATask
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
    loader = LoaderSettings(num_workers=num_workers, **settings)
    return TaskDataModule(GroundingTask(), annotations, encoder, encoder.grid, BUDGET, loader)


def ids(batches: object) -> list[list[str]]:
    return [[sample.id for sample in batch.samples] for batch in batches]


def test_training_batches_are_whole(annotations: dict[str, Annotations], encoder: PromptEncoder) -> None:
    loader = data(annotations, encoder, batch_size=2).train_dataloader()
    batches = ids(loader)
    assert [len(batch) for batch in batches] == [2, 2]  # of five samples one is left out
    assert len(loader) == 2
    flat = [id_ for batch in batches for id_ in batch]
    assert len(set(flat)) == 4
    assert set(flat) <= {sample.id for sample in annotations["train"].samples}


def test_every_epoch_shuffles_anew(annotations: dict[str, Annotations], encoder: PromptEncoder) -> None:
    loader = data(annotations, encoder, batch_size=5).train_dataloader()
    orders = []
    for epoch in range(5):
        loader.sampler.set_epoch(epoch)  # as Lightning does
        orders.append(ids(loader)[0])
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


def test_the_seed_gives_the_order_of_training(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    def order(seed: int, noise: int) -> list[list[str]]:
        torch.manual_seed(noise)  # whatever else drew from the global generator
        return ids(data(annotations, encoder, batch_size=1, seed=seed).train_dataloader())

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
    assert other.task.judge([""], other.samples[:1]).result()[0].failure == "no_answer"  # the task came along


def test_wrong_videos_of_the_held_out_samples(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    held_out = annotations["val"].samples
    assert held_out[0].duration == held_out[2].duration  # seed 0 draws two clips of one length
    first, second = held_out[0].source, held_out[2].source
    (batch,) = data(annotations, encoder, eval_batch_size=4).wrong_video_dataloader()
    assert [sample.source for sample in batch.samples] == [second, second, first, first]
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
    problem = r"batch_size=6 on 1 rank\(s\), but there are only 5 training samples of grounding \(weight 1\)"
    with pytest.raises(UserError, match=problem):
        data(annotations, encoder, batch_size=6).train_dataloader()
    assert len(data(annotations, encoder, batch_size=5).train_dataloader()) == 1


@pytest.mark.parametrize("setting", [{"batch_size": 0}, {"eval_batch_size": -1}, {"num_workers": -1}])
def test_a_size_that_cannot_be_is_named(setting: dict[str, int]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(UserError, match=rf"data\.loader\.{name}={value} is no whole number of at least "):
        LoaderSettings(**setting)


# --------------------------------------------------------------------------------------- several tasks


def questions(annotations: Mapping[str, Annotations], encoder: PromptEncoder) -> TaskDataModule:
    """Questions with options about the same clips, of which only some are held out."""
    asked = {
        split: Annotations(split, [replace(s, options=("a", "b"), target="A") for s in one.samples[:3]])
        for split, one in annotations.items()
    }
    return TaskDataModule(QATask(), asked, encoder, encoder.grid, BUDGET, LoaderSettings(num_workers=0))


def test_a_micro_batch_holds_one_task_and_is_judged_by_it(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    parts = [data(annotations, encoder), questions(annotations, encoder)]
    settings = LoaderSettings(batch_size=2, num_workers=0)
    batches = list(MixtureDataModule(parts, settings=settings).train_dataloader())
    # Five samples make two whole batches, three make one.
    assert sorted(batch.task.name for batch in batches) == ["grounding", "grounding", "qa"]
    for batch in batches:
        assert {bool(sample.options) for sample in batch.samples} == {batch.task.name == "qa"}
        (one, _) = batch.task.judge(["<think></think><answer>A</answer>"] * 2, batch.samples).result()
        assert one.metrics == ({"accuracy": 1.0} if batch.task.name == "qa" else {"iou": 0.0})


def test_each_task_is_evaluated_by_itself(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    mixture = MixtureDataModule([data(annotations, encoder), questions(annotations, encoder)])
    found = [[batch.task.name for batch in loader] for loader in mixture.val_dataloader()]
    assert found == [["grounding"] * 4, ["qa"] * 3]
    wrong = [[batch.task.name for batch in loader] for loader in mixture.wrong_video_dataloader()]
    assert wrong == found
    blind = data({"train": annotations["train"]}, encoder)
    assert len(MixtureDataModule([blind, questions(annotations, encoder)]).val_dataloader()) == 1
    assert MixtureDataModule([blind]).val_dataloader() == []
    assert MixtureDataModule([blind]).wrong_video_dataloader() == []


def test_a_mixture_has_tasks_of_different_names(
    annotations: dict[str, Annotations], encoder: PromptEncoder
) -> None:
    one = data(annotations, encoder)
    assert MixtureDataModule([one]).parts == {"grounding": one}
    for parts in ([], [one, one]):
        with pytest.raises(UserError, match="a mixture of the tasks"):
            MixtureDataModule(parts)
