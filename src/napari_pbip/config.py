"""Every setting of the package, written once, as validated and frozen models.

A settings file (YAML), the ``--set key=value`` options of the command line and the panels of the window
are views of :class:`JobSettings`. Field descriptions are the help texts of all three.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_pbip.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
FourStages = tuple[Weight, Weight, Weight, Weight]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, one-line descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataSettings(Settings):
    """Where the labelled tiles are and how they are laid out."""

    folder: Path | None = None
    """Folder (or CSV file) with the labelled tiles."""
    layout: Literal["auto", "bcss", "luad", "folders", "csv"] = "auto"
    """How labels are written; `auto` recognises the layout and says which it found."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default from the layout (its folders, classes.txt or CSV columns)."""
    mpp: Positive | None = None
    """Microns per pixel of the tiles, if known; the model then reads slides at this resolution."""
    white_fraction: Fraction = 0.7
    """A tile with a larger share of near-white pixels than this is left out of the bank (and counted)."""


class BankSettings(Settings):
    """How the image bank and its prototypes are made (PBIP 3.2)."""

    encoder: str = "texture"
    """Name of the frozen encoder in the catalogue."""
    weights: Path | None = None
    """Folder or file with the encoder's weights, for encoders that need them."""
    k: Annotated[int, Field(ge=1)] | Literal["auto"] | dict[str, Annotated[int, Field(ge=1)] | Literal["auto"]] = 3
    """Clusters (subclasses) a class: a number, `auto` (silhouette), or one of these for each class name."""
    k_max: Annotated[int, Field(ge=2)] = 6
    """Largest number of clusters that `auto` tries."""
    nearest: Annotated[int, Field(ge=1)] = 100
    """Tiles nearest the centre of each cluster whose mean is the prototype (N_K of PBIP)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the clustering."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Tiles that go through the encoder at once."""


class PbipSettings(Settings):
    """PBIP: ClassNet and ImgMatchNet. Defaults are ours; `preset` takes the paper's or the released code's."""

    name: Literal["pbip"] = "pbip"
    """The method."""
    preset: Literal["default", "paper", "released"] = "default"
    """Values for every setting not given: ours, the paper's, or those of the authors' released code."""
    stage_weights: FourStages = (0.0, 0.1, 1.0, 1.0)
    """Weight of the classification loss of each backbone stage."""
    fusion_weights: FourStages = (0.0, 0.3, 0.3, 0.4)
    """Weight of each stage's score map in the fused map (Eq. 3)."""
    subclass_merge: Literal["mean", "softmax"] = "mean"
    """Prototype maps to class map at evaluation: their mean (Eq. 2), or the released softmax-weighted sum."""
    normalise_prototypes: bool = True
    """True cosine similarity; off: only the features are normalised, as released."""
    similarity_maps: bool = True
    """Compare features with projected prototypes; off: a plain 1x1 convolution (Table 5)."""
    adaptive_threshold: bool = True
    """Mask by M >= delta * max(M) (Eq. 4); off: foreground and background are weighted by M alone (Table 5)."""
    delta: Fraction = 0.15
    """Threshold scale delta (Eq. 4)."""
    mask: Literal["clipped", "released"] = "clipped"
    """How M weights the masked image (Eq. 5): clipped to [0, 1], or raw with the product min-max stretched."""
    contrast: Literal["classes", "subclasses", "equations", "released"] = "classes"
    """What is contrasted: a class against the other classes, per sample or as Eq. 9-12 are written, or each
    subclass against all others, per sample or as released."""
    temperature: Positive = 0.07
    """Temperature of the contrastive losses."""
    alpha: Weight = 1.0
    """Weight of the classification loss."""
    beta: Weight = 0.1
    """Weight of the similarity loss."""
    theta_foreground: Weight = 1.0
    """Weight of the foreground term within the similarity loss; 0 leaves it out (Table 2)."""
    theta_background: Weight = 1.0
    """Weight of the background term within the similarity loss; 0 leaves it out (Table 2)."""
    sparsity: Weight = 0.0005
    """Weight of mean(M_4) within the similarity loss (released code only)."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {**_PBIP_PRESETS.get(str(values.get("preset", "default")), {}), **values}
        return values


_PBIP_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "stage_weights": (1.0, 1.0, 1.0, 0.0),
        "fusion_weights": (1.0, 1.0, 1.0, 0.0),
        "contrast": "equations",
        "temperature": 1.0,
        "beta": 0.5,
        "theta_background": 0.5,
        "sparsity": 0.0,
    },
    "released": {
        "subclass_merge": "softmax",
        "normalise_prototypes": False,
        "delta": 0.5,
        "mask": "released",
        "contrast": "released",
    },
}


class CamSettings(Settings):
    """CAM: the baseline, a 1x1 convolution on the backbone and global average pooling."""

    name: Literal["cam"] = "cam"
    """The method."""
    stage_weights: FourStages = (0.0, 0.1, 1.0, 1.0)
    """Weight of the classification loss of each backbone stage."""
    fusion_weights: FourStages = (0.0, 0.3, 0.3, 0.4)
    """Weight of each stage's map in the fused map."""


MethodSettings = Annotated[PbipSettings | CamSettings, Field(discriminator="name")]


class BackboneSettings(Settings):
    """The trainable pyramid network."""

    name: str = "mit-b0"
    """Name of the backbone in the catalogue (mit-b0 to mit-b5)."""
    weights: Path | None = None
    """Pretrained weights: a folder or safetensors file of this backbone; without it training starts from scratch."""


