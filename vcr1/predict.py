"""Ask about a video: ``python -m vcr1.predict video=clip.mp4 task=grounding query="..." checkpoint=...``.

Prints the answers, a single one as it grows, and writes them to ``answers.json`` in the run's folder; with
``render=out.mp4`` also the video with the answers drawn in. A folder of videos or a JSONL file is a batch.
Exit status: 0 where all is answered, 1 where some of several questions are not, 2 where nothing can be asked.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("predict", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig

from vcr1.config.building import build
from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.config.sources import video_reader
from vcr1.errors import UserError, VideoError
from vcr1.inference import (
    Answer,
    Asker,
    CluePlan,
    Failure,
    Limits,
    Question,
    Terminal,
    Watch,
    as_text,
    build_asker,
    check_length,
    check_prediction,
    check_render,
    is_batch,
    questions_of,
    render_answers,
    report_of,
    write_answers,
)
from vcr1.policy.memory import Unanswered, together_or_alone


def predict(cfg: DictConfig, terminal: Terminal | None = None) -> dict[str, Any]:
    """Answer the configured questions, print and write the answers.

    Returns:
        The content of answers.json, see :func:`vcr1.inference.report_of`.

    Raises:
        UserError: nothing can be asked, or the only video cannot be shown.
    """
    terminal = terminal or Terminal()
    limits: Limits = build(cfg.limits)
    plan: CluePlan = build(cfg.clues)
    asked = questions_of(cfg, limits, plan)
    batch, questions = is_batch(cfg), [one for one in asked if isinstance(one, Question)]
    reader = video_reader(cfg)
    if not batch:  # what can be known of the only video is known before the weights are loaded
        check_length(questions[0].source, limits, reader)
    check_render(cfg, batch)
    device = check_prediction(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    asker = build_asker(cfg, device, limits, reader)
    found: list[Answer | Failure] = []
    complete = False
    try:
        for one in answer_all(asker, asked, plan, batch, terminal):
            terminal.show(one)
            found.append(one)
        complete = True
    finally:
        report = report_of(found, cfg.model.path, complete)
        if found:  # also what there is of a batch that was interrupted
            write_answers(report, Path(cfg.out))
    if cfg.render is not None:
        answers = [one for one in found if isinstance(one, Answer)]
        render_answers(questions[0].source, answers, Path(cfg.render), reader)
    terminal.finish(report, Path(cfg.out))
    return report


def answer_all(
    asker: Asker, asked: Sequence[Question | Failure], plan: CluePlan, batch: bool, terminal: Terminal
) -> Iterator[Answer | Failure]:
    """Yield first what cannot be asked, then the answers, group by group.

    Raises:
        VideoError: the only video cannot be shown; in a batch it fails its questions.
        UserError: the only question cannot be answered; one of several is a failure of its own.
    """
    yield from (one for one in asked if isinstance(one, Failure))
    questions = [one for one in asked if isinstance(one, Question)]
    alone = len(questions) == 1
    for group in [[one] for one in questions] if plan.rounds else asker.group(questions):
        try:
            found = answer_group(asker, group, plan, terminal.stream if alone else None)
        except VideoError as error:
            if not batch:
                raise
            found = [Failure(one.id, one.source.path, one.query, str(error)) for one in group]
        if alone and not batch and isinstance(found[0], Failure):
            raise UserError(found[0].reason)
        yield from found


def answer_group(
    asker: Asker, group: Sequence[Question], plan: CluePlan, watch: Watch | None
) -> list[Answer | Failure]:
    """Answers to questions about the same frames; where there is no memory for all, one after the other.

    Raises:
        VideoError: the video cannot be shown.
    """

    def ask(places: list[int]) -> list[Answer]:
        chosen = [group[place] for place in places]
        if plan.rounds:
            return [asker.ask_again(one, plan) for one in chosen]
        return asker.ask(chosen, watch=watch)

    found = together_or_alone(len(group), ask)
    return [
        Failure(question.id, question.source.path, question.query, one.reason)
        if isinstance(one, Unanswered)
        else asker.scored(one)
        for question, one in zip(group, found, strict=True)
    ]


def run_job(cfg: DictConfig) -> None:
    """Ask, print and write, as a Hydra job."""
    transformers.utils.logging.disable_progress_bar()
    with exit_on_user_error():
        report = predict(cfg)
    if report["counts"]["failures"]:
        sys.exit(1)


_main = command_line(run_job, "predict")


def main() -> None:
    """The command line; questions and paths may be written without Hydra's quotes."""
    sys.argv[1:] = as_text(sys.argv[1:])
    _main()


if __name__ == "__main__":
    main()
