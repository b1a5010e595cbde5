"""Processes that can be killed without harm to the tests."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import pytest


@pytest.fixture(scope="session")
def child() -> Callable[..., BaseProcess]:
    """Starts a function in a process of its own, forked from one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vcr1.train"])

    def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start
