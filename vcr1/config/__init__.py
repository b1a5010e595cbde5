"""Building objects from configs: overrides, choices of option groups, and checks before anything heavy."""

from vcr1.config.building import build, build_data, build_task, load_config, read_annotations

__all__ = ["build", "build_data", "build_task", "load_config", "read_annotations"]
