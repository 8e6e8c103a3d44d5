"""The settings of each method, which also name its network and what its training needs besides labelled tiles."""

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
    """Base class of the methods' settings, whose fields are the options of the network, except `name` and `preset`.

    As the type of a field, it stands for the settings of any of the :func:`methods`, which is selected by `name`.
    """

    model_config = ConfigDict(defer_build=True)  # until values are validated, when methods of other packages are known

    network: ClassVar[str]
    """``module:class`` of the network, a :class:`napari_pbip.models.methods.base.Method`."""
    learns_from: ClassVar[Literal["tiles", "encoder", "bank", "masks"]] = "tiles"
    """What training needs: only labelled tiles, also a frozen encoder, an image bank with its encoder, or tiles with
    masks."""
    title: ClassVar[str] = ""
    """What the method is called in the window; by default its `name`."""
    about: ClassVar[str] = ""
    """What the method learns, needs and costs, for users who choose a method."""
    uses_encoder_features: ClassVar[bool] = False
    """Whether a trained model computes its maps with the encoder, and needs it for inference."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """For each preset, the values of settings that are not given."""

    training_only: ClassVar[frozenset[str]] = frozenset()
    """The settings that concern only the training, and are no options of the network."""
    window: ClassVar[int] = 0
    """Smallest side in pixels of the squares in which a model sees images and slides, if its training tiles are
    smaller."""
    before_added: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """What trainings did before a setting was added: its value in a run that does not record it."""

    name: str
    """The method."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {**cls.presets.get(str(values.get("preset", "default")), {}), **values}
        return values

    def options(self) -> dict[str, Any]:
        """Return the options with which the network is built."""
        return self.model_dump(exclude={"name", "preset", *self.training_only})

    @classmethod
    def variants(cls) -> tuple[type[MethodSettings], ...]:
        """Return the classes that a field of this type stands for."""
        return tuple(methods().values())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is MethodSettings:
            return handler.generate_schema(reduce(or_, cls.variants()))
        return handler(source)


class TrainedSettings(MethodSettings):
    """Base class of the settings of methods that train a backbone, a pyramid of four stages, in steps."""


class PyramidSettings(TrainedSettings):
    """The settings of all methods with a score map for each of the four stages, trained on image-level labels."""

    stage_weights: FourStages = (0.0, 0.1, 1.0, 1.0)
    """Weight of the classification loss of each backbone stage."""
    fusion_weights: FourStages = (0.0, 0.3, 0.3, 0.4)
    """Weight of each stage's score map in the fused map (Eq. 3 of PBIP). With a weight for the first stage, a slide has
    a score every 4 pixels instead of every 8, and its scores need four times the space."""
    synthesis: Weight | Literal["auto"] = Field("auto", title="Mosaic weight")
    """Weight of a loss on the pixels of mosaics, which are composed of single-class tiles during training and make a
    step half as long again; 0 leaves it out, and auto is 1 if every class has a tile that shows it alone, else 0."""

    def options(self) -> dict[str, Any]:
        """Return the options with which the network is built; training has replaced ``auto``, else it is 0."""
        return {**super().options(), "synthesis": 0.0 if self.synthesis == "auto" else self.synthesis}


class PrototypeSettings(PyramidSettings):
    """The settings of all methods with prototypes: the comparison of features with prototypes, and the contrast."""

    similarity: Literal["centred", "plain"] = "centred"
    """Prototypes in the cosine with features: centred by subtracting their mean, or plain."""
    delta: Fraction = Field(0.15, title="Mask threshold, delta")
    """Threshold scale delta of the masks of images in training (Eq. 4 of PBIP). It is not the delta of the thresholds,
    which decides which pixels of a finished map are labelled."""
    temperature: Positive = 1.0
    """Temperature of the contrastive losses."""
    alpha: Weight = Field(1.0, title="Classification weight")
    """Weight of the classification loss."""
    beta: Weight = Field(0.5, title="Similarity weight")
    """Weight of the similarity loss."""


