from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def small_encoder_tiles() -> Iterator[None]:
    """Let pre-training fit its encoder to smaller tiles, which otherwise takes three quarters of a short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_pbip.engine.training.pretrain._TILE", 96)
        yield
