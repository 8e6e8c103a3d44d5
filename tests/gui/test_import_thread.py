"""The thread that imports modules beside the window, and what it changes in Python meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from napari_pbip.gui import imports
from napari_pbip.gui.sessions import session_of

BUSY = """
import os, sys, time
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari_pbip.gui import imports
imports.begin()
def modules(seconds, work):
    before, end = len(sys.modules), time.monotonic() + seconds
    while time.monotonic() < end:
        work()
        time.sleep(0.001)
    return len(sys.modules) - before
idle = modules(0.5, application.processEvents)
time.sleep(0.1)
busy = modules(0.2, lambda: None)
import xmlrpc.client, wsgiref.handlers, imaplib
again = modules(0.5, application.processEvents)
print(idle, busy, again, flush=True)
os._exit(0)
"""


def test_the_thread_imports_nothing_while_the_main_thread_is_busy(display):
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60, check=True)
    idle, busy, again = map(int, ran.stdout.split())
    assert idle > 10
    assert again > 10
    assert busy <= 2  # what it was at


def test_python_is_as_before_when_all_is_imported(viewer, settle):
    settle(imports.finished)
    settle(lambda: gc.get_threshold()[2] < 1_000_000)  # all garbage is collected again
    assert sys.getswitchinterval() == pytest.approx(0.005)
    assert session_of(viewer)
