"""Files and folders among tiles that were left out, which the user is informed of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from napari_pbip.folders import Listing
from napari_pbip.pictures import is_picture


@dataclass
class LeftOut:
    """The files and folders that were not read as tiles."""

    files: list[Path] = field(default_factory=list)
    system: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Further notes, as sentences."""

    def but_pictures(self, found: Listing) -> list[Path]:
        """Return the pictures of a listing, and record everything else as left out."""
        self.files += (path for path in found.files if not is_picture(path))
        self.beside(found)
        return [path for path in found.files if is_picture(path)]

    @classmethod
    def from_listing(cls, found: Listing) -> Self:
        """Record everything in a listing but its folders as left out."""
        return cls(list(found.files), list(found.system), list(found.results))

    def beside(self, found: Listing) -> None:
        """Record the folders of a listing as left out."""
        self.system += found.system
        self.results += found.results

    def sentences(self) -> tuple[str, ...]:
        """Return sentences on what was left out, and why."""
        sentences = []
        if self.files:
            kinds = Counter(path.suffix.lower() or "no ending" for path in self.files)
            by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
            sentences.append(f"Left out: {by_kind}, such as {self.files[0].name} (no pictures that are read).")
        for paths, what in ((self.system, "folders of the system"), (self.results, "results of napari-pbip")):
            if paths:
                names = ", ".join(dict.fromkeys(path.name for path in paths))
                sentences.append(f"Left out: {names} ({what}).")
        return (*sentences, *self.others)
