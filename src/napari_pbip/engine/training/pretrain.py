"""The job that pretrains a backbone on unlabelled slides.

```text
OUT/
  pretrain.json        settings, what was learned from, progress, versions
  curves.csv           a row a step: step, learning rate, loss
  model.safetensors    the backbone, and the map that makes an encoder of it; in half precision
  state.safetensors    weights and optimiser state of the last save, for resuming
```

``backbone.weights`` and ``bank.weights`` take the folder: a training then starts from the backbone, a bank is made with
the encoder ``pretrained``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import block_diag

from napari_pbip.claims import claims
from napari_pbip.config import PretrainSettings
from napari_pbip.engine import runs
from napari_pbip.engine.device import autocast, choose_device
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import Image, ahead, change_stain, flip_and_turn, to_tensor
from napari_pbip.engine.training.discriminant import discriminant
from napari_pbip.engine.training.loop import TrainingLoop, check_resume
from napari_pbip.engine.training.unlabelled import Crops, Source, find_sources
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.files import prepare_folder, write_json
from napari_pbip.models import backbones
from napari_pbip.models.encoders.stage_statistics import describe
from napari_pbip.models.pretraining import Pretraining, mask_patches

MARKER = "pretrain.json"
MODEL = "model.safetensors"
_FORMAT = 1
SAVE_EVERY_SECONDS = 120.0
_STAIN = 0.4
"""Strength of the stain changes, strong on purpose: laboratories differ by as much."""
_MOMENTUM = 0.99
"""Initial momentum of the EMA teacher; increased to 1 over training."""
_TILE, _BATCH, _DIMENSION = 224, 16, 64
"""Of the maps at the end: side of the tiles that they are fitted on, how many at once, features of each map."""


@job(less_memory="use a smaller batch_size")
@claims("out", "pre-training")
def pretrain(settings: PretrainSettings, out: Path, *, resume: bool = False, overwrite: bool = False) -> Job:
    """Pre-train a backbone; yields ``Step`` with the loss.

    Whatever stops it, the state is saved first. Parameters as for :func:`napari_pbip.engine.training.train.train`.

    Raises
    ------
    ConfigError
        If the settings differ from those of the run to be resumed, but for more steps or another device.
    DataError, SlideError
        If there is nothing to learn from, or an image does not say its microns per pixel.
    ModelError
        If the loss is no longer a number; the last save is kept.
    OutputError
        If the output folder cannot be written.
    """
    device = choose_device(settings.device)
    if resume:
        facts = _resumed(settings, out)
    sources = yield from find_sources(settings)
    if not resume:
        prepare_folder(out, MARKER, overwrite=overwrite, ways="--resume to go on with it, --overwrite to replace it")
        facts = _Facts(settings, step=0, seconds=0.0)
        facts.write(out, sources)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        backbone = backbones.load(settings.backbone.name, settings.backbone.weights)
        network = Pretraining(backbone).to(device)
    yield from _Pretrainer(facts, network, device, sources, out).pretrain(resume=resume)


@dataclass
class _Facts:
    """What ``pretrain.json`` holds."""

    settings: PretrainSettings
    step: int
    seconds: float

    def write(self, out: Path, sources: Sequence[Source]) -> None:
        learned_from = {
            "images": [str(source.path) for source in sources],
            "tissue_mm2": round(sum(source.area_mm2 for source in sources), 3),
        }
        document = {
            "format": _FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "learned_from": learned_from,
            "step": self.step,
            "seconds": self.seconds,
            "versions": runs.versions(),
        }
        write_json(out / MARKER, document)


def _resumed(settings: PretrainSettings, out: Path) -> _Facts:
    try:
        document = json.loads((out / MARKER).read_text(encoding="utf-8"))
        before = PretrainSettings.parse(document["settings"])
        facts = _Facts(settings, int(document["step"]), float(document["seconds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{out} holds no pre-training that could be resumed; leave --resume out.") from error
    check_resume("pre-training", out, before, settings, {"steps", "device"}, done=facts.step, steps=settings.steps)
    return facts


class _Pretrainer(TrainingLoop[tuple[torch.Tensor, torch.Tensor]]):
    """Pre-trains a backbone, and makes an encoder of it.

    Parameters
    ----------
    facts
        Of the run; kept up to date.
    network
        On ``device``.
    device
        Where to compute.
    sources
        The images.
    out
        The folder of the run.
    """

    def __init__(
        self, facts: _Facts, network: Pretraining, device: torch.device, sources: Sequence[Source], out: Path
    ) -> None:
        settings = facts.settings
        trained = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        super().__init__(
            facts, network, optimiser, out, steps=settings.steps, seed=settings.seed, save_every=SAVE_EVERY_SECONDS
        )
        self.facts, self.pretraining, self.device, self.sources = facts, network, device, sources
        self.settings = settings

    def pretrain(self, *, resume: bool) -> Job:
        """The job, from where it was stopped if ``resume``."""
        name = f"Pre-training {self.settings.backbone.name} on {self.device}"
        yield from self.run(name, self._batches(), resume=resume)
        yield from self._make_encoder()
        yield Finished(self.out, {"steps": self.facts.step, "seconds": self.facts.seconds})

    def _batches(self) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """The views of each step, made ahead of it."""
        steps = range(self.facts.step, self.settings.steps)
        with closing(Crops(self.sources, self.settings)) as crops:
            yield from ahead(lambda step: views(crops.batch(step), step, self.settings), steps)

    def rate(self, step: int) -> float:
        """Linear warm-up over a twentieth of the steps, and cosine decay."""
        return min(1.0, 20 * (step + 1) / self.settings.steps) * self._decay(step)

    def _decay(self, step: int) -> float:
        """Half a cosine, 1 at the first step and 0 after the last."""
        return (1 + math.cos(math.pi * step / self.settings.steps)) / 2

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        masked_view, target_view = batch
        with autocast(self.device, self.settings.precision):
            return self.pretraining.loss(masked_view.to(self.device), target_view.to(self.device)), {}

    def updated(self) -> None:
        self.pretraining.update_ema(1 - (1 - _MOMENTUM) * self._decay(self.facts.step))

    def write(self) -> None:
        """Write ``pretrain.json``, which names the step."""
        self.facts.write(self.out, self.sources)

    def _make_encoder(self) -> Job:
        """Fit the maps at the end on tiles of the same tissue, and write backbone and maps."""
        count = self.settings.encoder_tiles
        yield Started("Fitting the encoder", total=count, unit="tiles")
        backbone = self.pretraining.backbone.eval()
        changes = {"crop": _TILE, "batch_size": _BATCH, "seed": self.settings.seed + 1}
        settings = self.settings.model_copy(update=changes)
        rng = np.random.default_rng(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        whole: list[npt.NDArray[np.float64]] = []
        changed: dict[str, list[npt.NDArray[np.float64]]] = {}  # what leaves the tissue what it is

        @torch.inference_mode()
        def seen(images: torch.Tensor) -> npt.NDArray[np.float64]:
            with autocast(self.device, settings.precision):
                return np.asarray(torch.cat(describe(backbone, images.to(self.device)), 1).double().cpu())

        with closing(Crops(self.sources, settings)) as crops:
            for first in range(0, count, _BATCH):
                tiles = to_tensor(crops.batch(first // _BATCH))
                whole.append(seen(tiles))
                for kind, other in {
                    "stain": change_stain(tiles, _STAIN / 2, rng),
                    "mask": mask_patches(tiles, 0.5, generator),
                    "turn": tiles.rot90(1, (2, 3)),
                    "shift": tiles.roll((5, 11), (2, 3)),  # no multiple of what a cell sees
                }.items():
                    changed.setdefault(kind, []).append(seen(other) - whole[-1])
                top, bottom = tiles.chunk(2, 2)
                changed.setdefault("half", []).append((seen(top) - seen(bottom)) / math.sqrt(2))
                yield Step(first + len(tiles))
        of_network = describe(backbone, tiles[:1].to(self.device))[0].shape[1]
        maps = [
            discriminant(
                np.concatenate(whole)[:, columns],
                [[np.concatenate(kind)[:, columns]] for kind in changed.values()],
                _DIMENSION,
            )
            for columns in (slice(None, of_network), slice(of_network, None))
        ]
        tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        tensors["centre"] = torch.from_numpy(np.concatenate([centre for centre, _ in maps]))
        tensors["projection"] = torch.from_numpy(block_diag(*(projection for _, projection in maps)))
        # half a float is too coarse for the small variances of batch normalisation
        small = {name: tensor if ".running_" in name else tensor.half() for name, tensor in tensors.items()}
        runs.write_weights(self.out / MODEL, small, {"backbone": settings.backbone.name})


def views(crops: Image, step: int, settings: PretrainSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked view and target view of crops, RGB uint8 (B, side, side, 3); determined by seed and step."""
    rng = np.random.default_rng((settings.seed, step, 1))
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    plain = to_tensor(np.stack([flip_and_turn(crop, rng) for crop in crops]))
    return mask_patches(change_stain(plain, _STAIN, rng), settings.hidden, generator), change_stain(plain, _STAIN, rng)
