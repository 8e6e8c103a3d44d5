"""The common parts of PBIP, LPD and ConStruct: names of saved weights, the frozen encoder, equivalent heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from napari_pbip.config import ConstructSettings, LpdSettings, PbipSettings
from napari_pbip.errors import ModelError
from napari_pbip.models import encoders
from napari_pbip.models.backbones import Backbone, BackboneSpec
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.construct import ConStruct
from napari_pbip.models.methods.lpd import Lpd
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.methods.prototype_method import PrototypeMethod
from napari_pbip.models.prototypes import Prototypes

K = (2, 1, 3)
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
METHODS = {
    "pbip": (Pbip, PbipSettings()),
    "convolution": (Pbip, PbipSettings(similarity_maps=False)),
    "lpd": (Lpd, LpdSettings()),
    "construct": (ConStruct, ConstructSettings(memory=8)),
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoders.load("efficientnet-lite0")


@pytest.fixture(params=METHODS)
def build(request: pytest.FixtureRequest, encoder: Encoder) -> Callable[..., PrototypeMethod]:
    network, settings = METHODS[request.param]

    def make(k: tuple[int, ...] = K) -> PrototypeMethod:
        torch.manual_seed(0)
        backbone = Backbone(BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
        dimension = encoder.spec.dimension or 0
        inputs = MethodInputs(backbone, len(k), Prototypes.random(k, dimension), encoder)
        return network.from_inputs(inputs, **settings.options()).eval()

    make.__name__ = request.param
    return make


def test_names_of_saved_weights_do_not_change(build: Callable[..., PrototypeMethod]) -> None:
    """Existing runs of users contain these names."""
    method = build()
    names = {name for name in method.state_dict() if not name.startswith("backbone.")}
    heads = ("scale", "projection.0.weight", "projection.0.bias", "projection.2.weight", "projection.2.bias")
    expected = {f"heads.{i}.{leaf}" for i in range(4) for leaf in heads} | {"offsets"}
    if build.__name__ == "convolution":
        expected = {f"heads.{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")}
    if build.__name__ == "construct":
        expected |= {"memory.features", "memory.written"}
    assert names == expected | {"prototypes", "subclass_class"}
    assert ("prototypes" in dict(method.named_parameters())) == method.learns_prototypes


def test_the_encoder_moves_with_the_method_and_is_not_trained(
    build: Callable[..., PrototypeMethod], encoder: Encoder
) -> None:
    method = build()
    weights = {id(parameter) for parameter in encoder.parameters()}
    assert weights
    assert not weights & {id(parameter) for parameter in method.parameters()}
    before = encoder.mean.dtype
    try:
        assert method.double().encoder.network.mean.dtype == torch.float64
    finally:
        encoder.to(before)


def test_maps_of_classes_come_from_those_of_subclasses(build: Callable[..., PrototypeMethod]) -> None:
    method = build()
    with torch.no_grad():
        output = method(IMAGES)
        for i, features in enumerate(method.backbone(IMAGES)):
            class_maps, scores = method.class_scores(i, features)
            merged = method.to_classes(output.subclass_maps[i], method.merge)
            torch.testing.assert_close(class_maps, merged, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(output.class_maps[i], merged)
            torch.testing.assert_close(scores, output.class_scores[i], atol=1e-5, rtol=1e-5)
            assert (method.heads[i].scale != 1) == method.similarity_maps


def test_fewer_than_two_classes_cannot_be_contrasted(build: Callable[..., PrototypeMethod]) -> None:
    with pytest.raises(ModelError, match="two or more"):
        build((3,))
