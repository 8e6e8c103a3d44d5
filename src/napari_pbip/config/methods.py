"""The methods' settings: one class each. It says where the network is and what it learns from besides the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

from napari_pbip.config.base import FourStages, Fraction, Positive, Settings, Weight
from napari_pbip.errors import PbipError
from napari_pbip.plugins import plugins


class MethodSettings(Settings):
    """What all methods have. The fields of a method are the options of its network, but for `name` and `preset`.

    As the type of a field it stands for the settings of any of the :func:`methods`, told apart by `name`.
    """

    model_config = ConfigDict(defer_build=True)  # other packages are asked for their methods when values are validated

    network: ClassVar[str]
    """``module:class`` of the network, a :class:`napari_pbip.models.methods.base.Method`."""
    learns_from: ClassVar[Literal["tiles", "encoder", "bank", "masks"]] = "tiles"
    """What training needs: the labelled tiles alone, a frozen encoder too, an image bank with its encoder, or tiles
    with masks."""
    sees_through_encoder: ClassVar[bool] = False
    """Whether a trained model still needs the encoder to look at images."""
    about: ClassVar[str] = ""
    """What it makes of the tiles, needs and costs, in the words of those who choose among methods."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values that a preset gives to every setting not given."""

    name: str
    """The method."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {**cls.presets.get(str(values.get("preset", "default")), {}), **values}
        return values

    def options(self) -> dict[str, Any]:
        """What the network is made with."""
        return self.model_dump(exclude={"name", "preset"})

    @classmethod
    def variants(cls) -> tuple[type[MethodSettings], ...]:
        """The classes that a field of this type stands for."""
        return tuple(methods().values())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is MethodSettings:
            return handler.generate_schema(reduce(or_, cls.variants()))
        return handler(source)


class TrainedSettings(MethodSettings):
    """What the methods have in common that train a backbone, a pyramid of four stages, step by step."""


class PyramidSettings(TrainedSettings):
    """What the methods have that give a score map to each of the four stages, and learn from image-level labels."""

    stage_weights: FourStages = (0.0, 0.1, 1.0, 1.0)
    """Weight of the classification loss of each backbone stage."""
    fusion_weights: FourStages = (0.0, 0.3, 0.3, 0.4)
    """Weight of each stage's score map in the fused map (Eq. 3 of PBIP). With a weight for the first stage, scores of a
    slide lie every 4 pixels instead of 8, and take four times the room."""
    synthesis: Weight = 0.0
    """Weight of a loss on the pixels of mosaics that are composed of the single-class tiles while training, and make a
    step half as long again; 0 leaves it out."""


class PrototypeSettings(PyramidSettings):
    """What the methods with prototypes share: how features are compared with them, and the contrast."""

    similarity: Literal["centred", "plain"] = "centred"
    """Cosine of features and prototypes, without what all prototypes share or as they are."""
    delta: Fraction = 0.15
    """Threshold scale delta of the masks that training cuts out (Eq. 4 of PBIP). Not the delta of the thresholds, which
    says which pixels of a finished map are labelled."""
    temperature: Positive = 1.0
    """Temperature of the contrastive losses."""
    alpha: Weight = 1.0
    """Weight of the classification loss."""
    beta: Weight = 0.5
    """Weight of the similarity loss."""


class ImgMatchSettings(PrototypeSettings):
    """What PBIP and LPD share besides: the parts of ImgMatchNet that the papers switch on and off."""

    subclass_merge: Literal["mean", "softmax"] = "mean"
    """Prototype maps to class map at evaluation: their mean (Eq. 2 of PBIP), or the released softmax-weighted sum."""
    theta_foreground: Weight = 1.0
    """Weight of the foreground term within the similarity loss; 0 leaves it out (Table 2 of PBIP)."""
    theta_background: Weight = 1.0
    """Weight of the background term within the similarity loss; 0 leaves it out (Table 2 of PBIP)."""
    sparsity: Weight = 0.0005
    """Weight of mean(M_4) within the similarity loss (released code only)."""


class PbipSettings(ImgMatchSettings):
    """PBIP: ClassNet and ImgMatchNet. Defaults are ours; `preset` takes the paper's or the released code's."""

    network = "napari_pbip.models.methods.pbip:Pbip"
    learns_from = "bank"
    about = (
        "Learns from labelled tiles and an image bank. The bank's clusters are the prototypes, and stay as you "
        "approved them. Every step looks through the bank's encoder."
    )
    presets = {  # noqa: RUF012  # declared a class variable above
        "paper": {
            "stage_weights": (1.0, 1.0, 1.0, 0.0),
            "fusion_weights": (1.0, 1.0, 1.0, 0.0),
            "contrast": "equations",
            "theta_background": 0.5,
            "sparsity": 0.0,
        },
        "released": {
            "subclass_merge": "softmax",
            "similarity": "released",
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
    similarity: Literal["centred", "plain", "released"] = "centred"  # type: ignore[assignment]  # wider
    """Cosine of features and prototypes, without what all prototypes share or as they are; or only the features are
    normalised, as released."""
    similarity_maps: bool = True
    """Compare features with projected prototypes; off: a plain 1x1 convolution (Table 5)."""
    adaptive_threshold: bool = True
    """Mask by M >= delta * max(M) (Eq. 4); off: foreground and background are weighted by M alone (Table 5)."""
    mask: Literal["clipped", "released"] = "clipped"
    """How M weights the masked image (Eq. 5): clipped to [0, 1], or raw with the product min-max stretched."""
    contrast: Literal["classes", "subclasses", "equations", "released"] = "classes"
    """What is contrasted: a class against the other classes, per sample or as Eq. 9-12 are written, or each
    subclass against all others, per sample or as released."""


class LpdSettings(ImgMatchSettings):
    """LPD: PBIP with prototypes that are learned instead of a bank. Defaults are ours; `preset` takes the released."""

    network = "napari_pbip.models.methods.lpd:Lpd"
    learns_from = "encoder"
    about = (
        "Learns from labelled tiles and an encoder, without an image bank: the prototypes are learned too, and kept "
        "apart from each other."
    )
    presets = {  # noqa: RUF012  # declared a class variable above
        "released": {
            "subclass_merge": "softmax",
            "similarity": "plain",
            "delta": 0.5,
            "mask": "raw",
            "contrast": "infonce",
            "temperature": 0.07,
            "beta": 0.1,
            "diversity_temperature": None,
        },
    }

    name: Literal["lpd"] = "lpd"
    """The method."""
    preset: Literal["default", "released"] = "default"
    """Values for every setting not given: ours, or those of the authors' released code."""
    k: Annotated[int, Field(ge=1)] = Field(10, title="Prototypes per class")
    """Prototypes learned for each class."""
    mask: Literal["clipped", "raw"] = "clipped"
    """How the score map weights the masked image: clipped to [0, 1], or as it is (released)."""
    contrast: Literal["classes", "infonce"] = "classes"
    """What is contrasted: a class with the other classes, or each subclass with all others, as released."""
    diversity: Weight = 0.5
    """Weight of the diversity loss, which spreads the prototypes of a class; 0 leaves it out."""
    diversity_temperature: Positive | None = 0.07
    """The cosines are divided by it in the diversity loss; empty: the released form, which hardly changes."""
    warm_up: Fraction = 0.16
    """Share of the training before the similarity and diversity losses join (3,000 of 18,737 steps, as released)."""

    def options(self) -> dict[str, Any]:
        """What the network is made with; how many prototypes, they say themselves."""
        return self.model_dump(exclude={"name", "preset", "k"})


