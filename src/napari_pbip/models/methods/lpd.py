"""LPD: PBIP with prototypes that are learned together with the network and kept different, without image bank.

"Learnable Prototypes with Diversity" (arXiv 2512.05922). ``docs/explanation/methods.md`` says where paper, released
code and our defaults differ.
"""

from __future__ import annotations

from typing import Any

import torch

from napari_pbip.models import masks
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.losses.diversity import diversity_loss, diversity_loss_released
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.methods.pyramid_method import STAGES
from napari_pbip.models.methods.trained_method import LossTerms, WeightedTerms
from napari_pbip.models.prototypes import Prototypes

_BACKGROUND = 0.2
"""Score of the background in the pseudo mask, as released."""


class Lpd(Pbip):
    """PBIP with learned prototypes, a diversity loss and a warm-up.

    Parameters
    ----------
    backbone
        The pyramid.
    prototypes
        Initial prototypes.
    diversity, diversity_temperature, warm_up
        The fields of :class:`napari_pbip.config.LpdSettings`.
    **pbip
        The other parameters of :class:`Pbip`.

    Raises
    ------
    ModelError
        As for :class:`Pbip`.
    """

    learns_prototypes = True

    def __init__(
        self,
        backbone: Backbone,
        prototypes: Prototypes,
        *,
        diversity: float,
        diversity_temperature: float | None,
        warm_up: float,
        **pbip: Any,
    ) -> None:
        super().__init__(backbone, prototypes, **pbip)
        self.diversity, self.diversity_temperature, self.warm_up = diversity, diversity_temperature, warm_up

    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return L = alpha * L_CLS + beta * L_SIM + diversity * L_div.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        labels
            Image-level labels, 0 or 1, float, shape (B, N).
        progress
            Share of the training that is done, 0 to 1. Until it reaches ``warm_up``, only the classification loss is
            used: the maps have no meaning yet, and random prototypes would be drawn to meaningless foregrounds.

        Returns
        -------
        LossTerms
            The terms of :class:`Pbip`, and ``diversity`` if it has a weight; all except the classification are 0 during
            the warm-up.

        Raises
        ------
        ModelError
            If the contrast has a weight, but there is no encoder.
        """
        maps = self._training_maps(images)
        classification = self._classification(maps, labels)
        if progress < self.warm_up:
            nothing = images.new_zeros(())
            return LossTerms.weighted({**classification, **dict.fromkeys(self._later_terms, (0.0, nothing))})
        return LossTerms.weighted(
            {**classification, **self._matching(images, maps, labels), **self._diversity(maps, labels)}
        )

    def _diversity(self, maps: dict[int, torch.Tensor], labels: torch.Tensor) -> WeightedTerms:
        """Return L_div of the stage-4 maps, on the cells that the maps themselves assign to each class."""
        if not self.diversity:
            return {}
        last = maps[STAGES - 1]
        cosines = last / self.heads[STAGES - 1].scale
        mask = masks.pseudo_mask(self.to_classes(last, "mean"), labels, _BACKGROUND)
        if self.diversity_temperature is None:
            loss = diversity_loss_released(cosines, mask, self.subclass_class)
        else:
            loss = diversity_loss(cosines, mask, self.subclass_class, self.diversity_temperature)
        return {"diversity": (self.diversity, loss)}

    @property
    def _later_terms(self) -> list[str]:
        """Names of the terms that are 0 during the warm-up."""
        names = [name for name, theta in self.matching.thetas.items() if theta] if self.beta else []
        names += ["sparsity"] if self.beta and self.sparsity else []
        return names + (["diversity"] if self.diversity else [])

    @property
    def _trained_stages(self) -> list[int]:
        stages = set(super()._trained_stages)
        return sorted(stages | {STAGES - 1} if self.diversity else stages)
