"""Trained models and interrupted runs on disk: safetensors for the numbers, JSON for the rest, no pickle."""

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from artpaper.models import FrameTransformer
from artpaper.settings import Model
from pipeline.base.atomic import atomic_file, save_json
from pipeline.base.errors import CheckpointError
from pipeline.base.parameters import Params, as_dict, build
from pipeline.data.splits import training_splits
from pipeline.data.store import FrameStore
from pipeline.train.device import best_device

Tensors = dict[str, Tensor]
Note = dict[str, Any]  # what a checkpoint says of itself


def save_tensors(path: str | Path, tensors: Tensors, note: Note) -> None:
    """Write tensors and a JSON-ready note as one ``.safetensors`` file, whole or not at all."""
    with atomic_file(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save_file(whole, temporary, {"note": json.dumps(note, sort_keys=True)})
        except SafetensorError as error:  # what the system said is in its text alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def load_tensors(path: str | Path) -> tuple[Tensors, Note]:
    """What :func:`save_tensors` wrote, on the CPU."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["note"])  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; `dvc repro` makes it") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project ({error}); delete it and train again"
        ) from None


def save_model(folder: str | Path, model: FrameTransformer, note: Note) -> None:
    """Write ``model.safetensors`` and, for people, the same note as ``model.json``."""
    # pairs, not a mapping: their order is the order of the columns of x
    shape = {"model": vars(model.config), "modalities": list(model.modalities.items()), "classes": model.classes}
    note = {**note, **shape}
    save_tensors(Path(folder) / "model.safetensors", model.state_dict(), note)
    save_json(note, Path(folder) / "model.json", indent=2, sort_keys=True)


def read_note(folder: Path) -> Note:
    """What a trained model's ``model.json`` says."""
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def load_model(folder: str | Path) -> tuple[FrameTransformer, Note]:
    """A trained model, on the CPU and in eval mode, and the note it was saved with."""
    path = Path(folder) / "model.safetensors"
    tensors, note = load_tensors(path)
    try:
        config = build(Model, note["model"], str(path))
        model = FrameTransformer(config, dict(note["modalities"]), note["classes"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights and architecture do not fit: {error}; train again") from None
    return model.eval(), note


def trained_model(
    params: Params, name: str, seed: int, workspace: Path, folder: Path | None = None
) -> tuple[FrameTransformer, Note]:
    """A trained model on the best device, in eval mode, checked to be the one that ``params`` make, and its note.

    ``folder`` is ``workspace/models/<name>/seed<seed>`` by default; ``workspace`` also holds the frames it was made of.
    """
    folder = folder or workspace / "models" / name / f"seed{seed}"
    params.model_for(name)  # an unknown name is told first, with the nearest known one
    model, note = load_model(folder)
    splits = training_splits(params, name, workspace)
    expect(note, run_identity(params, name, seed, splits), folder / "model.safetensors")
    return model.to(best_device()), note


def run_identity(params: Params, name: str, seed: int, stores: Sequence[FrameStore]) -> Note:
    """All that a trained model follows from, ``stores`` being its train and its validation split.

    It is kept in the model's checkpoint, and asked for again by whoever loads it.
    """
    architecture = params.model_for(name)
    return {
        "name": name, "seed": seed, "loss": as_dict(params.models[name]), "train": as_dict(params.train),
        "features": as_dict(params.features), "model": as_dict(architecture),
        "label_space": stores[0].label_space.name, "videos": [len(store) for store in stores],
        "frames": [store.fingerprint for store in stores], "content": [store.content for store in stores],
    }  # fmt: skip


def expect(note: Note, expected: Note, path: str | Path) -> None:
    """Refuse the checkpoint at ``path``, whose note is ``note``, unless it agrees with every entry of ``expected``."""
    for name, value in expected.items():
        if note.get(name) != value:
            raise CheckpointError(
                f"{path}: made with {name} {note.get(name)!r}, this run needs {value!r}; "
                "point at the right checkpoint, or delete this one and run again"
            )


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """An Adam's moments and step counts as named tensors."""
    states = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what :func:`flatten_optimizer` gave."""
    states: dict[int, Tensors] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
