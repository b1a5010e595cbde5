"""Scoring what other systems have written, for every task, on numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir, expand_choices
from vcr1.errors import UserError
from vcr1.score import read_predictions, score

ROWS: dict[str, list[dict[str, Any]]] = {
    "grounding": [{"query": "it", "interval": [1.0, 3.0]}] * 4,
    "tracking": [{"query": "it", "boxes": [[0.0, 0.0, 0.5, 0.5]] * 8}] * 4,
    "grounded_qa": [{"query": "q", "options": ["a", "b"], "answer": "A", "intervals": [[1.0, 3.0]]}] * 4,
    "qa": [{"query": "q", "options": ["a", "b"], "answer": "A", "category": "c"}] * 4,
    "quality": [{"query": "q", "options": ["clean", "noisy"], "answer": "clean"}] * 4,
    "captioning": [{"caption": "a red circle appears."}] * 4,
}
"""Four samples of each task: the first is answered rightly, the second not as it should be read, the third
wrongly, and the fourth not at all."""
FULL, HALF = "[0.0, 0.0, 0.5, 0.5]", "[0.0, 0.0, 0.5, 0.25]"
COMPLETIONS = {
    "grounding": ["<answer>1.0 to 3.0</answer>", "?", "<answer>2.0 to 3.0</answer>"],
    "tracking": [
        f"<answer>[{', '.join([FULL] * 8)}]</answer>",
        "?",
        f"<answer>[{', '.join([HALF] * 8)}]</answer>",
    ],
    "grounded_qa": [
        "<answer>A</answer><glue>[(1.0, 3.0)]</glue>",
        "?",
        "<answer>B</answer><glue>[(1.0, 2.0)]</glue>",
    ],
    "qa": ["<answer>A</answer>", "?", "<answer>B</answer>"],
    "quality": ["<answer>clean</answer>", "?", "<answer>noisy</answer>"],
    "captioning": ["<answer>a red circle appears.</answer>", "?", "<answer>nothing.</answer>"],
}
EXPECTED = {
    # IoU 1, 0, 0.5, 0.
    "grounding": {"mIoU": 0.375, "R@0.3": 0.5, "R@0.5": 0.5, "R@0.7": 0.25, "format": 0.5},
    # SR counts what exceeds its threshold, so that 0.5 does not reach SR@0.5.
    "tracking": {"AO": 0.375, "SR@0.5": 0.25, "SR@0.75": 0.25, "mIoU": 0.375, "R@0.5": 0.5, "R@0.7": 0.25},
    # The wrong letter's span lies inside the true one: IoU 0.5, IoP 1.
    "grounded_qa": {"Acc": 0.25, "mIoU": 0.375, "mIoP": 0.5, "IoU@0.5": 0.5, "IoP@0.5": 0.5, "Acc@GQA": 0.25},
    "qa": {"accuracy": 0.25, "format": 0.5},
    "quality": {"accuracy": 0.25, "format": 0.5},
    "captioning": {"event recall": 0.25, "format": 0.5},
}


def scored(folder: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("score", overrides=[f"run_dir={folder}", *expand_choices(overrides)])
    return score(cfg)


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("task", sorted(ROWS))
def test_predictions_of_every_task(task: str, tmp_path: Path) -> None:
    rows = [{"id": f"s{n}", "video": "nowhere.mp4"} | row for n, row in enumerate(ROWS[task])]
    annotations = written(tmp_path / "truth.jsonl", rows)
    if task == "captioning":  # its lines have numbers for ids
        ids = [f"truth-{number}" for number in range(1, 5)]
        annotations = written(
            tmp_path / "truth.jsonl", [{"video": "nowhere.mp4"} | row for row in ROWS[task]]
        )
    else:
        ids = [f"s{number}" for number in range(4)]
    lines = [{"id": id_, "completion": text} for id_, text in zip(ids, COMPLETIONS[task], strict=False)]
    lines += [{"id": ids[0], "completion": "again"}, {"id": "stranger", "completion": "?"}]
    predictions = written(tmp_path / "predictions.jsonl", lines)
    overrides = [f"task=[{task}]", f"annotations={annotations}", f"predictions={predictions}"]
    found = scored(tmp_path / "run", *overrides, f"tasks.{task}.think=false")[task]
    values = {name: one["value"] for name, one in found["metrics"].items()}
    assert {name: values[name] for name in EXPECTED[task]} == pytest.approx(EXPECTED[task])
    assert found["samples"] == 4
    assert found["failures"]["missing_prediction"] == 1
    assert sum(found["failures"].values()) == 2
    account = json.loads((tmp_path / "run" / "ids.json").read_text())
    assert account == {"repeated": [ids[0]], "missing": [ids[3]], "unknown": ["stranger"]}
    lines_out = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines_out] == ids
    if task == "qa":
        assert found["categories"]["c"]["samples"] == 4  # the one without a prediction as well


def test_a_data_sets_own_file_needs_no_videos(tmp_path: Path) -> None:
    truth = tmp_path / "charades_sta_test.txt"
    truth.write_text("AAA 1.0 3.0##a person sits.\nAAA 4.0 8.0##a person stands.\n")
    predictions = written(
        tmp_path / "p.jsonl", [{"id": "AAA-1", "completion": "<answer>4.0 to 6.0</answer>"}]
    )
    found = scored(tmp_path, "task=grounding", f"annotations={truth}", f"predictions={predictions}")
    assert found["grounding"]["metrics"]["mIoU"]["value"] == pytest.approx(0.25)


def test_a_benchmark_brings_its_own_annotations(tmp_path: Path) -> None:
    (tmp_path / "charades_sta").mkdir()
    (tmp_path / "charades_sta" / "charades_sta_test.txt").write_text("AAA 1.0 3.0##a person sits.\n")
    predictions = written(
        tmp_path / "p.jsonl", [{"id": "AAA-0", "completion": "<answer>1.0 to 3.0</answer>"}]
    )
    overrides = [f"data.root={tmp_path}", f"predictions={predictions}"]
    found = scored(tmp_path / "run", "benchmark=[charades_sta]", *overrides)
    assert found["charades_sta"]["metrics"]["mIoU"]["value"] == 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["predictions=none.jsonl", "annotations=a.jsonl"], "none.jsonl does not exist"),
        (["annotations=a.jsonl"], "predictions= is missing"),
        (["predictions={file}"], "say what the predictions answer"),
        (["predictions={file}", "annotations=a.csv"], "files that end with .json or .jsonl or .txt"),
        (["predictions={file}", "annotations=a.jsonl"], "a.jsonl does not exist"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, overrides: list[str], message: str) -> None:
    file = written(tmp_path / "p.jsonl", [{"id": "a", "completion": "b"}])
    with pytest.raises(UserError, match=message):
        scored(tmp_path, *(override.format(file=file) for override in overrides))


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"id": "a"}', '{"id": true, "completion": ""}', '{"id": 1, "completion": 2}']
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "completion": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"p.jsonl, line 2"):
        read_predictions(str(tmp_path / "p.jsonl"))
