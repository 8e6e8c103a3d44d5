"""ImgMatchNet (PBIP 3.4): what the score maps cut out is shown to the frozen encoder and compared with the bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from napari_pbip.errors import ModelError
from napari_pbip.models import masks
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.losses import contrast as losses

Contrast = Literal["classes", "subclasses", "equations", "released"]
_LOSSES = {
    "classes": {"foreground": losses.foreground_loss, "background": losses.background_loss},
    "subclasses": {"foreground": losses.foreground_loss, "background": losses.background_loss},
    "equations": {"foreground": losses.foreground_loss_of_sums, "background": losses.background_loss_of_means},
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
    mask: Literal["clipped", "released"]
    contrast: Contrast
    temperature: float
    theta_foreground: float
    theta_background: float

    @property
    def active(self) -> bool:
        """Whether any of its terms has a weight."""
        return any(self.thetas.values())

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
    ) -> dict[str, torch.Tensor]:
        """L_FGS and L_BGS, those that have a weight; 0 if nothing is selected.

        Parameters
        ----------
        images
            X, RGB in [0, 1], shape (B, 3, H, W).
        normalised
            The same as the backbone sees it; the released mask multiplies this.
        maps
            Raw score maps of M classes or subclasses, shape (B, M, h, w).
        selected
            Which of them are contrasted, bool, shape (B, M); Q pairs in all.
        own
            Which prototypes each map stands for, bool, shape (M, P).
        prototypes
            Shape (P, D); of unit length for true cosines.

        Raises
        ------
        ModelError
            If there is no encoder.
        """
        if self.encoder is None:
            raise ModelError("Training PBIP needs the encoder of its image bank; give it, or set both thetas to 0.")
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
            loss = _LOSSES[self.contrast][name]
            found[name] = loss(losses.similarities(part, prototypes), own[which], self.temperature)
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
        if self.mask == "released":
            enlarged = masks.enlarge(maps, size)
            m = enlarged[image, which][:, None]
            peak = enlarged.amax((1, 2, 3))[image]
            mask = masks.threshold_mask(m, peak, self.delta) if self.adaptive_threshold else None
            return masks.separate_released(normalised[image], m, mask)
        m = masks.to_unit(masks.enlarge(maps[image, which][:, None], size))
        mask = masks.threshold_mask(m, m.amax((1, 2, 3)), self.delta) if self.adaptive_threshold else None
        return masks.separate(images[image], m, mask)
