"""The packages of the how-to pages, installed into a folder as pip does, but faster."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
_FILE = re.compile(r"^`(?P<name>[\w./-]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def install_page(page: str, site: Path) -> None:
    """Write the files of a page's package, and what its ``pyproject.toml`` registers, into a folder of packages."""
    files = {m["name"]: m["text"] for m in _FILE.finditer((HOW_TO / f"{page}.md").read_text(encoding="utf-8"))}
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    assert len(files) == 2
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    register(site, project["name"], project["entry-points"])


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
