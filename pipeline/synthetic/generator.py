"""Built-in synthetic videos in YouTube-8M's frame-level format: same container, same statistics, invented content.

A synthetic frame is style (constant over the video) + evidence of the labels (present in a part of the frames only) +
noise (correlated over time), quantised like the released features. The constants were fitted to released YouTube-8M
features: "means" below are the video-level means of 57,975 videos (cosines: of 589 of them), "frames" the one released
frame-level video, 170 frames. None was ever tuned to a model's result; ``pipeline.synthetic.calibration`` puts both
sides next to each other.
"""

import json
import string
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from tqdm import tqdm

from pipeline.base.atomic import atomic_file, save_json
from pipeline.base.errors import DataError
from pipeline.base.groups import Compute, Synthetic
from pipeline.base.identity import fingerprint
from pipeline.base.parameters import Params, as_dict, build
from pipeline.data.labels import Vocabulary, youtube8m_space
from pipeline.data.video import Dataset, Video, provenance
from pipeline.records.tfrecord import YT8M_MODALITIES, find_shards, write_videos
from pipeline.scale.engine import each
from pipeline.synthetic.labels import SyntheticVocabulary, draw_label_sets, make_vocabulary, write_vocabulary

GENERATOR = 1  # raised whenever the same configuration would give other bytes
MARKER = "synthetic.json"
PARTITIONS = ("train", "validate")
ONE_PROCESS = Compute(workers=1)


@dataclass(frozen=True)
class Appearance:
    """What one modality looks like. Unit of all amplitudes: the dequantised features'."""

    width: int
    between: tuple[float, float, float]  # std of the means over dimension d: a * (1 + d / b) ** -c (means)
    variance: float  # of an entry about 0, before clipping (frames: norm, share at the clip bounds)
    flicker: float  # log-std of the noise's scale from frame to frame (frames: spread of the frame norm)
    spread: float  # log-std of the norm of the mean over videos (means)
    noise: tuple[float, float]  # memory of the noise's recursion, weight of fresh innovations (frames: autocorrelation)
    cosine: tuple[float, float, float]  # entity r explains min(c, a * (1 + r) ** b) of a mean's energy (means: cosines)


RGB = Appearance(1024, (0.775, 12.0, 0.15), 1.17, 0.17, 0.46, (0.80, 1.55), (0.022, 0.33, 0.30))
AUDIO = Appearance(128, (0.98, 20.0, 0.21), 1.27, 0.45, 0.38, (0.82, 1.1), (0.060, 0.32, 0.40))
MODALITIES = (RGB, AUDIO)
WIDTH = sum(modality.width for modality in MODALITIES)
TOGETHER = 0.36  # correlation of the two modalities' mean norms (means)
KINSHIP = 0.10  # share of a prototype's energy that is its verticals' (means: cosine of videos sharing only a vertical)
EXPRESSION = 0.9  # log-std over videos of one label's evidence (means: spread of the cosines)
REFERENCE = 0.4  # fraction of frames with evidence at which the cosines hold
SEGMENT = 16  # frames; evidence is split into about this long segments
ORDERED, DECOYS = 0, 0.5  # the entity that ``order`` is about, and the share of the others' videos that reverse it
LENGTH = 0.47  # mean of the exponential law of the length above min_frames, in max - min (published: 205 s on average)


@dataclass(frozen=True)
class World:
    """What all synthetic videos of one configuration share."""

    config: Synthetic
    vocabulary: SyntheticVocabulary
    prototypes: Float32[np.ndarray, "entities dim"]  # with the between-video std of a mean
    energy: Float64[np.ndarray, "entities modalities"]  # share of a mean's that the evidence explains at difficulty 1


@lru_cache(1)  # once in every process that writes shards
def make_world(config: Synthetic, *, seed: int) -> World:
    """Everything that videos share, from the seed alone (a fraction of a second)."""
    vocabulary = make_vocabulary(config, seed=seed)
    rng = np.random.default_rng([seed, 1])
    entities = len(vocabulary.names)
    vertical = rng.standard_normal((len(vocabulary.topic), WIDTH), dtype=np.float32)
    own = rng.standard_normal((entities, WIDTH), dtype=np.float32)
    prototypes = np.sqrt(np.float32(1 - KINSHIP)) * own  # (entities, 1152)
    for entity in range(entities):
        verticals = vocabulary.verticals(entity)
        for index in verticals:
            prototypes[entity] += np.sqrt(np.float32(KINSHIP / len(verticals))) * vertical[index]
    prototypes *= np.concatenate([_between(modality) for modality in MODALITIES])

    visible = rng.beta(3, 3, size=entities)  # 1: shows only, 0: sounds only
    strength = rng.lognormal(-0.18, 0.6, size=entities)  # mean 1
    rank = np.arange(entities)
    law = [np.minimum(m.cosine[2], m.cosine[0] * (1 + rank) ** m.cosine[1]) for m in MODALITIES]
    energy = np.stack([law[0] * strength * 2 * visible, law[1] * strength * 2 * (1 - visible)], axis=1)
    return World(config, vocabulary, prototypes, energy)


