"""The one released YouTube-8M frame-level video at hand, through reader, store, model and attack, at full width."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from artpaper.attacks import fgm
from artpaper.models import FrameTransformer
from pipeline.base.parameters import load_params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.prepare.prepare import prepare
from pipeline.records.tfrecord import YT8M_MODALITIES, write_videos
from tests.data.worlds import make_videos
from tests.pipeline import ROOT, changed


def test_from_record_to_adversary(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    path = real_data("yt8m/frame_level_one_video.tfrecord")
    shutil.copy(path, tmp_path / "train0000.tfrecord")
    write_videos(tmp_path / "validate0000.tfrecord", make_videos([*"abcdef"]), YT8M_MODALITIES)
    params = load_params(ROOT / "profiles" / "paper.yaml")
    places = {"path": str(tmp_path), "vocabulary": str(real_data("yt8m/vocabulary.csv"))}
    prepare(changed(params, data=places), tmp_path, progress=False)
    store = FrameStore(tmp_path / "frames" / "train")
    space = store.label_space
    assert len(store) == 1

    # byte for byte what TensorFlow's own parser reads
    import tensorflow as tf  # seconds of every process that collects tests

    [record] = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    raw = [b"".join(f.bytes_list.value[0] for f in lists[name].feature) for name in ("rgb", "audio")]
    stored = store[0].frames
    assert stored.shape == (170, 1152)
    assert [stored[:, :1024].tobytes(), stored[:, 1024:].tobytes()] == raw
    assert {space.classes[label] for label in store[0].labels} == {"Food", "Food & Drink"}

    # the reference's dequantisation, unit-norm frames, the paper's model, Eq. 4
    batch = next(store.batches(64, max_frames=params.features.max_frames))
    x, y, mask = model_inputs(batch, params.features, store.modalities, torch.device("cpu"))
    expected = stored.astype(np.float64) * (4 / 255) + (4 / 512 - 2)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-6)
    torch.manual_seed(0)
    model = FrameTransformer(params.model, store.modalities, len(space)).eval()
    attack = fgm(model, x, y, mask, epsilon=params.attack.epsilon)
    assert attack.clean_logits.shape == (1, 317)
    assert attack.diagnostics["norm"].item() == pytest.approx(0.5, rel=1e-6)
    assert attack.diagnostics["relative_norm"].item() == pytest.approx(0.5 / 170**0.5, rel=1e-5)

    # row 12: written back to the released bytes, whose ends clip, that perturbation is there still
    lengths = np.linalg.norm(stored.astype(np.float64) * (4 / 255) + (4 / 512 - 2), axis=1, keepdims=True)
    moved = attack.perturbation[0].double().numpy()
    kept = as_bytes((expected + moved) * lengths) / lengths - expected
    assert np.vdot(kept, moved) / np.vdot(moved, moved) == pytest.approx(0.967, abs=0.005)
    assert np.sqrt(((moved * lengths) ** 2).mean()) / (4 / 255) == pytest.approx(2.45, abs=0.01)
    raw = torch.from_numpy(expected * lengths).float()[None]  # the other reading: raw frames, one ball
    moved = fgm(model, raw, y, mask, epsilon=0.5).perturbation[0].double().numpy()
    kept = as_bytes(expected * lengths + moved) - expected * lengths
    assert np.vdot(kept, moved) / np.vdot(moved, moved) < 0.6


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """Dequantised frames rounded to the nearest released byte, and what that stands for."""
    return np.clip(np.rint((frames - (4 / 512 - 2)) * (255 / 4)), 0, 255) * (4 / 255) + (4 / 512 - 2)
