"""Measure how much the colours of tiles differ: of copies of a tile, and of the most similar different tiles.

    python benchmarks/same_colours.py FOLDER ...

For all pictures in the folders and below, it prints the largest difference of the means and deviations of red, green
and blue, in grey levels of 255, by which :mod:`napari_pbip.bank.checks` recognises copies.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import KDTree

from napari_pbip.bank.features import colour_moments

SUFFIXES = {".png", ".jpg", ".jpeg"}


def colours(image: np.ndarray) -> np.ndarray:
    """Return means and deviations in grey levels, shape (6,)."""
    mean, square = np.split(colour_moments(image).astype(np.float64), 2)
    return 255 * np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))])


def saved_again(image: np.ndarray) -> np.ndarray:
    """Return a picture after saving it as JPEG of quality 95."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return np.asarray(Image.open(file))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    own = np.stack([colours(image) for image in images])
    for name, change in (("turned", np.rot90), ("saved again", saved_again)):
        apart = np.abs(own - np.stack([colours(change(image)) for image in images])).max(1)
        print(f"{name:12s} median {np.median(apart):.2f}  largest {apart.max():.2f}")
    nearest, _ = KDTree(own).query(own, k=2, p=np.inf)
    print(f"another tile, of {len(own)}: smallest {nearest[:, 1].min():.2f}")


if __name__ == "__main__":
    main()
