"""Judges of captions: which events of a reference caption does a prediction tell?"""

from vcr1.scoring.judges.base import JUDGE_FAILURES, CaptionPair, EventJudge, Verdict, f1
from vcr1.scoring.judges.endpoint import EndpointJudge
from vcr1.scoring.judges.lexical import LexicalJudge

__all__ = [
    "JUDGE_FAILURES",
    "CaptionPair",
    "EndpointJudge",
    "EventJudge",
    "LexicalJudge",
    "Verdict",
    "f1",
]
