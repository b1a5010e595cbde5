"""vcr1: reinforcement fine-tuning of video language models on spatio-temporal tasks."""

__version__ = "0.1.0"
