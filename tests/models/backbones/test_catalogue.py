"""The contract of all backbones: maps as declared, trainable, and one sentence for weights that cannot be loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_pbip.config import PbipSettings
from napari_pbip.errors import ConfigError, ModelError, WeightsUnavailable
from napari_pbip.models import backbones
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.cam import Cam
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.prototypes import Prototypes

ROWS = backbones.catalogue()
SMALL = {
    "lite": ROWS["efficientnet-lite0"],  # small as it is
    "mit": replace(ROWS["mit-b0"], channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)),
    "basic": replace(ROWS["resnet18"], channels=(16, 24, 32, 48), depths=(1, 1, 1, 1)),
    "bottleneck": replace(ROWS["resnet50"], channels=(32, 64, 96, 128), depths=(1, 1, 1, 1)),
    "pvt": replace(ROWS["pvt-v2-b0"], channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)),
    "wide": replace(ROWS["wide-resnet38"], channels=(16, 24, 32, 64), depths=(4, 2, 2, 2)),
    "transunet": replace(ROWS["transunet"], channels=(128, 256, 256, 48), depths=(1, 1, 1, 2), heads=(1, 1, 1, 4)),
}
"""One of each kind, with few channels and blocks."""


class PooledPixels(torch.nn.Module):
    """A frozen encoder without weights, whose features are the pixels, pooled to 8 x 8."""

    pools_cells = False

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)


@pytest.fixture(params=SMALL)
def small(request):
    torch.manual_seed(0)
    return Backbone(SMALL[request.param])


def test_small_ones_are_of_every_kind():
    assert {row.factory for row in ROWS.values()} == {row.factory for row in SMALL.values()}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("size", [(224, 224), (100, 72), (97, 65)])
def test_shapes_are_as_declared(name, size):
    with torch.device("meta"):
        backbone = backbones.load(name)
        maps = backbone(torch.rand(2, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == 4
    for m, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert m.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_numbers_of_parameters_are_the_published_ones():
    """In millions, without the classifier of 1000 classes (and for TransUNet without the larger grid of positions)."""
    published = {
        "efficientnet-lite0": 4.65 - 1.69,  # the head is 1280 channels of 320, and their classes
        "resnet18": 11.18,
        "resnet50": 23.51,
        "resnet101": 42.50,
        "pvt-v2-b0": 3.41,
        "pvt-v2-b1": 13.50,
        "pvt-v2-b2": 24.85,
    }
    with torch.device("meta"):
        for name, count in published.items():
            found = sum(p.numel() for p in backbones.load(name).parameters()) / 1e6
            assert found == pytest.approx(count, abs=0.02), name


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_complete(name):
    row = ROWS[name]
    assert row.name == name
    assert row.hub
    assert row.layouts
    assert row.licence
    assert row.paper
    assert row.strides[1] == 8  # where the scores of a slide lie


def test_documentation_says_the_same():
    text = (Path(__file__).parents[3] / "docs" / "explanation" / "methods.md").read_text(encoding="utf-8")
    table = text[text.index("## Backbones") :]
    for row in ROWS.values():
        name, number = row.name[:-1], row.name[-1]
        in_a_range = name == "mit-b" and 1 <= int(number) <= 5 and "`mit-b1` .. `mit-b5`" in table
        assert in_a_range or f"`{row.name}`" in table
        for fact in (row.licence, row.paper, row.layouts, ", ".join(map(str, row.channels))):
            assert fact in table
        assert in_a_range or row.hub in table


@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_maps_are_finite_and_take_a_gradient_back_to_the_first_layer(small, size):
    images = torch.rand(2, 3, *size, requires_grad=True)
    maps = small(images)
    for m, channels, stride in zip(maps, small.channels, small.strides, strict=True):
        assert m.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert torch.isfinite(m).all()
    maps[3].square().mean().backward()
    first = next(small.parameters())
    assert first.grad.norm() > 0
    assert images.grad.norm() > 0


def test_every_weight_matters(small):
    """Every module has an influence on a map."""
    sum(m.square().mean() for m in small.train()(torch.rand(3, 3, 64, 64))).backward()
    unused = [name for name, p in small.named_parameters() if p.grad is None]
    assert not unused


def test_evaluation_is_deterministic_and_looks_at_each_image_alone(small):
    images = torch.rand(3, 3, 64, 64)
    small.eval()
    with torch.no_grad():
        maps = small(images)
        for whole, again, alone in zip(maps, small(images), small(images[1:2]), strict=True):
            assert torch.equal(whole, again)
            torch.testing.assert_close(alone, whole[1:2], atol=1e-4, rtol=1e-4)


def test_training_differs_from_evaluation(small):
    """The difference is batch statistics, dropout or stochastic depth, of which every network has at least one."""
    images = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        evaluated = small.eval()(images)[3]
        assert not torch.allclose(small.train()(images)[3], evaluated)


def test_random_weights_follow_the_random_state(small):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in Backbone(small.spec).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_normalises_as_it_was_trained(small):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (small.spec.mean, small.spec.std))
    images = mean.expand(1, 3, 8, 8)
    assert torch.equal(small.normalise(images), torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(small.normalise(images + std), torch.ones(1, 3, 8, 8))
    seen = []
    small.stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    small.eval()(torch.full((1, 3, 64, 64), 0.5))
    torch.testing.assert_close(seen[0], ((0.5 - mean) / std).expand(1, 3, 64, 64))


@pytest.mark.parametrize(("fusion", "cell"), [((0.0, 0.3, 0.3, 0.4), 8), ((0.0, 0, 0, 1), 8), ((1.0, 1, 1, 0), 4)])
@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
def test_a_method_gives_scores_on_the_grid_of_slides(small, size, fusion, cell):
    """A cell is 8 pixels, or 4 if the first stage has a weight, with all strides of backbones."""
    method = Cam(small, 3, (0.0, 0.1, 1.0, 1.0), fusion).eval()
    assert method.cell == cell
    scores = method.scores(torch.rand(2, 3, *size))
    assert scores.maps.shape == (2, 3, -(-size[0] // cell), -(-size[1] // cell))
    method.loss(torch.rand(2, 3, *size), torch.tensor([[1.0, 0, 1], [0, 1, 0]])).total.backward()


@pytest.mark.parametrize("preset", ["default", "released"])
def test_prototypes_and_contrast_work_on_it(small, preset):
    """With all channels and strides, and with the released masks, which need the normalised image."""
    prototypes = Prototypes.random([2, 1, 2], 192)
    options = PbipSettings(preset=preset).options()
    method = Pbip.from_inputs(MethodInputs(small, 3, prototypes, PooledPixels()), **options)
    terms = method.loss(torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 1, 0]]))
    terms.total.backward()
    assert torch.isfinite(terms.total)
    assert {"foreground", "background"} <= set(terms.terms)
    assert next(small.parameters()).grad.norm() > 0


def test_the_model_of_a_run_can_be_the_start_of_another(small, tmp_path):
    method = Cam(small, 3, (0.0, 0.1, 1.0, 1.0), (0.0, 0.3, 0.3, 0.4))
    small.train()(torch.rand(2, 3, 64, 64))  # batch statistics are part of what is kept
    weights = method.state_dict()
    torch.manual_seed(1)
    other = Backbone(small.spec)
    backbones.load_weights(other, weights)
    for name, tensor in small.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_no_other_weights_come_with_the_package() -> None:
    with pytest.raises(WeightsUnavailable, match="weights of efficientnet-lite0 only"):
        backbones.load("resnet18", "builtin")


def test_weights_of_another_backbone(small):
    for spec in SMALL.values():
        if spec == small.spec:
            continue
        with pytest.raises(ModelError, match=f"does not hold the weights of {spec.name}"):
            backbones.load_weights(Backbone(spec), {f"backbone.{n}": t for n, t in small.state_dict().items()})


def test_no_such_backbone():
    with pytest.raises(ConfigError, match="mit-b0, mit-b1"):
        backbones.load("resnet")


@pytest.mark.parametrize("name", ["mit-b0", "resnet18"])
@pytest.mark.parametrize("make_folder", [True, False])
def test_no_weights(tmp_path, name, make_folder):
    if make_folder:
        (tmp_path / "weights").mkdir()
    with pytest.raises(WeightsUnavailable, match=r"backbone\.weights") as caught:
        backbones.load(name, tmp_path / "weights")
    assert ROWS[name].hub in str(caught.value)  # where to get them


def test_damaged_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsUnavailable, match="damaged"):
        backbones.load("mit-b0", tmp_path)


def test_a_pickle_is_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return ((tmp_path / "executed").touch, ())

    torch.save({"state_dict": Trap()}, tmp_path / "mit_b0.pth")
    for place in (tmp_path / "mit_b0.pth", tmp_path):
        with pytest.raises(WeightsUnavailable, match=r"convert it once"):
            backbones.load("mit-b0", place)
    assert not (tmp_path / "executed").exists()


def test_no_file_is_picked_out_of_several(tmp_path):
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsUnavailable, match="holds 2"):
        backbones.load("mit-b0", tmp_path)
