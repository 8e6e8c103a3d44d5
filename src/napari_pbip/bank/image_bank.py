"""The image bank: features of single-class tiles, their clusters, and their prototypes (PBIP 3.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from napari_pbip.bank.bank_folder import (
    FACTS,
    FORMAT,
    PROTOTYPES,
    THUMBNAILS,
    BankTile,
    EncoderFacts,
    damaged,
    read_facts,
    thumbnail_path,
    write_thumbnail,
)
from napari_pbip.bank.cluster import Clusters, Floats, Ints, choose_k, cosine_kmeans, normalise
from napari_pbip.bank.cluster_counts import check_enough_tiles, k_of_classes
from napari_pbip.bank.features import FeatureFile
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.errors import BankError
from napari_pbip.files import write_json, writing
from napari_pbip.taxonomy import Taxonomy

_IMPURE = 0.8
_TILES = TypeAdapter(tuple[BankTile, ...])
_K = TypeAdapter(tuple[int, ...])


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The properties of a subclass by which a user judges it."""

    class_name: str
    subclass: int
    """Index among the subclasses of all classes."""
    tiles: int
    similarity: float
    """Mean cosine of the tiles with the centre."""
    purity: float
    """Share of the tiles that are nearer to a prototype of their own class than to any other prototype."""
    warning: str = ""
    """Warning for the user; empty if there is none."""