class ImgMatchSettings(PrototypeSettings):
    """The settings of PBIP and LPD: the parts of ImgMatchNet that the papers switch on and off."""

    before_added = MappingProxyType({"masked": "images"})

    subclass_merge: Literal["mean", "softmax"] = "mean"
    """How prototype maps become a class map at evaluation: by their mean (Eq. 2 of PBIP), or by the softmax-weighted
    sum of the released code."""
    theta_foreground: Weight = Field(1.0, title="Foreground weight")
    """Weight of the foreground term within the similarity loss; 0 leaves it out (Table 2 of PBIP)."""
    theta_background: Weight = Field(1.0, title="Background weight")
    """Weight of the background term within the similarity loss; 0 leaves it out (Table 2 of PBIP)."""
    masked: Literal["auto", "images"] = Field("auto", title="What is masked")
    """What the map weights in the contrast: images, as published, each of which then runs through the encoder; auto
    weights the encoder's features of the whole image instead, which makes a step of training several times as fast, if
    the encoder's features are statistics of cells, as those of efficientnet-lite0 are."""
    sparsity: Weight = Field(0.0005, title="Sparsity weight")
    """Weight of mean(M_4) within the similarity loss (released code only)."""


class PbipSettings(ImgMatchSettings):
    """PBIP: ClassNet and ImgMatchNet. Defaults are ours; `preset` selects those of the paper or the released code."""

    network = "napari_pbip.models.methods.pbip:Pbip"
    title = "PBIP"
    learns_from = "bank"
    about = (
        "Learns from labelled tiles and an image bank. The clusters of the bank are the prototypes, and training does "
        "not change them. Every training step runs the bank's encoder."
    )
    presets = {  # noqa: RUF012  # declared a class variable above
        "paper": {
            "synthesis": 0.0,
            "masked": "images",
            "stage_weights": (1.0, 1.0, 1.0, 0.0),
            "fusion_weights": (1.0, 1.0, 1.0, 0.0),
            "contrast": "equations",
            "theta_background": 0.5,
            "sparsity": 0.0,
            "probe_share": 0.0,
        },
        "released": {
            "synthesis": 0.0,
            "masked": "images",
            "subclass_merge": "softmax",
            "similarity": "released",
            "delta": 0.5,
            "mask": "released",
            "contrast": "released",
            "temperature": 0.07,
            "beta": 0.1,
            "probe_share": 0.0,
        },
    }
    window = 224  # borders of its maps are better than in smaller squares (docs/benchmarks.md)
    before_added = MappingProxyType({**ImgMatchSettings.before_added, "probe_share": 0.0})

    name: Literal["pbip"] = "pbip"
    """The method."""
    preset: Literal["default", "paper", "released"] = "default"
    """Values of all settings that are not given: ours, the paper's, or those of the authors' released code."""
    similarity: Literal["centred", "plain", "released"] = "centred"  # type: ignore[assignment]  # wider
    """Prototypes in the cosine with features: centred by subtracting their mean, or plain; or, as in the released code,
    only features are normalised."""
    similarity_maps: bool = True
    """Whether features are compared with projected prototypes; if off, a 1x1 convolution is used (Table 5)."""
    adaptive_threshold: bool = True
    """Whether masks are M >= delta * max(M) (Eq. 4); if off, foreground and background are only weighted by M
    (Table 5)."""
    mask: Literal["clipped", "released"] = "clipped"
    """How M weights the masked image (Eq. 5): clipped to [0, 1], or raw with products stretched to [0, 1], as in the
    released code."""
    contrast: Literal["classes", "subclasses", "equations", "released"] = "classes"
    """What is contrasted: each class with the other classes, with a loss per sample or exactly as in Eq. 9-12; or each
    subclass with all others, with a loss per sample or as in the released code."""
    probe_share: Fraction | Literal["auto"] = Field("auto", title="Share of a linear probe")
    """Share of a linear probe of the same tiles in the scores, which are then means. Auto is a half if a class has
    fewer than 30 tiles that show it alone, mosaics are used and the encoder is the default one, and otherwise 0: maps
    learned from few tiles are more exact with it, and take nearly twice as long to compute."""

    @property
    def uses_encoder_features(self) -> bool:  # type: ignore[override]  # it depends on a setting here
        """Whether a linear probe has a share."""
        return bool(self.options()["probe_share"])

    def options(self) -> dict[str, Any]:
        """Return the options with which the network is built; training has replaced ``auto``, else it is 0."""
        return {**super().options(), "probe_share": 0.0 if self.probe_share == "auto" else self.probe_share}


