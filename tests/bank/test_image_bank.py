from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank import BankTile, EncoderFacts, ImageBank, cluster_table, load_tiles, write_sheets
from napari_pbip.bank.bank_table import write_bank_table
from napari_pbip.bank.features import FeatureFile, TileMeasures, colour_moments, white_fraction
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.errors import BankError, ConfigError
from napari_pbip.taxonomy import Taxonomy

ENCODER = EncoderFacts(name="texture", weights_hash="ab", dimension=8, weights=None)
CLASSES = ("MUS", "TUM")


@pytest.fixture(scope="module")
def real() -> tuple[tuple[BankTile, ...], FeatureFile]:
    """Return ten real tiles of two classes with artificial features that have two directions per class."""
    tiles = load_tiles(samples.tiles())
    rng = np.random.default_rng(0)
    measures, records = FeatureFile("texture ab"), []
    for n, name in enumerate(CLASSES):
        own = [t for t in tiles if tiles.taxonomy.names[t.class_index or 0] == name]
        for i, tile in enumerate(own):
            feature = 0.05 * rng.normal(size=8)
            feature[2 * n + i % 2] = 1 + i
            image = tile.read()
            records.append(BankTile(str(tile.path), n, tile.file_hash(), white_fraction(image), tile.origin))
            measures[records[-1].hash] = TileMeasures(
                feature.astype(np.float32), colour_moments(image), records[-1].white
            )
    return tuple(records), measures


def build(real: tuple[tuple[BankTile, ...], FeatureFile], previous: ImageBank | None = None, **settings: object):
    taxonomy = Taxonomy.from_names(CLASSES)
    tiles, measures = real
    return ImageBank.build(
        taxonomy, ENCODER, BankSettings.model_validate({"k": 2, **settings}), tiles, measures, previous=previous
    )


def test_prototypes_are_means_of_the_nearest(real) -> None:
    bank = build(real, nearest=2)
    assert bank.k == (2, 2)
    assert bank.subclass_class.tolist() == [0, 0, 1, 1]
    rows = {t.hash: i for i, t in enumerate(bank.tiles)}
    for subclass in range(4):
        nearest = bank.nearest(subclass)
        assert [t.similarity for t in nearest] == sorted((t.similarity for t in nearest), reverse=True)
        expected = bank.features[[rows[t.hash] for t in nearest[:2]]].mean(0)
        np.testing.assert_allclose(bank.prototypes[subclass], expected, rtol=1e-6)
    assert [t.tiles for t in bank.clusters()] == [3, 2, 3, 2]
    assert all(c.purity == 1 for c in bank.clusters())


def test_statistics_are_those_of_the_pixels(real) -> None:
    pixels = np.concatenate([np.asarray(Image.open(t.path).convert("RGB")).reshape(-1, 3) for t in real[0]]) / 255
    statistics = build(real).statistics
    np.testing.assert_allclose(statistics["mean"], pixels.mean(0), atol=1e-4)
    np.testing.assert_allclose(statistics["std"], pixels.std(0), atol=1e-4)


def test_written_and_read(real, tmp_path: Path) -> None:
    bank = build(real)
    bank.write(tmp_path / "bank", real[1])
    again = ImageBank.read(tmp_path / "bank")
    assert again.identity == bank.identity
    assert again.tiles == bank.tiles
    assert again.settings == bank.settings
    np.testing.assert_array_equal(again.features, bank.features)
    np.testing.assert_array_equal(again.prototypes, bank.prototypes)
    assert {p.stem for p in (tmp_path / "bank" / "thumbnails").iterdir()} == {t.hash[:16] for t in bank.tiles}
    facts = json.loads((tmp_path / "bank" / "bank.json").read_text())
    assert facts["tiles"][0]["path"] == bank.tiles[0].path


def test_only_classes_that_changed_are_clustered_again(real) -> None:
    first = build(real)
    assert first.clustered == CLASSES
    assert build(real, previous=first).clustered == ()
    assert build(real, previous=first).identity == first.identity
    assert build(real, previous=first, k={"MUS": 3, "TUM": 2}).clustered == ("MUS",)
    assert build((real[0][:-1], real[1]), previous=first).clustered == ("TUM",)
    assert build(real, previous=first, seed=1).clustered == CLASSES
    assert build(real, previous=first, nearest=1).clustered == ()


def test_identity_follows_the_content(real) -> None:
    bank = build(real)
    moved = tuple(replace(t, path="elsewhere") for t in real[0])
    assert build((moved, real[1])).identity == bank.identity
    assert build(real, k=1).identity != bank.identity


def test_k_by_silhouette_and_by_class(real) -> None:
    assert build(real, k="auto").k == (2, 2)
    assert build(real, k={"MUS": 1, "TUM": "auto"}).k == (1, 2)
    with pytest.raises(ConfigError, match="'LYM'"):
        build(real, k={"MUS": 1, "TUM": 1, "LYM": 1})
    with pytest.raises(ConfigError, match="lacks the class 'TUM'"):
        build(real, k={"MUS": 1})


