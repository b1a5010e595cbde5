"""What lmms-eval does with an exported folder, call by call, but without lmms-eval; `make lmms` runs itself.

The calls are those of ``lmms_eval/models/chat/qwen2_5_vl.py`` of version 0.7.3, but for the floating type:
there it is always bfloat16, here float32, in which both sides must choose the same tokens. Positions are the
published ones, as `docs/lmms_eval/run.py` lets lmms-eval compute them.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from lmms_cases import FPS, SIDE, TASKS, vcr1_inputs
from packaging.requirements import Requirement
from published import placed
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from vcr1.errors import UserError
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.score import read_predictions

PIXELS = SIDE**2


@pytest.fixture(scope="module")
def policy() -> VideoPolicy:
    torch.set_num_threads(1)
    return load_policy("builtin:tiny").eval()


@pytest.fixture(scope="module")
def exported(policy: VideoPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    policy.save(folder, torch.float32)
    return folder


def lmms_inputs(processor: Any, video: str, prompt: str) -> Any:
    """From a question to the model's inputs, as lmms-eval does it."""
    limits = {"max_pixels": PIXELS, "min_pixels": PIXELS, "fps": FPS}
    content = [{"type": "video", "video": video, **limits}, {"type": "text", "text": prompt}]
    messages = [[{"role": "user", "content": content}]]
    texts = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos, _ = process_vision_info(messages, return_video_kwargs=True, return_video_metadata=True)
    frames, metadata = zip(*videos, strict=True)
    return processor(
        text=texts,
        images=images,
        videos=list(frames),
        video_metadata=list(metadata),
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )


