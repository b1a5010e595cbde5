"""`vcr1.score` against the rules of official scorers, written here anew from their published code.

- Charades-STA: `RenShuhuai-Andy/TimeChat`, ``metrics/tvg/eval_tvg.py``, ``iou``; `www-Ye/Time-R1`,
  ``evaluate.py``, ``eval``; `OpenGVLab/VideoChat-R1`, ``src_eval/evaluate_tg.py``, ``process_work_items``.
- NExT-GQA: `doc-doc/NExT-GQA`, ``code/TempGQA/eval_ground.py``, ``get_tIoU`` and ``eval_ground``;
  ``code/TempCLIP/dataloader/vqa_loader.py``, ``__getitem__``, for the right one of equal options.
- GOT-10k: `got-10k/toolkit`, ``got10k/experiments/got10k.py``, ``report`` and ``_evaluate``;
  ``got10k/utils/metrics.py``, ``rect_iou``.
- Tracking of VideoChat-R1: `OpenGVLab/VideoChat-R1`, ``Videochat-R1.5/src_eval/evaluate_tracking.py``,
  ``calculate_iou`` and ``average_overlap``.
- MVBench: `OpenGVLab/Ask-Anything`, ``video_chat2/mvbench.ipynb``, ``qa_template``.

Answers are random, the rows hold the dirt of the real files.
"""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir, expand_choices
from vcr1.score import score

CLOSE = 1e-9
Span = tuple[float, float]


def scored(folder: Path, predictions: dict[str, str], *overrides: str) -> dict[str, float]:
    """Metrics of completions by id."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": id_, "completion": text}) for id_, text in predictions.items()]
    (folder / "predictions.jsonl").write_text("\n".join(lines))
    given = [f"run_dir={folder}", f"predictions={folder / 'predictions.jsonl'}", *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("score", overrides=expand_choices(given))
    ((_, found),) = score(cfg).items()
    return {"samples": found["samples"]} | {name: one["value"] for name, one in found["metrics"].items()}


def random_span(rng: random.Random, longest: float = 30.0) -> Span:
    start, end = sorted(round(rng.uniform(0, longest), 1) for _ in range(2))
    return start, max(end, round(start + 0.1, 1))


# -------------------------------------------------------------------------------------------- Charades-STA


def overlap(truth: Span, answer: Span) -> float:
    """TimeChat's ``iou``, Time-R1's and VideoChat-R1's ``max(iou_, 0)``: all three are this."""
    return max(min(truth[1], answer[1]) - max(truth[0], answer[0]), 0) / (
        max(truth[1], answer[1]) - min(truth[0], answer[0])
    )


def test_charades_sta_is_scored_as_officially(tmp_path: Path) -> None:
    rng = random.Random(0)
    truths = [random_span(rng) for _ in range(300)]
    truths[:4] = [(8.0, 7.0), (3.0, 3.0), (25.0, 31.5), (29.9, 44.0)]  # reversed, an instant, behind 30 s
    answers: list[Span | None] = [random_span(rng) for _ in truths]
    answers[:4] = [(7.5, 7.8), (2.0, 4.0), (25.0, 30.0), (20.0, 44.0)]
    answers[4:9] = [None] * 5  # not to be read: the official scorers count 0
    names = [f"V{number % 40:02}" for number in range(len(truths))]
    lines = [
        f"{name} {start} {end}##a person sits." for name, (start, end) in zip(names, truths, strict=True)
    ]
    (tmp_path / "charades_sta_test.txt").write_text("\n".join(lines) + "\n")
    ids = [f"{name}-{names[:number].count(name)}" for number, name in enumerate(names)]
    texts = ["?" if one is None else f"<answer>{one[0]} to {one[1]}</answer>" for one in answers]
    found = scored(
        tmp_path / "run",
        dict(zip(ids, texts, strict=True)),
        "task=[grounding]",
        f"annotations={tmp_path / 'charades_sta_test.txt'}",
    )
    pairs = zip(truths, answers, strict=True)
    ious = np.array([0.0 if answer is None else overlap(truth, answer) for truth, answer in pairs])
    official = {"mIoU": ious.mean()} | {f"R@{least}": (ious >= least).mean() for least in (0.3, 0.5, 0.7)}
    assert found["samples"] == 300
    assert {name: found[name] for name in official} == pytest.approx(official, abs=CLOSE)
    # By hand: 25..30 against 25..31.5 is 5 of 6.5 s; clamped to a video of 30 s it would be 1.
    assert ious[:4] == pytest.approx([0, 0, 5 / 6.5, 14.1 / 24])


