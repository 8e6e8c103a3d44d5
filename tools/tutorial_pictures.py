"""Make the pictures of docs/tutorial.md from the running plugin: the story that tests/gui tells, with more training.

    python tools/tutorial_pictures.py [docs/images]

Needs a screen; without one run it under Xvfb: xvfb-run -s "-screen 0 1600x1000x24" python tools/tutorial_pictures.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from napari.qt import get_qapp
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from napari_pbip.gui.session import session_of  # noqa: E402
from tests.gui.story import Story  # noqa: E402

STEPS = 120


def settle(until: Callable[[], Any] | None = None, seconds: float = 60) -> None:
    """Let the window work until a condition holds, or for a moment."""
    end = time.monotonic() + (seconds if until else 0.3)
    while time.monotonic() < end and not (until is not None and until()):
        get_qapp().processEvents()
        time.sleep(0.005)
    if until is not None and not until():
        raise TimeoutError("the window did not come so far")


def main() -> None:
    """Play the story and write a picture at each step."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    session = session_of(viewer)

    def shot(name: str) -> None:
        settle()
        Image.fromarray(viewer.screenshot(canvas_only=False)[..., :3]).save(folder / f"{name}.jpg", quality=85)
        print(name, flush=True)

    with tempfile.TemporaryDirectory() as project:
        # what the pictures show as the project folder
        session.folder = Path(project) / "skin"
        story = Story(viewer, settle, shot)
        story.look()
        story.teach()
        story.build_bank()
        story.train(steps=STEPS, batch_size=8, learning_rate=5e-4, warmup=10)
        story.segment()
        story.tune()
        session.close()
        viewer.close()


if __name__ == "__main__":
    main()
