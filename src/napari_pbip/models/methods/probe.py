"""The linear probe: multinomial logistic regression of the class of a cell on dense features of a frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.encoders.base import Encoder, resized
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.methods.base import Method, MethodInputs, MethodOutput

_PRESENT_FROM = 0.05
"""Share of the cells in which a class must be likely to count as present; the very likeliest cells are outliers."""
_CERTAIN = 1e-6
"""Probabilities are limited to this and to one minus this."""


class Probe(Method):
    """Multinomial logistic regression on standardised dense features, which is fitted rather than trained in steps.

    Parameters
    ----------
    encoder
        The frozen encoder, which must have dense features. Its weights are neither in ``parameters()`` nor in
        ``state_dict()``.
    classes
        Number of tissue classes N.

    Raises
    ------
    ConfigError
        If the encoder has no dense features.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__(classes, (1.0,))
        dimension = encoder.dense_dimension
        self.encoder = Frozen(encoder)
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("scale", torch.ones(dimension))
        self.weight = nn.Parameter(torch.zeros(classes, dimension))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_load_state_dict_pre_hook(_complete_earlier)  # type: ignore[no-untyped-call]  # torch's own

    @classmethod
    def from_inputs(cls, inputs: MethodInputs, **options: Any) -> Self:
        """Build the network; see :meth:`Method.from_inputs`."""
        if inputs.encoder is None:
            raise ModelError("A linear probe needs an encoder, and there is none; train the model again.")
        return cls(inputs.encoder, inputs.classes)

    @property
    def calibrated(self) -> bool:
        """See :attr:`Method.calibrated`."""
        return True

    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Return the score map, at the stride of the encoder's dense features."""
        # float32, because the classifier weighs differences of features that are small beside the features themselves
        with torch.autocast(images.device.type, enabled=False):
            maps = self.class_map(*self.encoder.network.dense_maps(images.float()))
            return MethodOutput((maps,), (self.image_logits(maps),))

    def class_map(self, maps: Sequence[torch.Tensor], grid: torch.Size) -> torch.Tensor:
        """Return the scores (B, N, h, w) of the maps that dense features consist of, see :meth:`Encoder.dense_maps`.

        The linear classifier is applied before its results are resized, which gives the same as the other way round
        and takes a fraction of the time, because there are fewer classes than features.
        """
        weight = self.weight / self.scale
        weights = torch.split(weight, [m.shape[1] for m in maps], 1)
        logits = (self.bias - weight @ self.mean)[:, None, None]
        for features, of_features in zip(maps, weights, strict=True):
            logits = logits + resized(F.conv2d(features, of_features[:, :, None, None]), grid)
        return logits.log_softmax(1) + math.log(self.classes)

    def presence(self, output: MethodOutput) -> torch.Tensor:
        """See :meth:`Method.presence`: the logits of :meth:`image_logits`."""
        return output.class_scores[0]

    def image_logits(self, maps: torch.Tensor) -> torch.Tensor:
        """Return logits of class presence in the images, (B, N), from score maps (B, N, h, w); 0 stands for chance."""
        likeliest = (_upper_quantile(maps.flatten(2), _PRESENT_FROM) - math.log(self.classes)).exp()
        likeliest = likeliest.clamp(_CERTAIN, 1 - _CERTAIN)
        # with many classes, few reach a probability of 0.5, so a probability above chance counts as present
        return likeliest.log() - (1 - likeliest).log() + math.log(self.classes - 1)


def _complete_earlier(probe: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Complete the weights of an earlier version, which knew only the first half of a pyramid's dense features."""
    assert isinstance(probe, Probe)
    dimension = len(probe.mean)
    for name, value in (("weight", 0.0), ("mean", 0.0), ("scale", 1.0)):  # with which it ignores the others
        known = state.get(prefix + name)
        if known is not None and 2 * known.shape[-1] == dimension:
            state[prefix + name] = F.pad(known, (0, dimension - known.shape[-1]), value=value)


def _upper_quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return the quantile that this share of the last axis exceeds; OpenVINO does not know that of torch."""
    place = (1 - share) * (values.shape[-1] - 1)
    below = math.floor(place)
    largest = values.topk(values.shape[-1] - below).values
    return torch.lerp(largest[..., -1], largest[..., max(-2, -largest.shape[-1])], place - below)
