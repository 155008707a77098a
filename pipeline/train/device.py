"""Which device to compute on, in which precision it is at home, and that it computes the same again."""

import numpy as np
import torch


def best_device() -> torch.device:
    """The accelerator where there is one that computes in float64, as norms are summed in; else the CPU.

    Apple's GPUs (mps) do not, nor do some of Intel's (xpu).
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is not None:
        try:
            torch.ones(2, dtype=torch.float64, device=found).norm()
            return found
        except (TypeError, RuntimeError):
            pass
    return torch.device("cpu")


def native_precision(device: torch.device) -> str:
    """bf16 where the device multiplies it in hardware, fp32 elsewhere: emulated it is many times slower."""
    if device.type in ("cuda", "xpu"):
        return "bf16" if torch.get_device_module(device).is_bf16_supported(including_emulation=False) else "fp32"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "fp32"


def seed_everything(*entropy: int) -> None:
    """Seed PyTorch from several numbers (seed, or seed and step), and ask it for reproducible kernels."""
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler, for seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # all is written before it is read
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
