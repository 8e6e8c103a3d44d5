"""Frozen embedding networks (phi_e of PBIP), which turn a tile or a masked tile into one vector.

The catalogue can be listed without loading torch; :class:`~napari_pbip.models.encoders.base.Encoder` is in ``base``.
"""

from napari_pbip.models.encoders.catalogue import catalogue, load, lookup
from napari_pbip.models.encoders.prompts import default_sentence
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.weights import find as find_weights

__all__ = ["EncoderSpec", "catalogue", "default_sentence", "find_weights", "load", "lookup"]
