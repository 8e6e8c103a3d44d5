"""What a training still needs, as far as settings tell: no network is loaded, so that it can be asked at any time."""

from __future__ import annotations

from napari_pbip.config import ConstructSettings, JobSettings
from napari_pbip.errors import ConfigError, ModelError, PbipError
from napari_pbip.models.encoders import EncoderSpec


def starts_from_bank(settings: JobSettings) -> bool:
    """Whether the prototypes are those of an image bank, and the encoder with them."""
    method = settings.method
    return method.learns_from == "bank" and not (isinstance(method, ConstructSettings) and method.start == "text")


def still_needed(settings: JobSettings, encoder: EncoderSpec | None) -> dict[str, PbipError]:
    """What is missing, by the dotted name of the setting that can mend it.

    Parameters
    ----------
    settings
        Of the training.
    encoder
        The encoder that it would use: that of the image bank, if it starts from one. None if that is not known.
    """
    method = settings.method
    if not isinstance(method, ConstructSettings):
        return {}
    needed: dict[str, PbipError] = {}
    if encoder is not None and not encoder.blocks:
        needed["bank.encoder"] = ModelError(
            f"ConStruct looks into the blocks of a vision transformer, and the encoder {encoder.name!r} is none; "
            "choose another, and build the image bank with it."
        )
    elif encoder is not None and method.start == "text" and not encoder.may_read:
        needed["method.start"] = ConfigError(
            f"The encoder {encoder.name!r} has no text tower; start from the image bank, or choose an encoder that has "
            "one, such as clip, plip or conch."
        )
    if method.structure and settings.backbone.weights is None:
        needed["backbone.weights"] = ConfigError(
            "ConStruct learns structure from a pretrained backbone; name its weights with backbone.weights, "
            "or set method.structure to 0."
        )
    return needed
