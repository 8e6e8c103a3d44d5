"""PBIP: prototypes of an image bank prompt a classifier and correct its score maps.

Tang et al. 2025, "Prototype-Based Image Prompting for Weakly Supervised Histopathological Image Segmentation"
(arXiv 2503.12068). ``docs/methods.md`` says where paper, released code and our defaults differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.matching import Contrast, ImgMatchNet, Mask
from napari_pbip.models.methods.base import STAGES, LossTerms, Method, MethodOutput, Parts, WeightedTerms
from napari_pbip.models.prototypes import Similarity, SimilarityHead
from napari_pbip.models.score_maps import Merge, fuse, merge_subclasses, pool, similarity_map


class Pbip(Method):
    """ClassNet and ImgMatchNet (PBIP 3.3, 3.4).

    Parameters
    ----------
    backbone
        The pyramid.
    prototypes
        Prototype of each subclass in the encoder's feature space, float, shape (P, D); kept in ``state_dict()``.
    subclass_class
        Class index of each, int64, shape (P,), in class order.
    classes
        Number of classes N, at least two.
    encoder
        The frozen encoder that made the prototypes; only :meth:`loss` needs it. It is neither a submodule nor
        in ``state_dict()``, so it stays on the device where it was put.
    stage_weights, fusion_weights, synthesis, subclass_merge, similarity, similarity_maps, adaptive_threshold,
    delta, mask, contrast, temperature, alpha, beta, theta_foreground, theta_background, sparsity
        The fields of :class:`napari_pbip.config.PbipSettings`.

    Raises
    ------
    ModelError
        If there are fewer than two classes, a class has no prototype, or prototypes and classes do not match.
    """

    prototypes: torch.Tensor
    subclass_class: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        prototypes: torch.Tensor,
        subclass_class: torch.Tensor,
        *,
        classes: int,
        encoder: Encoder | None = None,
        stage_weights: Sequence[float],
        fusion_weights: Sequence[float],
        synthesis: float = 0.0,
        subclass_merge: Merge,
        similarity: Similarity,
        similarity_maps: bool,
        adaptive_threshold: bool,
        delta: float,
        mask: Mask,
        contrast: Contrast,
        temperature: float,
        alpha: float,
        beta: float,
        theta_foreground: float,
        theta_background: float,
        sparsity: float,
    ) -> None:
        super().__init__(backbone, classes, stage_weights, fusion_weights, synthesis)
        if classes < 2 or sorted(set(subclass_class.tolist())) != list(range(classes)):
            raise ModelError(f"PBIP contrasts classes: it needs two or more, each with a prototype, not {classes}.")
        if len(prototypes) != len(subclass_class):
            raise ModelError(f"{len(prototypes)} prototypes come with the classes of {len(subclass_class)}.")
        self.register_buffer("prototypes", prototypes.float())
        self.register_buffer("subclass_class", subclass_class.long())
        count, dimension = prototypes.shape
        self.heads = nn.ModuleList(
            SimilarityHead(dimension, channels, similarity) if similarity_maps else nn.Conv2d(channels, count, 1)
            for channels in backbone.channels
        )
        # A class is in an image from some share of its pixels on, not from a mean cosine of zero on: where that border
        # lies is learned, as a 1x1 convolution learns it in its bias. In units of the cosine; the maps do not change.
        with_offsets = similarity_maps and similarity == "centred"
        self.offsets = nn.Parameter(torch.zeros(STAGES, classes)) if with_offsets else None
        self.similarity_maps = similarity_maps
        self.merge: Merge = subclass_merge
        self.similarity = similarity
        self.matching = ImgMatchNet(
            encoder,
            adaptive_threshold=adaptive_threshold,
            delta=delta,
            mask=mask,
            contrast=contrast,
            temperature=temperature,
            theta_foreground=theta_foreground,
            theta_background=theta_background,
        )
        self.alpha, self.beta, self.sparsity = alpha, beta, sparsity

    @classmethod
    def of(cls, parts: Parts, **options: Any) -> Self:
        """Put the network together; see :meth:`Method.of`."""
        if parts.prototypes is None:
            raise ModelError("PBIP needs the prototypes of an image bank, and this model has none; train it again.")
        vectors, of_class = parts.prototypes.vectors, parts.prototypes.of_class
        return cls(parts.backbone, vectors, of_class, classes=parts.classes, encoder=parts.encoder, **options)

    # ClassNet

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Score maps of all stages; see :class:`~napari_pbip.models.methods.base.MethodOutput`."""
        features = self.backbone(images)
        maps = tuple(self._subclass_maps(i, features[i]) for i in range(STAGES))
        return MethodOutput(
            class_maps=tuple(self._to_classes(m, self.merge) for m in maps),
            class_scores=tuple(self._image_logits(i, m) for i, m in enumerate(maps)),
            subclass_maps=maps,
            subclass_scores=tuple(pool(m) for m in maps),
        )

    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class score map of one stage and its pooled logits, as :meth:`forward` gives them, but cheaper."""
        head = self.heads[stage]
        if self.merge == "mean" and isinstance(head, SimilarityHead):
            directions = self._to_classes(head.directions(self.prototypes).T, "mean").T  # (N, C)
            maps = similarity_map(features, directions)
            return maps, self.pool(maps) + self._offset(stage)
        subclass_maps = self._subclass_maps(stage, features)
        return self._to_classes(subclass_maps, self.merge), self._image_logits(stage, subclass_maps)

    def _subclass_maps(self, stage: int, features: torch.Tensor) -> torch.Tensor:
        head = self.heads[stage]
        maps: torch.Tensor = head(features, self.prototypes) if self.similarity_maps else head(features)
        return maps.float()

    def _image_logits(self, stage: int, subclass_maps: torch.Tensor) -> torch.Tensor:
        """Image-level logits (B, N) of subclass maps (B, P, h, w): mean over subclasses, pooled, and the offset."""
        return self.pool(self._to_classes(subclass_maps, "mean")) + self._offset(stage)

    def _offset(self, stage: int) -> torch.Tensor | float:
        head = self.heads[stage]
        if self.offsets is None or not isinstance(head, SimilarityHead):
            return 0.0
        return head.scale * self.offsets[stage]

    def _to_classes(self, values: torch.Tensor, how: Merge) -> torch.Tensor:
        return merge_subclasses(values, self.subclass_class, self.classes, how)

    # training

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """L = alpha * L_CLS + beta * L_SIM (Eq. 6).

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
            With ``classification_i`` of each stage i = 1..4 that has a weight, ``foreground``, ``background``
            and ``sparsity`` as far as they have one. A batch without any pair to contrast has 0 there.

        Raises
        ------
        ModelError
            If the contrast has a weight and there is no encoder.
        """
        maps = self._training_maps(images)
        return LossTerms.weighted({**self._classification(maps, labels), **self._matching(images, maps, labels)})

    def _training_maps(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Subclass maps (B, P, h, w) of the stages whose maps enter the loss."""
        features = self.backbone(images)
        return {i: self._subclass_maps(i, features[i]) for i in self._trained_stages}

    def _classification(self, maps: dict[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """L_CLS of each stage (Eq. 7-8)."""
        logits = {i: self._image_logits(i, maps[i]) for i, weight in enumerate(self.stage_weights) if weight}
        return self.classification(logits, labels, self.alpha)

    def _matching(self, images: torch.Tensor, maps: dict[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """L_SIM (Eq. 13), and the sparsity of the released code."""
        weighted = {}
        if self.beta and self.matching.active:
            contrasted, selected, own = self._contrasted(maps, labels, self.grid(images))
            found = self.matching.terms(
                images, self.backbone.normalise(images), contrasted, selected, own, self._targets
            )
            weighted = {name: (self.beta * self.matching.thetas[name], loss) for name, loss in found.items()}
        if self.beta and self.sparsity:
            weighted["sparsity"] = (self.beta * self.sparsity, maps[STAGES - 1].mean())
        return weighted

    def _contrasted(
        self, maps: dict[int, torch.Tensor], labels: torch.Tensor, grid: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score maps for ImgMatchNet (B, M, h, w), which to take (B, M), the prototypes each stands for (M, P).

        Classes: the fused map of each present class (Eq. 3) stands for all its prototypes. Subclasses, as
        released: the stage-4 maps of selected subclasses, each for its own prototype.
        """
        if self.matching.of_subclasses:
            scores = pool(maps[STAGES - 1])
            selected = select_subclasses(
                scores, labels, self.subclass_class, only_children=self.matching.contrast != "released"
            )
            return maps[STAGES - 1], selected, torch.eye(len(self.prototypes), dtype=torch.bool, device=labels.device)
        stages = [(w, self._to_classes(maps[i], "mean")) for i, w in enumerate(self.fusion_weights) if w]
        member = F.one_hot(self.subclass_class, self.classes).T.bool()
        return fuse(stages, grid), labels > 0.5, member

    @property
    def _trained_stages(self) -> list[int]:
        """Stages whose maps enter the loss."""
        stages = {i for i, w in enumerate(self.stage_weights) if w}
        if self.beta:
            by_class = self.matching.active and not self.matching.of_subclasses
            stages |= {i for i, w in enumerate(self.fusion_weights) if w and by_class}
            stages |= {STAGES - 1} if self.sparsity or (self.matching.active and not by_class) else set()
        return sorted(stages)

    @property
    def _targets(self) -> torch.Tensor:
        """The prototypes as the contrastive losses see them, (P, D)."""
        return self.prototypes if self.similarity == "released" else F.normalize(self.prototypes, dim=1)


def select_subclasses(
    scores: torch.Tensor, labels: torch.Tensor, subclass_class: torch.Tensor, *, only_children: bool
) -> torch.Tensor:
    """Subclasses of the present classes whose pooled score exceeds the mean of their class (released code).

    Parameters
    ----------
    scores
        Pooled subclass scores of stage 4, shape (B, P).
    labels
        Image-level labels, shape (B, N).
    subclass_class
        Class index of each subclass, shape (P,).
    only_children
        Whether the one subclass of a class with K = 1 counts as selected. It never exceeds its own mean, so
        the released code leaves such classes out of the contrast for good.

    Returns
    -------
    torch.Tensor
        bool, shape (B, P).
    """
    classes = labels.shape[1]
    above = scores > merge_subclasses(scores, subclass_class, classes, "mean")[:, subclass_class]
    if only_children:
        above = above | (torch.bincount(subclass_class, minlength=classes) == 1)[subclass_class]
    return above & (labels[:, subclass_class] > 0.5)