class TrainSettings(Settings):
    """How a model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 8
    """Times the training tiles are seen."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps in all; overrides epochs."""
    batch_size: Annotated[int, Field(ge=1)] = 10
    """Tiles a step."""
    learning_rate: Positive | Literal["auto"] = "auto"
    """Peak learning rate of AdamW; auto is 5e-5, as released, for a pretrained backbone and 5e-4 from scratch."""
    weight_decay: Weight = 1e-3
    """Weight decay of AdamW."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises to its peak."""
    flip_and_turn: bool = True
    """Random flips and quarter turns."""
    stain_augmentation: Fraction = 0.0
    """Strength of random changes of the haematoxylin and eosin amounts; 0 is off."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two validations (when validation masks exist)."""
    select_by: Literal["predicted", "oracle"] = "predicted"
    """The protocol whose mIoU chooses the best model."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initial weights, order and augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the device computes it natively."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""


class TissueSettings(Settings):
    """How tissue is found on a slide."""

    mpp: Positive = 8.0
    """Resolution at which tissue is looked for, microns per pixel."""
    measure: Literal["saturation", "optical density"] = "optical density"
    """What is thresholded (Otsu): colour saturation, or optical density for pale stains."""
    threshold: Positive | None = None
    """A threshold of your own instead of Otsu's."""
    smallest_um: Weight = 100.0
    """Tissue pieces narrower than this many micrometres (square root of their area) are left out."""
    largest_hole_um: Weight = 200.0
    """Holes narrower than this are closed."""


class SegmentSettings(Settings):
    """How a slide is read and put through the network."""

    mpp: Positive | None = None
    """Microns per pixel of the slide, where its file does not say."""
    tile: Annotated[int, Field(ge=64, multiple_of=16)] | None = None
    """Side of the square that the network sees, in model pixels; by default that of the training tiles."""
    overlap: Annotated[int, Field(ge=0, multiple_of=16)] = 32
    """Pixels shared by neighbouring tiles, blended by weights that fall off towards the border."""
    min_tissue: Fraction = 0.02
    """A tile with a smaller share of tissue is not analysed."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Tiles that go through the network at once."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found."""
    tissue_mask: Path | None = None
    """A tissue mask of your own (an image of the slide's proportions, tissue not black)."""


class ThresholdSettings(Settings):
    """From scores to labels: nothing here needs the network again."""

    delta: Fraction = 0.15
    """A class needs delta times its largest score (Eq. 4)."""
    class_delta: dict[str, Fraction] = {}
    """A delta of its own for the named classes."""
    presence: Fraction = 0.5
    """A class counts in a tile whose predicted presence (a probability) reaches this."""
    scope: Literal["slide", "tile"] = "slide"
    """Over what a class's largest score is taken: the slide (no seams), or each tile (as published)."""
    percentile: Annotated[float, Field(ge=50, le=100)] = 99.5
    """The largest score over a slide is this percentile, so that a few odd pixels do not decide."""


class JobSettings(Settings):
    """One settings file: it replays a run from the window, the command line or a cluster."""

    data: DataSettings = DataSettings()
    """The labelled tiles."""
    bank: BankSettings = BankSettings()
    """The image bank."""
    bank_folder: Path | None = None
    """An image bank on disk; without it training builds one from the single-class tiles of the data."""
    method: MethodSettings = PbipSettings()
    """The method and its terms."""
    backbone: BackboneSettings = BackboneSettings()
    """The trainable network."""
    train: TrainSettings = TrainSettings()
    """Training."""
    segment: SegmentSettings = SegmentSettings()
    """Whole slides."""
    thresholds: ThresholdSettings = ThresholdSettings()
    """Scores to labels."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from nested plain values.

        Raises
        ------
        ConfigError
            One sentence that names the field and what is wrong; an unknown key comes with the nearest valid one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_sentence(cls, error)) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings of a YAML file; see :func:`read_values` for its paths and its errors."""
        return cls.parse(read_values(path))

    def write(self, path: Path) -> None:
        """Write as YAML that :meth:`read` turns into equal settings."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def read_values(path: Path) -> dict[str, Any]:
    """The nested plain values of a YAML settings file.

    Relative paths in the file count from the file's own folder, wherever it is run from.

    Raises
    ------
    ConfigError
        If the file cannot be read or is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file {path} holds no 'key: value' lines at its top level.")
    _anchor_paths(values, path.parent)
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """``values`` with ``key.sub=value`` assignments put in; each value is read as YAML.

    Raises
    ------
    ConfigError
        If an assignment has no ``=``, its value is no YAML, or it goes through a key that holds no mapping.
    """
    merged = _copy(values)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set needs key=value, such as train.epochs=4, not {assignment!r}.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --set {assignment!r} cannot be read.") from error
        *parents, last = key.strip().split(".")
        place = merged
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {key.strip()}: {parent!r} is a single value and has nothing below it.")
        place[last] = value
    return merged


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


_PATHS = (
    ("data", "folder"),
    ("bank", "weights"),
    ("bank_folder",),
    ("backbone", "weights"),
    ("segment", "tissue_mask"),
)


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a settings file count from the file's folder, wherever it is run from."""
    for *parents, last in _PATHS:
        place: Any = values
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(last), str):
            place[last] = str(folder / Path(place[last]).expanduser())


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first fault of a validation error as one sentence."""
    fault = error.errors()[0]
    where = ".".join(str(p) for p in fault["loc"] if p not in ("pbip", "cam"))
    if fault["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(where, _keys(model), n=1, cutoff=0.0)
        return f"Unknown setting {where!r}; the nearest valid one is {nearest[0]!r}."
    return f"The setting {where!r} cannot be {fault['input']!r}: {fault['msg']}."


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings below a model."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        for part in _models_in(field.annotation):
            found += _keys(part, f"{prefix}{name}.")
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]
