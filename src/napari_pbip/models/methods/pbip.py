"""PBIP: prototypes of an image bank act as prompts of a classifier and correct its score maps.

Tang et al. 2025, "Prototype-Based Image Prompting for Weakly Supervised Histopathological Image Segmentation"
(arXiv 2503.12068). ``docs/explanation/methods.md`` says where paper, released code and our defaults differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.matching import Contrast, Contrasted, ImgMatchNet, Mask, Masked
from napari_pbip.models.methods.base import Scores
from napari_pbip.models.methods.probe import Probe
from napari_pbip.models.methods.prototype_method import PrototypeMethod
from napari_pbip.models.methods.pyramid_method import STAGES
from napari_pbip.models.methods.trained_method import LossTerms, WeightedTerms
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.score_maps import Merge, fuse, merge_subclasses, pool


class Pbip(PrototypeMethod):
    """ClassNet and ImgMatchNet (PBIP 3.3, 3.4).

    Parameters
    ----------
    backbone
        The pyramid.
    prototypes
        The prototypes of the image bank.
    subclass_merge, adaptive_threshold, delta, mask, masked, contrast, temperature
        The fields of :class:`napari_pbip.config.PbipSettings`.
    theta_foreground, theta_background, sparsity, probe_share
        Fields of the same. With a share, :attr:`probe` has to be fitted before scores are computed.
    **shared
        The other parameters of :class:`PrototypeMethod`: classes, encoder, and fields of the settings.

    Raises
    ------
    ModelError
        As for :class:`PrototypeMethod`, or if a linear probe has a share, but there is no encoder, or scores are no
        probabilities.
    ConfigError
        If a linear probe has a share, and the encoder has no dense features.
    """

    learns_prototypes = False
    probe: Probe | None
    """The linear probe that has a share in the scores; this training does not change it."""

    def __init__(
        self,
        backbone: Backbone,
        prototypes: Prototypes,
        *,
        subclass_merge: Merge,
        adaptive_threshold: bool = True,
        delta: float,
        mask: Mask,
        masked: Masked,
        contrast: Contrast,
        temperature: float,
        theta_foreground: float,
        theta_background: float,
        sparsity: float,
        probe_share: float = 0.0,
        **shared: Any,
    ) -> None:
        matching = ImgMatchNet(
            contrast=contrast,
            temperature=temperature,
            delta=delta,
            adaptive_threshold=adaptive_threshold,
            mask=mask,
            masked=masked,
            theta_foreground=theta_foreground,
            theta_background=theta_background,
        )
        super().__init__(backbone, prototypes, merge=subclass_merge, trained_merge="mean", matching=matching, **shared)
        self.sparsity, self.probe_share, self.probe = sparsity, probe_share, None
        if probe_share:
            if self.encoder is None:
                raise ModelError("A linear probe needs the encoder; give it, or set `method.probe_share` to 0.")
            if not self.calibrated:
                raise ModelError(
                    "A linear probe can only have a share in scores that are probabilities; set `method.synthesis` to "
                    "1, or `method.probe_share` to 0."
                )
            self.probe = Probe(self.encoder.network, self.classes).requires_grad_(False)

    def scores(self, images: torch.Tensor) -> Scores:
        """See :meth:`Method.scores`; with a linear probe, the means of both scores, weighted by its share.

        The maps of :meth:`forward` are those of PBIP alone.
        """
        own = super().scores(images)
        if self.probe is None:
            return own
        seen = self.probe(images)
        maps = fuse([(1.0, seen.class_maps[0])], self.grid(images))
        presence = torch.lerp(own.presence, self.probe.presence(seen), self.probe_share)
        return Scores(torch.lerp(own.maps, maps, self.probe_share), presence)

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return L = alpha * L_CLS + beta * L_SIM (Eq. 6).

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
            The terms ``classification_i`` of each stage i = 1..4, ``foreground``, ``background`` and ``sparsity``, as
            far as they have a weight. Foreground and background are 0 for a batch without any pair to contrast.

        Raises
        ------
        ModelError
            If the contrast has a weight, but there is no encoder.
        """
        maps = self._training_maps(images)
        return LossTerms.weighted({**self._classification(maps, labels), **self._matching(images, maps, labels)})

    def _training_maps(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the subclass maps (B, P, h, w) of the stages whose maps are used in the loss."""
        features = self.backbone(images)
        return {i: self.subclass_maps(i, features[i]) for i in self._trained_stages}

    def _classification(self, maps: dict[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """Return L_CLS of each stage (Eq. 7-8)."""
        logits = {i: self.image_logits(i, maps[i]) for i, weight in enumerate(self.stage_weights) if weight}
        return self.classification(logits, labels, self.alpha)

    def _matching(self, images: torch.Tensor, maps: dict[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """Return L_SIM (Eq. 13), and the sparsity of the released code."""
        weighted: dict[str, tuple[float, torch.Tensor]] = {}
        if self.beta and self.matching.active:
            weighted |= self.contrast(images, self._contrasted(maps, labels, self.grid(images)))
        if self.beta and self.sparsity:
            weighted["sparsity"] = (self.beta * self.sparsity, maps[STAGES - 1].mean())
        return weighted

    def _contrasted(self, maps: dict[int, torch.Tensor], labels: torch.Tensor, grid: Sequence[int]) -> Contrasted:
        """Return the input of ImgMatchNet.

        For classes, this is the fused map of each present class (Eq. 3), whose positives are all prototypes of the
        class. For subclasses, as released, it is the stage-4 maps of selected subclasses, each of which has its own
        prototype as the only positive.
        """
        if self.matching.of_subclasses:
            scores = pool(maps[STAGES - 1])
            selected = select_subclasses(
                scores, labels, self.subclass_class, only_children=self.matching.contrast != "released"
            )
            positives = torch.eye(len(self.prototypes), dtype=torch.bool, device=labels.device)
            return Contrasted(maps[STAGES - 1], selected, positives, self._targets)
        stages = [(w, self.to_classes(maps[i], "mean")) for i, w in enumerate(self.fusion_weights) if w]
        positives = F.one_hot(self.subclass_class, self.classes).T.bool()
        return Contrasted(fuse(stages, grid), labels > 0.5, positives, self._targets)

    @property
    def _trained_stages(self) -> list[int]:
        """Stages whose maps are used in the loss."""
        stages = {i for i, w in enumerate(self.stage_weights) if w}
        if self.beta:
            by_class = self.matching.active and not self.matching.of_subclasses
            stages |= {i for i, w in enumerate(self.fusion_weights) if w and by_class}
            stages |= {STAGES - 1} if self.sparsity or (self.matching.active and not by_class) else set()
        return sorted(stages)

    @property
    def _targets(self) -> torch.Tensor:
        """The prototypes for the contrastive losses, (P, D); of unit length, except in the released form."""
        return self.prototypes if self.similarity == "released" else F.normalize(self.prototypes, dim=1)


def select_subclasses(
    scores: torch.Tensor, labels: torch.Tensor, subclass_class: torch.Tensor, *, only_children: bool
) -> torch.Tensor:
    """Return the subclasses of present classes whose pooled score exceeds the mean of their class (released code).

    Parameters
    ----------
    scores
        Pooled subclass scores of stage 4, shape (B, P).
    labels
        Image-level labels, shape (B, N).
    subclass_class
        Class index of each subclass, shape (P,).
    only_children
        Whether the only subclass of a class with K = 1 is selected. It never exceeds its own mean, so that the
        released code leaves such classes out of the contrast.

    Returns
    -------
    torch.Tensor
        Whether each subclass is selected, bool, shape (B, P).
    """
    classes = labels.shape[1]
    above = scores > merge_subclasses(scores, subclass_class, classes, "mean")[:, subclass_class]
    if only_children:
        above = above | (torch.bincount(subclass_class, minlength=classes) == 1)[subclass_class]
    return above & (labels[:, subclass_class] > 0.5)
