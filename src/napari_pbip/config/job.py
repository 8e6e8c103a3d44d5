"""The settings of a job: data, bank, method, backbone, training, slides, thresholds."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from napari_pbip.config.base import Fraction, Positive, Settings, Weight
from napari_pbip.config.methods import MethodSettings, PbipSettings


class DataSettings(Settings):
    """The labelled tiles and their layout."""

    folder: Path | None = None
    """Folder (or CSV file) with the labelled tiles."""
    layout: Literal["auto", "bcss", "luad", "folders", "csv"] = Field("auto", title="Labels are")
    """Layout of the labels; `auto` recognises it, and the job says which it is."""
    classes: tuple[str, ...] | None = Field(None, title="Class names")
    """Class names in label order; by default from the layout (its folders, classes.txt or CSV columns)."""
    mpp: Positive | None = None
    """Microns per pixel of the tiles, if known; the model then reads slides at this resolution."""
    white_fraction: Fraction = Field(0.7, title="Largest share of white")
    """A tile with a larger share of near-white pixels than this is left out of the bank (and counted)."""


class BankSettings(Settings):
    """How the image bank and its prototypes are built (PBIP 3.2)."""

    encoder: str = "efficientnet-lite0"
    """Name of the frozen encoder in the catalogue."""
    weights: Path | None = None
    """Folder or file with the encoder's weights, for encoders that need them."""
    k: Annotated[int, Field(ge=1)] | Literal["auto"] | dict[str, Annotated[int, Field(ge=1)] | Literal["auto"]] = Field(
        3, title="Clusters per class"
    )
    """Number of clusters (subclasses) of each class: a number, `auto` (silhouette), or one of both by class name."""
    k_max: Annotated[int, Field(ge=2)] = Field(6, title="Most clusters per class")
    """Largest number of clusters that `auto` tries."""
    nearest: Annotated[int, Field(ge=1)] = Field(100, title="Tiles per prototype")
    """Number of tiles nearest to the centre of a cluster whose mean is its prototype (N_K of PBIP)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the clustering."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Tiles that go through the encoder at once."""


_DEFAULT_BACKBONE = "efficientnet-lite0"


def _weights_that_come_with(values: dict[str, Any]) -> Literal["builtin"] | None:
    return "builtin" if values.get("name") == _DEFAULT_BACKBONE else None


class BackboneSettings(Settings):
    """The trainable pyramid network."""

    name: str = _DEFAULT_BACKBONE
    """Name of the backbone in the catalogue, such as efficientnet-lite0 or mit-b1 (listed in the documentation, in *The
    methods*)."""
    weights: Path | Literal["builtin"] | None = Field(default_factory=_weights_that_come_with)
    """Initial weights: a folder or safetensors file with weights of this backbone; builtin, the ImageNet weights that
    are installed with the package, which is the default of efficientnet-lite0; or nothing for random values, which is
    the default of all others."""


class TrainSettings(Settings):
    """How a model is trained."""

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of passes through the training tiles; auto is 8, or more for few tiles, so that there are 200 steps."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Total number of optimiser steps; overrides epochs."""
    batch_size: Annotated[int, Field(ge=1)] = 10
    """Tiles per step."""
    learning_rate: Positive | Literal["auto"] = "auto"
    """Peak learning rate of AdamW; auto is 5e-5, as released, with weights from your own file and for the student of
    construct, 1e-3 with builtin weights, and 5e-4 with those of a run and from scratch."""
    weight_decay: Weight = 1e-3
    """Weight decay of AdamW."""
    warmup: Annotated[int, Field(ge=0)] = Field(0, title="Warm-up steps")
    """Steps over which the learning rate rises to its peak."""
    flip_and_turn: bool = Field(True, title="Flips and quarter turns")
    """Random flips and quarter turns."""
    stain_augmentation: Fraction = 0.2
    """Strength of random changes of the amounts of haematoxylin and eosin and of the white point of tiles, which differ
    from scanner to scanner; 0 is off. Pieces of mosaics always change by 0.2."""
    validate_every: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", title="Epochs per validation")
    """Epochs between two validations (if there are validation masks); auto gives about eight validations."""
    select_by: Literal["predicted", "oracle"] = Field("predicted", title="Best model by")
    """The protocol whose mIoU chooses the best model."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initial weights, order and augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the device computes it natively."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best available one."""


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
    largest_hole_um: Weight = 50.0
    """Holes narrower than this many micrometres (square root of their area) are closed; wider ones are glass."""


