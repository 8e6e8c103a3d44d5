"""The requirements of a training that settings do not meet, found quickly, without loading a network."""

from __future__ import annotations

from napari_pbip.config import (
    BackboneSettings,
    ConstructSettings,
    JobSettings,
    PbipSettings,
    ProbeSettings,
    TrainedSettings,
)
from napari_pbip.errors import ConfigError, ModelError, PbipError, WeightsUnavailable
from napari_pbip.models import builtin
from napari_pbip.models.encoders import EncoderSpec
from napari_pbip.models.weight_files import safetensors_file


def starts_from_bank(settings: JobSettings) -> bool:
    """Return whether the prototypes and the encoder are those of an image bank."""
    method = settings.method
    return method.learns_from == "bank" and not (isinstance(method, ConstructSettings) and method.start == "text")


def missing_requirements(settings: JobSettings, encoder: EncoderSpec | None) -> dict[str, PbipError]:
    """Return an error for each missing requirement, by the dotted name of the setting that can correct it.

    Parameters
    ----------
    settings
        Settings of the training.
    encoder
        The encoder of the training, which is that of the image bank if it starts from one; None if it is not known.
    """
    needed: dict[str, PbipError] = {}
    if isinstance(settings.method, ConstructSettings):
        needed = _of_construct(settings, settings.method, encoder)
    if isinstance(settings.method, ProbeSettings) and encoder is not None and not encoder.dense:
        needed["bank.encoder"] = _without_dense(encoder, "choose another, such as efficientnet-lite0")
    if isinstance(settings.method, PbipSettings) and settings.method.options()["probe_share"]:
        needed = _of_share(settings.method, encoder)
    if isinstance(settings.method, TrainedSettings):
        try:
            _check_weights(settings.backbone)
        except WeightsUnavailable as error:
            needed["backbone.weights"] = error
    return needed


def _without_dense(encoder: EncoderSpec, way: str) -> ModelError:
    return ModelError(
        f"A linear probe needs a vision transformer or a pyramid, and the encoder {encoder.name!r} is neither; {way}."
    )


def _of_share(method: PbipSettings, encoder: EncoderSpec | None) -> dict[str, PbipError]:
    needed: dict[str, PbipError] = {}
    if not method.synthesis:
        needed["method.probe_share"] = ConfigError(
            "A linear probe can only have a share in scores that are probabilities, which takes mosaics and a tile of "
            "each class that shows it alone; set `method.probe_share` to 0, or `method.synthesis` to 1."
        )
    elif encoder is not None and not encoder.dense:
        way = "set `method.probe_share` to 0, or build the image bank with another, such as efficientnet-lite0"
        needed["method.probe_share"] = _without_dense(encoder, way)
    return needed


def _check_weights(backbone: BackboneSettings) -> None:
    if backbone.weights == "builtin":
        builtin.find(backbone.name)
    elif backbone.weights is not None:
        safetensors_file(backbone.weights, backbone.name, "`backbone.weights`", "name another file or folder")


def _of_construct(
    settings: JobSettings, method: ConstructSettings, encoder: EncoderSpec | None
) -> dict[str, PbipError]:
    needed: dict[str, PbipError] = {}
    if encoder is not None and not (encoder.blocks or encoder.stages):
        needed["bank.encoder"] = ModelError(
            f"ConStruct needs a vision transformer or a pyramid, and the encoder {encoder.name!r} is neither; choose "
            "another, such as efficientnet-lite0, and build the image bank with it."
        )
    elif encoder is not None and method.start == "text" and not encoder.may_have_text:
        needed["method.start"] = ConfigError(
            f"The encoder {encoder.name!r} has no text tower; start from the image bank, or choose an encoder that has "
            "one, such as clip, plip or conch."
        )
    if method.structure and settings.backbone.weights is None:
        needed["backbone.weights"] = ConfigError(
            "ConStruct learns structure from a pretrained backbone; name its weights with `backbone.weights`, "
            "or set `method.structure` to 0."
        )
    return needed
