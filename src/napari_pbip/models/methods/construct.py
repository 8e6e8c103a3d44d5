"""ConStruct: a frozen encoder learns where tissues end from a frozen pyramid, by adapters and prototypes.

"ConStruct: Structural Distillation of Foundation Models for Prototype-Based Weakly Supervised Histopathology
Segmentation" (arXiv 2512.10316). ``docs/methods.md`` says where paper, released code and our defaults differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.losses.structure import structural_loss
from napari_pbip.models.matching import ImgMatchNet
from napari_pbip.models.memory import FeatureMemory
from napari_pbip.models.methods.base import STAGES, LossTerms, Method, MethodOutput, Parts, WeightedTerms
from napari_pbip.models.prototypes import Prototypes, Similarity, SimilarityHead
from napari_pbip.models.score_maps import fuse, merge_subclasses, pool
from napari_pbip.models.student import StudentPyramid

_DISTILLED = 2
"""The level, counted from 0, whose structure is learned: the one at the resolution of the patches."""


class ConStruct(Method):
    """Adapters on a frozen student, learned prototypes, and a teacher for the structure.

    Trained are the adapters, the projections with their scales, and the prototypes. Neither student nor teacher is in
    ``parameters()`` or ``state_dict()``; the student is needed to look at images, the teacher only to train.

    Parameters
    ----------
    student
        The frozen vision transformer or pyramid, which also sees the masked images.
    teacher
        The frozen pyramid, with pretrained weights.
    prototypes
        Where learning starts, in the feature space of the student.
    classes
        Number of classes N, at least two.
    stage_weights, fusion_weights, synthesis, similarity, delta, temperature, alpha, structure, beta, memory
        The fields of :class:`napari_pbip.config.ConstructSettings`.

    Raises
    ------
    ModelError
        If there are fewer than two classes, a class has no prototype, or the student is neither of them.
    """

    backbone: StudentPyramid
    subclass_class: torch.Tensor

    def __init__(
        self,
        student: Encoder,
        teacher: Backbone,
        prototypes: Prototypes,
        *,
        classes: int,
        stage_weights: Sequence[float],
        fusion_weights: Sequence[float],
        synthesis: float = 0.0,
        similarity: Similarity,
        delta: float,
        temperature: float,
        alpha: float,
        structure: float,
        beta: float,
        memory: int,
    ) -> None:
        super().__init__(StudentPyramid(student), classes, stage_weights, fusion_weights, synthesis)
        if classes < 2 or sorted(set(prototypes.of_class.tolist())) != list(range(classes)):
            raise ModelError(f"ConStruct contrasts classes: it needs two or more with prototypes, not {classes}.")
        self.teacher = Frozen(teacher.as_pretrained())
        self.prototypes = nn.Parameter(prototypes.vectors.float().clone())
        self.register_buffer("subclass_class", prototypes.of_class.long())
        dimension = prototypes.vectors.shape[1]
        self.heads = nn.ModuleList(
            SimilarityHead(dimension, channels, similarity) for channels in self.backbone.channels
        )
        # where presence begins is learned, as in PBIP
        self.offsets = nn.Parameter(torch.zeros(STAGES, classes)) if similarity == "centred" else None
        self.memory = FeatureMemory(memory, dimension)
        self.matching = ImgMatchNet(
            student,
            adaptive_threshold=True,
            delta=delta,
            mask="clipped",
            contrast="infonce",
            temperature=temperature,
            theta_foreground=1.0,
            theta_background=1.0,
        )
        self.alpha, self.structure, self.beta = alpha, structure, beta

    @classmethod
    def of(cls, parts: Parts, **options: Any) -> Self:
        """Put the network together; see :meth:`Method.of`."""
        if parts.prototypes is None or parts.encoder is None:
            raise ModelError("ConStruct needs prototypes and the encoder that they belong to; train the model again.")
        return cls(parts.encoder, parts.backbone, parts.prototypes, classes=parts.classes, **options)

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Score maps of all levels; see :class:`~napari_pbip.models.methods.base.MethodOutput`."""
        subclass_maps = tuple(self._subclass_maps(i, features) for i, features in enumerate(self.backbone(images)))
        seen = [self._to_classes(i, maps) for i, maps in enumerate(subclass_maps)]
        return MethodOutput(
            class_maps=tuple(maps for maps, _ in seen),
            class_scores=tuple(scores for _, scores in seen),
            subclass_maps=subclass_maps,
            subclass_scores=tuple(pool(maps) for maps in subclass_maps),
        )

    def features(self, images: torch.Tensor, stages: Collection[int]) -> Mapping[int, torch.Tensor]:
        """Adapted maps of those levels alone."""
        return self.backbone.levels(images, stages)

    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class score map of one level and its pooled logits."""
        return self._to_classes(stage, self._subclass_maps(stage, features))

    def _subclass_maps(self, stage: int, features: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.heads[stage](features, self.prototypes)
        return maps

    def _to_classes(self, stage: int, subclass_maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A class is where the nearest of its prototypes is."""
        maps = merge_subclasses(subclass_maps, self.subclass_class, self.classes, "max")
        head = self.heads[stage]
        assert isinstance(head, SimilarityHead)
        return maps, self.pool(maps) + (0.0 if self.offsets is None else head.scale * self.offsets[stage])

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """L = alpha * L_CLS + structure * L_struct + beta * L_SIM.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        labels
            Image-level labels, 0 or 1, float, shape (B, N).
        progress
            Not used: all terms are there from the start.

        Returns
        -------
        LossTerms
            With ``classification_i`` of each level i = 1..4 that has a weight, ``structure``, ``foreground`` and
            ``background`` as far as they have one. A batch without any pair to contrast has 0 in the last two.
        """
        features = self.features(images, self._trained_stages)
        seen = {i: self.class_scores(i, maps) for i, maps in features.items()}
        weighted = {**self.classification({i: logits for i, (_, logits) in seen.items()}, labels, self.alpha)}
        if self.structure:
            with torch.no_grad():
                target = self.teacher.network(images)[_DISTILLED]
            weighted["structure"] = (self.structure, structural_loss(features[_DISTILLED], target))
        if self.beta:
            weighted |= self._contrast(images, {i: maps for i, (maps, _) in seen.items()}, labels)
        return LossTerms.weighted(weighted)

    def _contrast(self, images: torch.Tensor, maps: Mapping[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """L_SIM: what the fused map of each present class cuts out, against the mean prototype of every class."""
        fused = fuse([(w, maps[i]) for i, w in enumerate(self.fusion_weights) if w], self.grid(images))
        # the prototypes stay where they are, and the maps move: otherwise both would meet halfway
        means = merge_subclasses(self.prototypes.detach().T, self.subclass_class, self.classes, "mean").T
        found = self.matching.terms(
            images,
            self.backbone.normalise(images),
            fused,
            labels > 0.5,
            torch.eye(self.classes, dtype=torch.bool, device=labels.device),
            F.normalize(means, dim=1),
            self.memory,
        )
        return {name: (self.beta, loss) for name, loss in found.items()}

    @property
    def _trained_stages(self) -> list[int]:
        """Levels that enter the loss."""
        stages = {i for i, w in enumerate(self.stage_weights) if w}
        stages |= {i for i, w in enumerate(self.fusion_weights) if w and self.beta}
        stages |= {_DISTILLED} if self.structure else set()
        return sorted(stages)
