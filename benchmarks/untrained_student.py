"""A small vision transformer with random weights, as a folder that the encoder `transformers` reads.

    python benchmarks/untrained_student.py FOLDER

ConStruct needs a pre-trained student, and the published ones cannot be shipped. This one says what its adapters and
prototypes learn by themselves, and what a step costs: a floor, no result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

SIDE = 224


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    shape = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_hidden_layers": 12}
    ViTModel(ViTConfig(image_size=SIDE, patch_size=16, **shape), add_pooling_layer=False).save_pretrained(folder)
    facts = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