@dataclass(frozen=True, eq=False)
class ImageBank:
    """The tiles, features, clusters and prototypes of a project's classes."""

    taxonomy: Taxonomy
    encoder: EncoderFacts
    settings: BankSettings
    tiles: tuple[BankTile, ...]
    features: Floats
    """Features, shape (T, D), one row per tile."""
    colours: Floats
    """Mean of R, G, B and of their squares in [0, 1], shape (T, 6)."""
    k: tuple[int, ...]
    """Number of subclasses of each class."""
    prototypes: Floats
    """Prototypes, shape (sum of K, D): mean features of the N_K tiles nearest to the centre of each subclass."""
    left_out: tuple[BankTile, ...] = ()
    """Tiles left out because they are mostly white."""
    removed: tuple[BankTile, ...] = ()
    """Tiles that the user removed, with the classes of their labels."""
    white_fraction: float = DataSettings().white_fraction
    """Largest share of white of a tile that is not left out."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """``mean`` and ``std`` of the tiles' RGB in [0, 1], three numbers each."""
    clustered: tuple[str, ...] = ()
    """Classes that :meth:`build` clustered; the others kept the clusters of the previous bank."""

    @classmethod
    def build(
        cls,
        taxonomy: Taxonomy,
        encoder: EncoderFacts,
        settings: BankSettings,
        tiles: Sequence[BankTile],
        measures: FeatureFile,
        *,
        left_out: Sequence[BankTile] = (),
        removed: Sequence[BankTile] = (),
        white_fraction: float = DataSettings().white_fraction,
        previous: ImageBank | None = None,
    ) -> ImageBank:
        """Cluster the features of each class and compute its prototypes.

        Parameters
        ----------
        taxonomy, encoder, settings
            Classes, encoder and settings of the bank.
        tiles
            Single-class tiles; their cluster indices are not used.
        measures
            Features and colours of these tiles.
        left_out
            Mostly white tiles, which are recorded only.
        removed
            Tiles that the user removed, which are recorded only.
        white_fraction
            Share of white above which a tile was left out, which is recorded only.
        previous
            An earlier bank, whose clusters are kept for classes with the same tiles and settings.

        Raises
        ------
        BankError
            If a class has no tiles, or fewer than the clusters asked for.
        ConfigError
            If the classes in ``settings.k`` are not those of the taxonomy.
        """
        wanted = k_of_classes(taxonomy, settings)
        check_enough_tiles(taxonomy, settings, [t.class_index for t in tiles], [t.class_index for t in left_out])
        hashes = [t.hash for t in tiles]
        features = measures.features(hashes)
        clustered: list[str] = []
        placed = list(tiles)
        k: list[int] = []
        prototypes: list[Floats] = []
        for n, name in enumerate(taxonomy.names):
            members = [i for i, t in enumerate(tiles) if t.class_index == n]
            own = features[members]
            clusters = _keep(previous, name, [tiles[i] for i in members], own, encoder, settings, wanted[n])
            if clusters is None:
                clustered.append(name)
                asked = wanted[n]
                count = choose_k(own, settings.k_max, settings.seed) if asked == "auto" else asked
                clusters = cosine_kmeans(own, count, settings.seed)
            for i, c, s in zip(members, clusters.assignment, clusters.similarity, strict=True):
                placed[i] = replace(tiles[i], subclass=sum(k) + int(c), similarity=round(float(s), 6))
            prototypes += [_prototype(own, clusters, c, settings.nearest) for c in range(clusters.k)]
            k.append(clusters.k)
        return cls(
            taxonomy=taxonomy,
            encoder=encoder,
            settings=settings,
            tiles=tuple(placed),
            features=features,
            colours=measures.colours(hashes),
            k=tuple(k),
            prototypes=np.stack(prototypes),
            left_out=tuple(left_out),
            removed=tuple(removed),
            white_fraction=white_fraction,
            statistics=measures.statistics(hashes),
            clustered=tuple(clustered),
        )

    @property
    def subclass_class(self) -> Ints:
        """Class index of each subclass, shape (sum of K,)."""
        return np.repeat(np.arange(len(self.k)), self.k)

    @property
    def identity(self) -> str:
        """SHA-256 over classes, encoder, features and prototypes, 16 hex digits."""
        digest = hashlib.sha256()
        facts = [self.taxonomy.names, encoder_key(self.encoder), self.k, [t.hash for t in self.tiles]]
        digest.update(json.dumps(facts).encode())
        for array in (self.features, self.prototypes):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()[:16]

    def nearest(self, subclass: int) -> tuple[BankTile, ...]:
        """Return the tiles of a subclass, nearest to its centre first; its prototype is the mean of the first N_K."""
        return tuple(self.tiles[i] for i in _nearest_first(self.tiles, subclass))

    def similarity(self, features: Floats) -> Floats:
        """Return the cosine of features (T, D) with every prototype, shape (T, sum of K)."""
        return normalise(features) @ normalise(self.prototypes).T

    def clusters(self) -> tuple[ClusterFacts, ...]:
        """Return the size, similarity and purity of each subclass, with a warning if something looks wrong."""
        of_subclass = np.array([t.subclass for t in self.tiles])
        nearest_class = self.subclass_class[self.similarity(self.features).argmax(1)]
        facts = []
        for subclass, n in enumerate(self.subclass_class):
            members = np.flatnonzero(of_subclass == subclass)
            taken_for = np.bincount(nearest_class[members], minlength=len(self.taxonomy))
            purity = float(taken_for[n] / len(members))
            warning = ""
            if purity < _IMPURE:
                taken_for[n] = -1
                other = self.taxonomy.names[int(taken_for.argmax())]
                warning = f"{1 - purity:.0%} of these tiles are nearer to another class, mostly {other}"
            elif len(members) == 1:
                warning = "a single tile"
            facts.append(
                ClusterFacts(
                    class_name=self.taxonomy.names[n],
                    subclass=subclass,
                    tiles=len(members),
                    similarity=float(np.mean([self.tiles[i].similarity for i in members])),
                    purity=purity,
                    warning=warning,
                )
            )
        return tuple(facts)

    def write(self, folder: Path, measures: FeatureFile) -> None:
        """Write the bank; thumbnails of the same tiles that exist are kept.

        ``bank.json`` is written last, so that reading recognises a bank whose writing was interrupted. An update
        completes such a bank.

        Parameters
        ----------
        folder
            Folder to write to; created if it does not exist.
        measures
            Measures of tiles by their hash; those of tiles that are neither in the bank nor removed are dropped.

        Raises
        ------
        OutputError
            If the folder cannot be written or the disk is full.
        DataError
            If the picture of a tile, of which a thumbnail is made, cannot be read.
        """
        measures.keep({t.hash for t in (*self.tiles, *self.removed)})
        measures.write(folder)
        arrays: dict[str, npt.NDArray[Any]] = {"prototypes": self.prototypes, "subclass_class": self.subclass_class}
        with writing(folder / PROTOTYPES) as temporary:
            temporary.write_bytes(save(arrays))
        shown = [t for s in range(len(self.prototypes)) for t in self.nearest(s)[: self.settings.nearest]]
        for tile in shown:
            write_thumbnail(folder, tile)
        write_json(folder / FACTS, self._facts())
        wanted = {thumbnail_path(folder, tile) for tile in shown}
        for path in set((folder / THUMBNAILS).glob("*.jpg")) - wanted:
            path.unlink()

    def _facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "identity": self.identity,
            "classes": self.taxonomy.to_json(),
            "encoder": dict(self.encoder),
            "settings": self.settings.model_dump(mode="json"),
            "k": list(self.k),
            "clusters": [asdict(c) for c in self.clusters()],
            "statistics": dict(self.statistics),
            "white_fraction": self.white_fraction,
            "left_out": [asdict(t) for t in self.left_out],
            "removed": [asdict(t) for t in self.removed],
            "tiles": [asdict(t) for t in self.tiles],
        }

    @classmethod
    def read(cls, folder: Path | str) -> ImageBank:
        """Read a bank.

        Raises
        ------
        BankError
            If the folder is not a bank, or the bank is unfinished, damaged or of a newer format.
        """
        folder = Path(folder)
        document = read_facts(folder)
        try:
            if document["format"] > FORMAT:
                raise BankError(f"{folder} was made by a newer version of napari-pbip; update this one.")
            measures = FeatureFile.read(folder)
            tiles = _TILES.validate_python(document["tiles"])
            k = _K.validate_python(document["k"])
            if not all(0 <= t.subclass < sum(k) and 0 <= t.class_index < len(k) for t in tiles):
                raise damaged(folder)
            hashes = [t.hash for t in tiles]
            bank = cls(
                taxonomy=Taxonomy.from_json(document["classes"]),
                encoder=_encoder(document["encoder"]),
                settings=BankSettings.model_validate(document["settings"]),
                tiles=tiles,
                features=measures.features(hashes),
                colours=measures.colours(hashes),
                k=k,
                prototypes=load_file(folder / PROTOTYPES)["prototypes"],
                left_out=_TILES.validate_python(document["left_out"]),
                removed=_TILES.validate_python(document.get("removed", ())),  # banks before curation have none
                white_fraction=document.get("white_fraction", cls.white_fraction),  # nor this, in earlier ones
                statistics=document["statistics"],
            )
            intact = bank.identity == document["identity"]
        except (KeyError, TypeError, ValueError, ValidationError, SafetensorError, OSError) as error:
            raise damaged(folder) from error
        if not intact:
            raise damaged(folder)
        return bank


