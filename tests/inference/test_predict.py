"""Whole predictions by the embedded model, and what is said of bad input."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from vcr1.config.choices import conf_dir, expand_choices
from vcr1.errors import UserError
from vcr1.inference import Terminal, as_text, asking
from vcr1.policy import load_policy
from vcr1.predict import predict, run_job
from vcr1.video import ClipSpec, ShapeEvent, read_timeline, write_clip, write_mp4

TINY = ["model=tiny", "loader=tiny", "rollout.max_new_tokens=40"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip of 8 s and one of each bad kind."""
    folder = tmp_path_factory.mktemp("videos")
    frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    square = ShapeEvent("red", "square", 2.0, 5.0, x=40, y=60, vx=9, vy=5, radius=20)
    write_clip(ClipSpec(8.0, (30, 30, 30), 0, (square,)), folder / "good.mp4")
    write_mp4(folder / "single.mp4", frames[:1], fps=4)
    # Ten hours in four frames.
    write_mp4(folder / "ten_hours.mp4", frames[:4], fps=4, times=[0, 12000, 24000, 36000])
    content = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "text.mp4").write_text("the download failed\n" * 40)
    (folder / "empty.mp4").touch()
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


def composed(folder: Path, *overrides: str) -> DictConfig:
    given = expand_choices(as_text([*TINY, f"run_dir={folder}", *overrides]))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("predict", overrides=given)


def run(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """The report and what was printed; the file says the same."""
    out = io.StringIO()
    report = predict(composed(folder, *overrides), Terminal(out, io.StringIO()))
    assert json.loads((folder / "answers.json").read_text()) == report
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []
    return report, out.getvalue()


# ---------------------------------------------------------------------------------------------- answers


def test_one_question(videos: Path, tmp_path: Path) -> None:
    report, printed = run(
        tmp_path, f"video={videos}/good.mp4", "task=grounding", "query=the red square appears"
    )
    assert report["counts"]["answers"] == 1
    assert (report["model"], report["complete"]) == ("builtin:tiny", True)
    (answer,) = report["answers"]
    assert (answer["id"], answer["task"], answer["query"]) == ("good", "grounding", "the red square appears")
    assert answer["frames"] == 16  # 8 s, 2 a second
    assert answer["text"].startswith("<think>red")
    assert printed.startswith(answer["text"])  # streamed, and whole
    assert (answer["answer"] is None) == (answer["parse_failure"] is not None)
    assert "looks" not in answer


def test_the_stream_is_the_text_in_pieces(videos: Path, tmp_path: Path) -> None:
    class Pieces(Terminal):
        def __init__(self) -> None:
            super().__init__(io.StringIO(), io.StringIO())
            self.grown: list[str] = []

        def stream(self, text: str) -> None:
            self.grown.append(text)
            super().stream(text)

    pieces = Pieces()
    cfg = composed(tmp_path, f"video={videos}/good.mp4", "task=free", "query=What is it?")
    (answer,) = predict(cfg, pieces)["answers"]
    assert len(pieces.grown) == answer["tokens"] > 5
    assert pieces.grown[-1] == answer["text"]
    assert all(later.startswith(text) for text, later in zip(pieces.grown, pieces.grown[1:], strict=False))


def test_several_questions_are_answered_as_each_alone(videos: Path, tmp_path: Path) -> None:
    video = f"video={videos}/good.mp4"
    both, _ = run(tmp_path, video, "task=grounding", 'query=["the red square appears", "the dog, barking"]')
    alone, _ = run(tmp_path, video, "task=grounding", "query=the dog, barking")
    assert [answer["id"] for answer in both["answers"]] == ["good-0", "good-1"]
    assert both["answers"][1]["text"] == alone["answers"][0]["text"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=tracking", "query=the square", "box=[0.1,0.1,0.5,0.5]"],
        ["task=qa", "query=which?", "options=[red,blue]"],
        ["task=grounded_qa", "query=which?", "options=[red,blue]"],
        ["task=quality", "query=how good?", "options=[clean,noisy]"],
        ["task=captioning"],
        ["task=null", "query=What is it?"],
        ["query=What is it?", "start=2", "end=6"],
    ],
)
def test_every_task(videos: Path, tmp_path: Path, overrides: list[str]) -> None:
    report, _ = run(tmp_path, f"video={videos}/good.mp4", "rollout.max_new_tokens=90", *overrides)
    (answer,) = report["answers"]
    if overrides[0] == "task=tracking":
        assert answer["frames"] == len(answer["answer"]) == len(answer["times"]) == 8
    if "start=2" in overrides:
        assert (answer["start"], answer["end"], answer["frames"]) == (2, 6, 8)


