"""Parity with the authors' published code, on arrays that this code computed."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_pbip.models import masks
from napari_pbip.models.losses.classification import classification_loss
from napari_pbip.models.losses.contrast import info_nce, info_nce_of_means, similarities
from napari_pbip.models.methods.pbip import select_subclasses
from napari_pbip.models.score_maps import fuse_per_tile, merge_subclasses

MAPS = {"atol": 2e-5, "rtol": 0.0}
LOSSES = {"atol": 1e-4, "rtol": 0.0}
ODD_PIXELS = 1e-4


@pytest.fixture(scope="module")
def method(golden):
    return golden.pbip()


@pytest.fixture(scope="module")
def output(golden, method):
    with torch.no_grad():
        return method(golden.images(method.backbone))


def test_subclass_maps_and_scores(golden, output):
    for i in golden.stages:
        torch.testing.assert_close(output.subclass_maps[i], golden[f"cam{i + 1}"], **MAPS)
        torch.testing.assert_close(output.subclass_scores[i], golden[f"cls{i + 1}"], **MAPS)


@pytest.mark.parametrize(("how", "released_name"), [("mean", "mean"), ("softmax", "max")])
def test_merged_maps_and_scores(golden, how, released_name):
    classes = len(golden["k_list"])
    for i in golden.stages:
        for kind in ("cam", "cls"):
            merged = merge_subclasses(golden[f"{kind}{i + 1}"], golden.subclass_class, classes, how)
            torch.testing.assert_close(merged, golden[f"parent_{kind}{i + 1}_{released_name}"], **MAPS)


def test_method_gives_the_merged_maps_and_scores(golden, output):
    for i in golden.stages:
        torch.testing.assert_close(output.class_maps[i], golden[f"parent_cam{i + 1}_max"], **MAPS)
        torch.testing.assert_close(output.class_scores[i], golden[f"parent_cls{i + 1}_mean"], **MAPS)


def test_selection(golden):
    selected = select_subclasses(golden["cls4"], golden["labels"], golden.subclass_class, only_children=False)
    assert torch.equal(selected.float(), golden["selected_subclasses"])


def test_only_children_are_added_to_the_selection_and_nothing_else(golden):
    lone = (golden["k_list"] == 1)[golden.subclass_class]
    selected = select_subclasses(golden["cls4"], golden["labels"], golden.subclass_class, only_children=True)
    present = golden["labels"][:, golden.subclass_class].bool()
    assert torch.equal(selected, golden["selected_subclasses"].bool() | (lone & present))


def test_masks_and_features(golden, method):
    image, which = golden["selected_subclasses"].bool().nonzero(as_tuple=True)
    enlarged = masks.enlarge(golden["cam4"], golden["image"].shape[-2:])
    maps = enlarged[image, which][:, None]
    encoder = method.encoder.network
    for delta in {delta for delta, _ in golden.settings}:
        mask = masks.threshold_mask(maps, enlarged.amax((1, 2, 3))[image], delta)
        assert (mask != golden[f"d{delta}/fg_masks"]).float().mean() <= ODD_PIXELS
        assert (1 - mask != golden[f"d{delta}/bg_masks"]).float().mean() <= ODD_PIXELS
        foreground, background = masks.separate_released(golden["image"][image], maps, mask)
        torch.testing.assert_close(encoder(foreground), golden[f"d{delta}/fg_features"], **MAPS)
        torch.testing.assert_close(encoder(background), golden[f"d{delta}/bg_features"], **MAPS)


def test_contrastive_losses_of_the_stored_features(golden):
    _, which = golden["selected_subclasses"].bool().nonzero(as_tuple=True)
    own = F.one_hot(which, len(golden["prototypes"])).bool()
    assert golden.settings
    for delta, temperature in golden.settings:
        for side, loss, positives in (("fg", info_nce, own), ("bg", info_nce_of_means, ~own)):
            similarity = similarities(golden[f"d{delta}/{side}_features"], golden["prototypes"])
            stored = golden[f"d{delta}/T{temperature}/loss_{side}"]
            torch.testing.assert_close(loss(similarity, positives, temperature, over_batch=True), stored, **LOSSES)


def test_the_method_gives_both_losses_for_every_delta_and_temperature(golden):
    for delta, temperature in golden.settings:
        method = golden.pbip(delta=delta, temperature=temperature)
        with torch.no_grad():
            terms = method.loss(golden.images(method.backbone), golden["labels"]).terms
        prefix = f"d{delta}/T{temperature}"
        torch.testing.assert_close(terms["foreground"], golden[f"{prefix}/loss_fg"], **LOSSES)
        torch.testing.assert_close(terms["background"], golden[f"{prefix}/loss_bg"], **LOSSES)


def test_classification_losses(golden):
    for i in golden.stages:
        loss = classification_loss(golden[f"parent_cls{i + 1}_mean"], golden["labels"])
        torch.testing.assert_close(loss, golden[f"loss_cls{i + 1}"], **LOSSES)


def test_total_loss_and_gradient_norms(golden):
    """The preset ``released`` of the public class."""
    method = golden.pbip()
    loss = method.loss(golden.images(method.backbone), golden["labels"])
    torch.testing.assert_close(loss.total, golden["loss_total"], **LOSSES)
    for i in (1, 2, 3):
        torch.testing.assert_close(loss.terms[f"classification_{i + 1}"], golden[f"loss_cls{i + 1}"], **LOSSES)
    loss.total.backward()

    golden.compare_gradients(method, golden.parameter_names())


def test_evaluation_path(golden, method, output):
    size = golden["image"].shape[-2:]
    fused = fuse_per_tile(output.class_maps, golden["labels"], method.fusion_weights, size)
    assert (fused.argmax(1) != golden["fused_argmax"]).float().mean() <= ODD_PIXELS
    # stored at a quarter of the size, as means of 4 x 4 pixels
    torch.testing.assert_close(F.avg_pool2d(fused, 4), golden["fused_scores_stride4"], **MAPS)
