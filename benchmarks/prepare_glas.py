"""Make a weakly supervised data set of GlaS: crops with image-level labels, derived from the masks of the train images.

    python benchmarks/prepare_glas.py GLAS OUT [--crop 112] [--stride 56]

It has the layout of BCSS-WSSS and the classes rest and gland. `train/` contains crops with labels in their names (a
class is present from 5 % of the crop; single-class crops are used for the image bank), `val/` whole train images from
which no crop comes, `test/` the 60 testA images at full size. The labels are simulated, since they are derived from
masks.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("rest", "gland")
PRESENT_FROM = 0.05
VALIDATION_IMAGES = 10


def main() -> None:
    """Prepare the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glas", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--crop", type=int, default=112)
    parser.add_argument("--stride", type=int, default=56)
    args = parser.parse_args()
    with (args.glas / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row["name"] for row in rows if row["official_split"] == "train"]
    test = [row["name"] for row in rows if row["official_split"] == "testA"]
    held_out = set(np.random.default_rng(0).permutation(train)[:VALIDATION_IMAGES])
    (args.out / "train").mkdir(parents=True)
    (args.out / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    crops = 0
    for name in train:
        image, mask = read(args.glas, name)
        if name in held_out:
            save(args.out / "val", name, image, mask)
            continue
        for y in range(0, mask.shape[0] - args.crop + 1, args.stride):
            for x in range(0, mask.shape[1] - args.crop + 1, args.stride):
                part = (slice(y, y + args.crop), slice(x, x + args.crop))
                bits = "".join(str(int((mask[part] == label).mean() >= PRESENT_FROM)) for label in range(len(CLASSES)))
                Image.fromarray(image[part]).save(args.out / "train" / f"{name}_{y}_{x}[{bits}].png")
                crops += 1
    for name in test:
        save(args.out / "test", name, *read(args.glas, name))
    print(
        f"{crops} crops of {len(train) - len(held_out)} images, {len(held_out)} validation and {len(test)} test images"
    )


def read(glas: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its mask (0 rest, 1 gland)."""
    image = next((glas / "images").glob(f"{name}.*"))
    mask = next((glas / "masks").glob(f"{name}.*"))
    return np.asarray(Image.open(image).convert("RGB")), (np.asarray(Image.open(mask)) > 0).astype(np.uint8)


def save(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Write an image and its mask."""
    for kind, array in (("img", image), ("mask", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{name}.png")


if __name__ == "__main__":
    main()
