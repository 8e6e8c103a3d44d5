"""The paragraph on methods for a paper, written from what results and runs record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from napari_pbip.config import ProbeSettings
from napari_pbip.sharing.model import ReportedModel
from napari_pbip.sharing.slide import MappedSlide


def methods_text(slides: Sequence[MappedSlide], model: ReportedModel) -> str:
    """Return how the maps of some slides were made by a model, in sentences."""
    return " ".join((*_training(model), *_mapping(slides)))


def _training(model: ReportedModel) -> Iterator[str]:
    facts, recorded = model.facts, model.recorded.model_dump()
    version = recorded.get("versions", {}).get("napari-pbip", "(version not recorded)")
    if facts is None:
        method = recorded.get("method") or "(method not recorded)"
        yield f"Tissue maps were computed with napari-pbip {version} by the method {method}."
        return
    settings = facts.settings
    title = settings.method.title or settings.method.name
    backbone = f" with the backbone {settings.backbone.name}" if recorded.get("backbone") else ""
    mpp = settings.data.mpp
    size = f"{facts.tile_size} x {facts.tile_size} pixels" + (f" at {mpp:g} µm per pixel" if mpp else "")
    count, each = "image-level labelled tiles", ""
    if model.tiles is not None:
        count = f"{len(model.tiles):,} {count}"
        counts = zip(model.tiles.taxonomy.names, model.tiles.counts, strict=True)
        each = ", ".join(f"{name} in {n:,}" for name, n in counts)
    yield f"Tissue maps were computed with napari-pbip {version}."
    yield f"A {title} model{backbone} was trained on {count} of {size}" + (f" ({each})." if each else ".")
    if isinstance(settings.method, ProbeSettings):
        yield f"It is a logistic regression on the features of the frozen encoder {(facts.encoder or {})['name']}."
    else:
        yield (
            f"Training took {facts.step:,} steps of {settings.train.batch_size} tiles by AdamW (weight decay "
            f"{settings.train.weight_decay:g}, seed {settings.train.seed})."
        )
    if model.probe_share:
        yield (
            f"Its scores are weighted means with those of a logistic regression on the features of the frozen encoder "
            f"{(facts.encoder or {})['name']} (weight {model.probe_share:g}), fitted to the same tiles."
        )
    if model.bank is not None:
        bank = model.bank[1]
        k = ", ".join(f"{count} of {name}" for name, count in zip(bank.taxonomy.names, bank.k, strict=True))
        yield (
            f"Its prototypes are means of features of the encoder {bank.encoder['name']}: tiles of each class were "
            f"clustered by K-Means with cosine distance ({k}), and up to {bank.settings.nearest} tiles nearest to the "
            "centre of a cluster were averaged."
        )


def _mapping(slides: Sequence[MappedSlide]) -> Iterator[str]:
    """Yield how scores became a map; where the slides differ, all values are given."""
    facts = [slide.store.facts for slide in slides]
    thresholds = [slide.thresholds for slide in slides]
    number = "One slide" if len(slides) == 1 else f"{len(slides)} slides"
    model_mpp, tile, overlap = (
        _values(getattr(one.grid, name) for one in facts) for name in ("model_mpp", "tile", "overlap")
    )
    smoothing, percentile, delta, presence = (
        _values(getattr(one, name) for one in thresholds)
        for name in ("smoothing_um", "percentile", "delta", "presence")
    )
    slide_mpp = _values(one.slide.mpp for one in facts)
    yield (
        f"{number} of {slide_mpp} µm per pixel {'was' if len(slides) == 1 else 'were'} read at {model_mpp} µm per "
        f"pixel in squares of {tile} pixels that overlap by {overlap}; overlaps were blended."
    )
    yield (
        f"Scores were averaged over {smoothing} µm. A place was given the class with the largest score relative to the "
        f"largest of that class on the slide (percentile {percentile}), if that share reached {delta} and the "
        f"predicted probability that the class is present reached {presence}."
    )
    own = {f"{name} {delta:g}" for one in thresholds for name, delta in one.class_delta.items()}
    if own:
        yield f"Classes with another share: {', '.join(sorted(own))}."
    if any(slide.labels.refined for slide in slides):
        yield "The map was refined by a dense conditional random field."
    yield f"Areas count cells of {_values(slide.store.cell_um for slide in slides)} µm."


def _values(values: Iterator[float]) -> str:
    return " or ".join(dict.fromkeys(f"{value:.4g}" for value in values))
