"""Model text to values. The text is hostile: nothing here raises, evaluates or backtracks.

Every parser returns the value or a `ParseFailure` whose reason comes from the parser's fixed set, and
takes time linear in the text. Texts over `MAX_TEXT` characters are refused whole rather than read by
their tail: no completion within the token limit is near that long, so such a text is a runaway.
"""

from vcr1.scoring.parsing.blocks import (
    CAPTION_FAILURES,
    MAX_TEXT,
    answer_block,
    glue_block,
    parse_caption,
    read_answer,
    read_glue,
    without_tags,
)
from vcr1.scoring.parsing.boxes import BOX_FAILURES, format_boxes, parse_boxes
from vcr1.scoring.parsing.choices import LETTER_FAILURES, parse_letter, parse_option
from vcr1.scoring.parsing.classes import CLASS_FAILURES, parse_class
from vcr1.scoring.parsing.forms import has_answer_format, has_boxes_format, has_glue_format
from vcr1.scoring.parsing.intervals import (
    GLUE_FAILURES,
    INTERVAL_FAILURES,
    format_interval,
    format_intervals,
    parse_interval,
    parse_intervals,
)
from vcr1.scoring.parsing.spans import MAX_INTERVALS
from vcr1.scoring.parsing.times import MAX_SECONDS, MAX_TIME_CHARS

__all__ = [
    "BOX_FAILURES",
    "CAPTION_FAILURES",
    "CLASS_FAILURES",
    "GLUE_FAILURES",
    "INTERVAL_FAILURES",
    "LETTER_FAILURES",
    "MAX_INTERVALS",
    "MAX_SECONDS",
    "MAX_TEXT",
    "MAX_TIME_CHARS",
    "answer_block",
    "format_boxes",
    "format_interval",
    "format_intervals",
    "glue_block",
    "has_answer_format",
    "has_boxes_format",
    "has_glue_format",
    "parse_boxes",
    "parse_caption",
    "parse_class",
    "parse_interval",
    "parse_intervals",
    "parse_letter",
    "parse_option",
    "read_answer",
    "read_glue",
    "without_tags",
]
