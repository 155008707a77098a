"""On the path of a run (``tests/small_run.py``): which modules of the project each stage has imported at its end."""

import atexit
import gc
import os
import sys
from pathlib import Path


def write() -> None:
    here, stage = Path.cwd(), os.environ["DVC_STAGE"].rpartition(":")[2]
    files = [Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    names = sorted(file.relative_to(here).as_posix() for file in files if file.is_relative_to(here))
    if names:
        process = Path(sys.argv[0]).stem  # the command line, or a notebook's kernel
        Path(os.environ["IMPORTED"], f"{stage}-{process}.txt").write_text("\n".join(names))


if {"DVC_STAGE", "IMPORTED"} <= os.environ.keys():
    atexit.register(write)
gc.set_threshold(50_000, 20, 50)  # to look for garbage among imports takes a tenth of a short stage
