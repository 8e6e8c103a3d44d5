"""ImgMatchNet (PBIP 3.4): what the score maps cut out is shown to the frozen encoder and compared with the bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models import masks
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.losses import contrast as losses
from napari_pbip.models.memory import FeatureMemory

Contrast = Literal["classes", "subclasses", "equations", "infonce", "released"]
Mask = Literal["clipped", "raw", "released"]
"""M in Eq. 5: clipped to [0, 1], as it is (LPD's released code), or as it is and the product stretched (PBIP's)."""
_LOSSES = {
    "classes": {"foreground": losses.foreground_loss, "background": losses.background_loss},
    "subclasses": {"foreground": losses.foreground_loss, "background": losses.background_loss},
    "equations": {"foreground": losses.foreground_loss_of_sums, "background": losses.background_loss_of_means},
    "infonce": {"foreground": losses.foreground_loss, "background": losses.background_loss_of_many},
    "released": {"foreground": losses.foreground_loss_released, "background": losses.background_loss_released},
}


@dataclass(frozen=True)
class ImgMatchNet:
    """Foreground and background of every selected map, through the encoder, against the prototypes.

    It has no weights of its own and is no module, so the encoder in it is not part of the trained model.
    """

    encoder: Encoder | None
    adaptive_threshold: bool
    delta: float
    mask: Mask
    contrast: Contrast
    temperature: float
    theta_foreground: float
    theta_background: float

    @property
    def active(self) -> bool:
        """Whether any of its terms has a weight."""
        return any(self.thetas.values())

    @property
    def of_subclasses(self) -> bool:
        """Whether subclasses are contrasted, each with all others, and not classes."""
        return self.contrast in ("subclasses", "infonce", "released")

    @property
    def thetas(self) -> dict[str, float]:
        """Weight of each term within L_SIM (Eq. 13)."""
        return {"foreground": self.theta_foreground, "background": self.theta_background}

    def terms(
        self,
        images: torch.Tensor,
        normalised: torch.Tensor,
        maps: torch.Tensor,
        selected: torch.Tensor,
        own: torch.Tensor,
        prototypes: torch.Tensor,
        memory: FeatureMemory | None = None,
    ) -> dict[str, torch.Tensor]:
        """L_FGS and L_BGS, those that have a weight; 0 if nothing is selected.

        Parameters
        ----------
        images
            X, RGB in [0, 1], shape (B, 3, H, W).
        normalised
            The same as the backbone sees it; the released masks multiply this.
        maps
            Raw score maps of M classes or subclasses, shape (B, M, h, w).
        selected
            Which of them are contrasted, bool, shape (B, M); Q pairs in all.
        own
            Which prototypes each map stands for, bool, shape (M, P).
        prototypes
            Shape (P, D); of unit length for true cosines.
        memory
            Backgrounds of earlier batches, which are rivals of the foreground too; those of this batch join them.

        Raises
        ------
        ModelError
            If there is no encoder.
        """
        if self.encoder is None:
            raise ModelError("Contrasting needs the encoder of the prototypes; give it, or set both thetas to 0.")
        names = [name for name, theta in self.thetas.items() if theta]
        if self.mask == "clipped":  # a map with nothing positive cuts nothing out, and has no gradient to change that
            selected = selected & (maps.amax((2, 3)) > 0)
        image, which = selected.nonzero(as_tuple=True)
        if len(image) == 0:
            return {name: maps.new_zeros(()) for name in names}
        pictures = dict(zip(self.thetas, self._separate(images, normalised, maps, image, which), strict=True))
        features = self.encoder(torch.cat([pictures[name] for name in names]))  # all at once: fewer, larger products
        found = {}
        for name, part in zip(names, features.split(len(image)), strict=True):
            rivals = memory() if memory is not None and name == "foreground" else prototypes[:0]
            similarity = losses.similarities(part, torch.cat([prototypes, rivals]))
            mine = F.pad(own[which], (0, len(rivals)))
            found[name] = _LOSSES[self.contrast][name](similarity, mine, self.temperature)
            if memory is not None and name == "background":
                memory.add(part)
        return found

    def _separate(
        self,
        images: torch.Tensor,
        normalised: torch.Tensor,
        maps: torch.Tensor,
        image: torch.Tensor,
        which: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """X_FG and X_BG of each pair, (Q, 3, H, W)."""
        size = images.shape[-2:]
        if self.mask != "clipped":
            enlarged = masks.enlarge(maps, size)
            m = enlarged[image, which][:, None]
            peak = enlarged.amax((1, 2, 3))[image]
            mask = masks.threshold_mask(m, peak, self.delta) if self.adaptive_threshold else None
            separate = masks.separate_released if self.mask == "released" else masks.separate
            return separate(normalised[image], m, mask)
        m = masks.to_unit(masks.enlarge(maps[image, which][:, None], size))
        mask = masks.threshold_mask(m, m.amax((1, 2, 3)), self.delta) if self.adaptive_threshold else None
        return masks.separate(images[image], m, mask)
