"""The base class of PBIP, LPD and ConStruct, with class maps from similarities to prototypes, and their contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Pyramid
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.matching import Contrasted, ImgMatchNet
from napari_pbip.models.memory import FeatureMemory
from napari_pbip.models.methods.base import MethodInputs, MethodOutput
from napari_pbip.models.methods.pyramid_method import STAGES, PyramidMethod
from napari_pbip.models.methods.trained_method import WeightedTerms
from napari_pbip.models.prototypes import ConvolutionHead, Head, Prototypes, Similarity, SimilarityHead
from napari_pbip.models.score_maps import Merge, merge_subclasses, pool


class PrototypeMethod(PyramidMethod):
    """A method with prototypes: a head for each stage, an offset for each stage and class, and a contrast.

    Parameters
    ----------
    backbone
        The pyramid.
    prototypes
        Prototypes in the encoder's feature space of dimension D; they are part of ``state_dict()``.
    classes
        Number of tissue classes N, at least two.
    encoder
        The frozen encoder of the prototypes, which is kept as :class:`~napari_pbip.models.frozen.Frozen`; only training
        needs it (with ConStruct, and a share of a linear probe in PBIP, inference does too).
    similarity
        See :class:`~napari_pbip.models.prototypes.SimilarityHead`.
    merge
        How subclass maps become the class maps of :meth:`forward` and :meth:`scores`.
    trained_merge
        How subclass maps become class maps in the loss and for image-level logits.
    alpha, beta
        Weights of the classification loss and of the similarity loss.
    matching
        ImgMatchNet, which computes the similarity loss.
    similarity_maps
        Whether maps are similarities to prototypes, or the output of a 1x1 convolution (Table 5 of PBIP).
    **weights
        stage_weights, fusion_weights and synthesis; see :class:`PyramidMethod`.

    Raises
    ------
    ModelError
        If there are fewer than two classes, or a class has no prototype.
    """

    learns_prototypes: ClassVar[bool]
    """Whether the prototypes are trained; otherwise they remain unchanged."""

    prototypes: torch.Tensor
    subclass_class: torch.Tensor

    def __init__(
        self,
        backbone: Pyramid,
        prototypes: Prototypes,
        *,
        classes: int,
        encoder: Encoder | None = None,
        similarity: Similarity,
        merge: Merge,
        trained_merge: Merge,
        alpha: float,
        beta: float,
        matching: ImgMatchNet,
        similarity_maps: bool = True,
        **weights: Any,
    ) -> None:
        super().__init__(backbone, classes, **weights)
        if classes < 2 or sorted(set(prototypes.subclass_class.tolist())) != list(range(classes)):
            raise ModelError(
                f"The method contrasts classes: it needs two or more, each with a prototype, not {classes}; "
                "give tiles of another class, and build the image bank again."
            )
        vectors = prototypes.vectors.float()
        if self.learns_prototypes:
            self.prototypes = nn.Parameter(vectors.clone())
        else:
            self.register_buffer("prototypes", vectors)
        self.register_buffer("subclass_class", prototypes.subclass_class.long())
        count, dimension = vectors.shape
        heads = (
            SimilarityHead(dimension, channels, similarity) if similarity_maps else ConvolutionHead(channels, count)
            for channels in backbone.channels
        )
        self.heads = cast("Sequence[Head]", nn.ModuleList(heads))  # torch's list has no type of its modules
        # A class is present from some share of its pixels on, which need not be where the mean cosine is zero. That
        # threshold is learned as an offset of the logits, in units of the cosine, like the bias of a 1x1 convolution.
        with_offsets = similarity_maps and similarity == "centred"
        self.offsets = nn.Parameter(torch.zeros(STAGES, classes)) if with_offsets else None
        self.encoder = None if encoder is None else Frozen(encoder)
        self.similarity_maps, self.similarity = similarity_maps, similarity
        self.merge, self.trained_merge = merge, trained_merge
        self.alpha, self.beta, self.matching = alpha, beta, matching

    @classmethod
    def from_inputs(cls, inputs: MethodInputs, **options: Any) -> Self:
        """Build the network; see :meth:`Method.from_inputs`."""
        if inputs.prototypes is None:
            raise ModelError("The method needs prototypes, and this model has none; train it again.")
        return cls(inputs.pyramid, inputs.prototypes, classes=inputs.classes, encoder=inputs.encoder, **options)

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Return the score maps of all stages; see :class:`~napari_pbip.models.methods.base.MethodOutput`."""
        maps = tuple(self.subclass_maps(i, features) for i, features in enumerate(self.backbone(images)))
        classes = [self._class_scores(i, m) for i, m in enumerate(maps)]
        return MethodOutput(
            class_maps=tuple(class_maps for class_maps, _ in classes),
            class_scores=tuple(scores for _, scores in classes),
            subclass_maps=maps,
            subclass_scores=tuple(pool(m) for m in maps),
        )

    def subclass_maps(self, stage: int, features: torch.Tensor) -> torch.Tensor:
        """Return the score maps (B, P, h, w), float32, of features (B, C, h, w) of one stage, counted from 0."""
        maps: torch.Tensor = self.heads[stage](features, self.prototypes)
        return maps

    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class score map of one stage and its pooled logits, as :meth:`forward` does, but faster."""
        if self.merge == self.trained_merge == "mean":
            maps = self.heads[stage].class_means(features, self.prototypes, self.subclass_class, self.classes)
            return maps, self.pool(maps) + self._offset(stage)
        return self._class_scores(stage, self.subclass_maps(stage, features))

    def to_classes(self, values: torch.Tensor, how: Merge) -> torch.Tensor:
        """Merge values of subclasses, (B, P, ...), into values of classes, (B, N, ...)."""
        return merge_subclasses(values, self.subclass_class, self.classes, how)

    def image_logits(self, stage: int, subclass_maps: torch.Tensor) -> torch.Tensor:
        """Return image-level logits (B, N) of subclass maps (B, P, h, w), which are merged, pooled and offset."""
        return self.pool(self.to_classes(subclass_maps, self.trained_merge)) + self._offset(stage)

    def contrast(
        self, images: torch.Tensor, contrasted: Contrasted, memory: FeatureMemory | None = None
    ) -> WeightedTerms:
        """Return the terms of L_SIM (Eq. 13) by name, each with its weight; see :meth:`ImgMatchNet.terms`.

        Raises
        ------
        ModelError
            If there is no encoder.
        """
        if self.encoder is None:
            raise ModelError("Contrasting needs the encoder of the prototypes; give it, or set both thetas to 0.")
        normalised = self.backbone.normalise(images)
        terms = self.matching.terms(self.encoder.network, images, normalised, contrasted, memory)
        return {name: (self.beta * self.matching.thetas[name], loss) for name, loss in terms.items()}

    def _class_scores(self, stage: int, subclass_maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.to_classes(subclass_maps, self.merge)
        if self.merge == self.trained_merge:
            return maps, self.pool(maps) + self._offset(stage)
        return maps, self.image_logits(stage, subclass_maps)

    def _offset(self, stage: int) -> torch.Tensor | float:
        return 0.0 if self.offsets is None else self.heads[stage].scale * self.offsets[stage]
