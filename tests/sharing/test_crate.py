"""The description of a project is read back by the library of RO-Crate, and names what is in the folder.

The validator of RO-Crate needs the network, and an older rich than the command line is tested with; therefore it is run
by hand, as docs/how-to/describe-a-project.md says.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from rocrate.rocrate import ROCrate
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Warned
from napari_pbip.results import ScoreStore
from napari_pbip.results.places import FURTHER_MAPS
from napari_pbip.sharing.crate import METADATA, crate
from tests.sharing.conftest import stores_of

LICENCE = "https://spdx.org/licenses/CC-BY-4.0"


@pytest.fixture(scope="module")
def described(project: Path) -> ROCrate:
    list(crate(project, LICENCE, "A. Müller"))
    return ROCrate(project)


def test_it_names_what_is_there(described: ROCrate, project: Path):
    root = described.root_dataset
    assert (described.name, root["license"].id, root["author"]["name"]) == (project.name, LICENCE, "A. Müller")
    parts = {unquote(part.id) for part in described.data_entities}
    assert {"project.json", "tiles/", "bank/", "models/skin/", "models/skin/run.json"} < parts
    assert {f"{path.relative_to(project).as_posix()}/" for path in stores_of(project)} < parts
    assert all((project / part).exists() for part in parts)


def test_it_says_what_was_made_from_what(described: ROCrate, project: Path):
    facts = ScoreStore.open(stores_of(project)[0]).facts
    actions = {action["name"]: action for action in described.get_by_type("CreateAction")}
    assert len(actions) == 3
    action = next(one for name, one in actions.items() if facts.slide.identity[:12] in name)
    assert [one["name"] for one in action["object"]] == [facts.slide.name, "models/skin"]
    assert action["object"][0]["identifier"] == facts.slide.identity
    assert facts.made is not None
    assert action["startTime"] == facts.made.time.isoformat()
    assert action["instrument"]["softwareVersion"] == facts.made.version
    assert action.get("agent") is None
    values = {one["name"]: one["value"] for one in action["result"]["additionalProperty"]}
    assert values["identity of the weights"] == facts.model.hash
    assert values["threshold delta"] == "0.15"
    assert str(facts.slide.path.parent) not in (project / METADATA).read_text(encoding="utf-8")


def test_it_describes_all_maps_of_a_slide(project: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    first = stores_of(copy)[0]
    second = first.parent / FURTHER_MAPS / "2" / first.name
    shutil.copytree(first, second)
    *_, last = crate(copy, LICENCE)
    assert isinstance(last, Finished)
    read = ROCrate(copy)
    parts = {unquote(part.id) for part in read.data_entities}
    assert {f"{store.relative_to(copy).as_posix()}/" for store in (first, second)} < parts
    name = f"map in {first.parent.name}"
    assert {name, f"{name}/further-maps/2"} < {one["name"] for one in read.get_by_type("CreateAction")}


def test_who_made_a_map_is_named_if_that_was_said(project: Path):
    path = stores_of(project)[1] / "zarr.json"
    before = path.read_text(encoding="utf-8")
    document = json.loads(before)
    document["attributes"]["pbip"]["made"]["operator"] = "Dr B"
    try:
        path.write_text(json.dumps(document), encoding="utf-8")
        list(crate(project, "for review only"))
    finally:
        path.write_text(before, encoding="utf-8")
    read = ROCrate(project)
    assert [one["agent"]["name"] for one in read.get_by_type("CreateAction") if one.get("agent")] == ["Dr B"]
    assert read.root_dataset["license"]["name"] == "for review only"
    assert read.root_dataset.get("author") is None


def test_bad_input_is_one_sentence(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OutputError, match="states its licence"):
        list(crate(project, " "))
    with pytest.raises(OutputError, match="holds no map"):
        list(crate(tmp_path, LICENCE))
    broken = project / "models" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    try:
        told = [event.message for event in crate(project, LICENCE) if isinstance(event, Warned)]
    finally:
        (broken / "run.json").unlink()
        broken.rmdir()
    assert len(told) == 1
    assert "leaves out the model broken" in told[0]
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(OutputError, match=r"pip install napari-pbip\[rocrate\]"):
        list(crate(project, LICENCE))


def test_the_command(project: Path):
    arguments = ["crate", str(project), "--licence", LICENCE]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    assert ROCrate(project).name == project.name