@torch.no_grad()
def test_an_exported_folder_answers_as_vcr1_does_token_for_token(
    policy: VideoPolicy, exported: Path, questions: ModuleType
) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        exported, torch_dtype="float32", device_map="cpu"
    ).eval()
    processor = AutoProcessor.from_pretrained(exported, max_pixels=PIXELS, min_pixels=PIXELS)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    lines = [{"id": id_} for id_ in questions.samples()]
    own = vcr1_inputs(policy, questions)
    greedy = policy.rollout(own, policy.vision(own), 1, Sampling(temperature=0, max_new_tokens=96))
    for line, expected, (text,) in zip(lines, own, greedy.texts, strict=True):
        inputs = lmms_inputs(processor, *questions.video(line), questions.prompt(line))
        for name, tensor in expected.items():
            torch.testing.assert_close(torch.as_tensor(inputs[name]), tensor, msg=name, rtol=0, atol=0)
        ids = model.generate(
            **placed(model, {name: torch.as_tensor(value) for name, value in inputs.items()}),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=1,
            max_new_tokens=96,
            use_cache=True,
        )
        answers = processor.batch_decode(ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        assert answers == [text]
    assert len(lines) == 12
    assert len({text for (text,) in greedy.texts}) > 6  # they depend on what is asked and shown


ASKS = """
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

body = Qwen2_5_VLModel.__new__(Qwen2_5_VLModel)
torch.nn.Module.__init__(body)
body.config = Qwen2_5_VLConfig(video_token_id=7, image_token_id=6, vision_config={"tokens_per_second": 2})
ids = torch.tensor([[9] + [7] * 30 + [9]])
found, _ = body.get_rope_index(ids, video_grid_thw=torch.tensor([[30, 2, 2]]))
print(found[:, 0, -1].tolist())
"""


def test_the_command_of_the_docs_gives_lmms_eval_the_published_positions(tmp_path: Path) -> None:
    # A stand-in for lmms-eval asks the model's class; what its environment lacks is not there to be imported.
    (tmp_path / "lmms_eval").mkdir()
    (tmp_path / "lmms_eval" / "__main__.py").write_text(ASKS)
    for name in ("hydra", "lightning", "omegaconf"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not in this environment')")
    root = TASKS.parents[1]
    done = subprocess.run(
        [sys.executable, TASKS / "run.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root)))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert str([1 + 2 * 29 + 1] * 3) in done.stdout  # a word, 30 steps of two positions, the text behind them


def test_the_task_asks_and_scores_as_vcr1_does_and_its_log_can_be_scored(
    questions: ModuleType, tmp_path: Path
) -> None:
    line = json.loads(Path(questions.ANNOTATIONS).read_text().splitlines()[0])
    assert line["interval"] == [0.0, 2.0]
    assert questions.video(line) == [str(Path("data/videos/clip0.mp4"))]
    assert questions.prompt(line).startswith(
        'When does this event happen in the video: "the blue square appears"?'
    )
    assert questions.target(line).endswith("<answer>0.0 to 2.0</answer>")
    text = "<think>blue</think><answer>0.0 to 3.0</answer>"  # 2 s of 3 s
    scored = questions.scores(line, [text])
    assert scored["mIoU"] == pytest.approx(2 / 3)
    assert (scored["R@0.3"], scored["R@0.5"], scored["R@0.7"], scored["format"]) == (1, 1, 0, 1)
    log = tmp_path / "samples.jsonl"
    log.write_text(json.dumps({"doc_id": 0, "filtered_resps": text, **scored}) + "\n")
    assert read_predictions(str(log)) == ({"clip0-blue": text}, [])


class Lines(list[dict[str, Any]]):
    """As much of a ``datasets.Dataset`` as the task uses."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def __getitem__(self, key: Any) -> Any:
        return [line[key] for line in self] if isinstance(key, str) else super().__getitem__(key)

    def filter(self, keep: Callable[[dict[str, Any]], bool]) -> "Lines":
        return Lines(filter(keep, self))


def test_the_task_asks_what_vcr1_would_ask_and_wants_ids(
    questions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, query = str(Path("data/videos/clip0.mp4").resolve()), {"query": "it appears"}
    rows = [{"id": 7, "interval": [1.0, 2.0]}, {"id": 8, "interval": [2.0, 1.0]}]  # the second ends too early
    lines = Lines({"video": video} | query | row for row in rows)
    file = tmp_path / "val.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(questions, "ANNOTATIONS", str(file))
    # The truth is the file's: a span that ends before it begins is a question all the same, which scores 0.
    assert [line["id"] for line in questions.usable(lines)] == [7, 8]
    right, reversed_ = (
        questions.scores(line, ["<answer>1.0 to 2.0</answer>"]) for line in (lines[0], lines[1])
    )
    assert (right["id"], right["mIoU"]) == ("7", 1.0)
    assert (reversed_["id"], reversed_["mIoU"]) == ("8", 0.0)
    for nameless in (Lines([query]), Lines([{"id": "a"}, {"id": None}])):
        with pytest.raises(UserError, match=r"val\.jsonl: every line needs an id"):
            questions.usable(nameless)


def test_the_task_names_functions_and_metrics_that_there_are(questions: ModuleType) -> None:
    text = (TASKS / "vcr1_grounding" / "vcr1_grounding.yaml").read_text()
    functions = re.findall(r"!function questions\.(\w+)", text)
    assert sorted(functions) == ["prompt", "scores", "target", "usable", "video"]
    assert all(callable(getattr(questions, name)) for name in functions)
    task = yaml.safe_load(text.replace("!function ", ""))
    assert task["dataset_kwargs"]["data_files"] == {task["test_split"]: questions.ANNOTATIONS}
    scored = questions.scores({"id": next(iter(questions.samples()))}, ["no answer"])
    assert [one["metric"] for one in task["metric_list"]] == [*scored][:-2]
    assert [*scored][-2:] == ["id", "completion"]


def test_the_pinned_environment_has_a_transformers_that_vcr1_knows() -> None:
    lines = (TASKS / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    versions = dict(pin.split("==") for pin in pins)
    project = tomllib.loads((TASKS.parents[1] / "pyproject.toml").read_text())["project"]
    bounds = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert versions["transformers"] in bounds["transformers"]  # what wrote a folder also reads it
    assert versions["av"] not in bounds["av"]  # why there are two environments
