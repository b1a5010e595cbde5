"""Samples, batches, lost samples, wrong videos."""

import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from vcr1.data import VideoDataset, with_wrong_videos
from vcr1.policy import PromptEncoder, load_encoder
from vcr1.records import Batch, Interval, LostSample, Sample, VideoSource
from vcr1.tasks import GroundingTask
from vcr1.video import ClipSpec, FrameBudget, ShapeEvent, write_clip

torch.set_num_threads(1)

BUDGET = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return load_encoder("builtin:tiny")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Good videos of 4 s and 6 s, a corrupt one and a missing one."""
    folder = tmp_path_factory.mktemp("videos")
    red = ShapeEvent("red", "square", 1.0, 2.5, x=40, y=60, vx=0, vy=0, radius=20)
    for name, duration in (("good", 4.0), ("long", 6.0)):
        write_clip(ClipSpec(duration, (30, 30, 30), 0, (red,)), folder / f"{name}.mp4")
    (folder / "corrupt.mp4").write_bytes((folder / "good.mp4").read_bytes()[:200])
    return [
        Sample(f"{name}-0", str(folder / f"{name}.mp4"), f"the red square of {name}", Interval(1.0, 2.5))
        for name in ("good", "corrupt", "long", "missing")
    ]


@pytest.fixture
def dataset(samples: list[Sample], encoder: PromptEncoder) -> VideoDataset:
    return VideoDataset(samples, GroundingTask(), encoder, BUDGET, encoder.grid)


def test_a_sample_is_its_prompt_and_clip(dataset: VideoDataset, samples: list[Sample]) -> None:
    assert len(dataset) == 4
    sample, clip, inputs = dataset[0]
    assert sample is samples[0]
    assert clip.timestamps == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    assert clip.frames.numel() == 0  # the pixels travel in the inputs
    # 8 frames of 28 x 28 are 4 tokens, one second apart, of 14 x 14 patches of 2 frames: 4 x 2 x 2.
    assert inputs["video_grid_thw"].tolist() == [[4, 2, 2]]
    assert inputs["second_per_grid_ts"].tolist() == [1.0]
    assert inputs["pixel_values_videos"].shape[0] == 16
    text = dataset.encode.tokenizer.decode(inputs["input_ids"][0])
    assert dataset.task.prompt(sample).text in text
    assert text.count("<|video_pad|>") == 4
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(("index", "name"), [(1, "corrupt"), (3, "missing")])
def test_a_video_that_cannot_be_read_loses_its_sample(dataset: VideoDataset, index: int, name: str) -> None:
    lost = dataset[index]
    assert isinstance(lost, LostSample)
    assert lost.sample_id == f"{name}-0"
    assert f"{name}.mp4" in lost.reason


def test_a_lost_sample_keeps_its_category(samples: list[Sample], encoder: PromptEncoder) -> None:
    missing = replace(samples[3], extra={"category": 4})
    lost = VideoDataset([missing], GroundingTask(), encoder, BUDGET, encoder.grid)[0]
    assert isinstance(lost, LostSample)
    assert lost.category == "4"


def test_a_batch_lists_what_was_lost_and_keeps_the_rest(dataset: VideoDataset, samples: list[Sample]) -> None:
    batch = dataset.collate([dataset[i] for i in range(4)])
    assert batch.task is dataset.task
    assert batch.samples == [samples[0], samples[2]]
    assert [clip.duration for clip in batch.clips] == [4.0, 6.0]
    assert [inputs["video_grid_thw"][0, 0].item() for inputs in batch.inputs] == [4, 6]
    assert [lost.sample_id for lost in batch.lost] == ["corrupt-0", "missing-0"]


def test_a_batch_may_be_lost_whole(dataset: VideoDataset) -> None:
    batch = dataset.collate([dataset[1]])
    assert (batch.samples, batch.clips, batch.inputs, len(batch.lost)) == ([], [], [], 1)
    assert batch.to(torch.device("cpu")).lost == batch.lost


def test_a_batch_moves_with_all_its_inputs(dataset: VideoDataset) -> None:
    batch = dataset.collate([dataset[0]])
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.inputs[0].values()} == {"meta"}
    assert moved.inputs[0].keys() == batch.inputs[0].keys()
    assert (moved.samples, moved.task) == (batch.samples, batch.task)


def test_a_data_set_can_be_sent_to_a_worker(dataset: VideoDataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    for name, tensor in dataset[2][2].items():
        assert torch.equal(copy[2][2][name], tensor)


# ---------------------------------------------------------------------------------------- wrong videos


def ask(id_: str, video: str, duration: float | None) -> Sample:
    return Sample(id_, video, f"query {id_}", Interval(0, 1), duration)


def test_wrong_videos_are_others_of_the_same_length() -> None:
    samples = [
        ask("a0", "a", 6.0),
        ask("a1", "a", 6.0),
        ask("b0", "b", 6.0),
        ask("c0", "c", 6.0),
        ask("d0", "d", 8.0),
        ask("e0", "e", 8.0),
        ask("f0", "f", 7.0),  # no other video is as long: left out
        ask("f1", "f", 7.0),
    ]
    seen: dict[str, set[str]] = {}
    for seed in range(40):
        wrong = with_wrong_videos(samples, seed)
        assert [sample.id for sample in wrong] == ["a0", "a1", "b0", "c0", "d0", "e0"]
        for sample, own in zip(wrong, samples, strict=False):
            assert (sample.query, sample.target, sample.duration) == (own.query, own.target, own.duration)
            seen.setdefault(sample.id, set()).add(sample.source.path)
    # 40 draws out of two miss one of them with probability 2^-39, and the seeds are fixed.
    assert seen == {
        "a0": {"b", "c"},
        "a1": {"b", "c"},
        "b0": {"a", "c"},
        "c0": {"a", "b"},
        "d0": {"e"},
        "e0": {"d"},
    }


def test_wrong_videos_are_the_same_for_the_same_seed() -> None:
    samples = [ask(name, name, 6.0) for name in "abcdef"]
    assert with_wrong_videos(samples, 3) == with_wrong_videos(samples, 3)
    assert with_wrong_videos(samples, 3) != with_wrong_videos(samples, 4)
    assert [sample.video for sample in samples] == list("abcdef")  # the originals are as they were


def test_a_part_of_a_file_is_a_video_of_its_own() -> None:
    early, late = VideoSource("a", 0.0, 6.0), VideoSource("a", 6.0, 12.0)
    samples = [Sample("a0", early, "q", Interval(0, 1), 6.0), Sample("a1", late, "q", Interval(0, 1), 6.0)]
    assert [sample.video for sample in with_wrong_videos(samples)] == [late, early]


def test_videos_of_unknown_length_have_no_wrong_video() -> None:
    assert with_wrong_videos([ask("a", "a", None), ask("b", "b", None)]) == []


@pytest.mark.filterwarnings("error")  # an array that may not be written to
def test_a_batch_leaves_its_worker_in_few_pieces(dataset: VideoDataset) -> None:
    """Only large tensors go through shared memory, which costs a file and a round trip each."""
    batch = dataset.collate([dataset[0], dataset[1], dataset[2]])
    # 32 x 1176 float32 are above the bound of 64 KiB, as 16 x 1176 are; all else is below.
    copy = pickle.loads(ForkingPickler.dumps(batch))
    assert (copy.samples, copy.lost) == (batch.samples, batch.lost)
    assert [clip.timestamps for clip in copy.clips] == [clip.timestamps for clip in batch.clips]
    for mine, theirs in zip(copy.inputs, batch.inputs, strict=True):
        assert list(mine) == list(theirs)
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)
            assert tensor.is_shared() == (name == "pixel_values_videos")
    half = Batch(batch.task, batch.samples, batch.clips, [{"x": torch.ones(2).bfloat16()}] * 2, [])
    assert pickle.loads(pickle.dumps(half)).inputs[1]["x"].dtype == torch.bfloat16
