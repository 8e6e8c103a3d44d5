from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_pbip.config import JobSettings


def settings_for(folder: Path, **changes: Any) -> JobSettings:
    """Return settings for a small and quick job; ``changes`` replace whole sections."""
    values: dict[str, Any] = {
        "data": {"folder": folder, "mpp": 0.5},
        "bank": {"encoder": "tiny", "k": 2},
        "method": {"name": "cam"},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-4, "precision": "float32", "device": "cpu"},
    }
    for section, value in changes.items():
        values[section] = {**values[section], **value} if section in values else value
    return JobSettings.parse(values)
