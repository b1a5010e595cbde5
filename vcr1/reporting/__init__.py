"""Showing a run to people: progress bar, loggers, tables, pictures, reports and model cards."""
