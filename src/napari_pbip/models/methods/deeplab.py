"""DeepLab: a segmentation network that is trained on masks, the second stage of weakly supervised segmentation.

The masks may be drawn by hand, or be the pseudo masks of a first stage that was trained on image-level labels. Online
easy example mining (Li et al. 2022, "Online Easy Example Mining for Weakly-supervised Gland Segmentation from Histology
Images") gives a small weight to pixels whose label the network finds unlikely.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.decoders import DeepLabV2, DeepLabV3Plus
from napari_pbip.models.losses.pixels import pixel_cross_entropy
from napari_pbip.models.methods.base import MethodOutput
from napari_pbip.models.methods.trained_method import LossTerms, TrainedMethod
from napari_pbip.models.score_maps import log_odds
from napari_pbip.models.shares import in_shares

_DECODERS = {"v3+": DeepLabV3Plus, "v2": DeepLabV2}


class DeepLab(TrainedMethod):
    """A decoder on a backbone, trained with the cross entropy of pixels, with a single score map.

    Scores are the log-odds of the softmax over the classes: above 0, a class is more likely than all others together.

    Parameters
    ----------
    backbone
        The pyramid.
    classes
        Number of tissue classes N.
    version, easy_examples
        The fields of :class:`napari_pbip.config.DeepLabSettings`.
    """

    calibrated = True

    def __init__(
        self, backbone: Backbone, classes: int, *, version: Literal["v3+", "v2"] = "v3+", easy_examples: bool = False
    ) -> None:
        super().__init__(backbone, classes, fusion_weights=(1.0,))
        self.decoder = _DECODERS[version](backbone.channels, classes)
        self.easy_examples = easy_examples

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Return the score map; see :class:`~napari_pbip.models.methods.base.MethodOutput`."""
        logits = self.logits(images)
        maps = logits.log_softmax(1) + math.log(self.classes)
        return MethodOutput((maps,), (log_odds(logits).amax((2, 3)),))

    def presence(self, output: MethodOutput) -> torch.Tensor:
        """See :meth:`Method.presence`: a class is present if it is more likely than all others together in any cell."""
        return output.class_scores[0]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, N, h, w) of images (B, 3, H, W), before the softmax."""
        return in_shares(lambda share: [self.decoder(self.backbone(share)).float()], images)[0]

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return the cross entropy of the pixels; ``labels`` are masks (B, H, W), in which 255 is ignored.

        Raises
        ------
        ModelError
            If there is only one image, because the pooled branch of the decoder normalises over the batch.
        """
        if len(images) < 2:
            raise ModelError("DeepLab normalises over the tiles of a step; set `train.batch_size` to 2 or more.")
        logits = F.interpolate(self.logits(images), labels.shape[-2:], mode="bilinear")
        return LossTerms.weighted({"pixels": (1.0, pixel_cross_entropy(logits, labels, easy=self.easy_examples))})
