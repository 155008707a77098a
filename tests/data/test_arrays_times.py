"""Modalities at different rates: refused unless declared, and then frame by frame what the definition says."""

import itertools

import numpy as np
import pytest

from pipeline.arrays.rates import align
from pipeline.base.errors import DataError
from pipeline.data.store import FrameStore
from pipeline.data.video import resolve
from pipeline.prepare.prepare import prepare
from tests.data.test_arrays import config, stored, values, write_folder


def counted(frames: int) -> np.ndarray:
    """Frame t holds t."""
    return np.repeat(np.arange(frames, dtype=np.float32)[:, None], 2, axis=1)


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        (2, 6, [0, 0, 0, 1, 1, 1]),
        (3, 7, [0, 0, 0, 1, 1, 2, 2]),
        (4, 5, [0, 0, 1, 2, 3]),
        (1, 3, [0, 0, 0]),
        (3, 3, [0, 1, 2]),
    ],
)
def test_repeat(short, long, expected):
    """Frame t of T is frame floor(t n / T) of n."""
    one, other = align([counted(short), counted(long)], "repeat")
    assert one[:, 0].tolist() == expected == [t * short // long for t in range(long)]
    np.testing.assert_array_equal(other, counted(long))


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [(2, 6, [1.0, 4.0]), (3, 7, [0.5, 2.5, 5.0]), (4, 5, [0.0, 1.0, 2.0, 3.5]), (1, 3, [1.0]), (3, 3, [0, 1, 2])],
)
def test_mean(short, long, expected):
    """Every frame counts once: frames floor(t n / T) up to floor((t + 1) n / T)."""
    one, other = align([counted(short), counted(long)], "mean")
    np.testing.assert_array_equal(one, counted(short))
    assert other[:, 0].tolist() == expected
    assert other.dtype == np.float32
    edges = [t * long // short for t in range(short + 1)]
    assert expected == [np.mean(range(a, b)) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("seed", range(20))
def test_mean_undoes_repeat(seed):
    random = np.random.default_rng(seed)
    short, factor = int(random.integers(1, 9)), int(random.integers(1, 30))
    part = random.normal(size=(short, 3)).astype(np.float32)
    long = np.zeros((short * factor, 1), np.float32)
    again = align([align([part, long], "repeat")[0], part], "mean")[0]
    np.testing.assert_allclose(again, part, rtol=1e-6)


def test_mean_of_many_large_frames_is_exact():
    part = np.full((100_003, 1), 16_777_217.0).astype(np.float32)
    np.testing.assert_array_equal(align([part, part[:1]], "mean")[0], part[:1])


@pytest.fixture
def world(tmp_path):
    """Bytes of audio once a second beside 25 frames a second; one video has a second begun."""
    random = np.random.default_rng(0)
    videos = {}
    for number in range(24):
        seconds = 1 + number % 4
        audio = random.integers(0, 256, (seconds, 3), dtype=np.uint8)
        videos[f"v{number:03d}"] = {"audio": audio, "rgb": random.normal(size=(25 * seconds - number % 2, 4))}
    return videos, write_folder(tmp_path / "data", videos, ("audio",))


def test_different_rates_are_refused_by_default(tmp_path, world):
    with pytest.raises(
        DataError, match=r"line 2: id v000: .* audio 1, rgb 25; .*, or set data\.rates to repeat .*or mean"
    ):
        prepare(config(world[1]), tmp_path, progress=False)


def test_different_rates_in_the_store(tmp_path, world):
    videos, data = world
    summary = prepare(config(data, rates="repeat"), tmp_path, progress=False)
    assert summary["provenance"]["rates"] == "repeat"
    for name, (_, frames, _) in stored(tmp_path).items():
        audio, rgb = values(videos[name]["audio"]), videos[name]["rgb"].astype(np.float32)
        np.testing.assert_array_equal(frames[:, 3:], rgb)
        np.testing.assert_allclose(frames[:, :3], audio[np.arange(len(rgb)) * len(audio) // len(rgb)], atol=4e-7)
    prepare(config(data, rates="mean"), tmp_path, progress=False)
    for name, (_, frames, _) in stored(tmp_path).items():
        audio, rgb = values(videos[name]["audio"]), videos[name]["rgb"]
        edges = np.arange(len(audio) + 1) * len(rgb) // len(audio)
        np.testing.assert_allclose(frames[:, :3], audio, atol=4e-7)
        np.testing.assert_allclose(frames[:, 3:], [rgb[a:b].mean(0) for a, b in itertools.pairwise(edges)], atol=1e-6)


def test_bytes_are_repeated_as_bytes_and_averaged_as_what_they_stand_for(tmp_path):
    """A mean of bytes is no byte: rounding it would move every frame."""
    random = np.random.default_rng(0)
    videos = {
        f"v{number:03d}": {
            name: random.integers(0, 256, (size, 2), dtype=np.uint8) for name, size in (("a", 2), ("b", 5))
        }
        for number in range(24)
    }
    data = write_folder(tmp_path / "data", videos)
    prepare(config(data, rates="repeat"), tmp_path, progress=False)
    assert FrameStore(tmp_path / "frames" / "train").dtype == "uint8"
    for name, (_, frames, _) in stored(tmp_path).items():
        np.testing.assert_array_equal(frames, np.hstack([videos[name]["a"][[0, 0, 0, 1, 1]], videos[name]["b"]]))
    prepare(config(data, rates="mean"), tmp_path, progress=False)
    assert FrameStore(tmp_path / "frames" / "train").dtype == "float32"
    for name, (_, frames, _) in stored(tmp_path).items():
        b = values(videos[name]["b"])
        np.testing.assert_allclose(frames[:, 2:], [b[:2].mean(0), b[2:].mean(0)], atol=1e-6)
        np.testing.assert_allclose(frames[:, :2], values(videos[name]["a"]), atol=4e-7)


def test_another_choice_is_not_taken_from_an_unfinished_run(tmp_path, world):
    """The state of a piece changes with it, so that a run that goes on does not mix the two."""
    states = {
        rates: resolve(config(world[1], rates=rates), tmp_path, progress=False).partitions["train"][0].state
        for rates in ("repeat", "mean")
    }
    assert states["repeat"] != states["mean"]
