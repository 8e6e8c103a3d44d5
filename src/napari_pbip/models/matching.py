"""ImgMatchNet (PBIP 3.4): images are masked by score maps, encoded, and their features compared with prototypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F

from napari_pbip.models import masks
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.losses.contrast import info_nce, info_nce_of_means, logistic_loss, similarities
from napari_pbip.models.memory import FeatureMemory

Contrast = Literal["classes", "subclasses", "equations", "infonce", "released"]
Mask = Literal["clipped", "raw", "released"]
"""M in Eq. 5: clipped to [0, 1]; raw, as in LPD's released code; or raw with stretched products, as in PBIP's."""
Masked = Literal["auto", "images"]
"""What M weights in Eq. 5: images, each of which is then encoded, or the encoder's features of the whole image, where
the encoder is one that pools cells (:attr:`~napari_pbip.models.encoders.base.Encoder.pools_cells`)."""
Loss = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
_LOSSES: Mapping[Contrast, tuple[Loss, Loss]] = {
    "classes": (info_nce, info_nce_of_means),
    "subclasses": (info_nce, info_nce_of_means),
    "equations": (partial(logistic_loss, pool="sum"), partial(logistic_loss, pool="mean")),
    "infonce": (info_nce, info_nce),
    "released": (partial(info_nce, over_batch=True), partial(info_nce_of_means, over_batch=True)),
}
"""The losses of foreground and background for each kind of contrast."""


class Contrasted(NamedTuple):
    """The input of the contrast: score maps of M classes or subclasses of B images, and P prototypes."""

    maps: torch.Tensor
    """Raw score maps, shape (B, M, h, w)."""
    selected: torch.Tensor
    """Whether each map is contrasted, bool, shape (B, M); Q maps are."""
    positives: torch.Tensor
    """Prototypes that the foreground of each map should resemble and its background should not; bool, (M, P)."""
    prototypes: torch.Tensor
    """Prototypes, shape (P, D); of unit length for true cosines."""


@dataclass(frozen=True, kw_only=True)
class ImgMatchNet:
    """The contrast of foregrounds and backgrounds with prototypes; it has settings, but no weights.

    The fields are those of :class:`napari_pbip.config.PbipSettings`.
    """

    contrast: Contrast
    temperature: float
    delta: float
    adaptive_threshold: bool = True
    mask: Mask = "clipped"
    masked: Masked = "images"
    theta_foreground: float = 1.0
    theta_background: float = 1.0

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        return any(self.thetas.values())

    @property
    def of_subclasses(self) -> bool:
        """Whether each subclass is contrasted with all others, rather than each class with all others."""
        return self.contrast in ("subclasses", "infonce", "released")

    @property
    def thetas(self) -> dict[str, float]:
        """Weight of each term within L_SIM (Eq. 13)."""
        return {"foreground": self.theta_foreground, "background": self.theta_background}

    def terms(
        self,
        encoder: Encoder,
        images: torch.Tensor,
        normalised: torch.Tensor,
        contrasted: Contrasted,
        memory: FeatureMemory | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return L_FGS and L_BGS by name, those that have a weight; they are 0 if no map is selected.

        Parameters
        ----------
        encoder
            The frozen encoder of the prototypes, with features of length D.
        images
            X, RGB in [0, 1], shape (B, 3, H, W).
        normalised
            The images normalised for the backbone, which the released masks are applied to.
        contrasted
            The score maps and prototypes.
        memory
            Backgrounds of earlier batches, which are additional negatives of the foreground; those of this batch are
            added to it.
        """
        maps, selected, positives, prototypes = contrasted
        names = [name for name, theta in self.thetas.items() if theta]
        if self.mask == "clipped":  # a map without positive values has an empty foreground and no gradient
            selected = selected & (maps.amax((2, 3)) > 0)
        image, which = selected.nonzero(as_tuple=True)
        if len(image) == 0:
            return {name: maps.new_zeros(()) for name in names}
        cells = encoder.cells(images) if self._masks_features(encoder) else None
        visible = images if cells is None else images.mean(1, keepdim=True)  # brightness alone weights the cells
        pictures = dict(zip(self.thetas, self._separate(visible, normalised, maps, image, which), strict=True))
        batch = torch.cat([pictures[name] for name in names])  # in one batch, which is faster
        features = encoder(batch) if cells is None else encoder.pool(cells[image.repeat(len(names))], batch)
        encoded = dict(zip(names, features.split(len(image)), strict=True))
        foreground_loss, background_loss = _LOSSES[self.contrast]
        terms = {}
        if "foreground" in encoded:
            negatives = prototypes[:0] if memory is None else memory()
            similarity = similarities(encoded["foreground"], torch.cat([prototypes, negatives]))
            positive = F.pad(positives[which], (0, len(negatives)))
            terms["foreground"] = foreground_loss(similarity, positive, self.temperature)
        if "background" in encoded:
            similarity = similarities(encoded["background"], prototypes)
            terms["background"] = background_loss(similarity, ~positives[which], self.temperature)
            if memory is not None:
                memory.add(encoded["background"])
        return terms

    def _masks_features(self, encoder: Encoder) -> bool:
        """Return whether the encoder's features are masked, and not the images; other masks are made for images."""
        return self.masked == "auto" and self.mask == "clipped" and encoder.pools_cells

    def _separate(
        self,
        images: torch.Tensor,
        normalised: torch.Tensor,
        maps: torch.Tensor,
        image: torch.Tensor,
        which: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return X_FG and X_BG of each pair, (Q, C, H, W), of images with C channels."""
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
