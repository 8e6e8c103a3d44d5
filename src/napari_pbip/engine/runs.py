"""A training run on disk: its models, its facts, and the state for resuming it.

```text
RUN/
  run.json               facts: settings, classes, bank, seeds, versions, progress, validation scores
  tiles.csv, classes.txt the labelled tiles of the training and of its image bank, as a data set
  curves.csv             a row per step: step, learning rate, every loss term
  best.safetensors       the model with the best validation score (without validation, of the last epoch)
  last.safetensors       the model after the last epoch, or when the training was stopped
  state.safetensors      weights and optimiser state at the last save, for resuming
  exemplars.safetensors  cells of the tiles that a linear probe was fitted to, which explain its map
  bank/                  the image bank, if the training built it
```
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from napari_pbip.config import JobSettings, TrainedSettings
from napari_pbip.engine.run_facts import MARKER as MARKER
from napari_pbip.engine.run_facts import RunFacts as RunFacts
from napari_pbip.errors import ModelError, WeightsUnavailable
from napari_pbip.files import writing
from napari_pbip.models import backbones, encoders, weight_files
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.methods.base import Method, MethodInputs
from napari_pbip.models.prototypes import Prototypes

STATE = "state.safetensors"
BEST, LAST = "best.safetensors", "last.safetensors"
Which = Literal["best", "last"]


def build_method(
    settings: JobSettings, classes: int, prototypes: Prototypes | None, encoder: Encoder | None = None
) -> Method:
    """Return the network that the settings describe, newly initialised from torch's current random state.

    Parameters
    ----------
    settings
        Settings of method and backbone.
    classes
        Number of tissue classes N.
    prototypes
        Prototypes, for a method that has them.
    encoder
        The frozen encoder; only training needs it, unless the method computes its maps with it.
    """
    backbone = None
    if isinstance(settings.method, TrainedSettings):
        backbone = backbones.load(settings.backbone.name, settings.backbone.weights)
    module, _, name = settings.method.network.partition(":")
    network: type[Method] = getattr(importlib.import_module(module), name)
    return network.from_inputs(MethodInputs(backbone, classes, prototypes, encoder), **settings.method.options())


def without_start(settings: JobSettings) -> JobSettings:
    """Return the settings without initial weights of the backbone, for a network whose weights are loaded later."""
    backbone = settings.backbone.model_copy(update={"weights": None})
    return settings.model_copy(update={"backbone": backbone})


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, ready for inference."""

    method: Method
    facts: RunFacts
    run: Path
    which: Which
    identity: str
    """Hash of the weights, which tells its results from those of another model."""
    note: str = ""
    """A sentence that a user should know about the model, or an empty string."""

    @property
    def network_identity(self) -> tuple[str, ...]:
        """What tells the network from others: its weights and those of its encoder, and how it computes with them."""
        settings, encoder = self.facts.settings, self.facts.encoder or {}
        return self.identity, encoder.get("weights_hash", ""), settings.backbone.name, settings.method.model_dump_json()

    def require_classes(self, names: Sequence[str]) -> None:
        """Check that data have the classes of the model, in the same order.

        Raises
        ------
        ModelError
            If they do not.
        """
        known = self.facts.taxonomy.names
        if known != tuple(names):
            raise ModelError(
                f"The model in {self.run} was trained on the classes {', '.join(known)}, and the data have "
                f"{', '.join(names)}; give it data with the same classes in the same order."
            )


def load_model(folder: Path, which: Which = "best", device: torch.device | None = None) -> TrainedModel:
    """Load the best or last model of a run, in evaluation mode.

    A training that was stopped before its first validation has no best model yet; the last one then takes its place,
    and :attr:`TrainedModel.note` says so.

    The bank is not needed, and the encoder only for a method that computes its maps with it (ConStruct, the linear
    probe, PBIP in which a probe has a share). Weights of encoders are not copied into the run, because they are large
    and often may not be passed on; they are read from the path that the training used or, if it no longer exists, from
    the usual places of encoders.

    Raises
    ------
    ModelError
        If the folder is not a run, or the weights of the model or of its encoder are missing, damaged or of another
        network.
    """
    facts = RunFacts.read(folder)
    note = ""
    if (there := available(folder, facts, which)) != which:
        note = (
            f"The training in {folder} was stopped before its first validation ({facts.step} of {facts.steps} steps), "
            "so it has no best model yet and its last one is taken; it can be resumed."
        )
    path = folder / f"{there}.safetensors"
    weights = read_weights(path)
    settings = without_start(facts.settings)  # the initial weights are not needed, and may no longer exist
    prototypes = Prototypes.zeros(facts.prototypes["k"], facts.prototypes["dimension"]) if facts.prototypes else None
    encoder = recorded_encoder(facts) if settings.method.uses_encoder_features else None
    method = build_method(settings, len(facts.taxonomy), prototypes, encoder)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {MARKER} describes.") from error
    return TrainedModel(method.eval().to(device or "cpu"), facts, folder, there, weights_identity(weights), note)


