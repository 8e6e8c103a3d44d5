"""A program whose processes compare the gradients that they compute together with those of each of them alone.

An exit code of 0 means that all are equal up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from napari_pbip.config import CamSettings, ConstructSettings, DeepLabSettings, LpdSettings, PbipSettings
from napari_pbip.config.methods import MethodSettings
from napari_pbip.models import backbones, encoders
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.cam import Cam
from napari_pbip.models.methods.construct import ConStruct
from napari_pbip.models.methods.deeplab import DeepLab
from napari_pbip.models.methods.lpd import Lpd
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.methods.pyramid_method import PyramidMethod
from napari_pbip.models.methods.trained_method import TrainedMethod
from napari_pbip.models.pretraining import Pretraining
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.shares import share_batch_norms, shared
from tests.models.backbones.test_catalogue import SMALL

Loss = Callable[[nn.Module], torch.Tensor]
IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
"""A batch that two processes cannot divide evenly."""
LABELS = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0], [1, 1]])
MASKS = torch.arange(64 * 64).view(1, 64, 64).div(1500, rounding_mode="floor").clamp(max=1).repeat(5, 1, 1)


def method_loss(method: nn.Module) -> torch.Tensor:
    assert isinstance(method, TrainedMethod)
    loss = method.loss(IMAGES, MASKS if isinstance(method, DeepLab) else LABELS).total
    # a single mosaic is too few for a share of each
    return loss + method.pixel_loss(IMAGES[:1], MASKS[:1]) if isinstance(method, PyramidMethod) else loss


def cases() -> Iterator[tuple[str, nn.Module, Loss]]:
    kinds: list[tuple[str, type[TrainedMethod], MethodSettings, str]] = [
        ("PBIP, masked features", Pbip, PbipSettings(), "lite"),
        ("PBIP as released, masked images", Pbip, PbipSettings(preset="released"), "basic"),
        ("LPD", Lpd, LpdSettings(masked="images"), "pvt"),
        ("ConStruct", ConStruct, ConstructSettings(memory=8), "lite"),
        ("CAM", Cam, CamSettings(), "bottleneck"),
        ("DeepLab", DeepLab, DeepLabSettings(), "basic"),
    ]
    for name, kind, settings, backbone in kinds:
        torch.manual_seed(0)
        pyramid = backbones.load("efficientnet-lite0", "builtin") if backbone == "lite" else Backbone(SMALL[backbone])
        encoder = encoders.load("efficientnet-lite0", None)
        prototypes = Prototypes.random([2, 3], encoder.spec.dimension or 0)
        yield (
            f"{name}, {backbone}",
            kind.from_inputs(MethodInputs(pyramid, 2, prototypes, encoder), **settings.options()),
            method_loss,
        )
    yield "pre-training", Pretraining(Backbone(SMALL["basic"])), lambda network: network.loss(IMAGES, IMAGES.flip(0))


class Together(nn.Module):
    """The loss of a network as a module."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self) -> torch.Tensor:
        with shared():
            return self.loss(self.network)


def compare(name: str, network: nn.Module, loss: Loss) -> None:
    # stochastic depth draws other numbers in each process
    for module in network.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network.train()
    alone, together = network, copy.deepcopy(network)
    expected = loss(alone)
    expected.backward()
    share_batch_norms(together)
    parallel = DistributedDataParallel(Together(together, loss), find_unused_parameters=True)
    found = parallel()
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: the loss. {text}")
    pairs = [*zip(alone.named_parameters(), together.parameters(), strict=True)]
    assert all((one.grad is None) == (other.grad is None) for (_, one), other in pairs), name
    gradients = [(key, one.grad, other.grad) for (key, one), other in pairs if one.grad is not None]
    # some are zero but for rounding, such as those of a bias before a normalisation
    least = 1e-4 * max(float(one.norm()) for _, one, _ in gradients)
    wrong = {key: float((other - one).norm() / one.norm()) for key, one, other in gradients if one.norm() > least}
    # the EfficientNet is not smooth: another order of the images changes its gradients by 1 % too
    limit = 0.03 if "lite" in name else 1e-3
    assert max(wrong.values()) < limit, f"{name}: {max(wrong, key=wrong.__getitem__)} {max(wrong.values())}"
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[key], value, rtol=1e-3, atol=1e-5, msg=f"{name}: {key}")


def main(rank: int, meeting: Path) -> None:
    """Compare as one of two processes, which find each other by a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2)
    for case in cases():
        compare(*case)
    distributed.destroy_process_group()
