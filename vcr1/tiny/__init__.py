"""The embedded world's model: a tiny Qwen2.5-VL and how it is made from nothing."""

from vcr1.tiny.model import build_policy
from vcr1.tiny.pretraining import DenseVideoLabels

__all__ = ["DenseVideoLabels", "build_policy"]
