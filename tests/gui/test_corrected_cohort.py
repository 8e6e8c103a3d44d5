"""docs/how-to/from-a-map-to-a-corrected-cohort.md, followed with mouse and keys; the other slide is smaller here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import pytest
import tifffile

from napari_pbip import samples
from napari_pbip.config import SegmentSettings
from napari_pbip.gui.sessions import session_of
from napari_pbip.slides import open_slide
from tests.gui.corrected_cohort import CorrectedCohort
from tests.gui.qt_helpers import Settle
from tests.gui.reader import DOCS, Reader

PAGE = "how-to/from-a-map-to-a-corrected-cohort.md"


def test_the_page_can_be_followed(viewer: Any, settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: tmp_path / "cache")
    part = tmp_path / "tumour.tif"
    with open_slide(samples.frozen_section()) as slide:
        pixels = slide.read_level(0, slide.width // 2 - 300, slide.height // 2 - 300, 600, 600)
    tifffile.imwrite(part, pixels, tile=(256, 256), photometric="rgb")
    session, reader = session_of(viewer), Reader(PAGE)
    session.folder = tmp_path / "documents" / "napari-pbip"
    pictures: list[str] = []
    cohort = CorrectedCohort(viewer, settle, reader, pictures.append)
    cohort.open_project()
    session.change(segment=SegmentSettings(device="cpu", precision="float32", overlap=16))
    cohort.follow({part: 0.5})
    assert reader.names == reader.read | {"Plugins > PBIP tissue segmentation"}
    for name in pictures:
        assert f"(../images/{name}.jpg)" in reader.page
        assert 0 < (DOCS / "images" / f"{name}.jpg").stat().st_size < 150_000
