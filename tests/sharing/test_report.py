"""Reports are read by another parser, and their figures are those of the results."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Generator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.config import JobSettings, ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Step, Warned
from napari_pbip.project import Project
from napari_pbip.results import ScoreStore, areas
from napari_pbip.results.areas import area_rows
from napari_pbip.results.label_files import FOLDER, open_labels
from napari_pbip.results.margins import Margins
from napari_pbip.results.statistics import measure_statistics
from napari_pbip.sharing import report
from napari_pbip.taxonomy import ClassDisplay
from tests.results import stores
from tests.sharing.conftest import CLASSES, STRICT, stores_of


@dataclass
class Page(HTMLParser):
    """What a browser finds in a page."""

    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        assert page._open == [], "every element is closed"
        return page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        of = dict(attributes)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcset")]
        if tag == "img":
            form, _, data = (of["src"] or "").partition(";base64,")
            assert form in ("data:image/png", "data:image/jpeg")
            self.pictures.append(base64.b64decode(data))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("h1", "h2", "h3", "h4"):
            self.headings.append("")
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings[-1] += data

    def table(self, *header: str) -> dict[str, list[str]]:
        """Return the rows of the first table with this header, by their first field."""
        table = next(table for table in self.tables if table[0][: len(header)] == list(header))
        return {name: rest for name, *rest in table[1:]}


def write(source: Path, target: Path, *thresholds: ThresholdSettings) -> Page:
    *_, last = report(source, target, *thresholds)
    assert last == Finished(target)
    return Page.read(target)


@pytest.fixture(scope="module")
def page(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(project, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_needs_nothing_else_and_runs_nothing(page: Page):
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "a"})
    assert all(address.startswith("data:image/") for address in page.addresses)
    for data in page.pictures:
        Image.open(io.BytesIO(data)).verify()
    assert len(page.pictures) > 2 * (2 + 1 + 6)


def test_what_users_typed_is_text(page: Page):
    assert page.headings[0] == "Tissue maps of A <study> & more"
    assert [one[-8:] for one in page.headings if "<i>" in one] == ["<i>1</i>", "<i>2</i>"]
    assert set(CLASSES.names) < page.table("class", "patches", "largest, mm²").keys() | set(cohort_header(page))


def cohort_header(page: Page) -> list[str]:
    return next(table[0] for table in page.tables if table[0][:2] == ["slide", "tissue"])


def test_areas_are_those_of_the_maps_as_the_project_shows_them(page: Page, project: Path, tmp_path: Path):
    skin, tumour = (ScoreStore.open(path) for path in stores_of(project))
    tables = [table for table in page.tables if table[0][:2] == ["class", "mm²"]]
    assert len(tables) == 2
    again = write(tumour.path, tmp_path / "tumour.html", STRICT).table("class", "mm²")
    saved = {row.name: f"{row.area_mm2:.4f}" for row in areas(tumour)}
    assert {name: row[0] for name, row in again.items()} != saved  # the project shows them with other thresholds
    assert tables[1][1:] == [[name, *rest] for name, rest in again.items()]
    rows = {name: rest for name, *rest in tables[0][1:]}
    for area in areas(skin):
        assert rows[area.name][0] == f"{area.area_mm2:.4f}"
        assert rows[area.name][2] == f"{area.percent_of_tissue:.1f} %"
    values = returned(measure_statistics(skin, skin.path / FOLDER))
    area = next(v for v in values if (v.name, v.quantity) == ("dermis", "area"))
    assert area.low < area.high
    assert rows["dermis"][1] == f"{area.low:.4f} to {area.high:.4f}"
    patches = page.table("class", "patches")
    assert patches["dermis"][0] == str(next(v.value for v in values if (v.name, v.quantity) == ("dermis", "patches")))


def returned(generator: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def test_classes_have_the_titles_and_colours_that_are_given(project: Path, tmp_path: Path):
    skin = stores_of(project)[0]
    shown = ClassDisplay(titles={"dermis": "Corium"}, colours={"dermis": "#12AB34"})
    target = tmp_path / "report.html"
    list(report(skin, target, class_display=shown))
    titled, named = Page.read(target), write(skin, tmp_path / "named.html")
    assert "#12ab34" in target.read_text(encoding="utf-8")
    assert "dermis" in named.text
    assert "dermis" not in titled.text.replace("epidermis", "")
    assert titled.text.count("Corium") == len(re.findall(r"\bdermis\b", named.text))
    assert titled.table("class", "mm²")["Corium"] == named.table("class", "mm²")["dermis"]
    assert titled.table("class", "patches")["Corium"] == named.table("class", "patches")["dermis"]


def test_the_cohort_is_the_sum_of_its_slides(page: Page, project: Path):
    cohort = page.table("slide", "tissue")
    skin, tumour = (ScoreStore.open(path) for path in stores_of(project))
    header = cohort_header(page)
    assert header == [
        "slide",
        "tissue",
        "epidermis",
        "dermis",
        "keratin",
        *CLASSES.names,
        "not assigned",
        "not analysed",
    ]
    assert cohort[tumour.facts.slide.name][1:4] == ["–"] * 3
    named_slides = [ScoreStore.open(path).facts.slide.name for path in stores_of(project)]
    for column in range(len(header) - 1):
        parts = [cohort[name][column] for name in named_slides]
        total = sum(float(part) for part in parts if part != "–")
        assert float(cohort["all slides"][column]) == pytest.approx(total, abs=1e-4)
    shares = page.table("slide", "epidermis")
    named = {row.name: row for row in area_rows(skin, open_labels(skin)[1].cells)}
    assert shares[skin.facts.slide.name][1] == f"{named['dermis'].percent_of_tissue:.1f} %"
    assert "Slides of the project without a map: frozen." in page.text


def test_it_says_how_the_maps_were_made(page: Page, project: Path):
    facts = ScoreStore.open(stores_of(project)[0]).facts
    for said in (
        facts.slide.identity,
        facts.model.hash,
        "0.499, from the file of the slide",
        "1, given by the user",
        "methodPBIP, preset default",
        "For research use only",
        "The model was not scored on tiles with masks",
        "What is known of the model is what its results record: its folder is not there any more.",
        "33 image-level labelled tiles of 112 x 112 pixels at 0.5 µm per pixel",
        "(epidermis in 13, dermis in 13, keratin in 10)",
    ):
        assert said in page.text
    assert page.table("class", "tiles with it")["keratin"] == ["10", "10"]
    assert "keratin, cluster 1" in page.headings


def test_labels_at_other_thresholds_are_reported_and_not_saved(project: Path, tmp_path: Path):
    skin = stores_of(project)[0]
    before = open_labels(ScoreStore.open(skin))[0][0][:]
    page = write(skin, tmp_path / "strict.html", STRICT)
    assert page.headings[0].startswith("Tissue map of CMU-1")
    saved = {row.name: f"{row.area_mm2:.4f}" for row in areas(ScoreStore.open(skin))}
    assert page.table("class", "mm²")["not assigned"][0] != saved["not assigned"]
    assert "threshold delta0.5" in page.text
    np.testing.assert_array_equal(open_labels(ScoreStore.open(skin))[0][0][:], before)


def test_places_are_where_the_scores_say(project: Path):
    store = ScoreStore.open(stores_of(project)[0])
    margins = Margins.of(store, open_labels(store)[1], 1000)
    scores = np.asarray(store.scores[0][:])
    assert margins.margins.shape == scores.shape[1:]
    assert np.nanmin(margins.margins) >= 0
    assert np.nanmax(margins.margins) <= 1
    side = 120 / store.facts.slide.mpp
    unsure, typical = margins.unsure(side, 4), margins.typical(1, side, 3)
    assert len(unsure) == 4
    assert [place.margin for place in unsure] == sorted(place.margin for place in unsure)
    assert max(place.margin for place in unsure) < min(place.margin for place in typical)
    labels = open_labels(store)[0][0][:]
    for place in typical:
        row, column = (int((start + side / 2) / margins.cell) for start in (place.y, place.x))
        assert labels[row, column] == 2
    for one in unsure:
        assert all(abs(one.x - other.x) >= side or abs(one.y - other.y) >= side for other in unsure if other != one)


def test_a_slide_that_is_gone_leaves_its_map(tmp_path: Path):
    path = stores.halves(tmp_path / "halves.ome.zarr").path
    *events, last = report(path, tmp_path / "report.html")
    assert last == Finished(tmp_path / "report.html")
    assert "shows no pictures of slide" in next(event.message for event in events if isinstance(event, Warned))
    page = Page.read(tmp_path / "report.html")
    assert "The slide itself cannot be shown" in page.text
    assert "of which it is not recorded who gave them" in page.text
    picture = np.asarray(Image.open(io.BytesIO(page.pictures[0])))
    assert abs(picture[100, 100].astype(int) - stores.BCSS.classes[0].rgb).max() < 8


def test_bad_input_is_one_sentence_and_leaves_what_was_there(project: Path, tmp_path: Path):
    skin, target = stores_of(project)[0], tmp_path / "report.html"
    with pytest.raises(OutputError, match="holds no map of a slide"):
        list(report(tmp_path, target))
    with pytest.raises(OutputError, match=r"call it report\.html, which a browser prints"):
        list(report(skin, tmp_path / "report.pdf"))
    target.write_text("of mine")
    with pytest.raises(OutputError, match="overwrite=True"):
        list(report(skin, target))
    job = report(skin, target, STRICT, overwrite=True)
    next(event for event in job if isinstance(event, Step))
    job.close()
    assert target.read_text() == "of mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_damaged_map_of_a_project_is_told_and_the_others_are_reported(project: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    Project(slides=Project.open(project).slides, settings=JobSettings()).write(copy)
    for chunk in (stores_of(copy)[1] / "labels" / "tissue" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-20])
    *events, last = report(copy, tmp_path / "report.html")
    assert isinstance(last, Finished)
    assert any("is damaged" in event.message for event in events if isinstance(event, Warned))
    text = Page.read(tmp_path / "report.html").text
    assert re.search(r"The map in \S+ cannot be read", text)
    assert "CMU-1-Small-Region" in text


def test_the_command(project: Path, tmp_path: Path):
    skin = stores_of(project)[0]
    arguments = ["report", str(skin), "--out", str(tmp_path / "skin.html")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    again = CliRunner().invoke(cli.app, arguments)
    assert isinstance(again.exception, OutputError)
    strict = [*arguments, "--overwrite", "--set", "thresholds.delta=0.6"]
    assert CliRunner().invoke(cli.app, strict).exit_code == 0
    assert "threshold delta0.6" in Page.read(tmp_path / "skin.html").text
