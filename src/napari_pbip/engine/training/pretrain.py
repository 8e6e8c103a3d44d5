"""The job that pre-trains a backbone on unlabelled slides.

```text
OUT/
  pretrain.json        settings, images, progress, versions
  curves.csv           a row per step: step, learning rate, loss
  model.safetensors    the backbone, and the linear map that turns it into an encoder; in half precision
  state.safetensors    weights and optimiser state of the last save, for resuming
```

If ``backbone.weights`` names this folder, a training starts from the backbone. If ``bank.weights`` does, an image bank
is built with the encoder ``pretrained``.
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
from napari_pbip.engine.device import autocast, to_device
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import Image, ahead, change_stain, flip_and_turn, to_tensor
from napari_pbip.engine.training.discriminant import discriminant
from napari_pbip.engine.training.loop import TrainingLoop, check_resume
from napari_pbip.engine.training.processes import Processes, joined
from napari_pbip.engine.training.unlabelled import Crops, Source, find_sources
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Loading, Started, Step
from napari_pbip.files import prepare_folder, write_json
from napari_pbip.models import backbones
from napari_pbip.models.encoders.stage_statistics import describe
from napari_pbip.models.pretraining import Pretraining, mask_patches
from napari_pbip.models.seeding import seeded

MARKER = "pretrain.json"
MODEL = "model.safetensors"
_FORMAT = 1
SAVE_EVERY_SECONDS = 120.0
_STAIN = 0.4
"""Strength of the random stain changes, which is large because the stains of laboratories differ as much."""
_MOMENTUM = 0.99
"""Initial momentum of the EMA teacher; increased to 1 over training."""
_TILE, _BATCH, _DIMENSION = 224, 16, 64
"""For the linear maps: side of the tiles that they are fitted to in pixels, tiles at once, features of each map."""


@job(less_memory="use a smaller batch_size")
def pretrain(settings: PretrainSettings, out: Path, *, resume: bool = False, overwrite: bool = False) -> Job:
    """Pre-train a backbone; yields a ``Step`` with the loss for each step.

    The state is saved however the job ends. Several processes share each batch, as in
    :func:`napari_pbip.engine.training.train.train`. Parameters as for :func:`napari_pbip.engine.training.train.train`.

    Raises
    ------
    ConfigError
        If the settings differ from those of the pre-training to be resumed in more than the device or more steps.
    DataError, SlideError
        If the images show no tissue, or an image does not say its microns per pixel.
    ModelError
        If the loss is no longer a number; the last save is kept.
    OutputError
        If the output folder cannot be written.
    JobFailed
        If another process of the same pre-training has ended too early.
    """
    with joined(settings.device) as processes:
        run = claims("out", "pre-training")(_pretrain) if processes.leads else _pretrain
        yield from run(settings, out, processes, resume=resume, overwrite=overwrite)


def _pretrain(settings: PretrainSettings, out: Path, processes: Processes, *, resume: bool, overwrite: bool) -> Job:
    """Pre-train as one of the processes."""
    if not processes.leads:
        processes.wait()  # until the leader has prepared the folder
    if resume or not processes.leads:
        facts = _resumed(settings, out)
    sources = yield from find_sources(settings)
    if processes.leads and not resume:
        ways = "`resume=True` to continue it, `overwrite=True` to replace it"
        prepare_folder(out, MARKER, overwrite=overwrite, ways=ways)
        facts = _Facts(settings, step=0, seconds=0.0)
        facts.write(out, sources)
    if processes.leads:
        processes.wait()
    yield Loading(f"the backbone {settings.backbone.name}")
    with seeded(settings.seed):
        backbone = backbones.load(settings.backbone.name, settings.backbone.weights)
        network = Pretraining(backbone).to(processes.device)
    yield from _Pretrainer(facts, network, processes, sources, out).pretrain(resume=resume)


@dataclass
class _Facts:
    """The contents of ``pretrain.json``."""

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
        raise OutputError(f"{out} holds no pre-training that could be resumed; leave `resume=True` out.") from error
    check_resume("pre-training", out, before, settings, {"steps", "device"}, done=facts.step, steps=settings.steps)
    return facts


class _Pretrainer(TrainingLoop[tuple[torch.Tensor, torch.Tensor]]):
    """Pre-trains a backbone, and makes an encoder from it.

    Parameters
    ----------
    facts
        Facts about the run, which are updated.
    network
        The network, on ``device``.
    processes
        The processes that train together, with the device of this one.
    sources
        The images.
    out
        Folder of the run.
    """

    def __init__(
        self, facts: _Facts, network: Pretraining, processes: Processes, sources: Sequence[Source], out: Path
    ) -> None:
        settings = facts.settings
        trained = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        super().__init__(
            facts,
            network,
            optimiser,
            out,
            steps=settings.steps,
            seed=settings.seed,
            save_every=SAVE_EVERY_SECONDS,
            processes=processes,
        )
        self.facts, self.pretraining, self.device, self.sources = facts, network, processes.device, sources
        self.settings = settings

    def pretrain(self, *, resume: bool) -> Job:
        """Return the job, which continues a stopped one if ``resume``."""
        name = f"Pre-training {self.settings.backbone.name} on {self.processes.names}"
        yield from self.run(name, self._batches(), resume=resume)
        if self.processes.leads:
            yield from self._make_encoder()
        yield Finished(self.out, {"steps": self.facts.step, "seconds": self.facts.seconds})

    def _batches(self) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """Yield the two views of each step, which threads compute ahead of it."""
        steps = range(self.facts.step, self.settings.steps)
        with closing(Crops(self.sources, self.settings)) as crops:
            yield from ahead(lambda step: views(crops.batch(step), step, self.settings), steps)

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate: linear warm-up over a twentieth of the steps, cosine decay."""
        return min(1.0, 20 * (step + 1) / self.settings.steps) * self._decay(step)

    def _decay(self, step: int) -> float:
        """Return half a cosine wave: 1 at the first step, 0 after the last."""
        return (1 + math.cos(math.pi * step / self.settings.steps)) / 2

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        masked_view, target_view = (to_device(view, self.device) for view in batch)
        with autocast(self.device, self.settings.precision):
            return self.pretraining.loss(masked_view, target_view), {}

    def updated(self) -> None:
        self.pretraining.update_ema(1 - (1 - _MOMENTUM) * self._decay(self.facts.step))

    def write(self) -> None:
        """Write ``pretrain.json``, which contains the step."""
        self.facts.write(self.out, self.sources)

    def _make_encoder(self) -> Job:
        """Fit the linear maps to tiles of the same images, and write backbone and maps."""
        count = self.settings.encoder_tiles
        yield Started("Fitting the encoder", total=count, unit="tiles")
        backbone = self.pretraining.backbone.eval()
        changes = {"crop": _TILE, "batch_size": _BATCH, "seed": self.settings.seed + 1}
        settings = self.settings.model_copy(update=changes)
        rng = np.random.default_rng(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        whole: list[npt.NDArray[np.float64]] = []
        changed: dict[str, list[npt.NDArray[np.float64]]] = {}  # differences by changes that keep the tissue the same

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
                    "shift": tiles.roll((5, 11), (2, 3)),  # not a multiple of the stride of a stage
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
        # half precision is too coarse for the small variances of batch normalisation
        small = {name: tensor if ".running_" in name else tensor.half() for name, tensor in tensors.items()}
        runs.write_weights(self.out / MODEL, small, {"backbone": settings.backbone.name})


def views(crops: Image, step: int, settings: PretrainSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masked and the target view of crops, RGB uint8 (B, side, side, 3); they depend on seed and step."""
    rng = np.random.default_rng((settings.seed, step, 1))
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    plain = to_tensor(np.stack([flip_and_turn(crop, rng) for crop in crops]))
    return mask_patches(change_stain(plain, _STAIN, rng), settings.hidden, generator), change_stain(plain, _STAIN, rng)
