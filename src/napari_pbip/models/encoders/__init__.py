"""Frozen embedding networks (phi_e of PBIP): what turns a tile, or a masked tile, into one vector.

The catalogue is listed without loading torch; :class:`~napari_pbip.models.encoders.base.Encoder` is in ``base``.
"""

from napari_pbip.models.encoders.catalogue import EncoderSpec, catalogue, load

__all__ = ["EncoderSpec", "catalogue", "load"]
