"""What is left of a one-step perturbation of unit-norm frames that is written back to the released bytes.

    python -m benchmarks.quantised --video FILE.tfrecord    # a released frame-level shard, and a finished `dvc repro`

Answers row 12 of docs/ambiguities.md: GAP of the run's models under the attack as it is, clipped to the features'
range, and in bytes; and of a released YouTube-8M video, with the paper's epsilon and an untrained model, how many steps
of the bytes an entry moves by (root mean square), and what share of the perturbation is there afterwards.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from artpaper.attacks import fgm
from artpaper.metrics import gap
from artpaper.models import FrameTransformer
from benchmarks.measure import machine
from pipeline.base.parameters import Params, load_params
from pipeline.data.batches import dequantise, model_inputs
from pipeline.data.store import FrameStore
from pipeline.records.tfrecord import YT8M_MODALITIES, read_videos
from pipeline.train.checkpoints import load_model

ROOT = Path(__file__).parents[1]
STEP, LOW = 4 / 255, 4 / 512 - 2  # of the released bytes, and what the lowest stands for; unit of the features


def as_bytes(frames: Tensor) -> Tensor:
    """Dequantised frames rounded to the nearest byte, and what that stands for."""
    return ((frames - LOW) / STEP).round().clamp(0, 255) * STEP + LOW


def of_run(run: Path) -> dict[str, dict[str, float]]:
    """GAP in percent of each model of a finished run, mean over its seeds, on its test set."""
    params, store, found = load_params(run / "params.yaml"), FrameStore(run / "frames" / "test"), {}
    if params.features.norm != "l2_frame" or store.dtype != "uint8":
        raise SystemExit(f"{run}: frames scaled to unit norm out of bytes are needed, as the default profile has")
    for name in params.experiment.models:
        seeds = [
            _scores(load_model(path)[0].eval(), params, store) for path in sorted((run / "models" / name).iterdir())
        ]
        found[name] = {key: float(np.mean([scores[key] for scores in seeds])) for key in seeds[0]}
    return found


def _scores(model: FrameTransformer, params: Params, store: FrameStore) -> dict[str, float]:
    answers: dict[str, list[Tensor]] = {"clean": [], "one_step": [], "clipped": [], "bytes": []}
    labels = []
    for batch in store.batches(params.attack.batch_size, max_frames=params.features.max_frames):
        x, y, mask = model_inputs(batch, params.features, store.modalities, torch.device("cpu"))
        attack = fgm(model, x, y, mask, epsilon=params.attack.epsilon)
        lengths = dequantise(batch.frames, mask).norm(dim=2, keepdim=True)
        moved = (x + attack.perturbation) * lengths
        with torch.no_grad():
            for name, kept in (("clipped", moved.clamp(LOW, LOW + 255 * STEP)), ("bytes", as_bytes(moved))):
                answers[name].append(
                    model(kept / kept.norm(dim=2, keepdim=True).clamp(min=1e-6) * mask[:, :, None], mask)
                )
        answers["clean"].append(attack.clean_logits)
        answers["one_step"].append(attack.adversarial_logits)
        labels.append(y)
    return {key: 100 * gap(torch.cat(parts), torch.cat(labels)) for key, parts in answers.items()}


def of_video(path: Path) -> dict[str, dict[str, float]]:
    """Both readings of epsilon 0.5 with one ball a video: frames scaled to unit norm, and raw ones."""
    params = load_params(ROOT / "profiles" / "paper.yaml")
    frames = torch.from_numpy(next(read_videos(path, YT8M_MODALITIES)).frames)[None]  # (1, time, dim)
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    raw = dequantise(frames, mask)
    torch.manual_seed(0)
    model = FrameTransformer(params.model, {"rgb": 1024, "audio": 128}, 317).eval()
    y = torch.zeros(1, 317)
    y[0, 0] = 1
    found = {}
    for reading, lengths in (("unit-norm", raw.norm(dim=2, keepdim=True)), ("raw", torch.ones_like(raw[:, :, :1]))):
        x = raw / lengths
        moved = fgm(model, x, y, mask, epsilon=params.attack.epsilon).perturbation
        kept = as_bytes((x + moved) * lengths) / lengths - x
        found[reading] = {"steps_rms": float((moved * lengths / STEP).square().mean().sqrt()),
                          "kept": float((kept * moved).sum() / moved.square().sum())}  # fmt: skip
    return found


def main() -> None:
    """Print the numbers and keep them in benchmarks/results/quantised.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT, help="folder of the finished run (default: the project's)")
    parser.add_argument(
        "--video", type=Path, required=True, help="a released frame-level shard; its first video is used"
    )
    given = parser.parse_args()
    result = {"gap": of_run(given.run), "released_video": of_video(given.video), "machine": machine()}
    text = json.dumps(result, indent=2)
    print(text)
    (ROOT / "benchmarks" / "results" / "quantised.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
