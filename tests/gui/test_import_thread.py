"""The thread that imports modules beside the window, and what it changes in Python meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from napari_pbip.gui import imports
from napari_pbip.gui.sessions import session_of
from tests.waiting import PATIENCE

BUSY = """
import os, sys, time
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari_pbip.gui import imports
imports._LONGEST_S = float("inf")  # however slow this machine is
imports.begin()
def ten_more():
    goal = len(sys.modules) + 10
    while len(sys.modules) < goal:
        application.processEvents()
        time.sleep(0.001)
ten_more()
time.sleep(0.2)
before = len(sys.modules)
time.sleep(0.2)
busy = len(sys.modules) - before
import xmlrpc.client, wsgiref.handlers, imaplib
ten_more()
print(busy, flush=True)
os._exit(0)
"""

TORCH = """
import os, sys
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari_pbip.gui import imports
imports._import_all = lambda: imports._stop.wait()
imports.begin()
class Watching:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            stats = sys.modules.get("scipy.stats")
            print(stats is not None and not stats.__spec__._initializing, flush=True)
sys.meta_path.insert(1, Watching())
import torch
os._exit(0)
"""


def test_a_part_of_torch_is_in_nobodys_way(display):
    """While one thread, such as that of a job, imports torch, scipy.stats cannot be imported in another one."""
    ran = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert ran.stdout == "True\n"


def test_the_thread_imports_nothing_while_the_main_thread_is_busy(display):
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert int(ran.stdout) <= 2  # what it was at


def test_python_is_as_before_when_all_is_imported(viewer, settle):
    settle(imports.finished)
    settle(lambda: gc.get_threshold()[2] < 1_000_000)  # all garbage is collected again
    assert sys.getswitchinterval() == pytest.approx(0.005)
    assert session_of(viewer)
