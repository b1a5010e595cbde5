"""Data sets, batches and the DataModules."""

from vcr1.data.datamodule import MixtureDataModule, TaskDataModule
from vcr1.data.dataset import MixedDataset, VideoDataset, with_wrong_videos
from vcr1.data.fitting import TOLERANCE, misfit, oddities
from vcr1.data.loading import LoaderSettings
from vcr1.data.order import MixtureSampler, Order

__all__ = [
    "TOLERANCE",
    "LoaderSettings",
    "MixedDataset",
    "MixtureDataModule",
    "MixtureSampler",
    "Order",
    "TaskDataModule",
    "VideoDataset",
    "misfit",
    "oddities",
    "with_wrong_videos",
]
