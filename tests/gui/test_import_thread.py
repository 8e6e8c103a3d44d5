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


def test_the_thread_imports_nothing_while_the_main_thread_is_busy(display):
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert int(ran.stdout) <= 2  # what it was at


def test_python_is_as_before_when_all_is_imported(viewer, settle):
    settle(imports.finished)
    settle(lambda: gc.get_threshold()[2] < 1_000_000)  # all garbage is collected again
    assert sys.getswitchinterval() == pytest.approx(0.005)
    assert session_of(viewer)
