"""What an index shows of the package, from the metadata that its build backend makes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from tests.test_readme import ROOT

ADDRESS = "https://code.example/someone/napari-pbip"


def metadata(address: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NAPARI_PBIP_REPOSITORY"}
    if address is not None:
        environment["NAPARI_PBIP_REPOSITORY"] = address
    command = [sys.executable, "-m", "hatchling", "metadata"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def targets(facts: dict[str, Any]) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", facts["readme"]["text"])


def test_links_of_what_is_published_are_absolute():
    facts = json.loads(metadata(f"{ADDRESS}/").stdout)
    found = targets(facts)
    assert len(found) > 30
    assert all(target.startswith(("https://", "#")) for target in found)
    assert f"{ADDRESS}/raw/v{facts['version']}/docs/images/tune.jpg" in found
    assert all(url.startswith("https://") for url in facts["urls"].values())
    assert facts["urls"]["Source"] == ADDRESS


def test_a_local_build_needs_no_address():
    facts = json.loads(metadata(None).stdout)
    assert "urls" not in facts
    assert "docs/images/tune.jpg" in targets(facts)


@pytest.mark.parametrize("address", ["", "napari-pbip", "https://code.example"])
def test_a_build_for_publishing_needs_an_address(address: str):
    done = metadata(address)
    assert done.returncode != 0
    assert "set it to the address of the repository, https://HOST/OWNER/NAME." in done.stderr


def test_the_recipe_needs_what_the_package_needs():
    other = {"dask[array]": "dask-core", "torch": "pytorch", "openslide-bin": "openslide"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.fullmatch(r"([\w\-\[\]]+)(.*)", one).groups() for one in project["dependencies"]]
    recipe = yaml.safe_load((ROOT / "tools" / "conda-forge" / "recipe.yaml").read_text(encoding="utf-8"))
    found = dict(one.split(" ", 1) for one in recipe["requirements"]["run"])
    found = {name: bounds for name, bounds in found.items() if name not in {"python", "pyqt"}}  # a recipe names both
    expected = {other.get(name, name): bounds for name, bounds in needed}
    expected["openslide"] = ">=4.0.0"  # the wheel counts its own builds
    assert found == expected
