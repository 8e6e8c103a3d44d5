"""Depthwise convolutions whose gradients are computed quickly on a processor, with the values of torch's own.

A depthwise convolution has one small kernel for each channel. torch's backward pass takes ten to fifty times as long as
its forward pass if the kernel is dilated, or if the numbers are bfloat16 with the channels last in memory
(docs/benchmarks.md, "A step of training"). But the gradient of the input is itself a depthwise convolution, with the
kernel turned by 180 degrees, and other gradients are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F

Shape = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Stride, padding and dilation in both directions."""


class DepthwiseConv2d(nn.Module):
    """A depthwise convolution with the weights of another one, to which its results are equal.

    Parameters
    ----------
    conv
        The convolution, with one input and one output channel in each group, and padded by a number or, as in
        TensorFlow, to an output of ``size / stride``.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation = conv.stride, conv.dilation
        self.padding = None if isinstance(conv, Conv2dSame) else tuple(map(int, conv.padding))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the convolution of images (B, C, H, W)."""
        padding = self.padding
        if padding is None:
            height, width = self.weight.shape[2:]
            images, padding = pad_same(images, [height, width], [*self.stride], [*self.dilation]), (0, 0)
        if not (images.is_cpu and torch.is_grad_enabled()):
            return F.conv2d(
                images, self.weight, self.bias, self.stride, padding, self.dilation, groups=len(self.weight)
            )
        convolved: torch.Tensor = _Depthwise.apply(images, self.weight, (self.stride, padding, self.dilation))
        return convolved if self.bias is None else convolved + self.bias.to(convolved.dtype)[:, None, None]


def replace_depthwise(network: nn.Module) -> None:
    """Replace the depthwise convolutions of a network in place; the names of its weights remain."""
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            # other subclasses may compute something else
            if not isinstance(conv, nn.Conv2d) or type(conv) not in (nn.Conv2d, Conv2dSame):
                continue
            if 1 < conv.groups == conv.in_channels == conv.out_channels:
                setattr(parent, name, DepthwiseConv2d(conv))


class _Depthwise(torch.autograd.Function):
    """The convolution of (B, C, H, W) with (C, 1, k, k), and its gradients."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
        ctx.shape = shape
        ctx.save_for_backward(images, weight)
        return _convolve(images, weight, shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _of_images(gradient, images, weight, ctx.shape).to(images.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _backward(gradient, images, weight, ctx.shape, (False, True))[1]
            # in the memory order of the weights, which DistributedDataParallel expects
            of_weight = torch.empty_like(weight).copy_(of_weight)
        return of_images, of_weight, None


def _convolve(images: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    stride, padding, dilation = shape
    return F.conv2d(images, weight, None, stride, padding, dilation, len(weight))


def _of_images(gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the gradient of the images."""
    stride, padding, dilation = shape
    rest = [d * (k - 1) - p for k, p, d in zip(weight.shape[2:], padding, dilation, strict=True)]
    if max(stride) == 1 and min(rest) >= 0:
        return _convolve(gradient, weight.to(gradient.dtype).flip(2, 3), (stride, rest, dilation))
    of_images: torch.Tensor = _backward(gradient, images, weight, shape, (True, False))[0]
    return of_images


def _backward(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, shape: Shape, wanted: tuple[bool, bool]
) -> Any:
    """Return torch's gradients of images and weights, as far as they are wanted, computed in float32."""
    floats = (tensor.float() for tensor in (gradient, images, weight))
    return torch.ops.aten.convolution_backward(*floats, None, *shape, False, [0, 0], len(weight), [*wanted, False])