def test_too_few_tiles(real) -> None:
    with pytest.raises(BankError, match="MUS has 5 single-class tiles, too few for 6 clusters"):
        build(real, k=6)
    with pytest.raises(BankError, match="TUM has no tile that shows it alone"):
        build((real[0][:5], real[1]))


def _damage(folder: Path, how: str) -> None:
    features, prototypes, facts = (folder / n for n in ("features.safetensors", "prototypes.safetensors", "bank.json"))
    if how == "no bank":
        for path in (features, facts):
            path.unlink()
    elif how == "unfinished":
        facts.unlink()
    elif how == "JSON cut short":
        facts.write_text(facts.read_text()[:200])
    elif how == "features cut short":
        features.write_bytes(features.read_bytes()[:-20])
    elif how == "a number changed":
        data = bytearray(prototypes.read_bytes())
        data[-20] ^= 1
        prototypes.write_bytes(data)
    elif how == "no prototypes":
        prototypes.unlink()
    elif how == "a tile unknown":
        document = json.loads(facts.read_text())
        document["tiles"][0]["hash"] = "0" * 64
        facts.write_text(json.dumps(document))
    elif how == "newer":
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 99}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no bank", "is no image bank"),
        ("unfinished", "unfinished"),
        ("JSON cut short", "damaged"),
        ("features cut short", "damaged"),
        ("a number changed", "damaged"),
        ("no prototypes", "damaged"),
        ("a tile unknown", "damaged"),
        ("newer", "newer version"),
    ],
)
def test_a_damaged_bank_is_one_sentence(real, tmp_path: Path, how: str, says: str) -> None:
    build(real).write(tmp_path, real[1])
    _damage(tmp_path, how)
    with pytest.raises(BankError, match=says) as caught:
        ImageBank.read(tmp_path)
    assert str(caught.value).endswith(".")


def test_contact_sheets_and_table(real, tmp_path: Path) -> None:
    bank = build(real)
    bank.write(tmp_path / "bank", real[1])
    paths = write_sheets(bank, tmp_path / "bank", tmp_path / "sheets")
    assert [p.name for p in paths] == ["1_MUS.png", "2_TUM.png"]
    sheet = Image.open(paths[0]).convert("RGB")
    assert sheet.getpixel((sheet.width - 1, 0)) == bank.taxonomy.classes[0].rgb
    first = Image.open(bank.nearest(0)[0].path).convert("RGB").resize((112, 112))
    shown = sheet.crop((190, 46, 190 + 112, 46 + 112))
    assert np.abs(np.asarray(shown, float) - np.asarray(first, float)).mean() < 8
    rows = cluster_table(bank)
    assert [(r["class"], r["cluster"], r["tiles"]) for r in rows] == [
        ("MUS", 1, 3),
        ("MUS", 2, 2),
        ("TUM", 1, 3),
        ("TUM", 2, 2),
    ]
    (tmp_path / "bank" / "thumbnails" / f"{bank.nearest(0)[0].hash[:16]}.jpg").write_bytes(b"")
    with pytest.raises(BankError, match="missing or damaged"):
        write_sheets(bank, tmp_path / "bank", tmp_path / "sheets")


def test_the_table_of_tiles_is_read_by_pandas(real, tmp_path: Path) -> None:
    bank = build(real)
    removed = replace(bank.tiles[0], subclass=-1)
    bank = replace(bank, removed=(removed,), settings=bank.settings.model_copy(update={"nearest": 2}))
    write_bank_table(tmp_path / "bank.csv", bank)
    table = pd.read_csv(tmp_path / "bank.csv")
    used = table[table["state"] == "used"]
    assert sorted(used["sha256"]) == sorted(tile.hash for tile in bank.tiles)
    sizes = used.groupby(["class", "cluster"]).size().to_dict()
    assert sizes == {(row["class"], row["cluster"]): row["tiles"] for row in cluster_table(bank)}
    for (_, _), rows in used.groupby(["class", "cluster"]):
        assert rows["similarity"].is_monotonic_decreasing
        assert rows["prototype"].sum() == 2
    assert table[table["state"] == "removed"]["sha256"].tolist() == [removed.hash]
    assert set(table["bank"]) == {bank.identity}
    write_bank_table(tmp_path / "bank.parquet", bank)
    assert pd.read_parquet(tmp_path / "bank.parquet")["tile"].tolist() == table["tile"].tolist()


def test_a_mixed_cluster_is_warned_of(real) -> None:
    tiles, measures = real
    swapped = FeatureFile(measures.encoder)
    for tile in tiles:
        swapped[tile.hash] = measures[tile.hash]
    for tile in tiles[:2]:  # two tiles of muscle that look like tumour
        swapped[tile.hash] = measures[tiles[-1].hash]
    warnings = [c.warning for c in build((tiles, swapped), k=1).clusters()]
    assert "mostly TUM" in warnings[0]
    assert warnings[1] == ""


def test_white_share() -> None:
    image = np.full((10, 10, 3), 255, np.uint8)
    image[:3] = (250, 120, 250)
    assert white_fraction(image) == pytest.approx(0.7)
    assert DataSettings().white_fraction == 0.7
