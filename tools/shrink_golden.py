"""Make the copies of golden files for the tests, with the same arrays under the same names in half the space.

    python tools/shrink_golden.py GOLDEN/pbip.npz tests/data/golden/pbip.npz
    python tools/shrink_golden.py GOLDEN/lpd.npz tests/data/golden/lpd.npz --beside GOLDEN/pbip.npz
    python tools/shrink_golden.py GOLDEN/construct.npz tests/data/golden/construct.npz --beside GOLDEN/pbip.npz

Arrays on which no loss and no label depends are left out (the maps, merged maps, prototype MLP and scale of stage 1),
and those that are equal in the file of ``--beside``. The images, which are smooth, are stored as third differences of
20-bit fixed point (with an error of at most 5e-7, under the name ``image_differences``), from which the tests restore
them. The features of LPD's diversity term and the maps of ConStruct's structural loss are stored in half precision,
which hardly changes the values; the input of ConStruct's adapter is one of these maps, and stored once. All other
arrays are bit for bit the same, packed with LZMA.
"""

from __future__ import annotations

import argparse
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

STAGE_1 = re.compile(r"(parent_)?(cam|cls)1(_mean|_max)?|loss_cls1|(weights|gradnorm)/(l_fc1\..*|logit_scale1)")
HALF = {"div/feature_map", "struct/teacher", "struct_large/student", "struct_large/teacher"}
SCALE = 2**20
ORDER = 3


def differences(image: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return third differences along both axes of the image (B, 3, H, W), in units of 2**-20."""
    values = np.round(image.astype(np.float64) * SCALE).astype(np.int64)
    for axis in (2, 3) * ORDER:
        values = np.diff(values, axis=axis, prepend=0)
    return values.astype(np.int32)


def main() -> None:
    """Write the copy and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--beside", type=Path)
    args = parser.parse_args()
    with np.load(args.source) as file:
        arrays = {name: file[name] for name in file.files if not STAGE_1.fullmatch(name)}
    if args.beside:
        with np.load(args.beside) as file:
            for name in set(file.files) & set(arrays):
                if np.array_equal(file[name], arrays[name]):
                    del arrays[name]
    if "image" in arrays:
        arrays["image_differences"] = differences(arrays.pop("image"))
    for name in HALF & set(arrays):
        arrays[name] = arrays[name].astype(np.float16)
    adapter_input = arrays.pop("adapter/input", None)
    assert adapter_input is None or np.array_equal(adapter_input, arrays["struct/student"])
    args.target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.target, "w", zipfile.ZIP_LZMA) as packed:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            packed.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_LZMA)
    print(f"{len(arrays)} arrays, {args.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
