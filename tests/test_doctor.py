from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch
import zarr
from rich.console import Console

from napari_pbip.config import methods
from napari_pbip.doctor import Finding, Report, examine, render
from napari_pbip.models import encoders
from napari_pbip.slides import readers


@pytest.fixture(scope="module")
def report() -> Report:
    return examine()


def named(report: Report, topic: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings if finding.topic == topic}


def test_nothing_is_broken_where_the_tests_run(report: Report):
    assert not report.failed, [finding for finding in report.findings if finding.status == "fail"]


def test_every_fault_comes_with_what_to_do(report: Report):
    assert all(bool(finding.remedy) == (finding.status != "ok") for finding in report.findings)


def test_versions_are_those_that_are_imported(report: Report):
    versions = named(report, "versions")
    assert versions["torch"].detail == torch.__version__.partition("+")[0]
    assert versions["zarr"].detail == zarr.__version__
    assert versions["python"].detail.startswith(platform.python_version())


def test_readers_methods_and_encoders_are_those_of_the_catalogues(report: Report):
    assert [*named(report, "slides")] == [reader.name for reader in readers()]
    assert [*named(report, "methods")] == [*methods()]
    found = named(report, "encoders")
    absent = found.pop("without weights here").detail.partition(";")[0].split(", ")
    assert {*found, *absent} == {*encoders.catalogue()}
    assert {"texture", "tiny"} <= {*found}
    assert "transformers" in absent
    assert all(finding.status == "ok" for finding in found.values())


def test_json_holds_every_finding(report: Report):
    values = json.loads(json.dumps(report.to_json()))
    assert len(values["findings"]) == len(report.findings)
    assert values["failed"] is False
    assert values["cpu_capabilities"] == torch.cpu.get_capabilities()


def test_a_failure_is_shown_with_its_remedy():
    broken = Report((Finding("device", "torch", "fail", "libtorch.so is missing", "Run: pip install torch"),), {})
    console = Console(width=100)
    with console.capture() as captured:
        render(broken, console)
    assert broken.failed
    assert "libtorch.so is missing" in captured.get()
    assert "torch: Run: pip install torch" in captured.get()


@pytest.mark.skipif(sys.platform != "linux", reason="the variable that moves the cache is Linux's")
def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache = named(examine(), "storage")["cache"]
    assert cache.status == "warn"
    assert str(tmp_path / "file") in cache.remedy


def test_a_broken_package_is_a_failure_in_words():
    """Without torch there is still a report, made by an interpreter that cannot import it."""
    code = (
        "import sys, json; sys.modules['torch'] = None\n"
        "from napari_pbip.doctor import examine\n"
        "print(json.dumps(examine().to_json()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values = json.loads(result.stdout)
    (torch_finding,) = [f for f in values["findings"] if f["topic"] == "device" and f["name"] == "torch"]
    assert values["failed"] is True
    assert torch_finding["status"] == "fail"
    assert "-m pip install --force-reinstall torch" in torch_finding["remedy"]


def test_weights_that_are_here_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path))
    (tmp_path / "uni").mkdir()
    (tmp_path / "uni" / "model.safetensors").touch()
    found = named(examine(), "encoders")
    assert str(tmp_path / "uni") in found["uni"].detail
    assert " uni," not in found["without weights here"].detail
