"""What lmms-eval asks of the task vcr1_grounding: vcr1's own samples, prompt, parser and metrics.

lmms-eval calls these functions by their names in ``vcr1_grounding.yaml``. Another task of vcr1 wants its
class here, and its metrics there.
"""

from functools import cache
from typing import Any

from vcr1.errors import UserError
from vcr1.readers import Purpose, read_jsonl, reading_for
from vcr1.records import Sample
from vcr1.tasks import GroundingTask

ANNOTATIONS, VIDEOS = "data/grounding/val.jsonl", "data/videos"  # from the folder of the command
TASK = GroundingTask()


@cache
def samples() -> dict[str, Sample]:
    """The usable lines by id, with the truth as the file has it."""
    with reading_for(Purpose.HELD_OUT):
        return {sample.id: sample for sample in read_jsonl(ANNOTATIONS, VIDEOS, TASK).samples}


def sample_of(line: dict[str, Any]) -> Sample:
    """The sample that a line is."""
    return samples()[str(line["id"])]


def usable(lines: Any) -> Any:
    """The lines of a ``datasets.Dataset`` that are samples.

    Raises:
        UserError: a line without an id, by which answers are told apart.
    """
    if "id" not in lines.column_names or None in lines["id"]:
        raise UserError(f"{ANNOTATIONS}: every line needs an id for lmms-eval; give it one")
    return lines.filter(lambda line: str(line["id"]) in samples())


def video(line: dict[str, Any]) -> list[str]:
    """Path of the one video."""
    return [sample_of(line).source.path]


def prompt(line: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    """The question in vcr1's words."""
    return TASK.prompt(sample_of(line)).text


def target(line: dict[str, Any]) -> str:
    """The right answer."""
    return TASK.answer(sample_of(line))


def scores(line: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Metrics of one answer. Id and text go into the log too, which ``vcr1.score`` reads as it is."""
    sample, (text,) = sample_of(line), texts
    (judgement,) = TASK.judge([text], [sample]).result()
    return TASK.summarise([judgement]) | {"id": sample.id, "completion": text}
