"""Backbones, encoders, score maps, losses and methods: pure torch."""

from napari_pbip.llvm import keep_triton_apart

keep_triton_apart()
