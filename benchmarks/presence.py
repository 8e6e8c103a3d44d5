"""Measure how well models predict class presence, which is the difference between the two protocols.

    python benchmarks/presence.py DATA RUN [RUN ...]

DATA has the splits `val` and `test` with masks. For each class, the area under the ROC curve of presence on the test
split, and recall and false-positive rate at 0.5 are printed; then the predicted mIoU on the test split with the
threshold 0.5, with one threshold per class chosen on the validation split (best balanced accuracy), and with every
class present.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from napari_pbip.bank import load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.inference.predict import ImageMaps, Predictor, predicted_presence, segment_image
from napari_pbip.engine.runs import TrainedModel, load_model
from napari_pbip.results.metrics import SegmentationScores


@dataclass
class Looked:
    """The output of a model for a split."""

    maps: list[ImageMaps]
    truth: list[np.ndarray]
    presence: np.ndarray
    """Predicted probability, (images, N)."""
    shown: np.ndarray
    """Whether the mask shows the class, (images, N)."""


def look(model: TrainedModel, data: Path, split: str) -> Looked:
    """Run a model over the images of a split."""
    tiles = load_tiles(data, split, DataSettings())
    classes = len(tiles.taxonomy)
    truth = [tile.read_mask(classes) for tile in tiles]
    cpu = torch.device("cpu")
    predictor = Predictor.of_run(model.method, model.facts, cpu)
    maps = [predictor.maps([tile.read()])[0] for tile in tiles]
    presence = np.stack([m.presence.mean((0, 2, 3)).numpy() for m in maps])
    shown = np.array([[(mask == n).any() for n in range(classes)] for mask in truth])
    return Looked(maps, truth, presence, shown)


def miou(model: TrainedModel, seen: Looked, thresholds: np.ndarray) -> float:
    """Return the mean IoU in percent with one presence threshold per class."""
    scores = SegmentationScores(model.facts.taxonomy.names)
    # shifted so that 0.5 is the threshold of every class
    shift = torch.from_numpy(0.5 - thresholds).float()[None, :, None, None]
    for maps, mask in zip(seen.maps, seen.truth, strict=True):
        present = predicted_presence(maps.presence + shift)
        scores.add(mask, segment_image(maps, present, mask.shape))
    return float(scores.metrics.miou)


def best_threshold(presence: np.ndarray, shown: np.ndarray) -> float:
    """Return the threshold with the best balanced accuracy."""
    candidates = np.unique(presence)
    return float(candidates[np.argmax([balanced_accuracy_score(shown, presence >= t) for t in candidates])])


def main() -> None:
    """Print a few lines per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    for folder in args.runs:
        model = load_model(folder)
        names = model.facts.taxonomy.names
        validation, test = (look(model, args.data, split) for split in ("val", "test"))
        print(folder)
        for n, name in enumerate(names):
            called = test.presence[:, n] >= 0.5
            auc = roc_auc_score(test.shown[:, n], test.presence[:, n])
            recall, specificity = (recall_score(test.shown[:, n], called, pos_label=p) for p in (True, False))
            print(f"  {name}: AUC {auc:.3f}, recall {recall:.2f}, false positives {1 - specificity:.2f}")
        tuned = np.array([best_threshold(validation.presence[:, n], validation.shown[:, n]) for n in range(len(names))])
        figures = [miou(model, test, t) for t in (np.full(len(names), 0.5), tuned, np.zeros(len(names)))]
        print("  predicted mIoU: 0.5 {:.1f}, tuned on val {:.1f}, all present {:.1f}".format(*figures))


if __name__ == "__main__":
    main()
