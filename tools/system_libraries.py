"""Install or name the system libraries that a window needs and that are not part of a Python package.

On Debian and Ubuntu, as root, missing libraries are installed. On other Linux systems, the command that installs them
is printed. macOS and Windows have all of them. Only a window needs these libraries, so an error here stops nothing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

# Debian package -> library that it contains; libgl1 depends on Mesa's drivers
LIBRARIES = {
    "libdbus-1-3": "libdbus-1.so.3",
    "libegl1": "libEGL.so.1",
    "libgl1": "libGL.so.1",
    "libglu1-mesa": "libGLU.so.1",
    "libxcb-cursor0": "libxcb-cursor.so.0",
    "libxcb-icccm4": "libxcb-icccm.so.4",
    "libxcb-image0": "libxcb-image.so.0",
    "libxcb-keysyms1": "libxcb-keysyms.so.1",
    "libxcb-randr0": "libxcb-randr.so.0",
    "libxcb-render-util0": "libxcb-render-util.so.0",
    "libxcb-shape0": "libxcb-shape.so.0",
    "libxcb-xinerama0": "libxcb-xinerama.so.0",
    "libxkbcommon-x11-0": "libxkbcommon-x11.so.0",
}


def missing() -> list[str]:
    """Return the Debian packages of the libraries that are missing on this machine."""
    packages = [package for package, library in LIBRARIES.items() if not _loads(library)]
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or shutil.which("Xvfb")
    return packages if has_screen else [*packages, "xvfb"]


def main() -> None:
    """Install missing libraries, or print how to."""
    if sys.platform != "linux" or not (packages := missing()):
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        print("For the window, install the packages of your distribution with:", *map(_library, packages))
    elif os.geteuid() != 0:
        print("For the window, run: sudo", *install)
    else:
        print("Installing the system libraries of the window:", *packages, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], [*install, "-qq"]):
            if subprocess.run(command, env=environment, check=False).returncode:
                print("That failed; for the window, run:", *install)
                return


def _library(package: str) -> str:
    return LIBRARIES.get(package, "Xvfb")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