def make_video(
    world: World, rng: np.random.Generator, labels: Int64[np.ndarray, " labels"]
) -> tuple[UInt8[np.ndarray, "frames dim"], Bool[np.ndarray, "labels frames"]]:
    """Frames of one synthetic video that has these labels, and where each label's evidence is.

    ``evidence`` is the fraction of frames in which a label shows; its strength there does not depend on it. Each unit
    of ``difficulty`` halves the amplitude of all evidence; style and noise take over its energy, so norms, spread and
    clipping stay what they are. With ``order`` the entity :data:`ORDERED` is told by the order of its evidence alone.
    """
    config = world.config
    shown = labels
    if config.order and ORDERED not in labels and rng.random() < DECOYS:
        shown = np.append(labels, ORDERED)
    most = config.max_frames - config.min_frames  # of an exponential law, cut as the features of longer videos are
    frames = config.min_frames + min(most, int(rng.exponential(LENGTH) * (most + 1)))
    present = np.stack([_segments(rng, frames, config.evidence) for _ in shown])  # (shown, frames)
    first, second = rng.standard_normal(2)
    spread = (first, TOGETHER * first + np.sqrt(1 - TOGETHER**2) * second)
    result = np.empty((frames, WIDTH), dtype=np.uint8)
    start = 0
    for modality, normal, energy in zip(MODALITIES, spread, world.energy[shown].T, strict=True):
        columns = slice(start, start + modality.width)
        between = _between(modality)  # (dim,)
        room = modality.variance / float(np.mean(between**2))  # energy a frame has, in units of a mean's
        size = min(float(np.exp(2 * modality.spread * (normal - modality.spread))), 0.9 * room)  # energy of this mean
        gain = energy * size / REFERENCE**2 * 4 ** (1 - config.difficulty)  # (shown,) energy in a frame that shows it
        gain *= rng.lognormal(-(EXPRESSION**2) / 2, EXPRESSION, size=len(gain))
        visible = gain @ present.mean(axis=1) ** 2
        gain *= min(1.0, 0.8 * size / visible, 0.7 * room / gain.sum())
        style = size - gain @ present.mean(axis=1) ** 2
        taken = style + gain @ present  # (frames,)

        x = _noise(rng, frames, modality)  # (frames, dim)
        flicker = np.exp(modality.flicker * (rng.standard_normal(frames) - modality.flicker)).astype(np.float32)
        left = modality.variance - taken.astype(np.float32)[:, None] * between**2  # (frames, dim) variance for noise
        x *= np.sqrt(np.maximum(left, 0.1 * modality.variance)) * flicker[:, None]
        x += rng.standard_normal(modality.width, dtype=np.float32) * (between * np.float32(np.sqrt(style)))
        for label, where, amount in zip(shown, present, np.sqrt(gain).astype(np.float32), strict=True):
            evidence = amount * world.prototypes[label, columns]  # (dim,)
            if config.order and label == ORDERED:
                evidence = _signs(int(where.sum()), first=1 if label in labels else -1) * evidence  # (on, dim)
            x[where] += evidence
        result[:, columns] = np.rint((np.clip(x, -2, 2) + 2) * np.float32(255 / 4))  # the extractor's quantisation
        start += modality.width
    return result, present[: len(labels)]


def resolve(params: Params, workspace: Path, progress: bool) -> Dataset:
    """The shards of the configuration in ``params``, written to ``.resume`` of the workspace if they are not there."""
    key = fingerprint([as_dict(params.synthetic), params.base.seed])
    folder = workspace / ".resume" / f"synthetic-{key}"
    write_synthetic(folder, params.synthetic, seed=params.base.seed, compute=params.compute, progress=progress)
    shards = {
        name: find_shards(params.data, folder, f"{name}*.tfrecord", YT8M_MODALITIES, "remove the folder")
        for name in PARTITIONS
    }
    vocabulary = Vocabulary.read(folder / "vocabulary.csv", params.synthetic.entities)
    space = youtube8m_space(params.data.label_space, vocabulary)
    return Dataset(YT8M_MODALITIES, shards, space, provenance(params, shards))


