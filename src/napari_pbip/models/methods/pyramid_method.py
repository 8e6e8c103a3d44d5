"""The base class of methods with a score map and an image-level prediction of every stage, trained on image labels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Pyramid
from napari_pbip.models.losses.classification import classification_loss
from napari_pbip.models.losses.pixels import pixel_loss
from napari_pbip.models.methods.base import MethodOutput, Scores
from napari_pbip.models.methods.trained_method import TrainedMethod, WeightedTerms
from napari_pbip.models.score_maps import fuse, pool, pool_log_mean_exp

STAGES = 4


class PyramidMethod(TrainedMethod):
    """A pyramid with heads, trained on image-level labels, which computes a score map of each of its four stages.

    Parameters
    ----------
    backbone
        The pyramid.
    classes
        Number of tissue classes N.
    stage_weights
        Weight of each stage's classification loss.
    fusion_weights
        Weight of each stage's score map in the fused map.
    synthesis
        Weight of the loss on the pixels of mosaics (:meth:`pixel_loss`); 0 without mosaics.

    Raises
    ------
    ModelError
        If there are not four weights, or all are zero.
    """

    def __init__(
        self,
        backbone: Pyramid,
        classes: int,
        stage_weights: Sequence[float],
        fusion_weights: Sequence[float],
        synthesis: float = 0.0,
    ) -> None:
        super().__init__(backbone, classes, fusion_weights)
        for name, weights in (("stage_weights", stage_weights), ("fusion_weights", fusion_weights)):
            if len(weights) != STAGES or not any(weights):
                raise ModelError(
                    f"`method.{name}` needs four weights, one per stage, of which at least one is not zero."
                )
        self.stage_weights = tuple(stage_weights)
        self.synthesis = synthesis

    @property
    def calibrated(self) -> bool:
        """See :attr:`Method.calibrated`; maps are logits if the method was trained on pixels."""
        return self.synthesis > 0

    @property
    def cell(self) -> int:
        """Side of a cell of the fused scores in pixels: the stride of the finest stage with a fusion weight.

        This is 4 for the first stage and 8 for the second; the maps of later stages are enlarged to stride 8.
        """
        return 4 if self.fusion_weights[0] else 8

    @abstractmethod
    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score map (B, N, h, w) of features (B, C, h, w) of one stage, and its pooled logits (B, N)."""

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the pooled logits (B, N) of class maps (B, N, h, w)."""
        return pool_log_mean_exp(maps) if self.calibrated else pool(maps)

    def pixel_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss on images with known pixels, weighted over the stages like the classification loss.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        masks
            Class index of each pixel, int64, shape (B, H, W).
        """
        stages = {i: weight for i, weight in enumerate(self.stage_weights) if weight}
        features = self.features(images, stages)
        return torch.stack(
            [weight * pixel_loss(self.class_scores(i, features[i])[0], masks) for i, weight in stages.items()]
        ).sum()

    def features(self, images: torch.Tensor, stages: Collection[int]) -> Mapping[int, torch.Tensor]:
        """Return the feature maps (B, C, h, w) of at least these stages, by stage, counted from 0."""
        return dict(enumerate(self.backbone(images)))

    def scores(self, images: torch.Tensor) -> Scores:
        """See :meth:`Method.scores`."""
        # the heads of stages without weights are not needed
        used = [i for i in range(STAGES) if self.fusion_weights[i] or self.stage_weights[i]]
        features = self.features(images, used)
        seen = {i: self.class_scores(i, features[i]) for i in used}
        fused = [(self.fusion_weights[i], seen[i][0]) for i in used if self.fusion_weights[i]]
        return Scores(self.to_scores(fuse(fused, self.grid(images))), self._presence({i: seen[i][1] for i in used}))

    def to_scores(self, fused: torch.Tensor) -> torch.Tensor:
        """Return the scores of fused maps (B, N, h, w), which are logits of each class if they are calibrated."""
        return F.logsigmoid(fused) + math.log(self.classes) if self.calibrated else fused

    def classification(
        self, logits: Mapping[int, torch.Tensor], labels: torch.Tensor, alpha: float = 1.0
    ) -> WeightedTerms:
        """Return the term ``classification_i`` of each stage i = 1..4 that has a weight.

        Parameters
        ----------
        logits
            Pooled class scores (B, N) of these stages, which are counted from 0 here.
        labels
            Image-level labels, 0 or 1, float, shape (B, N).
        alpha
            A common factor of the weights.
        """
        return {
            f"classification_{i + 1}": (alpha * weight, classification_loss(logits[i], labels))
            for i, weight in enumerate(self.stage_weights)
            if weight
        }

    def presence(self, output: MethodOutput) -> torch.Tensor:
        """See :meth:`Method.presence`: the stages' predictions, weighted as in training."""
        return self._presence(dict(enumerate(output.class_scores)))

    def _presence(self, logits: dict[int, torch.Tensor]) -> torch.Tensor:
        weighted = [w * logits[i] for i, w in enumerate(self.stage_weights) if w]
        return torch.stack(weighted).sum(0) / sum(self.stage_weights)
