"""Code that benchmarks share: the machine, and new figures beside the last recorded ones.

Recorded figures are the files ``benchmarks/recorded/NAME.json``, which ``--json`` of the benchmark NAME writes.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def hardware() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, threads, load of other programs, GPU, libraries."""
    import torch  # here, because processes whose memory is measured import this module

    from napari_pbip.engine import openvino_network

    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 1),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "openvino": openvino_network.installed(),
    }


def finish(name: str, found: dict[str, Any], target: Path | None) -> None:
    """Print all figures beside the recorded ones of this benchmark, and write them to a file."""
    recorded = RECORDED / f"{name}.json"
    before = _flat(json.loads(recorded.read_text(encoding="utf-8"))) if recorded.exists() else {}
    print(f"\n| {name} | recorded | now |\n|---|---|---|")
    for figure, value in _flat(found).items():
        print(f"| {figure} | {_shown(before.get(figure))} | {_shown(value)} |", flush=True)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}, {key}" if prefix else str(key))
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
