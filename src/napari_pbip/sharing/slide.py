"""What a report says about the map of one slide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.document import Cell, Facts, Legend, Part, Picture, Pictures, Section, Table, Text
from napari_pbip.provenance import Made
from napari_pbip.results.areas import NOT_ANALYSED_NAME, Area, of_whole
from napari_pbip.results.label_files import REWRITE, LabelFacts, open_labels
from napari_pbip.results.margins import Margins, Place
from napari_pbip.results.overlay import labels_like, overlay
from napari_pbip.results.statistics_table import Statistic
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.slides import Slide
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import UNASSIGNED_NAME, UNASSIGNED_RGB, Taxonomy

_SIDE = 1000
"""Longer side of the pictures of a slide in pixels."""
_CROP = 224
"""Side of the picture of a place in pixels."""
_PLACE_UM = 120.0
"""Side of a place in micrometres."""
_UNSURE, _TYPICAL = 6, 3
"""Number of places that are shown: least sure ones, and typical ones of each class."""
_SURE_RGB, _UNSURE_RGB = np.array([236, 236, 236]), np.array([123, 3, 119])
_PAPER = 255
RGB = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MappedSlide:
    """The map of a slide that a report is about."""

    store: ScoreStore
    folder: Path
    """The label image, which :meth:`section` reads."""
    labels: LabelFacts
    areas: Sequence[Area]
    """Under the names of :attr:`classes`, as all that follows."""
    statistics: Sequence[Statistic]
    slide: Slide | None
    """The slide, if it can be read, open while :meth:`section` is called."""
    missing: str
    """Why it cannot be read, as a sentence."""
    mpp_from: str | None
    """Who says the microns per pixel: ``slide`` or ``user``; None if that is not known."""
    classes: Taxonomy
    """The classes of the map as the report calls and colours them."""

    @property
    def name(self) -> str:
        """Name of the slide."""
        return self.store.facts.slide.name

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue that counts."""
        return self.store.tissue_in[WHOLE] * (self.store.cell_um / 1000) ** 2

    @property
    def colours(self) -> dict[str, str]:
        """Colours of the classes, and of tissue without one."""
        return {one.name: _hex(one.rgb) for one in self.classes} | {UNASSIGNED_NAME: _hex(UNASSIGNED_RGB)}

    @property
    def thresholds(self) -> ThresholdSettings:
        """The thresholds of the labels."""
        return thresholds_of(self.labels.thresholds, self.store.taxonomy, self.classes)

    def value(self, name: str, quantity: str, other: str = "") -> float | None:
        """Return a value of the statistics of the whole slide, or None if it is not defined."""
        row = self._row(name, quantity, other)
        return None if row is None else row.value

    def range(self, name: str) -> str:
        """Return the areas of a class at a larger and a smaller delta, in mm²; empty if they are not known."""
        row = self._row(name, "area")
        return "" if row is None or row.low is None else f"{_number(row.low)} to {_number(row.high)}"

    def _row(self, name: str, quantity: str, other: str = "") -> Statistic | None:
        wanted = WHOLE, name, quantity, other
        rows = (row for row in self.statistics if (row.region, row.name, row.quantity, row.other) == wanted)
        return next(rows, None)

    def section(self) -> Section:
        """Return the section on this slide."""
        margins = Margins.of(self.store, self.labels, _SIDE)
        parts = (
            *self._pictures(),
            *self._areas(),
            *self._patches(),
            *self._typical(margins),
            *self._unsure(margins),
            *self._origin(),
        )
        return Section(self.name, parts, new_page=True)

    # parts -----------------------------------------------------------------------------------------------------

    def _pictures(self) -> Iterator[Part]:
        facts = self.store.facts.slide
        done, planned = self.store.progress
        if done < planned:
            yield Text(
                f"Only {done:,} of {planned:,} tiles of this slide are segmented, and the figures are of these alone.",
                "warning",
            )
        if self.slide is None:
            yield Text(f"The slide itself cannot be shown: {self.missing}", "warning")
        scale = _SIDE / max(facts.width, facts.height)
        height, width = (max(1, round(scale * side)) for side in (facts.height, facts.width))
        thumbnail = np.full((height, width, 3), _PAPER, np.uint8) if self.slide is None else self.slide.thumbnail(_SIDE)
        drawn = overlay(
            thumbnail,
            labels_like(self.store, thumbnail.shape[0], thumbnail.shape[1], self.folder),
            self.classes,
            1 if self.slide is None else 0.5,
        )
        size = " x ".join(f"{side * facts.mpp / 1000:.3g}" for side in (facts.width, facts.height))
        slide = [] if self.slide is None else [Picture.of(thumbnail, f"The slide, {size} mm.")]
        yield Pictures([*slide, Picture.of(drawn, f"The map on it, {size} mm.")], "large")
        yield Legend(self.colours)

    def _areas(self) -> Iterator[Part]:
        rows: list[list[Cell | str]] = [
            [
                Cell(row.name, self.colours.get(row.name, "")),
                _number(row.area_mm2),
                "" if row.name == NOT_ANALYSED_NAME else self.range(row.name),
                f"{row.percent_of_tissue:.1f} %",
            ]
            for row in of_whole(self.areas)
        ]
        rows.append(["all tissue", _number(self.tissue_mm2), "", "100.0 %"])
        yield Section(
            "Areas",
            [
                Table(["class", "mm²", "range, mm²", "share of tissue"], rows),
                Text(
                    "The range is that of the areas with the threshold delta of every class halved, and one and a half "
                    "times as large. It says how much an area depends on the threshold, and is no confidence interval."
                    if self.statistics and not self.labels.refined
                    else "Areas of refined maps have no range over thresholds.",
                    "note",
                ),
                *self._corrected(),
            ],
        )
        if self.store.regions:
            of_regions: list[list[Cell | str]] = [
                [
                    row.region,
                    Cell(row.name, self.colours.get(row.name, "")),
                    _number(row.area_mm2),
                    f"{row.percent_of_tissue:.1f} %",
                ]
                for row in self.areas
                if row.region != WHOLE
            ]
            yield Section(
                "Regions",
                [
                    Table(["region", "class", "mm²", "share of its tissue"], of_regions),
                    Text(f"{_number(self.store.left_out_mm2)} mm² of tissue are left out, and count nowhere.", "note"),
                ],
            )

    def _corrected(self) -> Iterator[Part]:
        if corrected := self.labels.corrected_mm2(self.store):
            people = sorted({one.who for one in self.store.corrections.sittings if one.who})
            by = f" by {', '.join(people)}" if people else ""
            yield Text(f"{_number(corrected)} mm² of these areas were corrected by hand{by}.")

    def _patches(self) -> Iterator[Part]:
        names = self.classes.names
        quantities = ("patches", "largest patch", "median patch")
        patches: list[list[Cell | str]] = [
            [Cell(name, self.colours[name]), *(_number(self.value(name, one)) for one in quantities)] for name in names
        ]
        interfaces = [
            [f"{row.name} and {row.other}", _number(row.value)]
            for row in self.statistics
            if row.quantity == "interface" and row.region == WHOLE
        ]
        yield Section(
            "Patches and borders",
            [
                Table(["class", "patches", "largest, mm²", "median, mm²"], patches),
                Table(["border between", "mm"], interfaces),
                Text("A patch is an area of one class without a gap.", "note"),
            ],
        )

    def _typical(self, margins: Margins) -> Iterator[Part]:
        if self.slide is None:
            return
        found = {name: margins.typical(n, self._place_side, _TYPICAL) for n, name in enumerate(self.classes.names)}
        pictures = [Picture.of(self._crop(place), name) for name, places in found.items() for place in places]
        if pictures:
            yield Section(
                "Examples of each class",
                [
                    Text(f"Where the model is most sure of each class. Pictures are {_PLACE_UM:.0f} µm wide.", "note"),
                    Pictures(pictures),
                ],
            )

    def _unsure(self, margins: Margins) -> Iterator[Part]:
        share = np.nan_to_num(margins.margins, nan=0)[..., None]
        colours = (_UNSURE_RGB + share * (_SURE_RGB - _UNSURE_RGB)).astype(np.uint8)
        colours[np.isnan(margins.margins)] = _PAPER
        steps = {"two classes alike": 0.0, "a quarter apart": 0.25, "half": 0.5, "one class alone": 1.0}
        legend = {
            name: _hex((_UNSURE_RGB + at * (_SURE_RGB - _UNSURE_RGB)).astype(int).tolist())
            for name, at in steps.items()
        }
        parts: list[Part] = [
            Text(
                "The margin is the difference between the scores of the two best classes, each as a share of the "
                "largest score of its class on the slide. Where it is small, the map may well be wrong. Where it is "
                "large, the map may be wrong too, such as in tissue of a kind that the model was not shown."
            ),
            Pictures([Picture.of(colours, "Margin of the map.", "PNG")], "large"),
            Legend(legend),
        ]
        if self.slide is not None:
            names = self.classes.names
            places = margins.unsure(self._place_side, _UNSURE)
            pictures = [
                Picture.of(
                    np.hstack([self._crop(place), self._crop(place, mapped=True)]),
                    f"{_either(names, place)}, margin {place.margin:.2f}; at x {place.x:,.0f}, y {place.y:,.0f}",
                )
                for place in places
            ]
            note = f"The least sure places, {_PLACE_UM:.0f} µm wide, and the map on them, at pixels of the slide."
            parts += [Text(note, "note"), Pictures(pictures, "wide")]
        yield Section("Where the model is unsure", parts)

    def _origin(self) -> Iterator[Part]:
        facts = self.store.facts
        done, planned = self.store.progress
        made = facts.model
        yield Section(
            "How this map was made",
            [
                Facts(
                    {
                        "slide": f"{facts.slide.path.name}, {facts.slide.width:,} x {facts.slide.height:,} pixels",
                        "identity of the slide": facts.slide.identity,
                        "microns per pixel": f"{facts.slide.mpp:.4g}, {_MPP_FROM[self.mpp_from]}",
                        "tissue": f"{self.tissue_mm2:.4f} mm², {_tissue(facts.settings)}",
                        "tiles": f"{done:,} of {planned:,}",
                        "model": f"{made.run} (weights {made.hash})",
                        **({"computed by": _computed(facts.computed)} if facts.computed else {}),
                        "read": f"at {facts.grid.model_mpp:.4g} µm per pixel, in squares of {facts.grid.tile} pixels "
                        f"that overlap by {facts.grid.overlap}"
                        + (", mean of eight flips and turns" if facts.settings.get("tta") else ""),
                        "scores computed": _made(facts.made),
                        "labels computed": _made(self.labels.made),
                        "cell of the map": f"{self.store.cell_um:.3g} µm",
                        **threshold_facts(self.thresholds, self.labels.refined),
                    }
                )
            ],
        )

    # pictures of places ----------------------------------------------------------------------------------------

    @property
    def _place_side(self) -> float:
        return _PLACE_UM / self.store.facts.slide.mpp

    def _crop(self, place: Place, *, mapped: bool = False) -> RGB:
        """Return the pixels of a place, with the map on it if it is to be ``mapped``."""
        assert self.slide is not None  # asked before
        scale = place.side / _CROP
        pixels = self.slide.read_scaled(place.x, place.y, _CROP, _CROP, scale, damage_is_white=True)
        if mapped:
            (labels, *_), _ = open_labels(self.store, self.folder)
            cell = self.store.cell_um / self.store.facts.slide.mpp
            rows, columns = (
                ((start + (np.arange(_CROP) + 0.5) * scale) / cell).astype(np.intp).clip(0, length - 1)
                for start, length in zip((place.y, place.x), labels.shape, strict=True)
            )
            with reading(self.folder, REWRITE):
                part = np.asarray(labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            pixels = overlay(pixels, part[rows - rows[0]][:, columns - columns[0]], self.classes, 0.5)
        return pixels


_MPP_FROM = {
    "slide": "from the file of the slide",
    "user": "given by the user",
    None: "of which it is not recorded who gave them",
}


def thresholds_of(thresholds: ThresholdSettings, classes: Taxonomy, shown: Taxonomy) -> ThresholdSettings:
    """Return thresholds of classes under the names under which these are ``shown``."""
    names = dict(zip(classes.names, shown.names, strict=True))
    own = {names.get(name, name): delta for name, delta in thresholds.class_delta.items()}
    return thresholds.model_copy(update={"class_delta": own})


def threshold_facts(thresholds: ThresholdSettings, refined: bool) -> dict[str, str]:
    """Return what turned scores into labels, by name."""
    own = "".join(f"; {name} {delta:g}" for name, delta in thresholds.class_delta.items())
    return {
        "threshold delta": f"{thresholds.delta:g}{own}",
        "threshold of presence": f"{thresholds.presence:g}",
        "largest score": f"percentile {thresholds.percentile:g} over the slide"
        if thresholds.scope == "slide"
        else "of each tile",
        "smoothing": f"{thresholds.smoothing_um:g} µm",
        "refined": "by a conditional random field" if refined else "no",
    }


def _made(made: Made | None) -> str:
    return "at a time that is not recorded" if made is None else str(made)


def _computed(by: Mapping[str, str]) -> str:
    return f"{by['runtime']} {by['version']}, in {by['precision']} on {by['device']}"


def _tissue(settings: dict[str, Any]) -> str:
    tissue = settings.get("tissue") or {}
    if settings.get("tissue_mask"):
        return "by a mask that the user gave"
    threshold = "Otsu's threshold" if tissue.get("threshold") is None else f"the threshold {tissue['threshold']:g}"
    return f"found by {threshold} of {tissue.get('measure', 'the picture')} at {tissue.get('mpp', '?')} µm per pixel"


def _either(names: Sequence[str], place: Place) -> str:
    return names[place.first] + ("" if place.second is None else f" or {names[place.second]}")


def _number(value: float | None) -> str:
    """Return mm², mm or a count as text."""
    return "–" if value is None else f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"


def _hex(rgb: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
