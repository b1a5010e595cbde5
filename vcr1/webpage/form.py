"""What a visitor has filled in, as a question. Pure but for the look at the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vcr1.errors import UserError
from vcr1.inference import Question, QuestionDefaults, read_questions
from vcr1.records import VideoSource
from vcr1.tasks import FREE, Task
from vcr1.webpage.files import Files


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits on what may be asked.

    Attributes:
        files: which videos.
        tasks: name -> task.
        max_query: most characters of a question, and of its options.
    """

    files: Files
    tasks: Mapping[str, Task]
    max_query: int

    def task(self, name: str) -> Task:
        """Return the task of a name; the one of free questions where there is none."""
        return self.tasks.get(name, FREE)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields as they were filled in.

    Attributes:
        upload: path of the uploaded video, if any.
        path: of a video in the server's folder, if none was uploaded.
        task: its name, or ``free``.
        query: the question.
        options: one in each line.
        box: four numbers with commas between them.
        start: of the part that is asked about, in seconds.
        end: of it.
    """

    upload: str | None = None
    path: str = ""
    task: str = FREE.name
    query: str = ""
    options: str = ""
    box: str = ""
    start: float | None = None
    end: float | None = None


def source_of(form: Form, files: Files) -> VideoSource:
    """Return the video from where the asked part begins.

    Raises:
        UserError: there is none that may be asked about, or no such part.
    """
    video = files.uploaded(form.upload) if form.upload else files.named(form.path.strip())
    try:
        return VideoSource(video, form.start or 0.0)
    except ValueError as error:
        raise UserError(f"the form: {error}") from error


def question_of(form: Form, rules: Rules) -> Question:
    """Return the question that a form asks.

    Raises:
        UserError: what is missing or does not fit.
    """
    video = source_of(form, rules.files).path
    needs = rules.task(form.task).needs
    if not form.query.strip() and needs.query is None:
        raise UserError("nothing is asked: type a question")
    common = {
        "options": [line.strip() for line in form.options.splitlines() if line.strip()]
        if needs.options
        else [],
        "box": numbers_of(form.box) if needs.box and form.box.strip() else None,
        "start": form.start,
        "end": form.end,
    }
    manner = QuestionDefaults(form.task, rules.tasks, rules.max_query, common, place="the form")
    (question,) = read_questions(video, [form.query] if form.query.strip() else [], manner)
    assert isinstance(question, Question)
    return question


def numbers_of(text: str) -> list[float] | str:
    """The numbers of a text such as ``0.1, 0.2, 0.4, 0.6``; the text where it has others than numbers."""
    try:
        return [float(part) for part in text[:200].strip(" []").split(",")]
    except ValueError:
        return text[:200]


def box_text(corners: Sequence[tuple[int, int]], width: int, height: int) -> str:
    """Return a box as the form has it, from two opposite corners in pixels of a picture."""
    across, down = (sorted(values) for values in zip(*corners, strict=True))
    box = (across[0] / width, down[0] / height, across[1] / width, down[1] / height)
    return ", ".join(f"{edge:.3f}" for edge in box)
