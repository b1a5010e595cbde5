"""Building objects from configs: overrides, choices of option groups, and checks before anything heavy."""
