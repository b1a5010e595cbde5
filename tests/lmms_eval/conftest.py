"""Questions about clips of the embedded world, and the functions that lmms-eval asks them by."""

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest
from lmms_cases import FPS, SIDE, TASKS

from vcr1.video import draw_spec, render, write_mp4


@pytest.fixture(scope="session")
def questions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of the embedded world and ``data/grounding/val.jsonl`` with twelve questions about them."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "data" / "grounding").mkdir(parents=True)
    (folder / "data" / "videos").mkdir()
    rng, lines = random.Random(5), []
    for number in range(6):
        spec = draw_spec(rng)
        write_mp4(folder / "data" / "videos" / f"clip{number}.mp4", render(spec, SIDE, FPS), FPS)
        for event in spec.events:
            query = f"the {event.color} {event.shape} appears"
            line = {"id": f"clip{number}-{event.color}", "video": f"clip{number}.mp4", "query": query}
            lines.append(json.dumps(line | {"interval": [event.start, event.end]}) + "\n")
    (folder / "data" / "grounding" / "val.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def questions(questions_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The functions of the task vcr1_grounding, as lmms-eval imports them, in the folder of the questions."""
    monkeypatch.chdir(questions_folder)
    path = TASKS / "vcr1_grounding" / "questions.py"
    spec = importlib.util.spec_from_file_location("questions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
