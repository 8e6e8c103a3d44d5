"""Depthwise convolutions whose gradients are computed quickly on a processor, with the values of torch's own.

A depthwise convolution has one small kernel for each channel. torch's backward pass takes ten to fifty times as long as
its forward pass if the kernel is dilated, or if the numbers are bfloat16 with the channels last in memory
(docs/benchmarks.md, "A step of training"). But the gradient of the input is itself a depthwise convolution, with the
kernel turned by 180 degrees; the gradient of a weight is a sum of products; and what is left to torch is computed in
float32, for few images at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F

Shape = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Stride, padding and dilation in both directions."""
_SMALL = 3
"""Largest side of a kernel, if it is not dilated, for whose gradient torch is fast."""


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
            of_images = _of_images(gradient, images, weight, ctx.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, images, weight, ctx.shape)
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
        turned = weight.to(gradient.dtype).flip(2, 3)
        return _convolve(gradient, turned, (stride, rest, dilation)).to(images.dtype)
    parts = _parts(gradient, images)
    return torch.cat([_backward(*part, weight, shape, (True, False))[0].to(images.dtype) for part in parts])


def _of_weight(gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the gradient of the weights, float32 (C, 1, k, k)."""
    parts = _parts(gradient, images)
    if max(weight.shape[2:]) > _SMALL or max(shape[2]) > 1:
        return sum((_by_weight(*part, weight, shape) for part in parts), torch.zeros(()))
    return sum((_backward(*part, weight, shape, (False, True))[1] for part in parts), torch.zeros(()))


def _parts(gradient: torch.Tensor, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield both in float32, for as many images at a time as there are cores.

    The copies then stay in the cache of the processor. Of no images there is one part without any.
    """
    count = torch.get_num_threads()
    for first in range(0, max(1, len(images)), count):
        yield gradient[first : first + count].float(), images[first : first + count].float()


def _backward(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, shape: Shape, wanted: tuple[bool, bool]
) -> Any:
    """Return torch's gradients of images and weights, as far as they are wanted, in float32."""
    return torch.ops.aten.convolution_backward(
        gradient, images, weight.float(), None, *shape, False, [0, 0], len(weight), [*wanted, False]
    )


def _by_weight(gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the gradient of the weights, (C, 1, k, k): sums of products of the gradient and the images.

    Weight (y, x) of a channel was multiplied with the pixels that lie y and x dilated rows and columns after the first
    one of each place of the kernel; its gradient is the sum over these of pixel times gradient of the result.

    Parameters
    ----------
    gradient, images
        Gradient of the results, (B, C, h, w), and the images, (B, C, H, W), float32.
    weight, shape
        The weights, and stride, padding and dilation.
    """
    stride, padding, dilation = shape
    gradient, images = gradient.permute(0, 2, 3, 1), images.permute(0, 2, 3, 1)
    images = F.pad(images, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    seen = [
        [slice(k * d, k * d + (side - 1) * s + 1, s) for k in range(size)]
        for size, side, s, d in zip(weight.shape[2:], gradient.shape[1:3], stride, dilation, strict=True)
    ]
    sums = [(gradient * images[:, y, x]).sum((0, 1, 2)) for y in seen[0] for x in seen[1]]
    return torch.stack(sums, 1).reshape(weight.shape)
