"""An answer as a stream, for those who cannot be called back: its text as it grows, and then the answer."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread

from vcr1.inference.answers import Answer
from vcr1.inference.asking import Asker
from vcr1.inference.clues import CluePlan
from vcr1.inference.questions import Question

NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What a character whose bytes have not all come yet is decoded as."""


class _Left(Exception):
    """Nobody waits for the answer any more."""


def stream_answer(asker: Asker, question: Question, plan: CluePlan) -> Iterator[str | Answer]:
    """Yield the answer's text each time that it has grown, then the answer itself.

    With further looks the text begins anew with each look. Streams from one model wait for each other.
    Whoever closes the iterator stops the model at the next token, and waits for it to have stopped.

    Raises:
        VideoError: the video cannot be shown.
        UserError: the prompt or a setting does not fit the model.
    """
    news: SimpleQueue[str | Answer | BaseException] = SimpleQueue()
    left = Event()

    def watch(text: str) -> None:
        if left.is_set():
            raise _Left
        news.put(text.rstrip(NO_CHARACTER))

    def work() -> None:
        try:
            with asker.alone:
                if plan.rounds:
                    news.put(asker.ask_again(question, plan, watch))
                else:
                    news.put(asker.ask([question], watch=watch)[0])
        except BaseException as error:  # it is raised where the stream is read
            news.put(error)

    worker = Thread(target=work, name="answer", daemon=True)
    worker.start()
    try:
        while True:
            new = news.get()
            if isinstance(new, BaseException):
                raise new
            yield new
            if isinstance(new, Answer):
                return
    finally:
        left.set()
        worker.join()
