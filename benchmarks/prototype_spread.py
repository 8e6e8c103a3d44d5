"""Measure the mean similarity of the activations of two prototypes of a class, on real images.

    python benchmarks/prototype_spread.py DATA RUN [RUN ...]

The similarity is that of LPD's diversity loss, exp(-J) of the distributions over the pixels of the class: 1 if two
prototypes are active in the same places, near 0 if they have no place in common. The pixels are those of the true masks
of the split `val`, the maps those of the last stage. `weak_labels.py --study diversity` makes runs to compare.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from napari_pbip.bank import load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.loading import to_tensor
from napari_pbip.engine.runs import load_model
from napari_pbip.models.losses.diversity import diversity_loss
from napari_pbip.models.methods.prototype_method import PrototypeMethod

TEMPERATURE = 0.07


@torch.inference_mode()
def spread(run: Path, data: Path) -> float:
    """Return the mean similarity over all pairs of prototypes of a class, in all images of the split that show it."""
    model = load_model(run)
    method = model.method
    if not isinstance(method, PrototypeMethod):
        raise SystemExit(f"{run} has no prototypes.")
    values = []
    for tile in load_tiles(data, "val", DataSettings()):
        maps = method(to_tensor(tile.read()[None])).subclass_maps
        assert maps is not None
        cosines = maps[-1] / method.heads[-1].scale
        mask = torch.from_numpy(tile.read_mask(method.classes)).float()[None, None]
        mask = F.interpolate(mask, cosines.shape[2:], mode="nearest")[:, 0].long()
        values.append(float(diversity_loss(cosines, mask, method.subclass_class, TEMPERATURE)))
    return float(np.mean(values))


def main() -> None:
    """Print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    for run in args.runs:
        print(f"{spread(run, args.data):.3f}  {run}", flush=True)


if __name__ == "__main__":
    main()
