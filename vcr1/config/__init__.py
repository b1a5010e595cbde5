"""Building objects from configs: overrides, choices of option groups, and checks before anything heavy."""

from vcr1.config.building import build
from vcr1.config.entry import load_config
from vcr1.config.sources import build_data, build_task, read_annotations

__all__ = ["build", "build_data", "build_task", "load_config", "read_annotations"]
