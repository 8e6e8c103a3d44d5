"""The pre-training of a backbone on unlabelled tissue by masked self-distillation.

It follows BYOL (Grill et al. 2020) and data2vec (Baevski et al. 2022). The student, which is the backbone, sees a
masked view of a crop: many patches are black, and the stain is changed. For each patch it predicts the features of an
EMA teacher that sees the unmasked crop with a different stain augmentation. It thus learns features that do not depend
on the stain and can be inferred from the surroundings.

The masked view is also flipped and rotated, together with the target, because tissue has no orientation: the trained
network gives the same features, rotated, for a rotated tile.

Masked patches are black because PBIP sets pixels outside a mask to black (Eq. 5) in the images for its encoder: for a
network that starts from these weights, black means "not known".
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from napari_pbip.models.backbones import Backbone, Features

PATCH = 32
"""Side in pixels of a patch, the unit that is masked and predicted."""
_WIDTH = 256
"""Number of channels inside the predictor, which is smaller than that of the features, so that it cannot copy them."""


class Pretraining(nn.Module):
    """The student, its EMA teacher, and the predictor, which only pre-training needs.

    Parameters
    ----------
    backbone
        The student.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        channels = sum(backbone.channels[1:])
        self.predictor = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 1), nn.BatchNorm2d(_WIDTH), nn.GELU(), nn.Conv2d(_WIDTH, channels, 1)
        )
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)

    def loss(self, masked_view: torch.Tensor, target_view: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error between prediction and target, over patches and channels.

        Targets are standardised per channel, which prevents collapse.

        Parameters
        ----------
        masked_view
            Crops for the student, with changed stain and masked patches, RGB in [0, 1], shape (B, 3, H, H). They are
            flipped and rotated here.
        target_view
            The same crops for the teacher, with another change of the stain and without masks.

        Returns
        -------
        torch.Tensor
            A scalar; 1 is the error of a constant prediction.
        """
        with torch.no_grad():
            features = patch_features(self.teacher(target_view)).float()
            mean, deviation = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True)
            target = ((features - mean) / (deviation + 1e-3)).clamp(-5, 5)
        prediction = self.predictor(patch_features(self.backbone(dihedral(masked_view)))).float()
        return F.mse_loss(prediction, dihedral(target))

    def update_ema(self, momentum: float) -> None:
        """Update the teacher by one step: teacher = momentum * teacher + (1 - momentum) * student.

        Torch's ``AveragedModel`` would rename the weights of the teacher in saved states, and has no schedule.
        """
        update = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]  # torch's own
        update(list(self.teacher.parameters()), list(self.backbone.parameters()), 0)

    def train(self, mode: bool = True) -> Pretraining:
        """Set the mode of student and predictor; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self


def patch_features(features: Features) -> torch.Tensor:
    """Return stages 2 to 4, averaged over the patches and concatenated, shape (B, C, H / 32, W / 32)."""
    h, w = (-(-side * 8 // PATCH) for side in features[1].shape[2:])
    # with unit variance, because otherwise the stage with the largest values would dominate
    even = [F.layer_norm(stage.movedim(1, 3), stage.shape[1:2]).movedim(3, 1) for stage in features[1:]]
    return torch.cat([F.adaptive_avg_pool2d(stage, (h, w)) for stage in even], 1)


def dihedral(images: torch.Tensor) -> torch.Tensor:
    """Apply another of the eight flips and rotations of a square to each eighth of a batch of images (B, C, H, H).

    This is deterministic, because crops are already random.
    """
    rotated = [eighth.rot90(way, (2, 3)) for way, eighth in enumerate(images.chunk(8))]
    return torch.cat([part.flip(3) if way >= 4 else part for way, part in enumerate(rotated)])


def mask_patches(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Make about ``share`` of the patches of images (B, 3, H, W) black and dim the others, randomly for each image."""
    b, _, h, w = images.shape
    kept = torch.rand(b, 1, -(-h // PATCH), -(-w // PATCH), generator=generator) >= share
    brightness = 1 - 0.5 * torch.rand(b, 1, 1, 1, generator=generator)
    mask = F.interpolate(kept * brightness, scale_factor=PATCH, mode="nearest")[:, :, :h, :w]
    return images * mask.to(images.device)
