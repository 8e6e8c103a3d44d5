"""The panel that explains a place, for a model without clusters."""

from __future__ import annotations

from typing import Any

from napari_pbip import samples
from napari_pbip.engine.inference.explain import Explanation, Match


def test_a_probe_names_the_nearest_tiles(application: Any) -> None:
    from napari_pbip.gui.widgets.why import WhyPanel

    lym, mus = (tuple(sorted((samples.tiles() / name).iterdir()))[:3] for name in ("LYM", "MUS"))
    panel = WhyPanel()
    matches = (Match("MUS", 0, 1, 0.81, mus), Match("LYM", 0, 0, 0.24, lym))
    panel.show_explanation(Explanation(0, 0, matches), "LYM", str)
    assert panel.text.text() == (
        "The map shows <b>LYM</b>. Of that class, this place looks most like labelled tiles of LYM (similarity "
        "<b>0.24</b>; 1 is the same). The nearest ones:"
    )
    assert len(panel.pictures) == 3
    panel.show_explanation(Explanation(0, 0, matches), "not assigned", str)
    assert "This place looks most like labelled tiles of MUS (similarity <b>0.81</b>" in panel.text.text()
    panel.deleteLater()
