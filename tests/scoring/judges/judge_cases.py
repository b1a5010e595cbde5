"""What the tests of the judge behind an endpoint share: a judge that is quick to retry, and captions."""

from typing import Any

from vcr1.scoring.judges import CaptionPair, EndpointJudge, Verdict

REFERENCE = "A man opens a door. He sits down. He reads."
LISTED = CaptionPair(REFERENCE, "He sits down. He sleeps.", events=("He sits down", "He reads"))
"""With its events listed and without precision it takes a single request, and has recall 1/2."""


def judge_at(url: str, **settings: Any) -> EndpointJudge:
    """A judge that is quick to retry."""
    quick: dict[str, Any] = {"timeout": 20.0, "retries": 2, "backoff": 0.01, "max_wait": 0.05}
    return EndpointJudge(url, "judge-model", **quick | settings)


def judged(judge: EndpointJudge, *pairs: CaptionPair) -> list[Verdict]:
    return judge.begin(pairs).result()
