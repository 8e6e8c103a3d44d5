"""A small backbone, and the arrays that the authors' published code computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.config import LpdSettings, PbipSettings
from napari_pbip.models.backbones import Backbone, BackboneSpec, load_weights
from napari_pbip.models.backbones.mit import to_stages
from napari_pbip.models.methods.lpd import Lpd
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.prototypes import Prototypes


def options(**changes: object) -> dict[str, object]:
    """Return the keyword arguments of Pbip from its settings."""
    return PbipSettings.model_validate(changes).options()


class StubEncoder(nn.Module):
    """The encoder of the golden arrays: average pooling to 8 x 8, flattened in (C, H, W) order, times a matrix."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return F.adaptive_avg_pool2d(images, 8).flatten(1) @ self.weight


class Golden(Mapping[str, torch.Tensor]):
    """The arrays of a golden file as tensors; the file may have been made smaller by ``tools/shrink_golden.py``."""

    def __init__(self, *paths: Path) -> None:
        arrays = {}
        for path in paths:  # what is equal in two files lies in the first alone
            with np.load(path) as file:
                arrays.update({name: file[name] for name in file.files})
        if "image_differences" in arrays:
            image = arrays.pop("image_differences").astype(np.int64)
            for axis in (2, 3) * 3:
                image = image.cumsum(axis)
            arrays["image"] = (image / 2**20).astype(np.float32)
        self._arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def stages(self) -> list[int]:
        """Return the indices 0..3 of the stages whose maps are in the file."""
        return [i for i in range(4) if f"cam{i + 1}" in self]

    @property
    def subclass_class(self) -> torch.Tensor:
        return torch.repeat_interleave(torch.arange(len(self["k_list"])), self["k_list"])

    @property
    def settings(self) -> list[tuple[float, float]]:
        """Return each (delta, temperature) for which losses are stored."""
        found = (name.split("/") for name in self if name.endswith("/loss_fg"))
        return sorted((float(d.removeprefix("d")), float(t.removeprefix("T"))) for d, t, _ in found)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in self.items() if name.startswith(prefix)}

    def images(self, backbone: Backbone) -> torch.Tensor:
        """Return RGB in [0, 1] from the normalised images of the file."""
        return self["image"] * backbone.std + backbone.mean

    def pbip(self, **changes: object) -> Pbip:
        """Return PBIP with the weights of the file and the settings of the released code, in evaluation mode."""
        settings = PbipSettings.model_validate({"preset": "released", **changes})
        return self._loaded(Pbip, self["prototypes"], settings)

    def lpd(self, **changes: object) -> Lpd:
        """Return LPD in the same way; the total loss in the file is without its diversity."""
        settings = LpdSettings.model_validate({"preset": "released", "diversity": 0, **changes})
        method = self._loaded(Lpd, self["weights/prototypes"], settings)
        assert isinstance(method, Lpd)
        return method

    def _loaded(self, network: type[Pbip], prototypes: torch.Tensor, settings: PbipSettings | LpdSettings) -> Pbip:
        weights = self.part("weights/")
        widths = tuple(len(weights[f"encoder.norm{i}.weight"]) for i in range(1, 5))
        blocks = [name.split(".")[1:3] for name in weights if name.startswith("encoder.block")]
        depths = tuple(1 + max(int(j) for s, j in blocks if s == f"block{i}") for i in range(1, 5))
        backbone = Backbone(BackboneSpec("golden", widths, depths))
        load_weights(backbone, {n: t for n, t in weights.items() if n.startswith("encoder.")})
        method = network(
            backbone,
            Prototypes(prototypes, self.subclass_class),
            classes=len(self["k_list"]),
            encoder=StubEncoder(self["stub_weight"]),
            **settings.options(),
        )
        own = method.state_dict()
        own.update({ours: weights[theirs] for ours, theirs in self.head_names().items()})
        method.load_state_dict(own)
        return method.eval()

    def head_names(self) -> dict[str, str]:
        """Return our names of the heads' weights, and the released ones."""
        names = {}
        for i in self.stages:
            names[f"heads.{i}.scale"] = f"logit_scale{i + 1}"
            for ours, theirs in (("0", "fc1"), ("2", "fc2")):
                for leaf in ("weight", "bias"):
                    names[f"heads.{i}.projection.{ours}.{leaf}"] = f"l_fc{i + 1}.{theirs}.{leaf}"
        return names

    def parameter_names(self) -> dict[tuple[str, ...], str]:
        """Return our parameters and the released ones with their gradients, where keys and values are one matrix."""
        names = {(ours,): theirs for ours, theirs in self.head_names().items()}
        for name, weight in self.part("weights/").items():
            if name.startswith("encoder."):
                names[tuple(f"backbone.stages.{n}" for n in to_stages({name: weight}))] = name
        return names

    def compare_gradients(self, method: nn.Module, names: Mapping[tuple[str, ...], str]) -> None:
        """Compare the norm of every gradient that is stored."""
        gradients = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in method.named_parameters()
        }
        stored = self.part("gradnorm/")
        for ours, theirs in names.items():
            norm = torch.stack([gradients[n].norm() for n in ours]).norm()
            torch.testing.assert_close(norm, stored[theirs], rtol=1e-3, atol=1e-7, msg=lambda m, t=theirs: f"{t}: {m}")
        assert len(names) == len(stored)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Return the folder NAPARI_PBIP_GOLDEN, or the copies in the tests."""
    return Path(os.environ.get("NAPARI_PBIP_GOLDEN") or Path(__file__).parents[1] / "data" / "golden")


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> Golden:
    """Return the arrays that the released code of PBIP computed."""
    return Golden(golden_folder / "pbip.npz")


@pytest.fixture(scope="session")
def golden_lpd(golden_folder: Path) -> Golden:
    """Return the arrays that the released code of LPD computed."""
    return Golden(golden_folder / "pbip.npz", golden_folder / "lpd.npz")


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
