"""Packages that add to this one, installed into a folder: those of the how-to pages, and smaller ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
_FILE = re.compile(r"^`(?P<name>[\w./-]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def install_page(page: str, site: Path) -> None:
    """Build the package of a page, as ``pip install .`` does in its folder, and unpack it into a folder of packages."""
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    files = {m["name"]: m["text"] for m in _FILE.finditer(text)}
    files |= dict.fromkeys(re.findall(r"^An empty file, `([\w./]+)`", text, re.MULTILINE), "")
    assert len(files) == 4
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_text(content, encoding="utf-8")
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
        subprocess.run(build, cwd=folder, check=True)
        (wheel,) = Path(folder, "dist").iterdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def register(site: Path, package: str, entry_points: Mapping[str, Mapping[str, str]]) -> None:
    """Write the files in which pip records a package's name and entry points."""
    facts = site / f"{package.replace('-', '_')}-0.1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n", encoding="utf-8")
    lines = [
        line
        for group, entries in entry_points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (facts / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def with_site(site: Path) -> dict[str, str]:
    """Return an environment in which a program finds the packages of a folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