# ------------------------------------------------------------------------------------------------ NExT-GQA


def t_iou(location: Span, span: Span) -> tuple[float, float]:
    """``get_tIoU``."""
    if span[0] == span[1]:
        return 0.0, float(location[0] <= span[0] <= location[1])
    shared = min(location[1], span[1]) - max(location[0], span[0])
    union = max(location[1], span[1]) - min(location[0], span[0])
    return shared / union if union > 0 else 0.0, shared / (span[1] - span[0]) if span[1] > span[0] else 0.0


def eval_ground(rows: list[tuple[list[Span], Span, bool]]) -> dict[str, float]:
    """``eval_ground`` of (true spans, answered span, whether the letter is right)."""
    best = [
        tuple(max(0.0, *(t_iou(one, span)[k] for one in spans)) for k in (0, 1)) for spans, span, _ in rows
    ]
    ious, iops = np.array(best).T
    right = np.array([one for *_, one in rows])
    shares = {f"{name}@{least}": (values >= least).mean() for name, values in (("IoU", ious), ("IoP", iops))
              for least in (0.3, 0.5)}  # fmt: skip
    means = {"mIoU": ious.mean(), "mIoP": iops.mean(), "Acc": right.mean()}
    return means | shares | {"Acc@GQA": ((iops >= 0.5) & right).mean()}