class LpdSettings(ImgMatchSettings):
    """LPD: PBIP with learned prototypes instead of a bank. Defaults are ours; `preset` selects the released ones."""

    network = "napari_pbip.models.methods.lpd:Lpd"
    title = "LPD"
    learns_from = "encoder"
    about = (
        "Learns from labelled tiles and an encoder, without an image bank: the prototypes are learned too, and kept "
        "different from each other."
    )
    training_only = frozenset({"k"})  # the network knows the number of its prototypes
    presets = {  # noqa: RUF012  # declared a class variable above
        "released": {
            "synthesis": 0.0,
            "masked": "images",
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
    """Values of all settings that are not given: ours, or those of the authors' released code."""
    k: Annotated[int, Field(ge=1)] = Field(10, title="Prototypes per class")
    """Number of prototypes that are learned for each class."""
    mask: Literal["clipped", "raw"] = "clipped"
    """How the score map weights the masked image: clipped to [0, 1], or raw, as in the released code."""
    contrast: Literal["classes", "infonce"] = "classes"
    """What is contrasted: each class with the other classes, or each subclass with all others, as in the released
    code."""
    diversity: Weight = Field(0.5, title="Diversity weight")
    """Weight of the diversity loss, which separates the prototypes of a class; 0 leaves it out."""
    diversity_temperature: Positive | None = 0.07
    """Divisor of the cosines in the diversity loss; if empty, the loss is that of the released code, which is nearly
    constant."""
    warm_up: Fraction = 0.16
    """Share of the training before the similarity and diversity losses are added (3,000 of 18,737 steps, as
    released)."""


class ConstructSettings(PrototypeSettings):
    """ConStruct: adapters and prototypes on a frozen encoder, which learns structure from the backbone.

    The student is the encoder of the bank, the teacher the pretrained backbone; both remain unchanged. Defaults are
    ours; `preset` selects the released ones.
    """

    network = "napari_pbip.models.methods.construct:ConStruct"
    title = "ConStruct"
    learns_from = "bank"
    about = (
        "Learns small adapters and prototypes on a frozen encoder, which is a vision transformer or "
        "efficientnet-lite0. Needs an image bank built with it, and pretrained weights of the backbone, from which it "
        "learns the borders of tissues. Few weights are trained; segmenting a slide runs the encoder, which takes "
        "longer if it is large."
    )
    uses_encoder_features = True
    training_only = frozenset({"start", "sentences", "k"})
    presets = {  # noqa: RUF012  # declared a class variable above
        "released": {
            "synthesis": 0.0,
            "stage_weights": (0.0, 0.0, 0.0, 1.0),
            "fusion_weights": (0.0, 0.0, 0.0, 1.0),
            "similarity": "plain",
        },
    }

    name: Literal["construct"] = "construct"
    """The method."""
    preset: Literal["default", "released"] = "default"
    """Values of all settings that are not given: ours, or those of the authors' released code."""
    temperature: Positive = 0.07
    """Temperature of the contrastive losses."""
    structure: Weight = Field(1.5, title="Structure weight")
    """Weight of the structural distillation; 0 leaves it out, and the teacher is then not needed."""
    beta: Weight = Field(0.2, title="Similarity weight")
    """Weight of the similarity loss."""
    memory: Annotated[int, Field(ge=1)] = 2048
    """Number of backgrounds of earlier batches that are additional negatives of the foreground."""
    start: Literal["bank", "text"] = Field("bank", title="Initial prototypes")
    """Initial prototypes: those of the image bank, or a sentence for each class (encoders with a text tower)."""
    sentences: dict[str, str] = Field(default_factory=dict)
    """Your own sentences for some classes, by their names, if `start` is text; other classes have a default one."""
    k: Annotated[int, Field(ge=1)] = Field(10, title="Prototypes per class")
    """Number of prototypes of each class, if `start` is text."""


class CamSettings(PyramidSettings):
    """CAM: the baseline, a 1x1 convolution on the backbone and global average pooling."""

    network = "napari_pbip.models.methods.cam:Cam"
    title = "CAM"
    about = "Learns only from labelled tiles: the baseline, and the fastest to train. It has no prototypes to look at."

    name: Literal["cam"] = "cam"
    """The method."""


class DeepLabSettings(TrainedSettings):
    """DeepLab: a segmentation network that is trained on masks, such as the pseudo masks of a first stage."""

    network = "napari_pbip.models.methods.deeplab:DeepLab"
    title = "DeepLab"
    learns_from = "masks"
    about = (
        "The second stage: learns from tiles with masks instead of image-level labels. The command napari-pbip pseudo "
        "makes such masks with any trained model."
    )

    name: Literal["deeplab"] = "deeplab"
    """The method."""
    version: Literal["v3+", "v2"] = Field("v3+", title="DeepLab version")
    """Decoder on the backbone: DeepLabV3+, which joins coarse features with those of the second stage; or DeepLab-v2,
    four dilated convolutions on the last stage, as in the paper (with the backbone resnet101)."""
    easy_examples: bool = Field(False, title="Easy example mining")
    """Whether each pixel is weighted by the probability that the network gives its class (online easy example
    mining)."""


class ProbeSettings(MethodSettings):
    """Linear probe: logistic regression on the features that an encoder has of every cell of a picture."""

    network = "napari_pbip.models.methods.probe:Probe"
    title = "Linear probe"
    learns_from = "encoder"
    about = (
        "Fits a linear classifier to the features that an encoder computes from single-class tiles. Nothing else is "
        "trained, so that there is a first map within seconds. PBIP takes minutes, and its maps are usually better."
    )
    uses_encoder_features = True
    training_only = frozenset({"cells", "strength"})
    window = 224  # the encoder was trained on images of this size, and has no surroundings at the border of a square

    name: Literal["probe"] = "probe"
    """The method."""
    cells: Annotated[int, Field(ge=1)] = Field(200, title="Most cells per tile")
    """Largest number of cells of a tile that are used in the fit; there are fewer if there are many tiles."""
    strength: Positive | Literal["auto"] = Field("auto", title="Regularisation (L2)")
    """Strength of the penalty on large weights (L2); auto is the one with the best predictions for tiles that were left
    out of the fit (cross-validation)."""


_OURS = (PbipSettings, LpdSettings, ConstructSettings, CamSettings, ProbeSettings, DeepLabSettings)


@cache
def methods() -> Mapping[str, type[MethodSettings]]:
    """Return the settings class of each method by name: the built-in ones, then those of other installed packages."""
    ours: dict[str, type[MethodSettings]] = {method.model_fields["name"].default: method for method in _OURS}
    return MappingProxyType(ours | plugins("method", ours, _checked))


def _checked(name: str, method: Any) -> type[MethodSettings]:
    """Return the settings class that another package registered under a name, after checking it."""
    if not (isinstance(method, type) and issubclass(method, PyramidSettings)):
        raise PbipError("it is no class derived from PyramidSettings")
    if get_args(method.model_fields["name"].annotation) != (name,) or method.parse({}).name != name:
        raise PbipError(f'its settings do not say name: Literal["{name}"] = "{name}"')
    return method
