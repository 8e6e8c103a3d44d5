"""What the user teaches with: labelled tiles, and the image bank made of them."""

from napari_pbip.bank.bank_folder import BankTile, EncoderFacts
from napari_pbip.bank.checks import NearDuplicate, bank_warnings, near_duplicates
from napari_pbip.bank.cluster import Clusters, choose_k, cosine_kmeans
from napari_pbip.bank.curation import Curation
from napari_pbip.bank.image_bank import ClusterFacts, ImageBank, cluster_table
from napari_pbip.bank.layouts import find_splits, has_labels, load_single_tiles, load_tiles, load_unlabelled
from napari_pbip.bank.layouts.masks import numbering_warning
from napari_pbip.bank.projection import project
from napari_pbip.bank.sheet import write_sheets
from napari_pbip.bank.tiles import LEFT_OUT, LabelledTile, Origin, TileSet

__all__ = [
    "LEFT_OUT",
    "BankTile",
    "ClusterFacts",
    "Clusters",
    "Curation",
    "EncoderFacts",
    "ImageBank",
    "LabelledTile",
    "NearDuplicate",
    "Origin",
    "TileSet",
    "bank_warnings",
    "choose_k",
    "cluster_table",
    "cosine_kmeans",
    "find_splits",
    "has_labels",
    "load_single_tiles",
    "load_tiles",
    "load_unlabelled",
    "near_duplicates",
    "numbering_warning",
    "project",
    "write_sheets",
]
