"""Other packages add methods, encoders and slide readers, as the how-to pages show."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank import ImageBank
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.engine.run_facts import RunFacts, runs_in
from tests.plugin_packages import HOW_TO, install_page, register, with_site
from tests.test_readme import blocks


def do(site: Path, folder: Path, *arguments: str) -> str:
    """Run Python in a folder with the packages of a site, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=with_site(site), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def follow(page: str, site: Path, folder: Path) -> list[str]:
    """Install a page's package and run the steps at the end of the page; return what each prints."""
    install_page(page, site)
    used = blocks(HOW_TO / f"{page}.md")[3:]
    assert used
    steps = []
    for block in used:
        if block.language == "python":
            steps.append(["-c", block.text])
        else:
            steps += [["-m", "napari_pbip", *shlex.split(line)[1:]] for line in block.text.splitlines()]
    return [do(site, folder, *step) for step in steps]


def test_a_method_of_another_package_is_trained(tmp_path: Path) -> None:
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    write_training(tmp_path / "tiles", {name: some[:3] for name, some in tiles.items()}, 8, 64, rng)
    write_masked(tmp_path / "tiles", "val", {name: some[3:] for name, some in tiles.items()}, 2, 64, rng)
    follow("add-a-method", tmp_path / "site", tmp_path)
    facts = json.loads((tmp_path / "run-lse" / "run.json").read_text())
    assert facts["settings"]["method"] == {
        "name": "lse",
        "sharpness": 8,
        "stage_weights": [0.0, 0.1, 1.0, 1.0],
        "fusion_weights": [0.0, 0.3, 0.3, 0.4],
        "synthesis": 1.0,
    }
    assert facts["step"] == 2


def test_an_encoder_of_another_package_makes_a_bank(tmp_path: Path) -> None:
    for name in ("LYM", "MUS"):
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    listed, _ = follow("add-an-encoder", tmp_path / "site", tmp_path)
    assert "colours" in listed
    bank = ImageBank.read(tmp_path / "bank-colours")
    assert (bank.encoder["name"], bank.encoder["dimension"]) == ("colours", 24)


def test_a_reader_of_another_package_opens_slides(tmp_path: Path) -> None:
    (printed,) = follow("add-a-slide-reader", tmp_path / "site", tmp_path)
    assert printed == "npy 1024 768 (64, 64, 3)\n"


def test_a_plugin_may_be_imported_before_the_settings(tmp_path: Path) -> None:
    """Its module imports ours, and our settings load plugins, which must not fail as a circular import."""
    install_page("add-a-method", tmp_path)
    code = (
        "from pbip_lse.settings import LseSettings; from napari_pbip import CompareJob, JobSettings\n"
        "settings = JobSettings.parse({'method': {'name': 'lse', 'sharpness': 2}})\n"
        "assert type(settings.method) is LseSettings and settings.method.sharpness == 2\n"
        "assert JobSettings.parse(settings.model_dump()) == settings\n"
        "try: JobSettings.parse({'method': {'name': 'lsf'}})\n"
        "except Exception as error: print(error)"
    )
    printed = do(tmp_path, tmp_path, "-W", "error", "-c", code)
    assert printed == (
        "The setting 'method.name' cannot be 'lsf'; it is one of 'pbip', 'lpd', 'construct', 'cam', 'probe', "
        "'deeplab', 'lse'.\n"
    )


def test_broken_plugins_are_named_and_break_nothing_else(tmp_path: Path) -> None:
    install_page("add-a-method", tmp_path)
    (tmp_path / "broken.py").write_text("from napari_pbip import CamSettings\nNUMBER = 3\n", encoding="utf-8")
    wrong = {
        "gone": "not_there:Settings",
        "number": "broken:NUMBER",
        "unnamed": "broken:CamSettings",
        "pbip": "pbip_lse.settings:LseSettings",
    }
    register(tmp_path, "pbip-broken", {"napari_pbip.methods": wrong})
    code = "from napari_pbip.config import methods; methods(); print(*methods())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=with_site(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["pbip", "lpd", "construct", "cam", "probe", "deeplab", "lse"]
    for name, why in (
        ("gone", "ModuleNotFoundError: No module named 'not_there'"),
        ("number", "it is no class derived from PyramidSettings"),
        ("unnamed", 'its settings do not say name: Literal["unnamed"] = "unnamed"'),
        ("pbip", "another one has this name"),
    ):
        said = f"The method {name!r} of the package 'pbip-broken' is left out ({why}); repair or remove that package."
        assert done.stderr.count(said) == 1


def test_the_command_line_names_a_broken_plugin_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("NUMBER = 3\n", encoding="utf-8")
    register(tmp_path, "pbip-broken", {"napari_pbip.encoders": {"odd": "broken:NUMBER"}})
    done = subprocess.run(
        [sys.executable, "-m", "napari_pbip", "encoders"],
        env=with_site(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        "Note: The encoder 'odd' of the package 'pbip-broken' is left out (it is no EncoderSpec with the name 'odd'); "
        "repair or remove that package.\n"
    )


def test_a_reader_that_cannot_be_loaded_is_named_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from napari_pbip import ReaderEntry\nENTRY = ReaderEntry('odd', 'ODD', 'odd', 'not_there:open')\n",
        encoding="utf-8",
    )
    register(tmp_path, "pbip-broken", {"napari_pbip.readers": {"odd": "broken:ENTRY"}})
    (tmp_path / "slide.odd").write_bytes(b"odd")
    code = (
        "from napari_pbip import open_slide, samples; open_slide(samples.slide()).close()\n"
        "try: open_slide('slide.odd')\n"
        "except Exception as error: print(error)"
    )
    assert do(tmp_path, tmp_path, "-c", code) == (
        "slide.odd cannot be read, because the reader 'odd' cannot be loaded (No module named 'not_there'); "
        "napari-pbip doctor says what to do.\n"
    )


def test_a_model_whose_method_is_not_installed_hides_no_other(tmp_path: Path) -> None:
    for name in ("lost", "whole"):
        shutil.copytree(samples.project() / "model", tmp_path / name)
    facts = json.loads((tmp_path / "lost" / "run.json").read_text())
    facts["settings"]["method"] = {"name": "lse", "sharpness": 8}
    (tmp_path / "lost" / "run.json").write_text(json.dumps(facts))
    runs = runs_in(tmp_path)
    assert isinstance(runs["whole"], RunFacts)
    assert str(runs["lost"]) == (
        f"{tmp_path / 'lost'} was trained with settings that are not known here (The setting 'method.name' cannot be "
        "'lse'; it is one of 'pbip', 'lpd', 'construct', 'cam', 'probe', 'deeplab'); install the package that its "
        "method comes from, or update napari-pbip."
    )
