"""Depthwise convolutions with quick gradients, which are those of torch."""

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from napari_pbip.models.backbones.depthwise import DepthwiseConv2d, replace_depthwise

SHAPES = [
    nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8, bias=False),
    nn.Conv2d(8, 8, 3, padding=1, groups=8),
    nn.Conv2d(8, 8, 3, padding=0, groups=8),
    nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
    nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8),
    nn.Conv2d(8, 8, 1, padding=1, groups=8),
    Conv2dSame(8, 8, 5, stride=2, groups=8),
    nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, groups=8),
]


def _gradients(conv, images, precision):
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = conv(images)
    conv.zero_grad()
    weights = torch.arange(out.numel()).view(out.shape).sin()
    (out.float() * weights).sum().backward()
    return out, images.grad, *(parameter.grad.clone() for parameter in conv.parameters())


@pytest.mark.parametrize("conv", SHAPES, ids=str)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_are_those_of_torch(conv, order, precision):
    count = 2 * torch.get_num_threads() + 1  # so that there are three parts, the last of which is smaller
    images = torch.randn(count, 8, 13, 18, generator=torch.manual_seed(0)).contiguous(memory_format=order)
    ours = _gradients(DepthwiseConv2d(conv), images, precision)
    close = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.1}
    for one, other in zip(ours, _gradients(conv, images, precision), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("conv", SHAPES, ids=str)
def test_gradients_of_no_images_are_zero(conv):
    _, of_images, *of_weights = _gradients(DepthwiseConv2d(conv), torch.zeros(0, 8, 13, 18), torch.float32)
    assert of_images.shape == (0, 8, 13, 18)
    assert not any(gradient.any() for gradient in of_weights)


def test_a_network_keeps_its_weights_and_computes_the_same():
    network = timm.create_model("tf_efficientnet_lite0", output_stride=16).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(0))
    before, names = network(images), list(network.state_dict())
    convolutions = sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    replace_depthwise(network)
    assert list(network.state_dict()) == names
    assert sum(isinstance(m, DepthwiseConv2d) for m in network.modules()) == convolutions > 0
    assert torch.equal(network(images), before)