def available(folder: Path, facts: RunFacts, which: Which) -> Which:
    """Return which model of a run can be loaded: ``last`` if nothing was validated yet, otherwise ``which``."""
    unscored = not facts.best_epoch and not (folder / BEST).exists() and (folder / LAST).exists()
    return "last" if unscored else which


def recorded_encoder(facts: RunFacts) -> Encoder:
    """Load the encoder of a training.

    Raises
    ------
    ModelError
        If its weights are missing, or are not those of the training.
    """
    recorded = facts.encoder or {}
    name, kept = recorded["name"], recorded["weights"]
    place = kept or "the cache"
    try:
        encoder = encoders.load(name, Path(kept) if kept and Path(kept).exists() else None)
    except WeightsUnavailable as error:
        raise ModelError(
            f"The model needs the encoder {name!r}, whose weights are no longer in {place}: put them back, "
            f"or into a folder {name} in the folder that NAPARI_PBIP_WEIGHTS names."
        ) from error
    if encoder.weights_hash != recorded["weights_hash"]:
        raise ModelError(
            f"The model needs the encoder {name!r}, whose weights are not those of the training; "
            f"put those back into {place}, or train again."
        )
    return encoder


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file by name.

    Raises
    ------
    ModelError
        If the file is missing or damaged.
    """
    if not path.exists():
        raise ModelError(f"{path} is missing; the training was stopped before its first save.")
    try:
        return weight_files.read(path)
    except WeightsUnavailable as error:
        raise ModelError(f"{path} is damaged or cut short; restore it or train again.") from error


def run_identity(run: Path) -> str:
    """Return the identity of the model of a run, as :attr:`TrainedModel.identity`, without building its network.

    Raises
    ------
    ModelError
        If the folder is not a run, or its weights are missing or damaged.
    """
    return weights_identity(read_weights(run / f"{available(run, RunFacts.read(run), 'best')}.safetensors"))


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, completely or not at all; ``facts`` become the file's metadata."""
    with writing(path) as temporary:
        # as bytes, because safetensors itself creates files of mode 0600, which colleagues cannot read
        temporary.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, facts))


def weights_identity(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 of all names and values, which does not depend on the file."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_state(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, facts: dict[str, str]
) -> None:
    """Write weights and optimiser state after ``step`` steps, for resuming; ``facts`` become the file's metadata."""
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    tensors["step"] = torch.tensor(step)
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = value
    write_weights(folder / STATE, tensors, facts)


def read_state(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, Mapping[str, str]]:
    """Load weights and optimiser state of the last save into the network and the optimiser; return its step and facts.

    Raises
    ------
    ModelError
        If the state is missing, damaged, or of another network.
    """
    path = folder / STATE
    tensors = read_weights(path)
    try:
        network.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
        parameters = dict(network.named_parameters())
        for name, tensor in tensors.items():
            if name.startswith("optimiser/"):
                _, key, parameter = name.split("/", 2)
                # AdamW keeps its step counts on the CPU even if the weights are on another device
                moved = tensor if key == "step" else tensor.to(parameters[parameter].device)
                optimiser.state[parameters[parameter]][key] = moved
        step = int(tensors["step"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"{path} is of another network than the settings describe; use `overwrite=True`.") from error
    with safe_open(path, "pt") as file:
        return step, file.metadata() or {}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    packages = ("napari-pbip", "transformers", "numpy")
    builds = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return builds | {name: version(name) for name in packages}


Curve = list[dict[str, float]]


def write_curves(folder: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """Write ``curves.csv``, a row per step."""
    with writing(folder / "curves.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        names = list(curve[0]) if curve else ["step"]
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(curve)


def read_curves(folder: Path, steps: int) -> Curve:
    """Read the first ``steps`` rows of ``curves.csv``; an empty list if it does not exist."""
    path = folder / "curves.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: Iterable[dict[str, str]] = csv.DictReader(file)
        return [{name: float(value) for name, value in row.items()} | {"step": int(row["step"])} for row in rows][
            :steps
        ]
