"""The bundled model without its linear probe: the network that users get with many labelled tiles.

A probe has a share in the scores of the bundled model, because it learned from few tiles, which makes it two networks.
The figures of docs/benchmarks.md on the speed of the default network are those of PBIP alone.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from napari_pbip import samples
from napari_pbip.engine.run_facts import MARKER
from napari_pbip.engine.runs import BEST, read_weights, run_identity, write_weights
from napari_pbip.files import write_json


def pbip_alone() -> Path:
    """Return a run like the bundled one without its probe; it is written once, into the folder for temporary files."""
    bundled = samples.project() / "model"
    run = Path(tempfile.gettempdir()) / "napari-pbip-benchmarks" / f"pbip-alone-{run_identity(bundled)}"
    if not (run / MARKER).exists():
        run.mkdir(parents=True, exist_ok=True)
        weights = read_weights(bundled / BEST)
        write_weights(run / BEST, {name: one for name, one in weights.items() if not name.startswith("probe.")})
        facts = json.loads((bundled / MARKER).read_text(encoding="utf-8"))
        facts["settings"]["method"]["probe_share"], facts["fit"] = 0.0, {}
        write_json(run / MARKER, facts)
    return run