class SegmentSettings(Settings):
    """How a slide is read and segmented."""

    mpp: Positive | None = None
    """Microns per pixel of the slide, if its file does not contain them."""
    tile: Annotated[int, Field(ge=64, multiple_of=16)] | None = None
    """Side of the square that the network sees, in model pixels; by default that of the training tiles, for PBIP and
    the linear probe at least 224."""
    overlap: Annotated[int, Field(ge=0, multiple_of=16)] = 32
    """Overlap of neighbouring tiles in pixels, blended with weights that decrease towards the border."""
    min_tissue: Fraction = Field(0.02, title="Least share of tissue")
    """A tile with a smaller share of tissue is not analysed."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Tiles that go through the network at once."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; a linear probe is computed in float32 always."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best available one."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found."""
    tissue_mask: Path | None = None
    """A tissue mask of your own (an image of the slide's proportions, tissue not black)."""


class ThresholdSettings(Settings):
    """How scores become labels, without running the network again."""

    delta: Fraction = 0.15
    """A class is labelled where its score reaches delta times its largest score (Eq. 4). It is not `method.delta`, the
    threshold of masks in training."""
    class_delta: dict[str, Fraction] = Field(default={})
    """Delta of single classes by their names, instead of the common one."""
    presence: Fraction = 0.5
    """A class counts in a tile whose predicted presence (a probability) reaches this."""
    scope: Literal["slide", "tile"] = "slide"
    """Whether the largest score of a class is that over the slide (no seams) or over each tile (as published)."""
    percentile: Annotated[float, Field(ge=50, le=100)] = 99.5
    """Percentile of the scores over a slide that counts as the largest, so that a few outliers do not matter."""
    smoothing_um: Annotated[float, Field(ge=0, le=200)] = Field(15.0, title="Smoothing, µm")
    """Width in micrometres over which scores are averaged before they become labels; 0 leaves them as they are."""

    def of_classes(self, names: Collection[str]) -> ThresholdSettings:
        """Return these settings without the thresholds of other classes than these."""
        if self.class_delta.keys() <= set(names):
            return self
        own = {name: delta for name, delta in self.class_delta.items() if name in names}
        return self.model_copy(update={"class_delta": own})


class RefineSettings(Settings):
    """Options for better maps that take more time; neither changes how a model is trained."""

    tta: bool = Field(False, title="Test-time augmentation")
    """Test-time augmentation: mean of the scores of eight flips and quarter turns, at eight times the cost."""
    crf: bool = Field(False, title="Conditional random field")
    """Let labels follow the colours of the picture: a dense conditional random field, as in LPD's evaluation."""


def _check_scheduler(name: str) -> str:
    kind, _, rest = name.partition(":")
    processes = kind == "local" and rest.isdecimal() and int(rest) > 0
    if processes or (kind != "local" and _ADDRESS.fullmatch(name)):
        return name
    raise ValueError("a scheduler is local:N, with N processes, or an address such as tcp://node1:8786")


_ADDRESS = re.compile(r"([a-z]+://)?[^\s/:]+:\d+|[a-z]+://\S+")
SchedulerName = Annotated[str, AfterValidator(_check_scheduler)]
"""``local:N``, or the address of a dask scheduler."""


class JobSettings(Settings):
    """All settings of a job; a file of them repeats a run from the window, the command line or a cluster."""

    model_config = ConfigDict(defer_build=True)  # because the methods' settings are

    data: DataSettings = DataSettings()
    """The labelled tiles."""
    bank: BankSettings = BankSettings()
    """The image bank."""
    bank_folder: Path | None = None
    """An image bank on disk; without it training builds one from the single-class tiles of the data."""
    method: Annotated[MethodSettings, Field(discriminator="name")] = PbipSettings()
    """The method and its terms."""
    backbone: BackboneSettings = BackboneSettings()
    """The trainable network."""
    train: TrainSettings = TrainSettings()
    """Training."""
    segment: SegmentSettings = SegmentSettings()
    """Whole slides."""
    refine: RefineSettings = RefineSettings()
    """Refinement of scores and labels."""
    thresholds: ThresholdSettings = ThresholdSettings()
    """Thresholds of labels."""
    scheduler: SchedulerName | None = None
    """Where slides, image banks, comparisons and statistics are computed: by default in this process; `local:4`, in
    four processes of this machine; or the address of a dask scheduler, such as `tcp://node1:8786`, by its workers."""