def test_a_second_look_leaves_its_trace(videos: Path, tmp_path: Path) -> None:
    ask = [f"video={videos}/good.mp4", "task=grounding", "query=the red square appears"]
    report, printed = run(tmp_path, *ask, "clues=1", "clues.first=0.5")
    (answer,) = report["answers"]
    first, *more = answer["looks"]
    assert (first["part"], first["frames"]) == ([0.0, 8.0], 8)  # half of the frame rate
    assert answer["stopped"]
    assert len(more) <= 1
    for look in more:
        assert 0 <= look["part"][0] < look["part"][1] <= 8
    assert f"look 0: 0.0 to 8.0 s, 8 frames, {first['vision_tokens']} vision tokens" in printed
    with pytest.raises(UserError, match=r"^clues=1: qa names no times"):
        predict(
            composed(
                tmp_path, f"video={videos}/good.mp4", "task=qa", "query=x", "options=[a,b]", "clues.rounds=1"
            )
        )


def test_the_answers_are_drawn_into_the_video(videos: Path, tmp_path: Path) -> None:
    good = videos / "good.mp4"
    boxes = ["task=tracking", "query=the red square", "box=[0.2,0.3,0.5,0.6]", "rollout.max_new_tokens=90"]
    report, _ = run(tmp_path, f"video={good}", *boxes, f"render={tmp_path}/drawn.mp4")
    assert read_timeline(tmp_path / "drawn.mp4").timestamps == read_timeline(good).timestamps
    assert report["answers"][0]["answer"][0] is not None
    for wrong, reason in ((f"video={videos}", "one video file"), (f"video={good}", "would overwrite")):
        with pytest.raises(UserError, match=reason):
            predict(composed(tmp_path, wrong, "query=x", f"render={good}"))


# ------------------------------------------------------------------------------------------------- batch


