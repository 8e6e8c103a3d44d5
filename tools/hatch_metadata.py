"""The parts of the package's metadata that need the address of its repository, added when it is built.

An index shows the README without the files beside it, so that its links and pictures have to be absolute. The address
is that in the environment variable ``NAPARI_PBIP_REPOSITORY``; without it, links stay relative, as is right for a
local build. ``tox run -e dist``, which builds what is published, needs it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "NAPARI_PBIP_REPOSITORY"


class RepositoryHook(MetadataHookInterface):
    """Adds the README and, if the address of the repository is known, the links of the index."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` and ``urls``; ValueError if the address is given but is none."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        address = os.environ.get(VARIABLE)
        if address is not None:
            address = address.strip().rstrip("/")
            if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", address):
                raise ValueError(
                    f"{VARIABLE} is {address!r}; set it to the address of the repository, https://HOST/OWNER/NAME."
                )
            version = f"v{metadata['version']}"
            readme = absolute(readme, f"{address}/blob/{version}/", f"{address}/raw/{version}/")
            metadata["urls"] = {
                "Homepage": address,
                "Documentation": f"{address}/tree/{version}/docs",
                "Source": address,
                "Changelog": f"{address}/blob/{version}/CHANGELOG.md",
                "Bug Tracker": f"{address}/issues",
                "User Support": "https://forum.image.sc/tag/napari",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}


def absolute(text: str, pages: str, pictures: str) -> str:
    """Return Markdown whose relative links begin with ``pages``, and whose pictures begin with ``pictures``."""

    def link(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        base = "" if "://" in target or target.startswith("#") else pictures if mark else pages
        return f"{mark}[{words}]({base}{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)
