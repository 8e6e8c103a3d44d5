"""How many clusters the settings ask for of each class, and whether there are tiles enough for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from napari_pbip.config import BankSettings
from napari_pbip.errors import BankError, ConfigError
from napari_pbip.taxonomy import Taxonomy


def k_of_classes(taxonomy: Taxonomy, settings: BankSettings) -> list[int | Literal["auto"]]:
    """Return the number of clusters of each class; raises ConfigError if ``bank.k`` names other classes."""
    if not isinstance(settings.k, dict):
        return [settings.k] * len(taxonomy)
    names = ", ".join(taxonomy.names)
    for name in settings.k:
        if name not in taxonomy.names:
            raise ConfigError(f"`bank.k` names the class {name!r}, but the classes are {names}.")
    if missing := [name for name in taxonomy.names if name not in settings.k]:
        raise ConfigError(f"`bank.k` lacks the class {missing[0]!r}; give a number or auto for each of {names}.")
    return [settings.k[name] for name in taxonomy.names]


def check_enough_tiles(
    taxonomy: Taxonomy, settings: BankSettings, tiles: Sequence[int | None], white: Sequence[int] = ()
) -> None:
    """Check that every class has at least as many tiles as clusters.

    Parameters
    ----------
    taxonomy, settings
        Classes, and their numbers of clusters.
    tiles, white
        Class index of each tile of the bank, and of each tile that was left out as mostly white.

    Raises
    ------
    BankError
        If a class has no tiles, or fewer than its clusters.
    ConfigError
        If ``settings.k`` names other classes than there are.
    """
    for n, (name, wanted) in enumerate(zip(taxonomy.names, k_of_classes(taxonomy, settings), strict=True)):
        count, pale = list(tiles).count(n), list(white).count(n)
        if not count and pale:
            raise BankError(f"All {pale} single-class tiles of {name} are mostly white; raise `data.white_fraction`.")
        if not count:
            raise BankError(f"The class {name} has no tile that shows it alone; add tiles of this class only.")
        if isinstance(wanted, int) and wanted > count:
            left = f" ({pale} mostly white ones were left out)" if pale else ""
            raise BankError(
                f"The class {name} has {count} single-class tile{'s' * (count > 1)}{left}, too few for {wanted} "
                "clusters; add tiles or lower K."
            )
