"""Frozen embedding networks (phi_e of PBIP): what turns a tile, or a masked tile, into one vector."""

from napari_pbip.models.encoders.base import Encoder, EncoderSpec
from napari_pbip.models.encoders.catalogue import catalogue, load

__all__ = ["Encoder", "EncoderSpec", "catalogue", "load"]
