"""Copy a split of a data set in the colours of other scanners and other stains, to see what models make of them.

    python benchmarks/other_colours.py DATA OUT [--split val]
    python benchmarks/score_runs.py RUNS OUT/blue --mpp 0.5 --split val --smoothing 15

OUT gets a data set for each change of colour, with the masks as they are. *blue* and *yellow* multiply red, green and
blue, as another white point does; *violet* and *pink* multiply the amounts of haematoxylin and eosin (colour
deconvolution).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_pbip.engine.loading import with_stain

WHITE_POINTS = {"blue": (0.92, 0.97, 1.08), "yellow": (1.05, 1.0, 0.88)}
"""Factors of red, green and blue."""
STAINS = {"violet": (1.3, 0.75), "pink": (0.75, 1.3)}
"""Factors of haematoxylin and eosin."""


def main() -> None:
    """Copy the split once for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    for name in (*WHITE_POINTS, *STAINS):
        shutil.copytree(args.data / args.split, args.out / name / args.split)
        shutil.copy(args.data / "classes.txt", args.out / name)
        for path in sorted((args.out / name / args.split).rglob("*.png")):
            picture = Image.open(path)
            if picture.mode == "RGB":  # masks have a palette
                Image.fromarray(changed(np.asarray(picture), name)).save(path)


def changed(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return a picture, RGB uint8 (h, w, 3), in other colours."""
    values = pixels.astype(np.float32) / 255
    if name in WHITE_POINTS:
        values = np.clip(values * np.array(WHITE_POINTS[name], np.float32), 0, 1)
    else:
        factor = torch.tensor([*STAINS[name], 1.0])[None, :, None, None]
        image = torch.from_numpy(values).permute(2, 0, 1)[None]
        values = with_stain(image, factor, torch.zeros(1, 3, 1, 1))[0].permute(1, 2, 0).numpy()
    return np.round(values * 255).astype(np.uint8)


if __name__ == "__main__":
    main()
