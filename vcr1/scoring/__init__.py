"""Scoring answers: parsers, geometry, rewards, metrics and judges (language models that grade text)."""
