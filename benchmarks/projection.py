"""What YouTube-8M would take, computed from what was measured: a hundredth, a tenth and all of it on three machines.

    python -m benchmarks.projection          # prints the table of docs/full-size.md

Measured are one machine's rates, in results/full_size.json. What other machines reach is assumed, and said beside the
table; none of them was at hand.
"""

import json
from dataclasses import dataclass
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from artpaper.models import FrameTransformer
from artpaper.settings import Model
from benchmarks.full_size import PROFILE, RESULTS, TRAIN_VIDEOS
from benchmarks.training_step import LOSSES, MODALITIES, step, videos
from pipeline.base.parameters import load_params
from pipeline.paper.style import markdown_table

VIDEOS = {"train": TRAIN_VIDEOS, "validate": 1_112_356}  # of YouTube-8M's 2018 version
FRAMES = 212  # of a video, in the mean: 1.25 TB of shards; in a batch it is padded to the longest
SHARES = (0.01, 0.1, 1.0)
PAPER = load_params(PROFILE)
FIRST_END = PAPER.train.validate_every * (1 + PAPER.train.early_stop_patience)  # early stopping cannot come before


@dataclass(frozen=True)
class Machine:
    """A machine whose speed is assumed, but for a step's where that was measured.

    Attributes:
        cores: any two prepare at the rate of this machine.
        tflops: sustained in training, all devices together; 0 where a step was measured.
        disk: GB/s, reading or writing.
        memory: GB left for the page cache.
    """

    name: str
    cores: int
    tflops: float
    disk: float
    memory: float


MACHINES = (
    Machine("2 cores", 2, 0, 0.5, 16),
    Machine("one H200", 16, 0.4 * 790, 5, 200),
    Machine("eight H200s", 128, 8 * 0.4 * 790, 20, 1500),
)


def flops_per_video(frames: int, classes: int = 317) -> float:
    """Floating point operations of one video's part of a Non-ART step, counted.

    Args:
        frames: of the video.
        classes: of the label space.
    """
    model = FrameTransformer(Model(), MODALITIES, classes).train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:  # a CPU's fused one is not counted
        step(model, LOSSES["non_art"], videos(1, frames, classes))()
    return counted.get_total_flops()


def projection(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a machine and share.

    Args:
        found: as full_size.json has it; its last size counts.
    """
    measured = found["sizes"][-1]
    trained = measured["steps"]
    frame = measured["generate"]["gb"] * 1e9 / measured["prepare"]["frames"]  # bytes of a shard
    rate = measured["generate"]["gb"] / measured["prepare_in_two"]["seconds"]  # GB/s of two cores
    work = flops_per_video(PAPER.features.max_frames) * PAPER.train.batch_size
    batch_gb = PAPER.train.batch_size * FRAMES * sum(MODALITIES.values()) / 1e9
    rows = []
    for machine in MACHINES:
        for share in SHARES:
            gb = share * sum(VIDEOS.values()) * FRAMES * frame / 1e9
            training_gb = share * VIDEOS["train"] * FRAMES * frame / 1e9
            source = measured["epoch"]["gb"] / measured["epoch"]["seconds"] * machine.cores / 2
            if training_gb > machine.memory:
                source = min(source, machine.disk)
            prepared = max(gb / rate / machine.cores * 2, 2 * gb / machine.disk) / 3600  # the disk reads and writes
            row = {"machine": machine.name, "share": share, "shards_gb": gb, "prepare_h": prepared}
            for name in LOSSES:
                here = trained[f"{name}_s"]
                dearer = here / trained["non_art_s"]  # than Non-ART's step
                compute = work * dearer / machine.tflops / 1e12 if machine.tflops else here
                row[f"{name}_step_ms"] = 1e3 * max(compute, batch_gb / source)
                if name == "non_art":
                    row |= {"needed_gb_s": batch_gb / compute, "given_gb_s": source}
            every = sum(row[f"{name}_step_ms"] for name in LOSSES) / 1e3
            rows.append(
                row | {"first_end_h": every * FIRST_END / 3600, "last_end_h": every * PAPER.train.max_steps / 3600}
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people.

    Args:
        rows: as :func:`projection` returns them.
    """
    lines = [
        [row["machine"], f"{row['share']:.0%}".replace("%", " %"), _number(row["shards_gb"]), _hours(row["prepare_h"]),
         " / ".join(_number(row[f"{name}_step_ms"]) for name in LOSSES), _number(row["needed_gb_s"]),
         _number(row["given_gb_s"]), _hours(row["first_end_h"]), _hours(row["last_end_h"])]
        for row in rows
    ]  # fmt: skip
    heads = ["machine", "of YouTube-8M", "shards, GB", "prepare", "step, ms: Non-ART / ART / A-ART",
             "frames wanted, GB/s", "to be had, GB/s", "three models, at the earliest", "at the latest"]  # fmt: skip
    return markdown_table(heads, lines, 1)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return "< 1 min"
    if hours < 1:
        return f"{_number(60 * hours)} min"
    return f"{_number(hours)} h" if hours < 48 else f"{_number(hours / 24)} days"


if __name__ == "__main__":
    print(markdown(projection(json.loads((RESULTS / "full_size.json").read_text(encoding="utf-8")))))