class ConstructSettings(PrototypeSettings):
    """ConStruct: adapters and prototypes on a frozen encoder, which learns structure from the backbone.

    The student is the encoder of the bank, the teacher the pretrained backbone; both stay as they are. Defaults are
    ours; `preset` takes the released.
    """

    network = "napari_pbip.models.methods.construct:ConStruct"
    learns_from = "bank"
    about = (
        "Learns small adapters and prototypes on an encoder that stays as it is: a vision transformer, or "
        "efficientnet-lite0. Needs an image bank made with it, and pretrained weights of the backbone, which teaches "
        "where tissues end. Few weights are trained; slides are read through the encoder, which takes longer if it is "
        "large."
    )
    sees_through_encoder = True
    presets = {  # noqa: RUF012  # declared a class variable above
        "released": {
            "stage_weights": (0.0, 0.0, 0.0, 1.0),
            "fusion_weights": (0.0, 0.0, 0.0, 1.0),
            "similarity": "plain",
        },
    }

    name: Literal["construct"] = "construct"
    """The method."""
    preset: Literal["default", "released"] = "default"
    """Values for every setting not given: ours, or those of the authors' released code."""
    temperature: Positive = 0.07
    """Temperature of the contrastive losses."""
    structure: Weight = 1.5
    """Weight of the structural distillation; 0 leaves it out, and the teacher with it."""
    beta: Weight = 0.2
    """Weight of the similarity loss."""
    memory: Annotated[int, Field(ge=1)] = 2048
    """Backgrounds of earlier batches that are negatives of the foreground."""
    start: Literal["bank", "text"] = "bank"
    """Where the prototypes start: at those of the image bank, or at a sentence a class (encoders with a text tower)."""
    sentences: dict[str, str] = Field(default_factory=dict)
    """A sentence of your own for the named classes, if they start there; the others have one of ours."""
    k: Annotated[int, Field(ge=1)] = Field(10, title="Prototypes per class")
    """Prototypes of each class, if they start at its sentence."""

    def options(self) -> dict[str, Any]:
        """What the network is made with; where the prototypes start is not part of it."""
        return self.model_dump(exclude={"name", "preset", "start", "sentences", "k"})


