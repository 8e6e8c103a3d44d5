"""Make the pictures of docs/how-to/from-a-map-to-a-corrected-cohort.md from the running plugin, with tests/gui.

    python tools/how_to_pictures.py [docs/images]

It needs a screen of 1366 x 768; without one, use Xvfb:

    xvfb-run -s "-screen 0 1366x768x24" python tools/how_to_pictures.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import napari
from pictures import save_picture, settle

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from napari_pbip import samples  # noqa: E402
from napari_pbip.gui.sessions import session_of  # noqa: E402
from tests.gui.corrected_cohort import CorrectedCohort  # noqa: E402
from tests.gui.reader import Reader  # noqa: E402
from tests.gui.test_corrected_cohort import PAGE  # noqa: E402


def main() -> None:
    """Follow the page, and make its pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    session = session_of(viewer)

    def shot(name: str) -> None:
        if name != "corrected-suggest":  # which shows one tile
            viewer.reset_view()
        settle()
        print(name, flush=True)
        save_picture(viewer, folder / f"{name}.jpg", most=150_000)

    with tempfile.TemporaryDirectory() as scratch:
        session.folder = Path(scratch) / "documents" / "napari-pbip"  # the sample project lies beside it
        # the microns per pixel that are entered are saved beside the slides, which must not be in the package
        others = {Path(shutil.copy(samples.frozen_section(), scratch)): 0.5}
        cohort = CorrectedCohort(viewer, settle, Reader(PAGE), shot)
        cohort.open_project()
        cohort.follow(others)
        session.close()
        viewer.close()


if __name__ == "__main__":
    main()
