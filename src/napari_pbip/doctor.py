"""The checks of an installation, with remedies: ``napari-pbip doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from napari_pbip.errors import WeightsUnavailable

if TYPE_CHECKING:
    from napari_pbip.models.encoders import EncoderSpec

Status = Literal["ok", "warn", "fail"]

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5")
_DISK_GB = 5.0
"""Free disk space in GB below which there is a warning; a score store of a large slide takes a few GB."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    topic: str
    """Topic: versions, device, slides, methods, encoders, storage or window."""
    name: str
    status: Status
    """``ok``; ``warn`` if something optional is missing; ``fail`` if the package cannot work."""
    detail: str
    """What was found, in one line."""
    remedy: str = ""
    """What the user can do about a ``warn`` or ``fail``; empty for ``ok``."""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of all checks."""

    findings: tuple[Finding, ...]
    cpu: dict[str, Any]
    """The processor's capabilities (``torch.cpu.get_capabilities``); empty without torch."""

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(finding.status == "fail" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        findings = [asdict(finding) for finding in self.findings]
        return {"failed": self.failed, "findings": findings, "cpu_capabilities": self.cpu}


def examine() -> Report:
    """Check versions, device, slide readers, methods, encoders, storage and the requirements of the window.

    This takes a few seconds because it imports torch. Faults become findings and raise nothing. Qt and napari are
    searched for but not imported.
    """
    findings = [*_versions(), *_device(), *_readers(), *_methods(), *_encoders(), *_storage(), _window()]
    return Report(tuple(findings), _cpu_capabilities())


def render(report: Report, console: Console) -> None:
    """Print a report as a table, and below it one line per fault with what to do."""
    table = Table("", "", "found", box=None, pad_edge=False)
    topic = None
    for finding in report.findings:
        if finding.topic != topic:
            topic = finding.topic
            table.add_row("", Text(topic, style="bold"), "")
        table.add_row(
            Text(finding.status, style=_STYLES[finding.status]), Text(f"  {finding.name}"), Text(finding.detail)
        )
    console.print(table)
    faults = [finding for finding in report.findings if finding.status != "ok"]
    for finding in faults:
        name = Text(f"{finding.name}: ", style=_STYLES[finding.status])
        console.print(name.append(finding.remedy, style="default"), soft_wrap=True)
    if not faults:
        console.print("Everything is in order.")


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("versions", "napari-pbip", "ok", version("napari-pbip"))
    names = [
        re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires("napari-pbip") or () if "extra ==" not in line
    ]
    for name in names:
        try:
            yield Finding("versions", name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding("versions", name, "fail", "not installed", f"Run: {_pip(name)}")


def _device() -> Iterator[Finding]:
    try:
        import torch

        from napari_pbip.engine.device import choose_device, has_bfloat16
    except (ImportError, OSError) as error:
        yield Finding("device", "torch", "fail", _short(error), f"Run: {_pip('--force-reinstall torch torchvision')}")
        return
    yield from _torchvision()
    chosen = choose_device("auto")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        memory = f"{facts.total_memory / 2**30:.0f} GiB"
        precision = _precision(has_bfloat16(torch.device("cuda", index)))
        yield Finding("device", f"cuda:{index}", "ok", f"{facts.name}, {memory}, {precision}")
    if chosen.type == "mps":
        yield Finding("device", "mps", "ok", f"Apple GPU, {_precision(has_bfloat16(chosen))}")
    if chosen.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "cuda",
            "warn",
            f"this machine has an NVIDIA driver, and torch {torch.__version__} cannot use it",
            "Update the NVIDIA driver, or install the torch build for the CUDA version that nvidia-smi shows.",
        )
    yield Finding("device", "cpu", "ok", f"{_processor()}, {_precision(has_bfloat16(torch.device('cpu')))}")
    yield Finding("device", "used by default", "ok", str(chosen))
    yield _openvino()


def _openvino() -> Finding:
    from napari_pbip.engine import openvino_network

    if found := openvino_network.installed():
        return Finding("device", "OpenVINO", "ok", f"{found}, computes networks on the cpu")
    remedy = _pip(chr(34) + openvino_network.REQUIREMENT + chr(34))
    return Finding("device", "OpenVINO", "ok", f"not installed; with it the cpu is faster: {remedy}")


def _processor() -> str:
    import torch

    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {cores} cores, {instructions}, {free:.0f} of {total:.0f} GiB memory free"


def _torchvision() -> Iterator[Finding]:
    """Check torchvision, which timm and transformers import, and which works only with its own build of torch."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        remedy = f"Run: {_pip('--force-reinstall torch torchvision')}"
        yield Finding("device", "torchvision", "fail", f"does not fit this torch: {_short(error)}", remedy)


def _readers() -> Iterator[Finding]:
    from napari_pbip.slides import readers

    for reader in readers():
        try:
            importlib.import_module(reader.factory.partition(":")[0])
        except (ImportError, OSError) as error:
            remedy = f"Run: {_pip('--force-reinstall ' + reader.package)}"
            yield Finding("slides", reader.name, "fail", _short(error), remedy)
        else:
            yield Finding("slides", reader.name, "ok", reader.formats)


def _methods() -> Iterator[Finding]:
    from napari_pbip.config import methods

    for name, settings in methods().items():
        yield Finding("methods", name, "ok", settings.about.partition(".")[0])


def _encoders() -> Iterator[Finding]:
    try:
        from napari_pbip.models import builtin, encoders
    except (ImportError, OSError):
        return  # encoders need torch, whose absence has its own line
    absent = []
    for spec in encoders.catalogue().values():
        if spec.name == builtin.BACKBONE:
            yield _builtin_encoder(spec)
            continue
        place = encoders.find_weights(spec) if spec.needs_weights else None
        if spec.needs_weights and place is None:
            absent.append(spec.name)
        else:
            yield Finding("encoders", spec.name, "ok", spec.title + (f"; weights in {place}" if place else "; ready"))
    detail = f"{', '.join(absent)}; `napari-pbip encoders` shows what each needs"
    yield Finding("encoders", "without weights here", "ok", detail)


def _builtin_encoder(spec: EncoderSpec) -> Finding:
    from napari_pbip.models import builtin

    try:
        path = builtin.find(spec.name)
    except WeightsUnavailable as error:
        return Finding("encoders", spec.name, "fail", str(error).partition(";")[0], f"Run: {_pip(builtin.REQUIREMENT)}")
    detail = f"{spec.title}; {builtin.LICENCE}, {builtin.SOURCE}, SHA-256 {builtin.SHA256[:16]}, in {path}"
    return Finding("encoders", spec.name, "ok", detail)


def _storage() -> Iterator[Finding]:
    cache = platformdirs.user_cache_path("napari-pbip")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        detail = f"{cache} cannot be written: {error.strerror}"
        yield Finding("storage", "cache", "warn", detail, f"Give yourself permission to write to {cache}.")
    else:
        yield Finding("storage", "cache", "ok", f"{cache} (writable)")
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / 1e9
    if free < _DISK_GB:
        remedy = f"Make room, or give --out on another disk: a large slide's scores need about {_DISK_GB:.0f} GB."
        yield Finding("storage", "free disk", "warn", f"{free:.1f} GB at {folder}", remedy)
    else:
        yield Finding("storage", "free disk", "ok", f"{free:.0f} GB at {folder}")
    yield _object_stores()


def _object_stores() -> Finding:
    try:
        detail = f"s3fs {version('s3fs')}, for results at s3:// addresses"
    except PackageNotFoundError:
        detail = f"not installed; for results at s3:// addresses: {_pip(chr(34) + 'napari-pbip[remote]' + chr(34))}"
    return Finding("storage", "object stores", "ok", detail)


def _window() -> Finding:
    found = [name for name in _QT_BINDINGS if importlib.util.find_spec(name)]
    if found:
        return Finding("window", "Qt", "ok", ", ".join(f"{name} {version(name)}" for name in found))
    remedy = f"Only the window needs it; run: {_pip(chr(34) + 'napari-pbip[gui]' + chr(34))}"
    return Finding("window", "Qt", "warn", "no Qt binding: the command line works, the window does not", remedy)


def _cpu_capabilities() -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError):
        return {}
    return dict(torch.cpu.get_capabilities())


def _precision(bfloat16: bool) -> str:
    return "bfloat16 and float32" if bfloat16 else "float32"


def _pip(what: str) -> str:
    return f"{sys.executable} -m pip install {what}"


def _short(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
