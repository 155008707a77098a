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
from pipeline.base.atomic import atomic_file
from pipeline.base.errors import CheckpointError
from pipeline.base.parameters import Params, as_dict, build
from pipeline.data.store import FrameStore

Tensors = dict[str, Tensor]


def save_tensors(path: str | Path, tensors: Tensors, note: dict[str, Any]) -> None:
    """Write tensors and a JSON note as one file, whole or not at all.

    Args:
        path: a ``.safetensors`` file.
        tensors: any shapes and types.
        note: JSON-ready values, floats kept to the last bit.
    Raises:
        OutputError: the folder cannot be written, or the disk is full; a former file of that name is still there.
        OSError: the disk fails in another way.
    """
    with atomic_file(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save_file(whole, temporary, {"note": json.dumps(note, sort_keys=True)})
        except SafetensorError as error:  # what the system said is in its text alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def load_tensors(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """What :func:`save_tensors` wrote.

    Returns:
        The tensors by name, on the CPU, and the note.
    Raises:
        CheckpointError: the file is missing, is no safetensors file or not one of this project's.
    """
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


def save_model(folder: str | Path, model: FrameTransformer, note: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and, for people, the same note as ``model.json``.

    Args:
        folder: where; made if missing.
        model: the model whose weights and shape are kept.
        note: anything else worth keeping (name, seed, validation GAP ...), JSON-ready.
    Raises:
        OutputError: the folder cannot be written, or the disk is full.
        OSError: the disk fails in another way.
    """
    # pairs, not a mapping: their order is the order of the columns of x
    shape = {"model": vars(model.config), "modalities": list(model.modalities.items()), "classes": model.classes}
    note = {**note, **shape}
    save_tensors(Path(folder) / "model.safetensors", model.state_dict(), note)
    with atomic_file(Path(folder) / "model.json") as temporary:
        temporary.write_text(json.dumps(note, indent=2, sort_keys=True) + "\n")


def load_model(folder: str | Path) -> tuple[FrameTransformer, dict[str, Any]]:
    """Read a trained model.

    Returns:
        The model, on the CPU and in eval mode, and the note it was saved with.
    Raises:
        CheckpointError: there is no model, or the file's weights do not fit the architecture it names.
    """
    path = Path(folder) / "model.safetensors"
    tensors, note = load_tensors(path)
    try:
        config = build(Model, note["model"], str(path))
        model = FrameTransformer(config, dict(note["modalities"]), note["classes"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights and architecture do not fit: {error}; train again") from None
    return model.eval(), note


def run_identity(params: Params, name: str, seed: int, stores: Sequence[FrameStore]) -> dict[str, Any]:
    """All that a trained model follows from: kept in its checkpoint, and asked for again by whoever loads it.

    Args:
        params: all parameters.
        name, seed: which model.
        stores: the train and the validation split.
    Returns:
        The model's name, seed, loss, training, features and architecture, and what its videos and classes were.
    Raises:
        ConfigError: no model of that name.
    """
    architecture = params.model_for(name)
    return {
        "name": name, "seed": seed, "loss": as_dict(params.models[name]), "train": as_dict(params.train),
        "features": as_dict(params.features), "model": as_dict(architecture),
        "label_space": stores[0].label_space.name, "videos": [len(store) for store in stores],
        "frames": [store.fingerprint for store in stores],
    }  # fmt: skip


def expect(note: dict[str, Any], expected: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint that belongs to something else.

    Args:
        note: what the checkpoint says of itself.
        expected: the entries that must agree.
        path: for the message.
    Raises:
        CheckpointError: the first entry that differs, with both values.
    """
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
