from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_single_tiles
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.zero_shot import zero_shot
from napari_pbip.engine.encoding import TileEncoder, bank_encoder
from napari_pbip.errors import BankError, ConfigError, DataError
from napari_pbip.events import Finished, Started, Step, Warned
from napari_pbip.models.encoders import default_sentence
from tests.models.encoders.small_encoders import small

CLASSES = ("LYM", "MUS", "TUM")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return tiles for banks and others to classify, a small CLIP, and banks built with it and with texture."""
    folder = tmp_path_factory.mktemp("work")
    for name in CLASSES:
        for i, path in enumerate(sorted((samples.tiles() / name).iterdir())):
            place = folder / ("known" if i < 3 else "other") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    (folder / "clip").mkdir()
    spec, _ = small("clip", folder / "clip")
    facts = {"size": spec.input_size, "image_mean": spec.mean, "image_std": spec.std}
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(facts, default=list))
    data = DataSettings(folder=folder / "known")
    for encoder, weights in (("texture", None), ("transformers", folder / "clip")):
        settings = BankSettings(encoder=encoder, weights=weights, k=1)
        list(build_bank(load_single_tiles(folder / "known", data), folder / f"bank-{encoder}", settings, data))
    return folder


def run(work: Path, tiles: str = "other", **options: Any) -> dict[str, Any]:
    *_, last = zero_shot(DataSettings(folder=work / tiles), **options)
    return dict(last.summary)


def test_text_prompts_give_the_class_of_the_most_similar_sentence(work: Path) -> None:
    own = {"TUM": "a photo of tumour"}
    summary = run(work, encoder="transformers", weights=work / "clip", sentences=own)
    assert summary["sentences"] == {"LYM": default_sentence("LYM"), "MUS": default_sentence("MUS"), **own}
    assert set(summary["prompts"]) == {"text"}

    model = CLIPModel.from_pretrained(work / "clip").eval()
    tokens = CLIPTokenizer.from_pretrained(work / "clip")(
        list(summary["sentences"].values()), padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    text = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output)
    small_spec = json.loads((work / "clip" / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(small_spec[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    confusion = np.zeros((3, 3), int)
    for label, name in enumerate(CLASSES):
        for path in (work / "other" / name).iterdir():
            pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255
            side = small_spec["size"]
            pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
            image = model.get_image_features((pixels - mean) / std).pooler_output
            confusion[label, int((image @ text.T).argmax())] += 1
    assert summary["prompts"]["text"]["confusion"] == confusion.tolist()


def test_image_prompts_are_the_prototypes_of_a_bank(work: Path) -> None:
    summary = run(work, bank=work / "bank-texture")
    assert set(summary["prompts"]) == {"image"}
    scores = summary["prompts"]["image"]
    assert scores["accuracy"] > 60  # of three classes
    rows = summary["predictions"]
    assert [row["label"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    assert scores["accuracy"] == pytest.approx(100 * np.mean([row["image"]["class"] == row["label"] for row in rows]))
    assert set(scores["f1"]) == set(CLASSES)
    bank = ImageBank.read(work / "bank-texture")
    encoder = bank_encoder(bank)
    for row in rows:
        similarity = bank.similarity(TileEncoder(encoder)([np.array(Image.open(row["path"]).convert("RGB"))]))[0]
        assert row["image"]["prompt"] == similarity.argmax()
        assert row["image"]["similarity"] == pytest.approx(similarity.max(), abs=1e-5)


def test_pictures_without_labels_are_named_and_not_scored(work: Path, tmp_path: Path) -> None:
    shutil.copy(next((work / "known" / "LYM").iterdir()), tmp_path / "x.png")
    summary = run(work, str(tmp_path), bank=work / "bank-texture")
    assert summary["prompts"]["image"]["accuracy"] is None
    (row,) = summary["predictions"]
    assert row["label"] is None
    assert row["image"]["class"] == "LYM"
    own = {"gland": "a photo of a gland", "fat": "a photo of fat"}
    summary = run(work, str(tmp_path), encoder="transformers", weights=work / "clip", sentences=own)
    assert summary["classes"] == ["gland", "fat"]
    assert summary["predictions"][0]["text"]["class"] in own
    with pytest.raises(DataError, match="give a sentence for each class, or an image bank"):
        run(work, str(tmp_path), encoder="transformers", weights=work / "clip")


def test_classes_are_matched_by_name(work: Path, tmp_path: Path) -> None:
    for name in ("MUS", "TUM"):  # MUS is class 0 of the folder and class 1 of the bank
        shutil.copytree(work / "other" / name, tmp_path / name)
    summary = run(work, str(tmp_path), bank=work / "bank-texture")
    assert [sum(row) for row in summary["prompts"]["image"]["confusion"]] == [0, 2, 2]
    assert set(summary["prompts"]["image"]["f1"]) == {"MUS", "TUM"}


def test_a_bank_alone_asks_no_text_tower(work: Path) -> None:
    assert set(run(work, bank=work / "bank-transformers", text=False)["prompts"]) == {"image"}


def test_both_prompts_with_one_encoder(work: Path) -> None:
    events = list(zero_shot(DataSettings(folder=work / "other"), bank=work / "bank-transformers"))
    assert isinstance(events[1], Started)  # after the encoder was loaded
    assert [e.done for e in events if isinstance(e, Step)] == [events[1].total]
    assert isinstance(events[-1], Finished)
    prompts = events[-1].summary["prompts"]
    assert set(prompts) == {"text", "image"}
    assert prompts["text"] == run(work, encoder="transformers", weights=work / "clip")["prompts"]["text"]
    assert json.dumps(events[-1].summary)


def test_tiles_that_made_the_bank_are_told(work: Path) -> None:
    events = list(zero_shot(DataSettings(folder=work / "known"), bank=work / "bank-texture"))
    (warned,) = (e for e in events if isinstance(e, Warned))
    assert "9 of 9 tiles are in the bank" in warned.message
    assert not any(
        isinstance(e, Warned) for e in zero_shot(DataSettings(folder=work / "other"), bank=work / "bank-texture")
    )


def test_tiles_of_another_split_have_the_classes_of_their_masks(work: Path, tmp_path: Path) -> None:
    """Tiles with several classes are left out, which is reported."""
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for part in ("train", "test/img", "test/mask"):
        (tmp_path / part).mkdir(parents=True)
    for label, name in enumerate(CLASSES):
        for path in (work / "other" / name).iterdir():
            shutil.copy(path, tmp_path / "test" / "img")
            mask = np.full((224, 224), label, np.uint8)
            mask[:50] = 0 if path == sorted(path.parent.iterdir())[0] else label
            Image.fromarray(mask).save(tmp_path / "test" / "mask" / path.name)
    shutil.copy(next((work / "known" / "LYM").iterdir()), tmp_path / "train" / "a[100].png")
    summary = run(work, str(tmp_path), bank=work / "bank-texture", split="test")
    assert summary["tiles"] == 4
    assert summary["several_classes"] == 2  # of muscle and tumour, each with lymphocytes above
    assert np.sum(summary["prompts"]["image"]["confusion"], 1).tolist() == [2, 1, 1]


def test_what_cannot_be_done_is_one_sentence(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name an encoder with a text tower, or an image bank"):
        run(work)
    with pytest.raises(ConfigError, match="'texture' has no text tower; name an image bank"):
        run(work, encoder="texture")
    with pytest.raises(ConfigError, match="sentence for 'TUMOR', but the classes are LYM, MUS, TUM"):
        run(work, encoder="texture", sentences={"TUMOR": "a photo of tumour"})
    with pytest.raises(BankError, match="made with the encoder 'texture'"):
        run(work, encoder="clip", bank=work / "bank-texture")
    with pytest.raises(DataError):
        run(work, "clip", encoder="texture")
    shutil.copytree(samples.tiles() / "ADI", tmp_path / "ADI")
    shutil.copytree(samples.tiles() / "LYM", tmp_path / "LYM")
    with pytest.raises(BankError, match="has tiles of ADI"):
        list(zero_shot(DataSettings(folder=tmp_path), bank=work / "bank-texture"))
