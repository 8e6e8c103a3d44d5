"""The job that writes a report of a result or of a project."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.document import Document, Part, Section, Table, Text
from napari_pbip.engine.jobs import job
from napari_pbip.engine.outputs.export import Format, labels_at
from napari_pbip.engine.run_facts import MARKER
from napari_pbip.errors import ModelError, OutputError, SlideError
from napari_pbip.events import Event, Finished, Job, Warned
from napari_pbip.files import present
from napari_pbip.provenance import Made
from napari_pbip.results.areas import NOT_ANALYSED_NAME, area_rows
from napari_pbip.results.label_files import FOLDER, open_labels
from napari_pbip.results.places import name_of_map
from napari_pbip.results.statistics import measure_statistics
from napari_pbip.results.statistics_table import ALL, AREA, DEVIATION, MEAN, SHARE, over_slides
from napari_pbip.results.store import ScoreStore
from napari_pbip.sharing.methods import methods_text
from napari_pbip.sharing.model import ReportedModel
from napari_pbip.sharing.slide import MappedSlide
from napari_pbip.sharing.sources import Source
from napari_pbip.slides import Slide, open_slide
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import UNASSIGNED_NAME, ClassDisplay

REPORT = Format(
    ending=".html",
    title="Report (HTML)",
    about="One page with pictures, areas, the places where the map is unsure, and how it was made, to read and print",
)
_USE = "For research use only: it is no medical device, and not for diagnosis."
_OVER_SLIDES = (
    "All slides together have the sum of the areas, and its share of the sum of their tissue, so that a large slide "
    "counts more than a small one; in the mean every slide counts the same. A slide whose model does not know a class "
    "(–) does not count for it."
)
_HOW_TO_READ = (
    "A trained model gave the tissue of each slide its classes, place by place. Where no class was likely enough, the "
    "tissue is “not assigned”; where the model did not look, it is “not analysed”. Areas are measured on the map, and "
    "are only as right as the map is: look at the pictures, and at the places where the model is unsure, before you "
    "use the figures."
)


@job
def report(
    source: Path | str,
    target: Path | str,
    thresholds: ThresholdSettings | None = None,
    *,
    refine: RefineSettings | None = None,
    class_display: ClassDisplay | None = None,
    overwrite: bool = False,
) -> Job:
    """Write a report of a slide's result or of a project as one HTML file, which needs no other file.

    Parameters
    ----------
    source
        Path of a score store, of an output folder of ``segment``, or of a project.
    target
        The file to write.
    thresholds
        Thresholds by which scores become labels; by default those by which the project shows each result, else those of
        the labels that are saved in the store, else the usual ones.
    refine
        Settings that say whether a dense CRF refines labels that are computed for other thresholds than the saved ones.
    class_display
        The titles and colours of classes; by default those of the project in which the results lie.
    overwrite
        Whether an earlier file is replaced.

    Raises
    ------
    ConfigError
        If the thresholds name an unknown class.
    OutputError
        If there is no result, the file exists or cannot be written, or it is no HTML.
    ProjectError
        If the project file is damaged.
    """
    target = Path(target)
    if target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"A report is a page of HTML; call it {target.stem}.html, which a browser prints to PDF.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; use `overwrite=True` to replace it, or choose another name.")
    found = Source.find(Path(source))
    if class_display is not None:
        found = replace(found, classes=class_display)
    slides: list[MappedSlide] = []
    sections: list[Section] = []
    unread: dict[Path, str] = {}
    for path, shown in found.results.items():
        try:
            with ExitStack() as stack:
                slide = yield from _read(stack, path, thresholds or shown, refine, found)
                sections.append(slide.section())
                slides.append(slide)
        except OutputError as error:
            if len(found.results) == 1:
                raise
            unread[path] = str(error)
            yield Warned(f"The report leaves out {name_of_map(path)}: {error}")
    if not slides:
        raise OutputError(f"No map in {found.folder} can be read: {' '.join(unread.values())}")
    _document(slides, sections, unread, found).write(target)
    yield Finished(target)


def _read(
    stack: ExitStack, path: Path, thresholds: ThresholdSettings | None, refine: RefineSettings | None, found: Source
) -> Generator[Event, None, MappedSlide]:
    """Return the map of a slide; the slide, and labels at other thresholds, are there until the stack is closed."""
    store = ScoreStore.open(path)
    if thresholds is None and not present(path / FOLDER).exists():  # a segmentation that was not finished
        thresholds = ThresholdSettings()
    folder = yield from labels_at(stack, store, thresholds, refine)
    rows = yield from measure_statistics(store, folder)
    slide: Slide | None = None
    missing = ""
    facts = store.facts.slide
    listed = {one.identity: one for one in found.slides}.get(facts.identity)
    try:
        slide = stack.enter_context(open_slide(facts.path if listed is None else listed.path, facts.mpp))
    except SlideError as error:
        missing = str(error)
        yield Warned(f"The report shows no pictures of {facts.name}: {error}")
    said = facts.mpp_from or (None if listed is None else listed.mpp_from)
    labels = open_labels(store, folder)[1]
    classes = found.classes.of(store.taxonomy)
    names = dict(zip(store.taxonomy.names, classes.names, strict=True))
    areas = [replace(row, name=names.get(row.name, row.name)) for row in area_rows(store, labels.cells, labels.by_hand)]
    rows = [replace(r, name=names.get(r.name, r.name), other=names.get(r.other, r.other)) for r in rows]
    return MappedSlide(store, folder, labels, areas, rows, slide, missing, said, classes)


def _models(slides: Sequence[MappedSlide], found: Source) -> dict[str, ReportedModel]:
    """Return the models of some maps by the hash of their weights."""
    models: dict[str, ReportedModel] = {}
    for slide in slides:
        recorded = slide.store.facts.model
        if recorded.hash in models:
            continue
        runs = [run for run in found.runs(recorded) if (run / MARKER).exists()]
        run = next((run for run in runs if _weights(run) == recorded.hash), None)
        missing = "" if run else "its folder was changed since." if runs else "its folder is not there any more."
        banks = tuple(found.banks(run)) if run else ()
        models[recorded.hash] = ReportedModel(recorded, run, missing, banks, found.classes)
    return models


def _weights(run: Path) -> str:
    from napari_pbip.engine.runs import run_identity  # torch takes seconds to load

    try:
        return run_identity(run)
    except ModelError:
        return ""


def _document(
    slides: Sequence[MappedSlide], sections: Sequence[Section], unread: dict[Path, str], found: Source
) -> Document:
    models = _models(slides, found)
    one = len(slides) == 1 and not found.slides
    title = f"Tissue map of {slides[0].name}" if one else f"Tissue maps of {found.folder.name}"
    parts: list[Part] = [
        Text(_USE, "warning"),
        Text(_HOW_TO_READ),
        *([] if one else [_cohort(slides, unread, found)]),
        *sections,
        *(model.section() for model in models.values()),
        Section("Methods, to copy", list(_methods(slides, models)), new_page=True),
    ]
    footer = f"This report was written on {Made.now()}. {_USE}"
    return Document(title, parts, footer)


def _methods(slides: Sequence[MappedSlide], models: dict[str, ReportedModel]) -> Iterator[Part]:
    for identity, model in models.items():
        own = [slide for slide in slides if slide.store.facts.model.hash == identity]
        yield Text(methods_text(own, model), "copy")


def _cohort(slides: Sequence[MappedSlide], unread: dict[Path, str], found: Source) -> Section:
    """Return the tables of all slides, of them together, and of their mean and standard deviation."""
    colours = dict(item for slide in slides for item in slide.colours.items())
    names = sorted({**colours, NOT_ANALYSED_NAME: ""}, key=lambda name: name in (UNASSIGNED_NAME, NOT_ANALYSED_NAME))
    mapped = {slide.store.facts.slide.identity for slide in slides}
    without = [one.name for one in found.slides if one.identity not in mapped]
    parts: list[Part] = [
        Section("Areas in mm²", [_table(slides, AREA, "{:.4f}", names)]),
        Section("Shares of the tissue", [_table(slides, SHARE, "{:.1f} %", names)]),
        *(Text(f"The map in {name_of_map(path)} cannot be read: {why}", "warning") for path, why in unread.items()),
    ]
    if len(slides) > 1:
        parts.insert(2, Text(_OVER_SLIDES, "note"))
    of_slides = ((slide, found.others.get(slide.store.path)) for slide in slides)
    parts += (Text(_said_of_others(slide, others), "note") for slide, others in of_slides if others)
    if without:
        parts.append(Text(f"Slides of the project without a map: {', '.join(without)}.", "note"))
    return Section("All slides", parts)


def _said_of_others(slide: MappedSlide, others: Mapping[Path, str]) -> str:
    """Return which map of a slide is reported, and which are not, as a sentence."""
    names = " and ".join(f"“{title}”" for title in others.values())
    own = slide.store.facts.model.run
    return f"{slide.name} has several maps: the one by “{own}” is reported here, and not that by {names}."


def _table(slides: Sequence[MappedSlide], quantity: str, form: str, names: Sequence[str]) -> Table:
    """Return the table of a quantity of each class, with a row for each slide, and those over slides."""
    rows = [(slide.name, slide.tissue_mm2, slide.statistics) for slide in slides]
    if len(slides) > 1:
        over, tissue = list(over_slides([slide.statistics for slide in slides])), [slide.tissue_mm2 for slide in slides]
        tissues = {ALL: sum(tissue), MEAN: float(np.mean(tissue)), DEVIATION: float(np.std(tissue, ddof=1))}
        rows += [(title, value, [row for row in over if row.slide == title]) for title, value in tissues.items()]
    with_tissue = quantity == AREA
    cells = []
    for title, value, statistics in rows:
        known = {row.name: row.value for row in statistics if (row.region, row.quantity) == (WHOLE, quantity)}
        of_classes = (form.format(known[name]) if name in known else "–" for name in names)
        cells.append([title, *([form.format(value)] if with_tissue else []), *of_classes])
    return Table(["slide", *(["tissue"] if with_tissue else []), *names], cells)
