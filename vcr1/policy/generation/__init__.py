"""Sampling of completions over shared prompts."""
