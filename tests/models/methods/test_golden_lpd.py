"""Parity of LPD with the authors' published code, in the differences to PBIP and as a whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_pbip.models.losses.contrast import info_nce, similarities
from napari_pbip.models.losses.diversity import diversity_loss_released
from napari_pbip.models.methods.pbip import select_subclasses
from napari_pbip.models.score_maps import fuse_per_tile, similarity_map

MAPS = {"atol": 2e-5, "rtol": 0.0}
LOSSES = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def method(golden_lpd):
    return golden_lpd.lpd()


def test_maps_scores_and_selection(golden_lpd, method):
    with torch.no_grad():
        output = method(golden_lpd.images(method.backbone))
    for i in golden_lpd.stages:
        torch.testing.assert_close(output.subclass_maps[i], golden_lpd[f"cam{i + 1}"], **MAPS)
        torch.testing.assert_close(output.class_maps[i], golden_lpd[f"parent_cam{i + 1}_max"], **MAPS)
        torch.testing.assert_close(output.class_scores[i], golden_lpd[f"parent_cls{i + 1}_mean"], **MAPS)
    selected = select_subclasses(
        output.subclass_scores[3], golden_lpd["labels"], golden_lpd.subclass_class, only_children=True
    )
    assert torch.equal(selected.float(), golden_lpd["selected_subclasses"])
    fused = fuse_per_tile(
        output.class_maps, golden_lpd["labels"], method.fusion_weights, golden_lpd["image"].shape[-2:]
    )
    assert (fused.argmax(1) != golden_lpd["fused_argmax"]).float().mean() <= 1e-4


def test_contrastive_losses_of_the_stored_features(golden_lpd):
    _, which = golden_lpd["selected_subclasses"].bool().nonzero(as_tuple=True)
    prototypes = F.normalize(golden_lpd["weights/prototypes"], dim=1)
    own = F.one_hot(which, len(prototypes)).bool()
    assert len(golden_lpd.settings) == 4
    for delta, temperature in golden_lpd.settings:
        for side, positives in (("fg", own), ("bg", ~own)):
            similarity = similarities(golden_lpd[f"d{delta}/{side}_features"], prototypes)
            stored = golden_lpd[f"d{delta}/T{temperature}/loss_{side}"]
            torch.testing.assert_close(info_nce(similarity, positives, temperature), stored, **LOSSES)


def test_the_method_gives_both_losses_for_every_delta_and_temperature(golden_lpd):
    for delta, temperature in golden_lpd.settings:
        method = golden_lpd.lpd(delta=delta, temperature=temperature)
        with torch.no_grad():
            terms = method.loss(golden_lpd.images(method.backbone), golden_lpd["labels"]).terms
        prefix = f"d{delta}/T{temperature}"
        torch.testing.assert_close(terms["foreground"], golden_lpd[f"{prefix}/loss_fg"], **LOSSES)
        torch.testing.assert_close(terms["background"], golden_lpd[f"{prefix}/loss_bg"], **LOSSES)


def test_total_loss_and_gradient_norms(golden_lpd):
    method = golden_lpd.lpd()
    loss = method.loss(golden_lpd.images(method.backbone), golden_lpd["labels"])
    torch.testing.assert_close(loss.total, golden_lpd["loss_total"], **LOSSES)
    loss.total.backward()
    names = golden_lpd.parameter_names() | {("prototypes",): "prototypes"}
    golden_lpd.compare_gradients(method, names)


def test_diversity(golden_lpd):
    prototypes = F.normalize(golden_lpd["div/prototypes"], dim=1)
    cosines = similarity_map(golden_lpd["div/feature_map"].float(), prototypes)
    likeness = diversity_loss_released(cosines, golden_lpd["div/mask"], golden_lpd.subclass_class)
    stored = golden_lpd["div/jeffreys_similarity"]
    torch.testing.assert_close(likeness, stored, **LOSSES)
    # 2.6e-6 from 1, which is 44 steps of float32: the distance is compared too
    torch.testing.assert_close(1 - likeness, 1 - stored, rtol=0.1, atol=0)