def gqa_rows(count: int = 300) -> list[tuple[list[Span], Span, bool]]:
    rng = random.Random(1)
    rows = []
    for _ in range(count):
        spans = [random_span(rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
        near = rng.choice(spans) if rng.random() < 0.5 else random_span(rng)
        answer = (max(0.0, round(near[0] + rng.uniform(-2, 2), 1)), round(near[1] + rng.uniform(0, 2), 1))
        rows.append((spans, answer if answer[0] < answer[1] else near, rng.random() < 0.6))
    rows[0] = ([(2.0, 5.0)], (3.0, 3.0), True)  # an instant inside: IoU 0, IoP 1
    rows[1] = ([(2.0, 5.0)], (6.0, 6.0), True)  # and one outside
    rows[2] = ([(7.0, 6.0), (1.0, 2.0)], (1.0, 2.0), True)  # a reversed span beside a good one
    rows[3] = ([(7.0, 6.0)], (5.0, 8.0), True)  # nothing but a reversed one
    rows[4] = ([(28.0, 34.5)], (28.0, 30.0), True)  # ends behind the video of 30 s
    return rows


def gqa_files(folder: Path, rows: list[tuple[list[Span], Span, bool]]) -> dict[str, str]:
    """NExT-GQA's own files and VideoChat-R1's JSON of the same questions; completions by id."""
    located: dict[str, Any] = {}
    texts, forms = {}, []
    with (folder / "test.csv").open("w", newline="\r\n", encoding="utf-8-sig") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["video_id", "frame_count", "question", "answer", "qid", "type", *(f"a{k}" for k in range(5))]
        )
        for number, (spans, (start, end), right) in enumerate(rows):
            video, place = f"v{number % 50}", number % 5
            options = [f"thing {k}" for k in range(5)]
            if number == 5:  # the answer stands twice: the first is right
                options[3] = options[0]
            table.writerow([video, 900, "why?", options[place], number, "CW", *options])
            entry = located.setdefault(video, {"duration": 30, "fps": 30.0, "location": {}})
            entry["location"][str(number)] = spans
            letter = "ABCDE"[place if right else (place + 1) % 5]
            texts[f"{video}_{number}"] = f"<answer>{letter}</answer><glue>[({start}, {end})]</glue>"
            forms.append(
                {"id": f"{video}_{number}", "video": video, "question": "why?", "type": "CW", "duration": 30,
                 "options": [f"({'ABCDE'[k]}) {option}" for k, option in enumerate(options)],
                 "answer": f"({'ABCDE'[place]})", "glue": spans}
            )  # fmt: skip
    (folder / "gsub_test.json").write_text(json.dumps(located))
    (folder / "nextgqa.json").write_text("\ufeff" + json.dumps(forms), encoding="utf-8")
    return texts


def test_nextgqa_is_scored_as_officially_from_either_form(tmp_path: Path) -> None:
    rows = gqa_rows()
    folder = tmp_path / "nextgqa"
    folder.mkdir()
    texts = gqa_files(folder, rows)
    (folder / "map_vid_vidorID.json").write_text("{}")
    official = eval_ground(rows)
    own = scored(
        tmp_path / "csv", texts, "benchmark=[nextgqa]", "task=[grounded_qa]", f"data.root={tmp_path}"
    )
    shipped = scored(tmp_path / "json", texts, "task=[grounded_qa]", f"annotations={folder / 'nextgqa.json'}")
    for found in (own, shipped):
        assert found["samples"] == 300
        assert {name: found[name] for name in official} == pytest.approx(official, abs=CLOSE)
    assert own == shipped


# ------------------------------------------------------------------------------------------------- GOT-10k


def rect_iou(first: np.ndarray, second: np.ndarray, width: float, height: float) -> np.ndarray:
    """The toolkit's ``rect_iou`` of ``[N, 4]`` rectangles ``x, y, w, h``, bounded by the frame."""
    bounded = []
    for rects in (first.copy(), second.copy()):
        for side, limit in ((0, width), (1, height)):
            rects[:, side] = np.clip(rects[:, side], 0, limit)
            rects[:, side + 2] = np.clip(rects[:, side + 2], 0, limit - rects[:, side])
        bounded.append(rects)
    a, b = bounded
    w = np.minimum(a[:, 0] + a[:, 2], b[:, 0] + b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    h = np.minimum(a[:, 1] + a[:, 3], b[:, 1] + b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(w, 0) * np.maximum(h, 0)
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared
    return np.clip(shared / (union + np.finfo(float).eps), 0, 1)


def test_got10k_is_scored_as_by_the_toolkit(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    width, height, frames, asked = 640, 360, 15, [0, 2, 4, 6, 8, 10, 12, 14]
    root = tmp_path / "got10k" / "val"
    root.mkdir(parents=True)
    ious, texts, names = [], {}, [f"GOT-10k_Val_{number:06}" for number in range(40)]
    (root / "list.txt").write_text("\n".join(names))
    for number, name in enumerate(names):
        boxes = np.c_[rng.integers(-40, 600, (frames, 1)), rng.integers(-20, 330, (frames, 1)),
                      rng.integers(1, 200, (frames, 2))].astype(float)  # fmt: skip
        hidden = {4, 10} if number == 3 else {3} if number == 4 else set()  # frame 3 is not asked
        (root / name).mkdir()
        (root / name / "groundtruth.txt").write_text(
            "\n".join(",".join(f"{v:.4f}" for v in box) for box in boxes)
        )
        (root / name / "absence.label").write_text("\n".join(str(int(k in hidden)) for k in range(frames)))
        meta = f"[METAINFO]\nobject_class: thing\nresolution: ({width}, {height})\nanno_fps: 10Hz"
        (root / name / "meta_info.ini").write_text(meta)
        answer = boxes[asked] + rng.normal(0, 20, (8, 4))
        answer[:, :2] = np.clip(answer[:, :2], 0, [width - 10, height - 10])
        answer[:, 2:] = np.clip(answer[:, 2:], 1, [width, height] - answer[:, :2])
        corners = np.c_[answer[:, :2], answer[:, :2] + answer[:, 2:]] / [width, height, width, height]
        rows = ", ".join("[" + ", ".join(f"{v:.9f}" for v in box) + "]" for box in corners)
        texts[name] = f"<answer>[{rows}]</answer>"
        corners = np.round(corners, 9) * [width, height, width, height]
        answer = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]
        seen = [k for k in range(1, 8) if asked[k] not in hidden]
        ious.append(rect_iou(answer, boxes[asked], width, height)[seen])
    overrides = ["benchmark=[got10k]", "task=[tracking]", f"data.root={tmp_path}"]
    found = scored(tmp_path / "run", texts, *overrides)
    # The toolkit's mean is over frames. Sequences weigh the same here, which differs only where the object is
    # absent in an asked frame: in one of these 40.
    official = {"AO": np.mean([one.mean() for one in ious])}
    official |= {f"SR@{least}": np.mean([(one > least).mean() for one in ious]) for least in (0.5, 0.75)}
    assert found["samples"] == 40
    assert {name: found[name] for name in official} == pytest.approx(official, abs=CLOSE)
    whole = [one for number, one in enumerate(ious) if number != 3]
    assert np.mean(np.concatenate(whole)) == pytest.approx(np.mean([one.mean() for one in whole]), abs=1e-12)


def calculate_iou(a: list[float], b: list[float]) -> float:
    """VideoChat-R1's ``calculate_iou`` of two boxes by their corners."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, w) * max(0, h)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def test_tracking_of_videochat_r1_is_scored_as_by_its_own_code(tmp_path: Path) -> None:
    rng = random.Random(3)

    def box(low: float, high: float) -> list[float]:
        x0, x1 = sorted(round(rng.uniform(low, high), 3) for _ in range(2))
        y0, y1 = sorted(round(rng.uniform(low, high), 3) for _ in range(2))
        return [x0, y0, x1 + 0.001, y1 + 0.001]

    truths = [[box(-0.1, 1.1) for _ in range(8)] for _ in range(50)]  # reach out of the frame, as published
    truths[0][2] = [0.6, 0.2, 0.4, 0.5]  # reversed
    answers = [[box(0.0, 0.99) for _ in range(8)] for _ in truths]
    root = "/mnt/somebody/GOT-10k/raw/GOT-10k/val"
    rows = [
        {"path": f"{root}/GOT-10k_Val_{number:06}", "object": "bear", "gt": boxes}
        for number, boxes in enumerate(truths)
    ]
    (tmp_path / "got10k").mkdir()
    (tmp_path / "got10k" / "got_val.json").write_text(json.dumps(rows))
    texts = {row["path"]: f"<answer>{answer}</answer>" for row, answer in zip(rows, answers, strict=True)}
    overrides = ["benchmark=[got10k_json]", "task=[tracking]", f"data.root={tmp_path}"]
    found = scored(tmp_path / "run", texts, *overrides)
    pairs = [zip(answer, truth, strict=True) for answer, truth in zip(answers, truths, strict=True)]
    ious = np.array([np.mean([calculate_iou(*pair) for pair in one]) for one in pairs])
    official = {"mIoU": ious.mean(), "R@0.5": (ious >= 0.5).mean(), "R@0.7": (ious >= 0.7).mean()}
    assert found["samples"] == 50
    assert {name: found[name] for name in official} == pytest.approx(official, abs=CLOSE)


# ----------------------------------------------------------------------------------------- multiple choice


def test_multiple_choice_is_scored_as_officially(tmp_path: Path) -> None:
    rng = random.Random(4)
    (tmp_path / "mvbench" / "json").mkdir(parents=True)
    texts, right = {}, {}
    for task in ("action_count", "moving_direction"):
        rows = []
        for number in range(60):
            candidates = [f"thing {k}" for k in range(rng.choice((2, 3, 4)))]
            if number == 0:
                candidates = ["left", "right", "left"]
            answer = "left" if number == 0 else rng.choice(candidates)
            rows.append(
                {"video": f"{number}.mp4", "question": "which?", "candidates": candidates, "answer": answer}
            )
            # ``qa_template``: every equal candidate is taken in turn, so that the last stays.
            place = max(k for k, candidate in enumerate(candidates) if candidate == answer)
            chosen = 2 if number == 0 else rng.randrange(len(candidates))
            texts[f"{task}-{number}"] = f"<answer>{'ABCD'[chosen]}</answer>"
            right[f"{task}-{number}"] = chosen == place
        (tmp_path / "mvbench" / "json" / f"{task}.json").write_text(json.dumps(rows))
    found = scored(tmp_path / "run", texts, "benchmark=[mvbench]", "task=[qa]", f"data.root={tmp_path}")
    assert found["samples"] == 120
    assert right["action_count-0"]
    assert found["accuracy"] == pytest.approx(np.mean(list(right.values())), abs=CLOSE)
