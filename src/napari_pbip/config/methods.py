"""The methods' settings: one class each. It says where the network is and what it learns from besides the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from napari_pbip.config.base import FourStages, Fraction, Positive, Settings, Weight


class MethodSettings(Settings):
    """What all methods have. The fields of a method are the options of its network, but for `name` and `preset`."""

    network: ClassVar[str]
    """``module:class`` of the network, a :class:`napari_pbip.models.methods.base.Method`."""
    learns_from: ClassVar[Literal["tiles", "encoder", "bank"]] = "tiles"
    """What training needs: the labelled tiles alone, a frozen encoder too, or an image bank with its encoder."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values that a preset gives to every setting not given."""

    stage_weights: FourStages = (0.0, 0.1, 1.0, 1.0)
    """Weight of the classification loss of each backbone stage."""
    fusion_weights: FourStages = (0.0, 0.3, 0.3, 0.4)
    """Weight of each stage's score map in the fused map (Eq. 3 of PBIP)."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {**cls.presets.get(str(values.get("preset", "default")), {}), **values}
        return values

    def options(self) -> dict[str, Any]:
        """What the network is made with."""
        return self.model_dump(exclude={"name", "preset"})


class PbipSettings(MethodSettings):
    """PBIP: ClassNet and ImgMatchNet. Defaults are ours; `preset` takes the paper's or the released code's."""

    network = "napari_pbip.models.methods.pbip:Pbip"
    learns_from = "bank"
    presets = {  # noqa: RUF012  # declared a class variable above
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
            "temperature": 0.07,
            "beta": 0.1,
        },
    }

    name: Literal["pbip"] = "pbip"
    """The method."""
    preset: Literal["default", "paper", "released"] = "default"
    """Values for every setting not given: ours, the paper's, or those of the authors' released code."""
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


class CamSettings(MethodSettings):
    """CAM: the baseline, a 1x1 convolution on the backbone and global average pooling."""

    network = "napari_pbip.models.methods.cam:Cam"

    name: Literal["cam"] = "cam"
    """The method."""


AnyMethod = Annotated[PbipSettings | CamSettings, Field(discriminator="name")]
"""One of the methods, told by its `name`."""