def test_a_folder_counts_its_failures(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_job(composed(tmp_path, f"video={videos}", "task=grounding", "query=the red square appears"))
    assert exit_.value.code == 1
    report = json.loads((tmp_path / "answers.json").read_text())
    assert report["counts"] | {"not_read": {}} == {"answers": 1, "failures": 6, "not_read": {}}
    reasons = {failure["id"]: failure["reason"] for failure in report["failures"]}
    assert set(reasons) == {"cut", "empty", "single", "sound", "ten_hours", "text"}
    assert all("\n" not in reason and reason.startswith(str(videos)) for reason in reasons.values())
    printed = capsys.readouterr()
    assert "1 answers, 6 failures" in printed.err
    assert "Traceback" not in printed.err


def test_lines_of_several_tasks(videos: Path, tmp_path: Path) -> None:
    good = str(videos / "good.mp4")
    rows = [
        {"video": good, "task": "grounding", "query": "the red square appears"},
        {"video": good, "task": "tracking", "query": "it", "box": [0.1, 0.1, 0.5, 0.5], "id": "track"},
        {"video": "gone.mp4", "query": "What?"},
        {"video": good, "query": "What?"},
        {"video": good, "task": "qa", "query": "What?"},
    ]
    (tmp_path / "ask.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    report, printed = run(tmp_path, f"video={tmp_path}/ask.jsonl", "task=grounding+tracking")
    assert {answer["id"]: answer["task"] for answer in report["answers"]} == {
        "1": "grounding",
        "track": "tracking",
        "4": "free",
    }
    reasons = {failure["id"]: failure["reason"] for failure in report["failures"]}
    assert list(reasons) == ["3", "5", "6"]
    assert f"no video 'gone.mp4'; tried {tmp_path}/gone.mp4, with the endings" in reasons["3"]
    assert "task qa is not among those of this run: grounding, tracking, free" in reasons["5"]
    assert "track: it\n" in printed


def test_the_file_that_one_trained_on_is_answered_beside_its_truth(videos: Path, tmp_path: Path) -> None:
    row = {"video": "good", "query": "the red square appears", "interval": [2.0, 5.0], "duration": 8.0}
    lines = tmp_path / "val.jsonl"
    lines.write_text(json.dumps(row) + "\n" + json.dumps(row | {"interval": [5]}))
    report, printed = run(tmp_path, f"video={lines}", f"videos={videos}", "task=grounding")
    first, second = report["answers"]
    assert first["truth"] == [2.0, 5.0]
    start, end = first["answer"]  # worked out again from the answer
    shared, whole = min(end, 5.0) - max(start, 2.0), max(end, 5.0) - min(start, 2.0)
    assert first["scores"] == {"iou": pytest.approx(max(shared, 0.0) / whole)}
    assert f"truth: [2.0, 5.0]; iou {first['scores']['iou']:.3f}\n" in printed
    assert "line 2: field 'interval' must be [start, end] in seconds" in second["truth_unused"]
    assert ("truth" in second, second["answer"]) == (False, first["answer"])


def test_what_an_interrupted_batch_has_is_written(videos: Path, tmp_path: Path) -> None:
    class Impatient(Terminal):
        def show(self, found: Any) -> None:
            if found.question.id == "b":
                raise KeyboardInterrupt

    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(videos / "good.mp4", folder / name)
    with pytest.raises(KeyboardInterrupt):
        predict(composed(tmp_path, f"video={folder}", "query=What?"), Impatient())
    report = json.loads((tmp_path / "answers.json").read_text())
    assert (report["complete"], [answer["id"] for answer in report["answers"]]) == (False, ["a"])


# ------------------------------------------------------------------------------------------ out of memory


def short_of_memory(monkeypatch: pytest.MonkeyPatch, prompts: int, failing: Sequence[int] = ()) -> list[int]:
    """Memory for so many prompts at once, and in some of the attempts for none; returns their sizes."""
    answer, attempts = asking.answer_together, list[int]()

    def limited(policy: Any, inputs: list[Any], *more: Any) -> Any:
        attempts.append(len(inputs))
        if len(inputs) > prompts or len(attempts) - 1 in failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(policy, inputs, *more)

    monkeypatch.setattr(asking, "answer_together", limited)
    return attempts


@pytest.mark.parametrize("clues", [[], ["clues=1"]])
def test_what_does_not_fit_at_once_is_asked_one_after_the_other(
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clues: list[str],
) -> None:
    queries = 'query=["the red square appears", "the dog, barking"]'
    given = [f"video={videos}/good.mp4", "task=grounding", queries]
    whole, _ = run(tmp_path, *given, *clues)
    attempts = short_of_memory(monkeypatch, 1, [1])
    if clues:
        attempts.append(0)  # looks are taken one question at a time anyway
    with pytest.raises(SystemExit) as exit_:
        run_job(composed(tmp_path, *given, *clues))
    assert (exit_.value.code, attempts[:3]) == (1, [0, 1, 1] if clues else [2, 1, 1])
    report = json.loads((tmp_path / "answers.json").read_text())
    assert report["answers"] == whole["answers"][1:]
    (failure,) = report["failures"]
    assert failure["id"] == "good-0"
    assert failure["reason"].startswith("not enough GPU memory for 1 prompt of ")
    assert "1 answers, 1 failures" in capsys.readouterr().err


def test_the_only_question_that_does_not_fit_is_one_sentence(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 0)
    said = sentence(tmp_path, capsys, f"video={videos}/good.mp4", "query=What?")
    assert said.endswith("rollout.max_new_tokens=40 more; lower data.video.total_pixels or that")


# --------------------------------------------------------------------------------------------- bad input


def sentence(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What is said of a run that cannot be done: one line, exit status 2, no answers."""
    capsys.readouterr()  # progress bars of what the test has prepared
    with pytest.raises(SystemExit) as exit_:
        run_job(composed(folder, *overrides))
    said = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert said.startswith("vcr1: ")
    assert "\n" not in said
    assert not (folder / "answers.json").exists()
    return said


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ("gone.mp4", "no such file"),
        ("cut.mp4", "cut short"),
        ("text.mp4", "not a readable video"),
        ("empty.mp4", "the file is empty"),
        ("sound.mp4", "holds no video stream"),
        ("single.mp4", "there is one frame to be shown"),
        ("ten_hours.mp4", "lasts 36000 s, more than limits.seconds=14400"),
        ("x" * 5000 + ".mp4", "cannot be opened"),
    ],
)
def test_a_bad_video_is_one_sentence(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], video: str, reason: str
) -> None:
    said = sentence(tmp_path, capsys, f"video={videos}/{video}", "query=What?")
    assert f"{videos}/{video}: " in said
    assert reason in said


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["query=" + "x" * 100_000], "query has 100000 characters, more than limits.query=8192"),
        ([], 'nothing is asked: give query="..."'),
        (["query=x", "task=grounding+tracking"], "task=grounding+tracking: choose one"),
        (["query=x", "start=9"], "the part from 9 s lies beyond the end"),
        (["query=x", "start=5", "end=2"], "ends at 2"),
        (["query=x", "device=cuda:99"], "device=cuda:99: there is no such GPU"),
        (["query=x", "device=abacus"], "device=abacus: take auto, cpu"),
        (["query=x", "limits.seconds=0"], "limits.seconds=0 must be a positive number"),
        (["query=x", "rollout.temperature=-1"], "rollout.temperature=-1 is out of range"),
        (["query=x", "clues.first=2"], "clues.first=2 is out of range"),
        (["query=x", "data.loader.decoder=opencv"], "data.loader.decoder must be one of"),
        (["query=x", "render=answers.avi"], "render=answers.avi: must name an MP4"),
        (["query=x", "out=no/such/folder/a.json"], "no/such/folder/a.json: there is no folder"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], reason: str
) -> None:
    assert reason in sentence(tmp_path, capsys, f"video={videos}/good.mp4", *overrides)


def test_a_video_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "video" in sentence(tmp_path, capsys, "query=x")


# ------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a folder of a run."""
    run = tmp_path_factory.mktemp("run")
    load_policy("builtin:tiny").save(run / "huggingface")
    return run


def test_the_folder_of_a_run_is_a_checkpoint(videos: Path, tmp_path: Path, folder: Path) -> None:
    ask = [f"video={videos}/good.mp4", "task=grounding", "query=the red square appears"]
    report, _ = run(tmp_path, *ask, f"checkpoint={folder}")
    assert report["model"] == str(folder / "huggingface")
    builtin, _ = run(tmp_path, *ask)
    assert report["answers"] == builtin["answers"]


def broken(kind: str, whole: Path, place: Path) -> None:
    """A folder of weights with something wrong, made from a whole one."""
    if kind == "bert":
        BertModel(
            BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        ).save_pretrained(place)
        return
    if kind == "training":
        (place / "checkpoints").mkdir(parents=True)
        return
    shutil.copytree(whole, place)
    weights = place / "model.safetensors"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "unfinished":
        weights.rename(place / "model.safetensors.incomplete")
    elif kind == "some":
        state = load_file(weights)
        save_file(dict(list(state.items())[:20]), weights, metadata={"format": "pt"})
    elif kind == "others":
        config = json.loads((place / "config.json").read_text())
        config["text_config"]["intermediate_size"] *= 2
        (place / "config.json").write_text(json.dumps(config))
    elif kind == "unprocessed":
        for file in place.glob("*processor*"):
            file.unlink()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bert", "family bert answers no questions about pictures"),
        ("training", "nor the folder of a run that has saved one"),
        ("cut", "the weights cannot be read"),
        ("unfinished", "the weights cannot be read"),
        ("some", "of the model's weights are not in its files"),
        ("others", "the weights have other shapes than its config.json says"),
        ("unprocessed", "no processor found there"),
        ("gone", "no model found"),
    ],
)
def test_a_bad_checkpoint_is_one_sentence(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path, kind: str, reason: str
) -> None:
    place = tmp_path / "weights"
    if kind != "gone":
        broken(kind, folder / "huggingface", place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        said = sentence(tmp_path, capsys, f"video={videos}/good.mp4", "query=x", f"checkpoint={place}")
    assert str(place) in said
    assert reason in said


# ------------------------------------------------------------------------------------------ command line


@pytest.mark.slow
def test_the_command_line(videos: Path, tmp_path: Path) -> None:
    def call(*overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vcr1.predict", *TINY, "threads=1", *overrides],
            cwd=tmp_path,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    done = call(f"video={videos}/good.mp4", "task=grounding", "query=the red square, isn't it?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<think>")
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("runs/predict-*/answers.json"))) == 1
