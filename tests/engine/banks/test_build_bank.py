from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from napari_pbip import samples
from napari_pbip.bank import Curation, ImageBank, load_single_tiles
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.zero_shot import zero_shot
from napari_pbip.engine.encoding import bank_encoder
from napari_pbip.errors import BankError, DataError, OutputError
from napari_pbip.events import Event, Finished, Job, Loading, Started, Step, Warned

CLASSES = ("LYM", "MUS", "TUM")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Return fifteen real tiles in class folders, which the test may change."""
    for name in CLASSES:
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    return tmp_path / "tiles"


def job(
    tiles: Path,
    out: Path,
    update: bool = False,
    overwrite: bool = False,
    curation: Curation | None = None,
    **settings: Any,
) -> Job:
    data = DataSettings(folder=tiles)
    bank = BankSettings.model_validate({"encoder": "tiny", "k": 2, "batch_size": 4, **settings})
    return build_bank(
        load_single_tiles(tiles, data), out, bank, data, update=update, overwrite=overwrite, curation=curation
    )


def end(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[0], Loading)
    assert isinstance(events[1], Started)
    assert isinstance(events[-1], Finished)
    return dict(events[-1].summary)


def test_events_and_summary(tiles: Path, tmp_path: Path) -> None:
    events = list(job(tiles, tmp_path / "bank"))
    summary = end(events)
    assert events[0] == Loading("the encoder tiny")
    assert events[1].total == 15
    assert [e.done for e in events if isinstance(e, Step)] == [4, 8, 12, 15]
    assert summary["tiles"] == summary["encoded"] == 15
    assert summary["prototypes"] == 6
    assert summary["classes"]["MUS"] == {"tiles": 5, "k": 2}
    bank = ImageBank.read(tmp_path / "bank")
    assert bank.identity == summary["identity"]
    encoder = bank_encoder(bank)
    path = Path(bank.tiles[0].path)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255
    np.testing.assert_allclose(bank.features[0], encoder(pixels)[0].numpy(), atol=1e-5)


def test_the_same_bank_every_time(tiles: Path, tmp_path: Path) -> None:
    identities = {end(list(job(tiles, tmp_path / name, batch_size=b)))["identity"] for name, b in (("a", 4), ("b", 4))}
    assert len(identities) == 1


def test_an_update_encodes_and_clusters_only_what_changed(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    list(job(tiles, out))

    other_k = end(list(job(tiles, out, update=True, k=3)))
    assert other_k["encoded"] == 0
    assert other_k["clustered"] == list(CLASSES)

    moved = next((tiles / "MUS").iterdir())
    moved.rename(tiles / "TUM" / moved.name)
    other_label = end(list(job(tiles, out, update=True, k=3)))
    assert other_label["encoded"] == 0
    assert other_label["clustered"] == ["MUS", "TUM"]

    flipped = sorted((tiles / "LYM").iterdir())[0]
    Image.open(flipped).convert("RGB").rotate(180).save(flipped)
    other_tile = end(list(job(tiles, out, update=True, k=3)))
    assert other_tile["encoded"] == 1
    assert other_tile["clustered"] == ["LYM"]

    anew = end(list(job(tiles, tmp_path / "anew", k=3)))
    assert anew["encoded"] == 15
    assert anew["identity"] == other_tile["identity"]
    assert len(list((out / "thumbnails").iterdir())) == 15


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each tile of a bank by path."""
    return {t.path: t.hash for t in ImageBank.read(folder).tiles}


