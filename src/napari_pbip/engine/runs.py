"""A training run on disk: its models, its facts, and what is needed to go on with it.

```text
RUN/
  run.json             facts: settings, classes, bank, seeds, versions, progress, validation scores
  curves.csv           a row a step: step, learning rate, every loss term
  best.safetensors     the model with the best validation score (of the last epoch when nothing validates)
  last.safetensors     the model after the last epoch or at the stop
  state.safetensors    weights and optimiser state at the last save, for resuming
  exemplars.safetensors  cells of the tiles that a probe was fitted to, which explain its map
  bank/                the image bank, if training built it
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

from napari_pbip.config import JobSettings, PyramidSettings
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
    """The network that the settings describe, freshly initialised from torch's current random state.

    Parameters
    ----------
    settings
        Method and backbone.
    classes
        Number of tissue classes N.
    prototypes
        For a method that learns from a bank.
    encoder
        The frozen encoder; only training needs it, unless the method sees through it.
    """
    backbone = None
    if isinstance(settings.method, PyramidSettings):
        backbone = backbones.load(settings.backbone.name, settings.backbone.weights)
    module, _, name = settings.method.network.partition(":")
    network: type[Method] = getattr(importlib.import_module(module), name)
    return network.from_inputs(MethodInputs(backbone, classes, prototypes, encoder), **settings.method.options())


def without_start(settings: JobSettings) -> JobSettings:
    """The same settings for a network whose weights are all loaded afterwards."""
    backbone = settings.backbone.model_copy(update={"weights": None})
    return settings.model_copy(update={"backbone": backbone})


@dataclass(frozen=True)
class TrainedModel:
    """A model ready to look at slides."""

    method: Method
    facts: RunFacts
    run: Path
    which: Which
    identity: str
    """Hash of the weights: results made with it can be told from those of another model."""
    note: str = ""
    """What a user should know of it; empty if there is nothing."""


def load_model(folder: Path, which: Which = "best", device: torch.device | None = None) -> TrainedModel:
    """The best or last model of a run, in evaluation mode.

    A training that was stopped before its first validation has no best model yet; its last one then takes that place,
    and :attr:`TrainedModel.note` says so.

    It needs neither the bank nor the encoder; only a method that sees through its encoder (ConStruct) does. That one's
    weights are not copied into every checkpoint of every run: they are large, and often may not be passed on. They are
    read from where they lay in the training or, if they do not lie there any more, from where encoders are looked for.

    Raises
    ------
    ModelError
        If the folder is no run, the weights are missing, damaged or of another network, or those of the encoder
        that the model sees through are.
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
    settings = without_start(facts.settings)  # those weights may be gone by now
    prototypes = Prototypes.zeros(facts.prototypes["k"], facts.prototypes["dimension"]) if facts.prototypes else None
    encoder = recorded_encoder(facts) if settings.method.sees_through_encoder else None
    method = build_method(settings, len(facts.taxonomy), prototypes, encoder)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {MARKER} describes.") from error
    return TrainedModel(method.eval().to(device or "cpu"), facts, folder, there, weights_identity(weights), note)


def available(folder: Path, facts: RunFacts, which: Which) -> Which:
    """Which model of a run there is to look at: the last one, where nothing was validated yet."""
    unscored = not facts.best_epoch and not (folder / BEST).exists() and (folder / LAST).exists()
    return "last" if unscored else which


def recorded_encoder(facts: RunFacts) -> Encoder:
    """The encoder of a training, checked to be the same."""
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
            f"The model needs the encoder {name!r}, whose weights are others than in the training; "
            f"put those back into {place}, or train again."
        )
    return encoder


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file.

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


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all; ``facts`` go into the file's metadata."""
    with writing(path) as temporary:
        # by way of bytes: safetensors creates files of mode 0600, which colleagues cannot read
        temporary.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, facts))


def weights_identity(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and values, 16 hex digits: the same weights give it whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_state(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, facts: dict[str, str]
) -> None:
    """Write weights and optimiser state after so many steps, for resuming; ``facts`` go into the file's metadata."""
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    tensors["step"] = torch.tensor(step)
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = value
    write_weights(folder / STATE, tensors, facts)


def read_state(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, Mapping[str, str]]:
    """Put weights and optimiser state of the last save back; returns the steps it had done, and its facts.

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
                # AdamW keeps its step counts on the CPU whatever the device of the weights
                moved = tensor if key == "step" else tensor.to(parameters[parameter].device)
                optimiser.state[parameters[parameter]][key] = moved
        step = int(tensors["step"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"{path} is of another network than the settings describe; use --overwrite.") from error
    with safe_open(path, "pt") as file:
        return step, file.metadata() or {}


def versions() -> dict[str, str]:
    """Versions of what computes."""
    packages = ("napari-pbip", "transformers", "numpy")
    builds = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return builds | {name: version(name) for name in packages}


Curve = list[dict[str, float]]


def write_curves(folder: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """Write ``curves.csv``, a row a step."""
    with writing(folder / "curves.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        names = list(curve[0]) if curve else ["step"]
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(curve)


def read_curves(folder: Path, steps: int) -> Curve:
    """The first ``steps`` rows of ``curves.csv``."""
    path = folder / "curves.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: Iterable[dict[str, str]] = csv.DictReader(file)
        return [{name: float(value) for name, value in row.items()} | {"step": int(row["step"])} for row in rows][
            :steps
        ]
