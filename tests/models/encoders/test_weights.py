"""Where weights are searched for, what is refused, and with which message."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models import encoders
from napari_pbip.models.encoders import EncoderSpec, catalogue, find_weights
from napari_pbip.models.encoders.catalogue import from_spec
from napari_pbip.wording import Interface
from tests.models.encoders.small_encoders import small

FAMILIES = ("uni2-h", "conch", "medclip", "plip", "dinov2-base")


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the weights of the machine on which the tests run."""
    monkeypatch.delenv("NAPARI_PBIP_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def cached(spec: EncoderSpec, tmp_path: Path) -> Path:
    """Return the folder of a repository's snapshot, in the layout of the Hugging Face cache."""
    assert spec.hub is not None
    repository = tmp_path / "hub" / f"models--{spec.hub.replace('/', '--')}"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


def one_sentence(error: pytest.ExceptionInfo[WeightsUnavailable]) -> str:
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["uni", "dinov2-small", "plip"])
def test_found_in_the_hub_cache(name: str, tmp_path: Path) -> None:
    assert find_weights(catalogue()[name]) is None
    folder = cached(catalogue()[name], tmp_path)
    spec, _ = small(name, folder)
    assert find_weights(spec) == folder
    (tmp_path / "given").mkdir()
    assert from_spec(spec).weights_hash == from_spec(*small(name, tmp_path / "given")).weights_hash


def test_found_in_the_folder_of_the_environment_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small("uni", cached(catalogue()["uni"], tmp_path))
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path / "weights"))
    assert find_weights(catalogue()["uni"]) is not None  # a folder that is not there hides nothing
    folder = tmp_path / "weights" / "uni"
    folder.mkdir(parents=True)
    spec, _ = small("uni", folder)
    assert find_weights(spec) == folder
    assert from_spec(spec).spec.dimension == 32


def test_what_is_missing_comes_with_size_licence_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(WeightsUnavailable) as error:
        encoders.load("uni2-h")
    message = one_sentence(error)
    for part in ("napari-pbip encoders fetch uni2-h", "MahmoodLab/UNI2-h", "2726 MB", "CC-BY-NC-ND", "ask for access"):
        assert part in message
    assert "press “Fetch…” beside the encoder to fetch MahmoodLab" in Interface.WINDOW.sentence(message)
    assert str(tmp_path / "weights" / "uni2-h") in message
    with pytest.raises(WeightsUnavailable) as error:
        encoders.load("dinov2-base")
    assert "ask for access" not in one_sentence(error)
    with pytest.raises(WeightsUnavailable) as error:
        encoders.load("medclip")
    assert "https://github.com/RyanWangZf/MedCLIP" in one_sentence(error)
    assert "fetch" not in one_sentence(error)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_single_file_will_do(name: str, tmp_path: Path) -> None:
    spec, folder = small(name, tmp_path)
    assert folder is not None
    assert from_spec(spec, folder / "model.safetensors").weights_hash == from_spec(spec, folder).weights_hash


def test_weights_in_half_precision_compute_in_float32(tmp_path: Path) -> None:
    for name in ("uni", "dinov2-base"):
        folder = tmp_path / name
        folder.mkdir()
        spec, _ = small(name, folder)
        whole = from_spec(spec, folder)
        file = folder / "model.safetensors"
        save_file({n: t.half() for n, t in load_file(file).items()}, file, {"format": "pt"})
        half = from_spec(spec, folder)
        assert {p.dtype for p in half.parameters()} == {torch.float32}
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(half(images), whole(images), rtol=0.02, atol=0.02)
        assert half.weights_hash != whole.weights_hash


def _spoil(folder: Path, fault: str) -> None:
    file = folder / "model.safetensors"
    if fault == "no file":
        file.unlink()
    elif fault == "no folder":
        shutil.rmtree(folder)
    elif fault == "cut short":
        file.write_bytes(file.read_bytes()[:1000])
    elif fault == "only a pickle":
        file.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(folder)))
    else:
        tensors = load_file(file)
        name = next(n for n in sorted(tensors) if n.startswith(("visual.trunk", "blocks", "encoder", "vision_model")))
        if fault == "a tensor missing":
            del tensors[name]
        else:
            tensors[name] = torch.zeros(3)
        save_file(tensors, file, {"format": "pt"})


class _Trap:
    """An object whose pickle writes a file when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.folder / "sprung",)


@pytest.mark.parametrize(
    "fault", ["no file", "no folder", "cut short", "only a pickle", "a tensor missing", "another shape"]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_faulty_weights_are_one_sentence(name: str, fault: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    spec, _ = small(name, folder)
    _spoil(folder, fault)
    with pytest.raises(WeightsUnavailable) as error:
        from_spec(spec, folder)
    message = one_sentence(error)
    assert str(folder) in message
    if fault == "only a pickle":
        assert "Where weights come from" in message
        assert not (folder / "sprung").exists()


def test_a_pickle_in_the_hub_cache_is_not_read(tmp_path: Path) -> None:
    folder = cached(catalogue()["uni"], tmp_path)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(folder)))
    assert find_weights(catalogue()["uni"]) is None
    with pytest.raises(WeightsUnavailable, match="convert it once"):
        encoders.load("uni")
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_is_converted_as_the_documentation_shows(
    wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = small("conch", tmp_path)
    before = from_spec(spec, tmp_path).weights_hash
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": weights} if wrapped else weights, tmp_path / "pytorch_model.bin")
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "methods.md").read_text(encoding="utf-8")
    snippet = page.partition("## Encoders")[2].partition("```text\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert from_spec(spec, tmp_path).weights_hash == before


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    for name in ("uni", "uni2-h", "plip", "clip"):
        (tmp_path / name).mkdir()
    uni, _ = small("uni", tmp_path / "uni")
    small("uni2-h", tmp_path / "uni2-h")
    with pytest.raises(WeightsUnavailable, match="does not hold the weights of 'uni'"):
        from_spec(uni, tmp_path / "uni2-h")
    plip, _ = small("plip", tmp_path / "plip")
    small("clip", tmp_path / "clip")
    with pytest.raises(WeightsUnavailable, match=r"vision_config\.patch_size is 16 instead of 32"):
        from_spec(plip, tmp_path / "clip")


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    mapping = '{"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"},'
    (tmp_path / "config.json").write_text(config.replace("{", mapping, 1).replace('"dinov2"', '"evil"'))
    (tmp_path / "evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(WeightsUnavailable):
        encoders.load("dinov2-base", tmp_path)