def encoder_key(encoder: EncoderFacts) -> str:
    """Return the name and the weights' hash of an encoder; features with the same key can be compared."""
    return f"{encoder['name']} {encoder['weights_hash']}"


def cluster_table(bank: ImageBank) -> list[dict[str, str | int | float]]:
    """Return the clusters of a bank as rows of a table."""
    return [
        {
            "class": c.class_name,
            "cluster": 1 + c.subclass - sum(bank.k[: bank.taxonomy.index(c.class_name)]),
            "tiles": c.tiles,
            "similarity": c.similarity,
            "purity": c.purity,
            "look at": c.warning,
        }
        for c in bank.clusters()
    ]


def _encoder(facts: Mapping[str, Any]) -> EncoderFacts:
    return EncoderFacts(
        name=facts["name"],
        weights_hash=facts["weights_hash"],
        dimension=facts["dimension"],
        weights=facts["weights"],
    )


def _keep(
    previous: ImageBank | None,
    name: str,
    tiles: Sequence[BankTile],
    features: Floats,
    encoder: EncoderFacts,
    settings: BankSettings,
    wanted: int | Literal["auto"],
) -> Clusters | None:
    """Return the clusters of an earlier bank if it has exactly these tiles and settings for a class, else None."""
    if previous is None or encoder_key(previous.encoder) != encoder_key(encoder) or name not in previous.taxonomy.names:
        return None
    before = previous.settings
    if k_of_classes(previous.taxonomy, before)[previous.taxonomy.index(name)] != wanted:
        return None
    if before.seed != settings.seed or (wanted == "auto" and before.k_max != settings.k_max):
        return None
    n = previous.taxonomy.index(name)
    old = [t for t in previous.tiles if t.class_index == n]
    if [t.hash for t in old] != [t.hash for t in tiles]:
        return None
    first = sum(previous.k[:n])
    return Clusters.from_assignment(features, np.array([t.subclass - first for t in old], np.int64))


def _prototype(features: Floats, clusters: Clusters, cluster: int, nearest: int) -> Floats:
    members = np.flatnonzero(clusters.assignment == cluster)
    order = np.argsort(-clusters.similarity[members], kind="stable")
    mean: Floats = features[members[order[:nearest]]].mean(0)
    return mean


def _nearest_first(tiles: Sequence[BankTile], subclass: int) -> list[int]:
    members = [i for i, t in enumerate(tiles) if t.subclass == subclass]
    return sorted(members, key=lambda i: -tiles[i].similarity)