def write_synthetic(
    folder: Path, config: Synthetic, *, seed: int, compute: Compute = ONE_PROCESS, progress: bool = True
) -> None:
    """Write synthetic TFRecord shards and ``vocabulary.csv``; shards that are already there are kept.

    The bytes depend on ``config`` and ``seed`` alone (on one platform), not on ``compute``, nor on how often the call
    was interrupted.
    """
    _claim(folder, config, seed)
    for left in folder.glob(".*.tfrecord"):  # by a killed run
        left.unlink(missing_ok=True)
    tasks = [
        (partition, shard)
        for partition in range(len(PARTITIONS))
        for shard in range(-(-_videos(config, partition) // config.videos_per_shard))
        if not _shard_path(folder, partition, shard).exists()
    ]
    if not (folder / "vocabulary.csv").exists():
        write_vocabulary(folder / "vocabulary.csv", make_vocabulary(config, seed=seed), config.train_videos)
    done = each(partial(_write_shard, folder, config, seed), tasks, compute)
    for _ in tqdm(done, "synthetic shards", len(tasks), unit="shard", disable=not progress):
        pass


def read_marker(folder: Path) -> tuple[Synthetic, int]:
    """The configuration and the seed that a synthetic folder was made with."""
    try:
        values = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {MARKER}, so no folder of synthetic data") from None
    if values.pop("generator", None) != GENERATOR:
        raise DataError(f"{folder}: made by another version of the generator; remove it and generate again")
    seed = values.pop("seed")
    return build(Synthetic, values, f"{folder}/{MARKER}"), seed


def _write_shard(folder: Path, config: Synthetic, seed: int, task: tuple[int, int]) -> None:
    partition, shard = task
    world = make_world(config, seed=seed)
    first = shard * config.videos_per_shard
    count = min(config.videos_per_shard, _videos(config, partition) - first)
    rng = np.random.Generator(np.random.SFC64([seed, 2, partition, shard]))  # draws normals fastest
    before = first + partition * config.train_videos
    videos = (
        Video(_identifier(seed, before + number), tuple(labels.tolist()), (make_video(world, rng, labels)[0],))
        for number, labels in enumerate(draw_label_sets(world.vocabulary, rng, count))
    )
    with atomic_file(_shard_path(folder, partition, shard)) as temporary:
        write_videos(temporary, videos, YT8M_MODALITIES)


def _claim(folder: Path, config: Synthetic, seed: int) -> None:
    wanted = {"generator": GENERATOR, "seed": seed, **as_dict(config)}
    marker = folder / MARKER
    if marker.exists():
        there = json.loads(marker.read_text(encoding="utf-8"))
        if there != wanted:
            keys = sorted(key for key in wanted.keys() | there.keys() if there.get(key) != wanted.get(key))
            differences = ", ".join(f"{key} {there.get(key)} (wanted {wanted.get(key)})" for key in keys)
            raise DataError(
                f"{folder}: holds synthetic data of another configuration: {differences}; "
                "remove it or choose another folder"
            )
        return
    if any(folder.glob("*.tfrecord")):
        raise DataError(f"{folder}: holds TFRecords but no {MARKER}; the synthetic data need a folder of their own")
    save_json(wanted, marker)


def _videos(config: Synthetic, partition: int) -> int:
    return (config.train_videos, config.validate_videos)[partition]


def _shard_path(folder: Path, partition: int, shard: int) -> Path:
    return folder / f"{PARTITIONS[partition]}{shard:04d}.tfrecord"


def _identifier(seed: int, number: int) -> str:
    """A unique four-character id like YouTube-8M's."""
    alphabet = string.ascii_letters + string.digits
    value = (number * 7_368_787 + seed * 1_299_709) % 62**4  # one to one in number: the factor is a prime
    return "".join(alphabet[value // 62**place % 62] for place in range(4))


def _between(modality: Appearance) -> Float32[np.ndarray, " dim"]:
    """Standard deviation between videos of each dimension of the mean."""
    start, knee, power = modality.between
    return (start * (1 + np.arange(modality.width) / knee) ** -power).astype(np.float32)


def _segments(rng: np.random.Generator, frames: int, fraction: float) -> Bool[np.ndarray, " frames"]:
    """True in ``fraction`` of the frames (at least one), in contiguous segments with random gaps."""
    on = max(1, round(fraction * frames))
    segments = max(1, round(on / SEGMENT))
    gaps = np.sort(rng.integers(0, frames - on + 1, size=segments))  # off frames before each segment
    lengths = np.diff(np.linspace(0, on, segments + 1).round().astype(int))
    present = np.zeros(frames, dtype=bool)
    for gap, length, before in zip(gaps, lengths, np.cumsum(lengths) - lengths, strict=True):
        present[gap + before : gap + before + length] = True
    return present


def _signs(frames: int, *, first: int) -> Float32[np.ndarray, "frames 1"]:
    """One sign in the first half of the frames, the other in the second; of an odd number the middle has 0."""
    place = np.sign((frames - 1) / 2 - np.arange(frames))  # (frames,)
    return (first * place).astype(np.float32)[:, None]


def _noise(rng: np.random.Generator, frames: int, modality: Appearance) -> Float32[np.ndarray, "frames dim"]:
    """Unit-variance noise, correlated over time: a first-order recursion plus more of its own innovations."""
    memory, fresh = (np.float32(value) for value in modality.noise)
    stationary = 1 / (1 - memory**2)
    x = rng.standard_normal((frames, modality.width), dtype=np.float32)
    state = rng.standard_normal(modality.width, dtype=np.float32) * np.sqrt(stationary)  # (dim,)
    for row in x:  # row by row, without a matrix product, so that the bytes depend on no BLAS
        state *= memory
        state += row
        row *= fresh
        row += state
    x /= np.sqrt(stationary + 2 * fresh + fresh**2)
    return x
