"""The command line in one of several processes, of which the second has no memory left in its third step.

It is started by ``torchrun``, with the arguments of ``napari-pbip``.
"""

from __future__ import annotations

import sys
from typing import Any

from napari_pbip.__main__ import main
from napari_pbip.models.methods.cam import Cam
from napari_pbip.processes import process_rank


class Failing(Cam):
    def loss(self, *args: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            raise MemoryError
        return super().loss(*args)


if __name__ == "__main__":
    if process_rank() == 1:
        sys.modules[Cam.__module__].Cam = Failing
    main()