class CamSettings(PyramidSettings):
    """CAM: the baseline, a 1x1 convolution on the backbone and global average pooling."""

    network = "napari_pbip.models.methods.cam:Cam"
    about = "Learns from labelled tiles alone: the baseline, and the quickest. It has no prototypes to look at."

    name: Literal["cam"] = "cam"
    """The method."""


class DeepLabSettings(TrainedSettings):
    """DeepLab: a segmentation network that learns from tiles with masks, such as the pseudo masks of a first stage."""

    network = "napari_pbip.models.methods.deeplab:DeepLab"
    learns_from = "masks"
    about = (
        "The second stage: learns from tiles with masks, not from image-level labels. The command napari-pbip pseudo "
        "makes such tiles with any trained model."
    )

    name: Literal["deeplab"] = "deeplab"
    """The method."""
    version: Literal["v3+", "v2"] = "v3+"
    """Decoder on the backbone: DeepLabV3+, which joins coarse features with those of the second stage; or DeepLab-v2,
    four dilated convolutions on the last stage, as in the paper (with the backbone resnet101)."""
    easy_examples: bool = False
    """Pixels weigh the more the likelier the network finds their class (online easy example mining)."""


class ProbeSettings(MethodSettings):
    """Linear probe: logistic regression on the features that an encoder has of every cell of a picture."""

    network = "napari_pbip.models.methods.probe:Probe"
    learns_from = "encoder"
    about = (
        "Fits a linear classifier to what an encoder sees in the labelled tiles of one class each: seconds of work, "
        "and the best of all where tiles are few. Nothing else is trained."
    )
    sees_through_encoder = True
    window: ClassVar[int] = 224
    """Side in pixels of the squares that a probe looks at, if tiles are smaller: a frozen encoder saw no less when it
    was trained, and at the border of a small square it sees nothing."""

    name: Literal["probe"] = "probe"
    """The method."""
    cells: Annotated[int, Field(ge=1)] = 200
    """Cells of a tile that are learned from at most; fewer where tiles are many."""
    strength: Positive | Literal["auto"] = "auto"
    """Strength of the penalty on large weights (L2); auto is the one that tells tiles best that were left out of the
    fit (cross-validation)."""

    def options(self) -> dict[str, Any]:
        """What the network is made with: how it is fitted is not part of it."""
        return {}


_OURS = (PbipSettings, LpdSettings, ConstructSettings, CamSettings, ProbeSettings, DeepLabSettings)


@cache
def methods() -> Mapping[str, type[MethodSettings]]:
    """The settings class of each method by its name: ours, then those that installed packages add."""
    ours: dict[str, type[MethodSettings]] = {method.model_fields["name"].default: method for method in _OURS}
    return MappingProxyType(ours | plugins("method", ours, _checked))


def _checked(name: str, method: Any) -> type[MethodSettings]:
    """The settings class that another package registered under a name."""
    if not (isinstance(method, type) and issubclass(method, PyramidSettings)):
        raise PbipError("it is no class derived from PyramidSettings")
    if get_args(method.model_fields["name"].annotation) != (name,) or method.parse({}).name != name:
        raise PbipError(f'its settings do not say name: Literal["{name}"] = "{name}"')
    return method
