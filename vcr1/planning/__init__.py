"""What a run will need, before anything heavy: parameters, bytes on each GPU, floating-point work."""

from vcr1.planning.advice import Advice, advise
from vcr1.planning.choice import with_strategy
from vcr1.planning.flops import work
from vcr1.planning.memory import MOMENTS, Memory, Setup, memory
from vcr1.planning.report import Plan, announce_plan, make_plan, plan_of, show_plan
from vcr1.planning.settings import setup_of, weight_sizes_of
from vcr1.planning.shape import ModelShape, Tower, shape_of
from vcr1.planning.workload import PlannedSharding, Precision, WeightSizes, Workload

__all__ = [
    "MOMENTS",
    "Advice",
    "Memory",
    "ModelShape",
    "Plan",
    "PlannedSharding",
    "Precision",
    "Setup",
    "Tower",
    "WeightSizes",
    "Workload",
    "advise",
    "announce_plan",
    "make_plan",
    "memory",
    "plan_of",
    "setup_of",
    "shape_of",
    "show_plan",
    "weight_sizes_of",
    "with_strategy",
    "work",
]