def test_a_correction_computes_only_its_classes_and_equals_other_labels(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    before = end(list(job(tiles, out)))["identity"]
    gone, moved = (sorted((tiles / "MUS").iterdir())[i] for i in (0, 1))
    known = hashes(out)
    curation = Curation().remove([known[str(gone)]]).move([known[str(moved)]], "TUM")
    curated = end(list(job(tiles, out, update=True, curation=curation)))
    assert curated["encoded"] == 0
    assert curated["clustered"] == ["MUS", "TUM"]
    assert curated["removed"] == 1
    assert {n: c["tiles"] for n, c in curated["classes"].items()} == {"LYM": 5, "MUS": 3, "TUM": 6}
    bank = ImageBank.read(out)
    assert [t.path for t in bank.removed] == [str(gone)]
    assert next(t for t in bank.tiles if t.path == str(moved)).class_index == 2

    again = end(list(job(tiles, out, update=True)))  # it lies beside the bank now
    assert (again["identity"], again["clustered"]) == (curated["identity"], [])
    undone = end(list(job(tiles, out, update=True, curation=Curation())))
    assert (undone["identity"], undone["encoded"]) == (before, 0)

    gone.unlink()
    moved.rename(tiles / "TUM" / f"0{moved.name}")
    list(job(tiles, tmp_path / "other"))
    relabelled = ImageBank.read(tmp_path / "other")
    assert {(t.hash, t.class_index) for t in relabelled.tiles} == {(t.hash, t.class_index) for t in bank.tiles}


def test_corrections_survive_a_bank_built_anew(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    list(job(tiles, out))
    gone = sorted((tiles / "MUS").iterdir())[0]
    curation = Curation().remove([hashes(out)[str(gone)]])
    list(job(tiles, out, update=True, curation=curation))
    begun = job(tiles, out, overwrite=True, encoder="texture")
    for event in begun:
        if isinstance(event, Step):
            break
    begun.close()
    assert Curation.read(out) == curation
    anew = end(list(job(tiles, out, update=True, encoder="texture")))
    assert (anew["tiles"], anew["removed"]) == (14, 1)
    assert Curation.read(out) == curation


def test_a_correction_that_no_bank_can_be_made_of_changes_nothing(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    identity = end(list(job(tiles, out)))["identity"]
    lym = [h for path, h in hashes(out).items() if Path(path).parent.name == "LYM"]
    for options in ({"update": True}, {"overwrite": True}):
        with pytest.raises(BankError, match="LYM has 1 single-class tile, too few for 2 clusters"):
            list(job(tiles, out, curation=Curation().remove(lym[1:]), **options))
        assert ImageBank.read(out).identity == identity
        assert Curation.read(out) == Curation()


def test_tiles_moved_to_a_class_that_is_no_more_count_by_their_labels(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    identity = end(list(job(tiles, out)))["identity"]
    curation = Curation().move([next(iter(hashes(out).values()))], "FAT")
    events = list(job(tiles, out, update=True, curation=curation))
    assert end(events)["identity"] == identity
    assert "moved to FAT" in next(e.message for e in events if isinstance(e, Warned))
    assert Curation.read(out) == curation


@pytest.mark.parametrize("encoder", ["texture", "efficientnet-lite0"])
def test_near_duplicates_are_warned_of(tiles: Path, tmp_path: Path, encoder: str) -> None:
    path = sorted((tiles / "LYM").iterdir())[0]
    Image.open(path).convert("RGB").rotate(90).save(tiles / "LYM" / "turned.png")
    warnings = [e.message for e in job(tiles, tmp_path / "bank", encoder=encoder) if isinstance(e, Warned)]
    assert len(warnings) == 1
    assert "turned.png" in warnings[0]
    assert path.name in warnings[0]


def test_a_bank_without_a_record_of_removed_tiles_is_read(tiles: Path, tmp_path: Path) -> None:
    identity = end(list(job(tiles, tmp_path / "bank")))["identity"]
    facts = tmp_path / "bank" / "bank.json"
    document = json.loads(facts.read_text())
    del document["removed"]
    facts.write_text(json.dumps(document))
    assert ImageBank.read(tmp_path / "bank").identity == identity


def test_a_cancelled_build_keeps_its_features(tiles: Path, tmp_path: Path) -> None:
    begun = job(tiles, tmp_path / "bank")
    for event in begun:
        if isinstance(event, Step) and event.done == 8:
            break
    begun.close()
    with pytest.raises(BankError, match="unfinished"):
        ImageBank.read(tmp_path / "bank")
    summary = end(list(job(tiles, tmp_path / "bank", update=True)))
    assert summary["encoded"] == 7
    assert summary["identity"] == end(list(job(tiles, tmp_path / "anew")))["identity"]


def test_an_unreadable_tile_costs_nothing_already_computed(tiles: Path, tmp_path: Path) -> None:
    last = sorted((tiles / "TUM").iterdir())[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        list(job(tiles, tmp_path / "bank"))
    last.write_bytes(whole)
    assert end(list(job(tiles, tmp_path / "bank", update=True)))["encoded"] <= 7


def test_an_existing_folder_is_never_replaced_silently(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    list(job(tiles, out))
    with pytest.raises(OutputError, match=r"`update=True`.*`overwrite=True`"):
        list(job(tiles, out))
    assert end(list(job(tiles, out, overwrite=True)))["encoded"] == 15
    with pytest.raises(BankError, match=r"another encoder.*tiny"):
        list(job(tiles, out, update=True, encoder="texture"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError):
        list(job(tiles, other, overwrite=True))
    assert (other / "thesis.txt").exists()


def test_nothing_is_deleted_for_a_bank_that_cannot_be_built(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    identity = end(list(job(tiles, out)))["identity"]
    with pytest.raises(BankError, match="too few for 6 clusters"):
        list(job(tiles, out, overwrite=True, k=6))
    assert ImageBank.read(out).identity == identity


def test_mostly_white_tiles_are_left_out_and_counted(tiles: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (224, 224), "white")
    picture.paste((120, 40, 120), (0, 0, 224, 60))
    picture.save(tiles / "LYM" / "white.png")
    events = list(job(tiles, tmp_path / "bank"))
    assert "1 of 16 tiles are mostly white" in next(e.message for e in events if isinstance(e, Warned))
    assert end(events)["left_out"] == 1
    left_out = ImageBank.read(tmp_path / "bank").left_out
    assert Path(left_out[0].path).name == "white.png"
    assert left_out[0].white == pytest.approx(1 - 60 / 224, abs=1e-3)


def test_a_class_all_white(tiles: Path, tmp_path: Path) -> None:
    for path in (tiles / "LYM").iterdir():
        Image.new("RGB", (64, 64), "white").save(path)
    with pytest.raises(BankError, match="single-class tiles of LYM are mostly white"):
        list(job(tiles, tmp_path / "bank", k=1))
    for name in CLASSES[1:]:
        for path in (tiles / name).iterdir():
            Image.new("RGB", (64, 64), "white").save(path)
    with pytest.raises(BankError, match="mostly white"):
        list(job(tiles, tmp_path / "white", k=1))


def test_one_picture_with_two_labels_is_told(tiles: Path, tmp_path: Path) -> None:
    shutil.copy(sorted((tiles / "LYM").iterdir())[0], tiles / "TUM" / "copy.png")
    warnings = [e.message for e in job(tiles, tmp_path / "bank") if isinstance(e, Warned)]
    assert "labelled LYM" in warnings[0]
    assert "TUM" in warnings[0]


def test_one_class_only(tiles: Path, tmp_path: Path) -> None:
    for name in CLASSES[1:]:
        shutil.rmtree(tiles / name)
    with pytest.raises(DataError, match="show the class LYM"):
        list(job(tiles, tmp_path / "bank"))


def test_tiles_of_several_sizes(tiles: Path, tmp_path: Path) -> None:
    path = sorted((tiles / "LYM").iterdir())[0]
    Image.open(path).convert("RGB").resize((100, 80)).save(path)
    assert end(list(job(tiles, tmp_path / "bank")))["tiles"] == 15


def test_a_bank_of_other_weights_is_refused(tiles: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}
    facts = '{"size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}'
    for seed in (0, 1):
        torch.manual_seed(seed)
        Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path / f"net{seed}")
        (tmp_path / f"net{seed}" / "preprocessor_config.json").write_text(facts)
    out = tmp_path / "bank"
    list(job(tiles, out, encoder="transformers", weights=tmp_path / "net0"))
    assert bank_encoder(ImageBank.read(out)).spec.dimension == 16  # weights found where they lay
    assert end(list(zero_shot(DataSettings(folder=tiles), bank=out)))["tiles"] == 15
    with pytest.raises(BankError, match="other weights"):
        list(zero_shot(DataSettings(folder=tiles), bank=out, weights=tmp_path / "net1"))
    with pytest.raises(BankError, match="other weights"):
        list(job(tiles, out, update=True, encoder="transformers", weights=tmp_path / "net1"))
