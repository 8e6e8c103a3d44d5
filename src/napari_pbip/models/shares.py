"""Shares of a batch: several processes train one network, and each computes it for some of the images.

Averaging the losses of parts of a batch gives neither the loss of a contrast, whose mean is over pairs of images and
classes, nor the batch normalisation of the whole. Here, therefore, each process computes the networks, which take the
time, for its share of the images, and gathers the maps of all. Losses are then computed from the whole batch in every
process, and are the same everywhere, and those of a single process up to rounding.

Gradients are scaled for :class:`~torch.nn.parallel.DistributedDataParallel`, which averages them over the P processes:
those of a share are multiplied by P, because each process has only a part of the gradient of the network's weights,
while each has the whole gradient of weights that are used after the maps were gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F

from napari_pbip.models.seeding import seeded

_SHARED: ContextVar[bool] = ContextVar("shared", default=False)
"""Whether networks that are computed now are computed in shares."""
_IN_SHARE: ContextVar[bool] = ContextVar("in share", default=False)
"""Whether what is computed now is a share."""
Maps = Sequence[torch.Tensor]


@contextmanager
def shared() -> Iterator[None]:
    """Let the processes of torch's default group, all of which do the same in this block, share its networks."""
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def in_shares(compute: Callable[[torch.Tensor], Maps], images: torch.Tensor) -> Maps:
    """Return the maps of images, of which each process computes its share within :func:`shared`.

    Parameters
    ----------
    compute
        The network: a function of images (B, ...) that returns tensors (B, ...), independent of one another but for
        batch normalisation. Random numbers in it differ from process to process.
    images
        All images, the same in every process, shape (B, ...).
    """
    count = distributed.get_world_size() if _SHARED.get() else 1
    if count == 1 or len(images) < count:  # else a share would be empty
        return compute(images)
    borders = [len(images) * place // count for place in range(count + 1)]
    sizes = [end - start for start, end in pairwise(borders)]
    seed = int(torch.randint(2**31, ()))
    tokens = _SHARED.set(False), _IN_SHARE.set(True)
    try:
        with seeded(seed + distributed.get_rank(), images.device):  # what is random later is the same in all processes
            own = compute(_Take.apply(images, sizes))
    finally:
        _SHARED.reset(tokens[0])
        _IN_SHARE.reset(tokens[1])
    return [_Gather.apply(maps, sizes) for maps in own]


def _share(of_all: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return this process's share of a tensor (B, ...)."""
    end = sum(sizes[: distributed.get_rank() + 1])
    return of_all[end - sizes[distributed.get_rank()] : end]


def _gathered(own: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the shares of all processes, one after the other."""
    sent = own.new_zeros(max(sizes), *own.shape[1:])  # all processes send the same number of images
    sent[: len(own)] = own
    received = [torch.empty_like(sent) for _ in sizes]
    distributed.all_gather(received, sent)
    return torch.cat([maps[:size] for maps, size in zip(received, sizes, strict=True)])


class _Take(torch.autograd.Function):
    """The share of a tensor that all processes have."""

    @staticmethod
    def forward(ctx: Any, of_all: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        ctx.sizes = sizes
        return _share(of_all, sizes).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _gathered(gradient, ctx.sizes) / len(ctx.sizes), None


class _Gather(torch.autograd.Function):
    """The shares of all processes, one after the other, from which all compute the same."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        ctx.sizes = sizes
        return _gathered(own, sizes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # the gradient is the same in all processes: there is nothing to send
        return _share(gradient, ctx.sizes) * len(ctx.sizes), None


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation over the images of all shares, with the weights and statistics of another one.

    torch's own ``SyncBatchNorm`` needs a graphics card.

    Parameters
    ----------
    norm
        The normalisation that it takes the place of, with a dropout and an activation if it is timm's.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.drop, self.act = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))
        self.train(norm.training)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the normalised maps (B, C, h, w)."""
        normalised = self._over_shares(maps) if self.training and _IN_SHARE.get() else super().forward(maps)
        activated: torch.Tensor = self.act(self.drop(normalised))
        return activated

    def _over_shares(self, maps: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(maps.detach().float(), (0, 2, 3), correction=0)
        number = maps.new_full((1,), maps.numel() / maps.shape[1], dtype=torch.float32)
        own = torch.cat([mean, variance, number])
        of_all = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(of_all, own)
        statistics = torch.stack(of_all)
        numbers = statistics[:, -1:]
        means, variances = statistics[:, :-1].chunk(2, 1)
        total = numbers.sum()
        mean = (numbers * means).sum(0) / total
        variance = (numbers * (variances + (means - mean) ** 2)).sum(0) / total
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, factor)
            self.running_var.lerp_(variance * total / (total - 1), factor)
        normalised: torch.Tensor = _Normalise.apply(maps, self.weight, self.bias, mean, variance, total, self.eps)
        return normalised


class _Normalise(torch.autograd.Function):
    """Normalisation by a mean and a variance that come from the images of all shares."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        total: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        ctx.eps = eps
        ctx.save_for_backward(maps, weight, mean, variance, total)
        return F.batch_norm(maps, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, weight, mean, variance, total = ctx.saved_tensors
        # torch's kernel for constant statistics, to which the part through the statistics is added
        of_maps, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([of_weight, of_bias]).float()
        distributed.all_reduce(sums)
        deviation = (variance + ctx.eps).sqrt()
        slope = weight * sums[0] / (deviation**2 * total)
        shift = weight * sums[1] / (deviation * total) - slope * mean
        correction = maps.float() * slope[:, None, None] + shift[:, None, None]
        return (of_maps - correction).to(maps.dtype), of_weight, of_bias, None, None, None, None


def share_batch_norms(network: nn.Module) -> None:
    """Replace the batch normalisations of a network in place; the names of its weights remain."""
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d) and norm.affine:
                setattr(parent, name, SharedBatchNorm2d(norm))
