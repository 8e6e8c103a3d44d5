"""Small slides in every format that is available or can be written, to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile
import zarr

from napari_pbip import samples
from napari_pbip.slides import open_slide

Writer = Callable[[Path, np.ndarray], Path]
_DICOM = Path(__file__).parents[1] / "data" / "dicom_CMU-1-Small-Region"
_UNTILED_NDPI = [
    (271, 2, 0, "Hamamatsu", True),
    (65420, 4, 1, 1, True),
    (65421, 11, 1, 40.0, True),
    (65424, 9, 1, 0, True),
]


def write_slides(folder: Path) -> dict[str, Path]:
    """Write a slide of each format into a folder; return their paths by the name of the format."""
    with open_slide(samples.slide()) as slide:
        pixels = slide.read_level(0, 300, 500, 701, 901)
    written = {}
    for name, writer in _WRITERS.items():
        (folder / name).mkdir(parents=True)
        written[name] = writer(folder / name, pixels)
    return written


def _halves(pixels: np.ndarray, levels: int = 3) -> list[np.ndarray]:
    return [np.ascontiguousarray(pixels[:: 2**n, :: 2**n]) for n in range(levels)]


def _svs(folder: Path, _: np.ndarray) -> Path:
    return Path(shutil.copyfile(samples.slide(), folder / "slide.svs"))


def _dicom(folder: Path, _: np.ndarray) -> Path:
    return Path(shutil.copytree(_DICOM, folder / "dicom"))


def _tiff(compression: str | None, **options: object) -> Writer:
    def write(folder: Path, pixels: np.ndarray) -> Path:
        bigtiff = bool(options.get("bigtiff"))
        more = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "metadata": None, "tile": (256, 256)}
        more |= {name: value for name, value in options.items() if name != "bigtiff"}
        with tifffile.TiffWriter(folder / "slide.tif", bigtiff=bigtiff) as tiff:
            for n, image in enumerate(_halves(pixels)):
                tiff.write(image, photometric="rgb", compression=compression, subfiletype=int(n > 0), **more)
        return folder / "slide.tif"

    return write


def _planar(folder: Path, pixels: np.ndarray) -> Path:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(
        folder / "slide.tif", planes, photometric="rgb", planarconfig="separate", tile=(128, 128), compression="lzw"
    )
    return folder / "slide.tif"


def _ome_tiff(folder: Path, pixels: np.ndarray) -> Path:
    first, *rest = _halves(pixels)
    sizes = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    with tifffile.TiffWriter(folder / "slide.ome.tif", ome=True) as tiff:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        tiff.write(first, subifds=len(rest), metadata={"axes": "YXS", **sizes}, **options)
        for image in rest:
            tiff.write(image, subfiletype=1, **options)
        tiff.write(first[:100, :100], photometric="rgb", metadata={"axes": "YXS", "Name": "macro"})
    return folder / "slide.ome.tif"


def _ndpi(folder: Path, pixels: np.ndarray) -> Path:
    """Write a single level with the tags that OpenSlide expects: maker, lens, focal plane, one JPEG strip."""
    tifffile.imwrite(
        folder / "slide.ndpi", pixels[:512, :512], photometric="rgb", compression="jpeg", rowsperstrip=512,
        resolution=(40_000, 40_000), resolutionunit="CENTIMETER", metadata=None, extratags=_UNTILED_NDPI,
    )  # fmt: skip
    return folder / "slide.ndpi"


def _ome_zarr(zarr_format: int, *, sharded: bool = False) -> Writer:
    def write(folder: Path, pixels: np.ndarray) -> Path:
        path = folder / "slide.ome.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        datasets = []
        for n, image in enumerate(_halves(pixels, 2)):
            array = group.create_array(
                str(n), shape=(3, *image.shape[:2]), dtype="uint8", fill_value=255, chunks=(1, 256, 256),
                shards=(3, 512, 512) if sharded else None,
            )  # fmt: skip
            array[:] = image.transpose(2, 0, 1)
            scale = {"type": "scale", "scale": [1.0, 0.5 * 2**n, 0.5 * 2**n]}
            datasets.append({"path": str(n), "coordinateTransformations": [scale]})
        space = {"type": "space", "unit": "micrometer"}
        axes = [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}]
        colours = [("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")]
        ome = {
            "version": "0.4" if zarr_format == 2 else "0.5",
            "multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}],
            "omero": {"channels": [{"label": label, "color": colour} for label, colour in colours]},
        }
        group.attrs.update(ome if zarr_format == 2 else {"ome": ome})
        return path

    return write


def _picture(name: str, **options: object) -> Writer:
    def write(folder: Path, pixels: np.ndarray) -> Path:
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        PIL.Image.fromarray(pixels[:512, :400]).save(
            folder / name, **({"exif": exif} if "bmp" not in name else {}), **options
        )
        return folder / name

    return write


_WRITERS: dict[str, Writer] = {
    "SVS": _svs,
    "DICOM": _dicom,
    "TIFF pyramid, JPEG": _tiff("jpeg"),
    "TIFF pyramid, JPEG 2000": _tiff("jpeg2000"),
    "BigTIFF pyramid, deflate": _tiff("zlib", bigtiff=True),
    "TIFF in planes, LZW": _planar,
    "TIFF in strips": _tiff("lzw", tile=None, rowsperstrip=64),
    "OME-TIFF": _ome_tiff,
    "NDPI, one level": _ndpi,
    "OME-Zarr 0.4": _ome_zarr(2),
    "OME-Zarr 0.5": _ome_zarr(3),
    "OME-Zarr 0.5, sharded": _ome_zarr(3, sharded=True),
    "PNG": _picture("slide.png"),
    "JPEG": _picture("slide.jpg", quality=90),
    "BMP": _picture("slide.bmp"),
}
