"""Out of memory: the parameter to lower is named, with its value, and nothing is lost."""

import mmap
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.base.errors import MemoryShortError
from pipeline.base.memory import lower_if_short
from pipeline.base.parameters import Params
from pipeline.predict import deepfool, one_step
from pipeline.predict.deepfool import minimal_perturbations
from pipeline.predict.one_step import attack
from pipeline.train import training
from pipeline.train.checkpoints import load_tensors
from pipeline.train.training import train
from tests.pipeline import changed, digest, link_frames

TOO_MUCH = 1 << 50


def no_room() -> object:
    return torch.empty(TOO_MUCH)


@pytest.mark.parametrize(
    "ask", [no_room, lambda: np.empty(TOO_MUCH), lambda: bytearray(TOO_MUCH),
            lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
            lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))],
)  # fmt: skip
def test_every_lack_of_memory_names_the_parameters(ask) -> None:
    told = (
        r"^attacking art: out of memory \(.+\); lower attack\.batch_size \(now 64\) or features\.max_frames \(now 9\)"
    )
    with pytest.raises(MemoryShortError, match=told):  # noqa: SIM117
        with lower_if_short("attacking art", {"attack.batch_size": 64, "features.max_frames": 9}):
            next(ask()) if hasattr(made := ask(), "__next__") else made


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes") as raised, lower_if_short("x", {"a": 1}):
        raise RuntimeError("shapes cannot be multiplied")
    assert not isinstance(raised.value, MemoryShortError)


def test_a_training_that_runs_out_keeps_its_state(
    small: Path, tmp_path: Path, small_params: Params, monkeypatch
) -> None:
    params = changed(small_params, train={"max_steps": 12, "validate_every": 6, "checkpoint_every": 4})
    undisturbed = digest(train(params, "non_art", 0, link_frames(small, tmp_path), progress=False))
    real, calls = training.loss_for(params.models["non_art"]), []

    def hungry(*arguments):
        calls.append(1)
        return real(*arguments) if len(calls) < 6 else no_room()

    again = tmp_path / "again"
    again.mkdir()
    link_frames(small, again)
    with monkeypatch.context() as patch:
        patch.setattr(training, "loss_for", lambda _: hungry)
        with pytest.raises(MemoryShortError, match=r"training non_art seed 0: .*train\.batch_size \(now 64\)"):
            train(params, "non_art", 0, again, progress=False)
    [state] = (again / ".resume").glob("train-*/state.safetensors")
    assert load_tensors(state)[1]["progress"]["step"] == 4
    for module, name, step in ((one_step, "fgm", attack), (deepfool, "deepfool", minimal_perturbations)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_, **__: no_room())
            with pytest.raises(MemoryShortError, match=r"lower (attack|deepfool)\.batch_size \(now \d+\)"):
                step(params, "non_art", 0, tmp_path, progress=False)
    assert digest(train(params, "non_art", 0, again, progress=False)) == undisturbed


def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Pages are asked of the system once; counted in a process of its own, for it cannot be taken back."""
    code = (
        "import ctypes, resource, sys\n"
        "from pipeline.base.memory import keep_freed\n"
        "if sys.argv[1] == 'keep': keep_freed()\n"
        "c, size = ctypes.CDLL(None), 2**26\n"  # above every size from which glibc hands memory back
        "c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]\n"
        "for _ in range(2):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    pointer = ctypes.c_void_p(c.malloc(size))\n"
        "    ctypes.memset(pointer, 1, size)\n"
        "    c.free(pointer)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    asked = [int(subprocess.run([sys.executable, "-c", code, how], check=True, capture_output=True).stdout)
             for how in ("plain", "keep")]  # fmt: skip
    if platform.libc_ver()[0] == "glibc":
        assert asked[0] >= 2**26 // mmap.PAGESIZE // 512  # 512: even where the system hands out huge pages
        assert asked[1] < 10
