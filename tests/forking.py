"""Processes of their own that need not load torch again: they are forked from one that has."""

from __future__ import annotations

import multiprocessing
from typing import Any


def forking(*modules: str) -> Any:
    """Return the context of multiprocessing that starts processes of modules, on Windows by loading them again.

    The process from which all are forked is started once in a run of tests, and has loaded the modules of the first.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules])
    return context
