"""ConStruct: prototypes on a frozen encoder, whose adapters learn the borders of tissues from a frozen pyramid.

"ConStruct: Structural Distillation of Foundation Models for Prototype-Based Weakly Supervised Histopathology
Segmentation" (arXiv 2512.10316). ``docs/explanation/methods.md`` says where paper, released code and our defaults
differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.losses.structure import structural_loss
from napari_pbip.models.matching import Contrasted, ImgMatchNet
from napari_pbip.models.memory import FeatureMemory
from napari_pbip.models.methods.prototype_method import PrototypeMethod
from napari_pbip.models.methods.trained_method import LossTerms, WeightedTerms
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.score_maps import fuse
from napari_pbip.models.student import StudentPyramid

_DISTILLED = 2
"""The level, counted from 0, whose structure is distilled: the one at the resolution of the patches."""


class ConStruct(PrototypeMethod):
    """Adapters on a frozen student, learned prototypes, and a teacher of the structure.

    The adapters, the projections with their scales, and the prototypes are trained. Student and teacher are neither in
    ``parameters()`` nor in ``state_dict()``; inference needs the student, and only training needs the teacher.

    Parameters
    ----------
    teacher
        The frozen pyramid, with pretrained weights.
    prototypes
        Initial prototypes, in the feature space of the student.
    encoder
        The student: a frozen vision transformer or pyramid, which also encodes the masked images.
    delta, temperature, structure, memory
        The fields of :class:`napari_pbip.config.ConstructSettings`.
    **shared
        The other parameters of :class:`PrototypeMethod`: classes, and fields of the settings.

    Raises
    ------
    ModelError
        If there are fewer than two classes, a class has no prototype, there is no encoder, or it is neither a vision
        transformer nor a pyramid.
    """

    backbone: StudentPyramid
    learns_prototypes = True

    def __init__(
        self,
        teacher: Backbone,
        prototypes: Prototypes,
        *,
        encoder: Encoder | None,
        delta: float,
        temperature: float,
        structure: float,
        memory: int,
        **shared: Any,
    ) -> None:
        if encoder is None:
            raise ModelError("ConStruct needs prototypes and the encoder that they belong to; train the model again.")
        super().__init__(
            StudentPyramid(encoder),
            prototypes,
            encoder=encoder,
            merge="max",  # the score of a class is that of its most similar prototype
            trained_merge="max",
            matching=ImgMatchNet(contrast="infonce", temperature=temperature, delta=delta),
            **shared,
        )
        self.teacher = Frozen(teacher.as_pretrained())
        self.memory = FeatureMemory(memory, prototypes.vectors.shape[1])
        self.structure = structure

    def features(self, images: torch.Tensor, stages: Collection[int]) -> Mapping[int, torch.Tensor]:
        """Return the adapted maps of these levels."""
        return self.backbone.levels(images, stages)

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return L = alpha * L_CLS + structure * L_struct + beta * L_SIM.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        labels
            Image-level labels, 0 or 1, float, shape (B, N).
        progress
            Not used, because all terms are computed from the start.

        Returns
        -------
        LossTerms
            The terms ``classification_i`` of each level i = 1..4, ``structure``, ``foreground`` and ``background``, as
            far as they have a weight. The last two are 0 for a batch without any pair to contrast.
        """
        features = self.features(images, self._trained_stages)
        seen = {i: self.class_scores(i, maps) for i, maps in features.items()}
        weighted = {**self.classification({i: logits for i, (_, logits) in seen.items()}, labels, self.alpha)}
        if self.structure:
            with torch.no_grad():
                target = self.teacher.network(images)[_DISTILLED]
            weighted["structure"] = (self.structure, structural_loss(features[_DISTILLED], target))
        if self.beta:
            weighted |= self._matching(images, {i: maps for i, (maps, _) in seen.items()}, labels)
        return LossTerms.weighted(weighted)

    def _matching(self, images: torch.Tensor, maps: Mapping[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """Return L_SIM, which contrasts the images masked by fused maps of present classes with the classes' means.

        A class is represented by the mean of its prototypes. They are detached, so that only the maps get gradients.
        """
        fused = fuse([(w, maps[i]) for i, w in enumerate(self.fusion_weights) if w], self.grid(images))
        means = F.normalize(self.to_classes(self.prototypes.detach().T, "mean").T, dim=1).contiguous()
        positives = torch.eye(self.classes, dtype=torch.bool, device=labels.device)
        return self.contrast(images, Contrasted(fused, labels > 0.5, positives, means), self.memory)

    @property
    def _trained_stages(self) -> list[int]:
        """Levels whose maps are used in the loss."""
        stages = {i for i, w in enumerate(self.stage_weights) if w}
        stages |= {i for i, w in enumerate(self.fusion_weights) if w and self.beta}
        stages |= {_DISTILLED} if self.structure else set()
        return sorted(stages)
