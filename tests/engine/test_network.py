"""Networks as functions of pictures: whatever computes them, they give the values of torch."""

from __future__ import annotations

import copy
import resource
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
from torch import nn

from napari_pbip import samples
from napari_pbip.engine import cores, openvino_network
from napari_pbip.engine import network as networks
from napari_pbip.engine.array_cache import ArrayCache
from napari_pbip.engine.device import Precision
from napari_pbip.engine.inference.predict import fused_scores
from napari_pbip.engine.loading import to_pixels
from napari_pbip.engine.network import Network
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.torch_network import Function
from napari_pbip.models import encoders
from napari_pbip.models.folding import fold_batch_norms
from napari_pbip.models.methods.base import Method
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.slides import open_slide

CPU = torch.device("cpu")
MANY = networks.WORTH_CONVERTING


@pytest.fixture(scope="module")
def method() -> Method:
    """Return the model of the sample project: PBIP, in whose scores a linear probe has a share."""
    return load_model(samples.project() / "model").method


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    """Six tiles of real tissue, (6, 3, 112, 112), uint8."""
    with open_slide(samples.slide()) as slide:
        return to_pixels([slide.read_level(0, 300 + 250 * i, 400 + 300 * i, 112, 112) for i in range(6)])


def by_torch(method: Method, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return fused_scores(method, tiles.float() / 255)


@pytest.mark.parametrize(("expected", "runtime"), [(0, "torch"), (MANY, "openvino")])
def test_classes_are_those_of_torch(method: Method, tiles: torch.Tensor, expected: int, runtime: str) -> None:
    before = copy.deepcopy(method.state_dict())
    network = Network(method, fused_scores, CPU, "float32", expected=expected)
    for batch in (tiles, tiles[:1]):  # the last batch of a job is smaller
        maps, presence = network(batch)
        exact, exact_presence = by_torch(method, batch)
        torch.testing.assert_close(maps, exact, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(presence, exact_presence, atol=1e-4, rtol=1e-4)
        first, second = exact.topk(2, 1).values.unbind(1)
        clear = first - second > 1e-4
        assert clear.float().mean() > 0.99
        assert (maps.argmax(1) == exact.argmax(1))[clear].all()
    assert network.computed.runtime == runtime
    assert network.computed.precision == "float32"
    after = method.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_pieces_are_computed_beside_each_other_in_threads_that_share_the_cores(
    method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "PIECE", 2 * 112**2)
    threads: dict[str, int] = {}

    def seen(method: Method, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        threads[threading.current_thread().name] = torch.get_num_threads()
        return fused_scores(method, images)

    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            network = Network(method, seen, CPU, "float32")
            network(tiles[:2])  # finds what can be folded
            threads.clear()
            found.append(network(tiles))
            assert torch.get_num_threads() == count
            assert sorted(threads.values()) == {1: [1], 2: [1, 1], 7: [2, 2, 2]}[count]
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        torch.testing.assert_close(others, found[0])
        assert not any(one.requires_grad for one in others)


@pytest.mark.parametrize(
    ("expected", "runtime", "precision"),
    [(0, "torch", "float32"), (0, "torch", "bfloat16"), (MANY, "openvino", "float32")],
)
def test_a_picture_has_the_same_values_in_a_batch_of_each_size(
    method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch, expected: int, runtime: str, precision: Any
) -> None:
    monkeypatch.setattr(cores, "PIECE", 4 * 112**2)
    twelve = torch.cat([tiles, tiles.flip(-1)])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        network, other = (Network(method, fused_scores, CPU, precision, expected=expected) for _ in range(2))
        sizes = network.batch_sizes(14, 112**2)
        assert (sizes.least, sizes.most) == (8, 12)
        whole = network(twelve)
        first = other(twelve[:8])  # also what OpenVINO is converted with
        again = network(twelve.roll(3, 0))
    finally:
        torch.set_num_threads(before)
    assert other.computed.runtime == network.computed.runtime == runtime
    for one, of_few, of_others in zip(whole, first, again, strict=True):
        assert torch.equal(one[:8], of_few)
        assert torch.equal(one, of_others.roll(-3, 0))


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [
        (1, 16, (4, 4, 16)),
        (2, 16, (4, 8, 16)),
        (2, 18, (4, 8, 16)),  # whole pieces
        (8, 16, (4, 16, 16)),  # more cores than pieces
        (8, 3, (3, 3, 3)),  # less than a piece
    ],
)
def test_batches_are_of_whole_pieces_for_the_cores_of_the_largest(
    count: int, most: int, sizes: tuple[int, int, int]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = cores.BatchSizes.of(most, 224**2)
    finally:
        torch.set_num_threads(before)
    assert (found.piece, found.least, found.most) == sizes
    for one in range(1, found.most + 1):
        assert max(one, found.least) <= found.holding(one) <= found.most
        assert found.holding(one) % found.piece == 0


def test_an_error_in_one_of_the_pieces_is_raised(
    method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "PIECE", 112**2)
    before = torch.get_num_threads()
    pieces = iter(range(100))

    def failing(method: Method, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if next(pieces) == 5:
            raise RuntimeError("not enough memory")
        return fused_scores(method, images)

    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="not enough memory"):
            Network(method, failing, CPU, "float32")(tiles)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def alone(method: Method) -> Method:
    """The model without its probe, which needs float32."""
    one = copy.deepcopy(method)
    assert isinstance(one, Pbip)
    one.probe = None
    return one


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize(("expected", "runtime"), [(0, "torch"), (MANY, "openvino")])
def test_bfloat16_has_almost_the_same_classes(
    method: Method, alone: Method, tiles: torch.Tensor, expected: int, runtime: str, probe: bool
) -> None:
    model = method if probe else alone
    for batch in (tiles, tiles.flip(0), tiles.flip(3)):  # what is compared beforehand must not depend on luck
        network = Network(model, fused_scores, CPU, "bfloat16", expected=expected)
        maps, _ = network(batch)
        exact, _ = by_torch(model, batch)
        assert maps.dtype == torch.float32
        assert (maps.argmax(1) == exact.argmax(1)).float().mean() > 0.99
        assert not torch.equal(maps, exact)
        precision = "float32" if probe and runtime == "openvino" else "bfloat16"
        assert (network.computed.runtime, network.computed.precision) == (runtime, precision)


def test_a_probe_is_computed_in_float32(method: Method, tiles: torch.Tensor) -> None:
    """In bfloat16, one cell in twenty of the sample model's probe had another class."""
    assert isinstance(method, Pbip)
    assert method.probe is not None
    network = Network(method.probe, fused_scores, CPU, "bfloat16")
    seen, _ = network(tiles)
    assert network.computed.precision == "float32"
    exact, _ = by_torch(method.probe, tiles)
    torch.testing.assert_close(seen, exact, atol=1e-4, rtol=1e-4)


def test_what_is_computed_again_and_again_is_converted_once_it_pays(
    method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "WORTH_CONVERTING", 2 * tiles.shape[0] * 112**2)
    network = Network(method, fused_scores, CPU)
    found = []
    for _ in range(3):
        network(tiles)
        found.append(network.computed.runtime)
    assert found == ["torch", "openvino", "openvino"]


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Return a list with an entry for each conversion; none has been made before, in this process or another."""
    openvino_network._code.cache_clear()
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: tmp_path)
    monkeypatch.setattr(openvino_network, "_shared", {})
    made: list[object] = []
    convert = openvino_network.convert

    def counted(*args: Any) -> openvino_network.Converted | None:
        made.append(args)
        return convert(*args)

    monkeypatch.setattr(openvino_network, "convert", counted)
    yield made
    openvino_network._code.cache_clear()


def small(seed: int) -> nn.Module:
    """Return a network that is converted quickly."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()


def output(module: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor]:
    return (module(images),)


def computed(module: nn.Module, identity: str, tiles: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    function = fused_scores if isinstance(module, Method) else output
    network = Network(module, function, CPU, precision, expected=MANY, identity=(identity, "of this test"))
    maps = network(tiles)[0]
    assert network.computed.runtime == "openvino"
    return maps


@pytest.fixture
def other(method: Method) -> Method:
    """The model with other weights."""
    changed = copy.deepcopy(method)
    with torch.no_grad():
        for weight in changed.parameters():
            weight.mul_(1.1)
    return changed


def test_a_network_is_converted_once_for_all_slides(
    method: Method, other: Method, tiles: torch.Tensor, conversions: list[object]
) -> None:
    first = computed(method, "method", tiles)
    assert torch.equal(computed(copy.deepcopy(method), "method", tiles), first)  # loaded again for the next slide
    with ThreadPoolExecutor(2) as pool:  # as workers do
        several = pool.map(lambda part: computed(method, "method", part), (tiles[:3], tiles[3:]))
    torch.testing.assert_close(torch.cat(list(several)), first, atol=1e-4, rtol=1e-4)
    assert len(conversions) == 1
    assert not torch.allclose(by_torch(other, tiles)[0], first, atol=1e-3)
    torch.testing.assert_close(computed(other, "other", tiles), by_torch(other, tiles)[0], atol=1e-4, rtol=1e-4)
    assert len(conversions) == 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_process_takes_the_conversion_from_disk(
    tiles: torch.Tensor, conversions: list[object], tmp_path: Path, precision: Precision
) -> None:
    network = small(0)
    first = computed(network, "network", tiles, precision)
    openvino_network._shared.clear()  # which another process does not have
    assert torch.equal(computed(network, "network", tiles, precision), first)
    assert len(conversions) == 1
    [kept] = tmp_path.glob("openvino/*/*")
    kept.write_bytes(kept.read_bytes()[:-1])
    for _ in range(2):
        openvino_network._shared.clear()
        assert torch.equal(computed(network, "network", tiles, precision), first)
        assert len(conversions) == 2


def test_a_model_is_the_same_from_disk(method: Method, tiles: torch.Tensor, conversions: list[object]) -> None:
    first = computed(method, "method", tiles)
    openvino_network._shared.clear()
    assert torch.equal(computed(method, "method", tiles), first)
    assert len(conversions) == 1


def test_a_conversion_that_cannot_be_kept_is_used(
    tiles: torch.Tensor, conversions: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: object) -> None:
        raise RuntimeError("not supported")

    monkeypatch.setattr(openvino_network.Converted, "exported", failing)
    network = small(0)
    exact = network(tiles.float() / 255).detach()
    torch.testing.assert_close(computed(network, "network", tiles), exact, atol=1e-4, rtol=1e-4)
    assert not list(tmp_path.glob("openvino/*/*"))


def test_what_is_on_disk_must_be_the_network(tiles: torch.Tensor, conversions: list[object], tmp_path: Path) -> None:
    """A conversion is compared with torch when it is read, as a new one is, and made again if it differs."""
    networks = {name: small(seed) for seed, name in enumerate("ab")}
    for name, network in networks.items():
        computed(network, name, tiles)
    one, two = tmp_path.glob("openvino/*/*")
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])
    cache = ArrayCache(tmp_path / "openvino", np.uint8, 1 << 30)
    for count in (4, 6):
        openvino_network._shared.clear()
        for name, network in networks.items():
            exact = network(tiles.float() / 255).detach()
            torch.testing.assert_close(computed(network, name, tiles), exact, atol=1e-4, rtol=1e-4)
        assert len(conversions) == count
        for path in (one, two):  # as if of another version of OpenVINO
            cache.put(path.parent.name, path.stem, np.arange(1000, dtype=np.uint8))


def test_other_packages_and_other_code_need_another_conversion(
    tiles: torch.Tensor, conversions: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, codes = small(0), set()
    changes: list[tuple[object, str, object]] = [
        (openvino_network, "version", lambda name: f"{name} 1.0"),
        (openvino_network, "_CODE", openvino_network._CODE[:1]),
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX1024"),
    ]
    for count in range(1, 5):
        openvino_network._shared.clear()
        openvino_network._code.cache_clear()
        codes.add(openvino_network._code())
        computed(network, "network", tiles)
        assert len(conversions) == len(codes) == count
        if changes:
            monkeypatch.setattr(*changes.pop())


def test_without_openvino_torch_computes(method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "installed", lambda: None)
    network = Network(method, fused_scores, CPU, expected=MANY)
    network(tiles)
    assert network.computed.runtime == "torch"


def test_pictures_are_computed_in_pieces_and_in_order(
    method: Method, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def outputs(method: Method, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(len(images))
        return fused_scores(method, images)

    monkeypatch.setattr(cores, "PIECE", 4 * 112**2)
    found = Network(method, outputs, CPU)(tiles)
    assert seen[-2:] == [4, 2]
    for one, exact in zip(found, by_torch(method, tiles), strict=True):
        torch.testing.assert_close(one, exact, atol=1e-4, rtol=1e-4)


class _Large(nn.Module):
    """Needs more memory than a graphics card has, if there are more than two pictures."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return images.mean((2, 3))


def test_what_does_not_fit_into_memory_is_computed_in_parts(tiles: torch.Tensor) -> None:
    network = Network(_Large(), lambda m, images: (m(images),), CPU)
    (found,) = network(tiles)
    torch.testing.assert_close(found, (tiles.float() / 255).mean((2, 3)))
    assert network.fitting == 1  # of six, three, and then one: the half of each, rounded down
    with pytest.raises(torch.OutOfMemoryError):  # a single picture cannot be divided
        Network(_Large(), lambda m, images: (m(images.repeat(3, 1, 1, 1)),), CPU)(tiles)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep freed memory as they are set to")
def test_a_batch_gets_the_memory_of_the_one_before(method: Method, tiles: torch.Tensor) -> None:
    network = Network(method, fused_scores, CPU)
    batch = tiles[:4].repeat(4, 1, 1, 1)
    pages = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        network(batch)
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # pages of 4 kB that the system had to clear; of the memory that a batch needs there are more than ten thousand
    assert pages[-1] < 4000, pages


class _Branching(nn.Module):
    """Computes something else for a dark picture than for a bright one, which a conversion does not notice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = [image.mean() > 0.5 for image in images]
        return torch.stack([image * (2.0 if b else -1.0) for image, b in zip(images, bright, strict=True)])


class _Unknown(nn.Module):
    """Uses an operation that OpenVINO does not have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(images[:, 0])


@pytest.mark.parametrize("module", [_Branching(), _Unknown()], ids=["branching", "unknown"])
def test_what_openvino_cannot_compute_is_left_to_torch(module: nn.Module) -> None:
    pictures = to_pixels([np.full((32, 32, 3), value, np.uint8) for value in (250, 10)])
    network = Network(module, lambda m, images: (m(images),), CPU, expected=MANY)
    (found,) = network(pictures)
    assert network.computed.runtime == "torch"
    torch.testing.assert_close(found, module(pictures.float() / 255))


class _Shared(nn.Module):
    """A convolution whose result is used before and after its normalisation, so that nothing can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result = self.convolution(images)
        return self.norm(result) + result


def test_only_what_stays_the_same_is_folded(tiles: torch.Tensor) -> None:
    shared = _Shared().eval()
    (found,) = Network(shared, lambda m, images: (m(images),), CPU)(tiles)
    with torch.no_grad():
        torch.testing.assert_close(found, shared(tiles.float() / 255))


def test_networks_that_see_two_sizes_are_folded(method: Method, tiles: torch.Tensor) -> None:
    images = tiles.float() / 255
    encoder = encoders.load("efficientnet-lite0")
    for function in (Function(method, fused_scores).eval(), Function(encoder, lambda e, x: (e.dense(x),)).eval()):
        folded = fold_batch_norms(function, images[:1], Function.forward)
        assert folded is not function
        with torch.no_grad():
            for seen, exact in zip(folded(images), function(images), strict=True):
                torch.testing.assert_close(seen, exact, atol=1e-3, rtol=1e-3)


def test_an_encoder_is_computed_by_openvino_too(tiles: torch.Tensor, tmp_path: Path) -> None:
    encoder = encoders.load("efficientnet-lite0")
    for outputs in (lambda e, images: (e(images),), lambda e, images: (e.dense(images),)):
        network = Network(encoder, outputs, CPU, expected=MANY)
        (found,) = network(tiles)
        assert network.computed.runtime == "openvino"
        with torch.no_grad():
            (exact,) = outputs(encoder, tiles.float() / 255)
        torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)
