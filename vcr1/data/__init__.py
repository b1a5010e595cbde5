"""Data sets, batches and the DataModules."""

from vcr1.data.datamodule import TaskDataModule
from vcr1.data.dataset import VideoDataset, with_wrong_videos

__all__ = ["TaskDataModule", "VideoDataset", "with_wrong_videos"]
