"""The public names of ``import napari_pbip``; ``test_imports.py`` tests what it loads."""

from __future__ import annotations

import re
import types

import pytest

import napari_pbip
from tests.test_imports import HEAVY, brought_along
from tests.test_readme import ROOT

NEED_TORCH = {"Backbone", "Cam", "Encoder", "PyramidMethod", "build_bank", "compare", "evaluate", "export"}
NEED_TORCH |= {"pseudo_masks", "segment", "segment_slides", "train"}


def test_the_page_lists_the_public_names():
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    described = re.findall(r"^\.\. auto(?:class|function|module):: (?:napari_pbip\.)?(\w+)$", page, re.MULTILINE)
    settings = set(re.findall(r"`(\w+(?:Settings|Job))`", page))  # whose fields are on another page
    assert sorted([*described, *settings]) == napari_pbip.__all__


@pytest.mark.parametrize("name", napari_pbip.__all__)
def test_a_public_name_is_documented(name: str):
    value = getattr(napari_pbip, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")  # what a dataclass says of itself
    assert isinstance(value, types.ModuleType) or value.__name__ == name


def test_names_load_no_torch_unless_they_compute():
    light = [name for name in napari_pbip.__all__ if name not in NEED_TORCH]
    assert len(light) > 20
    loaded = brought_along(f"napari_pbip; from napari_pbip import {', '.join(light)}; import sys")
    assert not loaded & HEAVY


def test_what_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="no_such_name"):
        napari_pbip.no_such_name  # noqa: B018
    assert {"segment", "open_slide"} <= set(dir(napari_pbip))
