"""The parts of :mod:`vcr1.check`: trying the videos, judging the samples, and the tables."""

from vcr1.checking.facts import Spread, facts_of, spread
from vcr1.checking.tables import show_check
from vcr1.checking.trying import Tried, check_settings, refusals, try_all

__all__ = ["Spread", "Tried", "check_settings", "facts_of", "refusals", "show_check", "spread", "try_all"]
