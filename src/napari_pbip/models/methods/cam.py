"""CAM, the baseline of PBIP: a 1x1 convolution for each stage instead of similarity maps.

Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", with the pyramid, stage weights and fusion
of PBIP, so that a comparison with PBIP differs only in the method.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from napari_pbip.models.backbones import Backbone
from napari_pbip.models.methods.base import MethodOutput
from napari_pbip.models.methods.pyramid_method import PyramidMethod
from napari_pbip.models.methods.trained_method import LossTerms


class Cam(PyramidMethod):
    """Class activation maps of every stage, trained with global average pooling and binary cross entropy.

    Parameters
    ----------
    backbone
        The pyramid.
    classes
        Number of tissue classes N.
    stage_weights, fusion_weights, synthesis
        The fields of :class:`napari_pbip.config.CamSettings`.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        stage_weights: Sequence[float],
        fusion_weights: Sequence[float],
        synthesis: float = 0.0,
    ) -> None:
        super().__init__(backbone, classes, stage_weights, fusion_weights, synthesis)
        self.heads = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in backbone.channels)

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Return the score maps of all stages; see :class:`~napari_pbip.models.methods.base.MethodOutput`."""
        seen = [self.class_scores(i, features) for i, features in enumerate(self.backbone(images))]
        return MethodOutput(class_maps=tuple(m for m, _ in seen), class_scores=tuple(s for _, s in seen))

    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class activation map of one stage and its pooled logits."""
        maps = self.heads[stage](features).float()
        return maps, self.pool(maps)

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return the weighted sum of the stages' classification losses, whose terms are named ``classification_i``."""
        features = self.backbone(images)
        logits = {i: self.class_scores(i, features[i])[1] for i, weight in enumerate(self.stage_weights) if weight}
        return LossTerms.weighted(self.classification(logits, labels))
