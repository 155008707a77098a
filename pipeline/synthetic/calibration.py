"""Synthetic beside real: the statistics that the synthetic generator was fitted to, measured alike on both sides.

The real files are YouTube-8M's and not part of this project; without them the real side is :data:`REAL`, the figures
that this module measured on them.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pipeline.base.errors import DataError
from pipeline.base.project import project_root
from pipeline.data.labels import VERTICALS, Vocabulary
from pipeline.data.video import Video
from pipeline.records.tfrecord import YT8M_MODALITIES, read_videos
from pipeline.synthetic.generator import RGB, read_marker
from pipeline.synthetic.labels import FULL_SIZE, draw_label_sets, make_vocabulary

MODALITIES = {"rgb": slice(0, RGB.width), "audio": slice(RGB.width, None)}
MOST_LABELS = 12
RANKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000)
LAGS = (1, 2, 3, 5, 7, 10, 15, 20)  # frames, that is seconds
LABEL_SETS = 57_975  # as many are drawn as were measured
LIKE = 0.1  # share of the synthetic videos, nearest in mean norm, that is held against the one real frame-level video
REAL_FILES = ("labels.parquet", "vocabulary.csv", "video_mean_moments.npz", "frame_level_one_video.tfrecord")
# Average over the 57,975 videos; the moments file gives the root mean square only.
MEAN_NORM = {"rgb": 13.7, "audio": 7.4}


@dataclass(frozen=True)
class LabelStatistics:
    """Labels of a set of videos. Shares are fractions of the videos, ``same_vertical`` one of all pairs of labels."""

    mean: float
    per_video: tuple[float, ...]  # having 1, 2, ... MOST_LABELS labels
    by_rank: tuple[float, ...]  # carrying the entity of each of RANKS
    verticals: tuple[float, ...]  # having each of VERTICALS
    same_vertical: float  # pairs of labels of one video that share a vertical
    lift_within: float  # times as many such pairs as independent labels would give
    lift_across: float  # the same for pairs without a common vertical


@dataclass(frozen=True)
class FrameStatistics:
    """Dequantised frames of one modality. ``one_*`` is about videos like the one released frame-level video."""

    mean_norm: float  # norm of a video's mean frame, average over videos
    between: tuple[float, ...]  # std between videos of the mean's dimensions, averaged by octave: 1, 2-3, 4-7, ...
    one_mean_norm: float
    one_frame_norm: float
    one_within: float  # std within the video, averaged over dimensions
    one_clipped: float  # share of the entries at the clip bounds
    one_autocorrelation: tuple[float, ...]  # of the centred frames at LAGS


@dataclass(frozen=True)
class Statistics:
    """All that is compared; ``frames`` by modality."""

    labels: LabelStatistics
    frames: dict[str, FrameStatistics]


# What this module measured on the real files, rounded.
REAL = Statistics(
    LabelStatistics(
        mean=3.005,
        per_video=(0.247, 0.225, 0.186, 0.156, 0.088, 0.0464, 0.0254, 0.0125, 0.00642, 0.00321, 0.00167, 0.000845),
        by_rank=(0.204, 0.139, 0.107, 0.0733, 0.0402, 0.022, 0.0145, 0.00897, 0.00395, 0.00212, 0.00131, 0.000724,
                 0.000293, 0.000121, 5.17e-05),
        verticals=(0.399, 0.132, 0.0357, 0.00652, 0.078, 0.0781, 0.00112, 0.0443, 0.256, 0.00224, 0.0602, 0.0293,
                   0.0244, 0.00564, 0.0223, 0.0158, 0.0115, 0.0398, 0.00664, 0.014, 0.0577, 0.0418, 0.136, 0.0303),
        same_vertical=0.728, lift_within=4.59, lift_across=0.323,
    ),
    {
        "rgb": FrameStatistics(
            mean_norm=13.7,
            between=(0.65, 0.795, 0.721, 0.682, 0.631, 0.585, 0.527, 0.483, 0.452, 0.425),
            one_mean_norm=8.5, one_frame_norm=31.9, one_within=0.965, one_clipped=0.0709,
            one_autocorrelation=(0.403, 0.266, 0.211, 0.142, 0.0845, 0.039, 0.0103, -0.00372),
        ),
        "audio": FrameStatistics(
            mean_norm=7.4,
            between=(0.957, 0.872, 0.815, 0.809, 0.746, 0.688, 0.627),
            one_mean_norm=3.53, one_frame_norm=10.4, one_within=0.915, one_clipped=0.092,
            one_autocorrelation=(0.466, 0.369, 0.324, 0.2, 0.125, 0.0795, 0.00124, 0.00623),
        ),
    },
)  # fmt: skip


def real_data() -> Path | None:
    """Folder with ``yt8m/`` and all of :data:`REAL_FILES`: $ARTPAPER_REAL_DATA, else ../shared/data."""
    root = (project_root() / os.environ.get("ARTPAPER_REAL_DATA", "../shared/data")).resolve()
    return root if all((root / "yt8m" / name).is_file() for name in REAL_FILES) else None


def real_statistics(root: Path) -> Statistics:
    """Measure the real files below ``root/yt8m``."""
    folder = root / "yt8m"
    vocabulary = Vocabulary.read(folder / "vocabulary.csv", FULL_SIZE)
    label_sets = pd.read_parquet(folder / "labels.parquet")["labels"].tolist()
    of_one_video = frame_statistics(read_videos(folder / "frame_level_one_video.tfrecord", YT8M_MODALITIES))
    moments = np.load(folder / "video_mean_moments.npz")
    frames = {}
    for name, measured in of_one_video.items():
        between = octaves(moments[f"{name}_std"])
        frames[name] = replace(measured, mean_norm=MEAN_NORM[name], between=between)
    return Statistics(label_statistics(label_sets, vocabulary), frames)


def synthetic_statistics(folder: Path, like: Statistics) -> Statistics:
    """Measure a synthetic folder: frames of all its videos, and as many label sets as were measured on real data.

    The label sets are drawn by the generator with the folder's configuration, because a folder small enough to generate
    in seconds says little about rare entities.
    """
    config, seed = read_marker(folder)
    vocabulary = Vocabulary.read(folder / "vocabulary.csv", config.entities)
    rng = np.random.default_rng([seed, 3])
    label_sets = draw_label_sets(make_vocabulary(config, seed=seed), rng, LABEL_SETS)
    shards = sorted(folder.glob("*.tfrecord"))
    videos = (video for shard in shards for video in read_videos(shard, YT8M_MODALITIES))
    return Statistics(label_statistics(label_sets, vocabulary), frame_statistics(videos, like.frames))


def label_statistics(label_sets: Sequence[Sequence[int] | np.ndarray], vocabulary: Vocabulary) -> LabelStatistics:
    """Measure the entity indices (labels,) of each video; ``vocabulary`` says which verticals an entity has."""
    member = np.array([[name in entity.verticals for name in VERTICALS] for entity in vocabulary])  # (entities, 24)
    counts = np.array([len(labels) for labels in label_sets])  # (videos,)
    flat = np.concatenate([np.asarray(labels, dtype=np.int64) for labels in label_sets])  # (labels of all videos,)
    if counts.max() < 2:
        raise DataError("no video has two labels, so their co-occurrence cannot be measured")
    starts = np.cumsum(counts) - counts
    has = np.logical_or.reduceat(member[flat], starts)  # (videos, 24)
    carried = np.sort(np.bincount(flat, minlength=len(vocabulary)))[::-1] / len(counts)  # (entities,) by rank

    pairs = same = 0
    for count in range(2, int(counts.max()) + 1):
        rows = starts[counts == count][:, None] + np.arange(count)  # (videos with that many, count)
        first, second = np.triu_indices(count, 1)
        common = (member[flat[rows[:, first]]] & member[flat[rows[:, second]]]).any(axis=-1)  # (videos, pairs)
        pairs, same = pairs + common.size, same + int(common.sum())
    frequency = np.bincount(flat, minlength=len(vocabulary)) / len(flat)  # (entities,)
    kinds, kind = np.unique(member, axis=0, return_inverse=True)  # entities with the same verticals are alike
    weight = np.bincount(kind.ravel(), frequency)  # (kinds,)
    independent = float(weight @ ((kinds.astype(int) @ kinds.T.astype(int)) > 0) @ weight)
    return LabelStatistics(
        mean=float(counts.mean()),
        per_video=tuple(float((counts == count).mean()) for count in range(1, MOST_LABELS + 1)),
        by_rank=tuple(float(carried[rank - 1]) for rank in RANKS if rank <= len(carried)),
        verticals=tuple(has.mean(axis=0).tolist()),
        same_vertical=same / pairs,
        lift_within=same / pairs / independent,
        lift_across=(1 - same / pairs) / (1 - independent),
    )


def frame_statistics(
    videos: Iterable[Video], like: dict[str, FrameStatistics] | None = None
) -> dict[str, FrameStatistics]:
    """Measure the dequantised frames of each modality, in constant memory.

    With ``like``, ``one_*`` averages over the tenth of the videos whose mean norm is nearest to ``one_mean_norm``
    there; else over all.
    """
    rows: dict[str, list[list[float]]] = {name: [] for name in MODALITIES}
    means: dict[str, list[np.ndarray]] = {name: [] for name in MODALITIES}
    for video in videos:
        for name, columns in MODALITIES.items():
            stored = video.frames[:, columns]  # (frames, dim)
            x = stored * np.float32(4 / 255) + np.float32(4 / 512 - 2)  # google/youtube-8m, utils.Dequantize
            mean = x.mean(axis=0)  # (dim,)
            centred = x - mean
            power = float(np.square(centred).sum())
            clipped = ((stored == 0) | (stored == 255)).mean()
            row = [np.linalg.norm(mean), np.linalg.norm(x, axis=1).mean(), x.std(axis=0).mean(), clipped]
            row += [float(np.vdot(centred[:-lag], centred[lag:])) / power if lag < len(x) else np.nan for lag in LAGS]
            rows[name].append([float(value) for value in row])
            means[name].append(mean)
    if not rows["rgb"]:
        raise DataError("no videos, so no frame can be measured")
    result = {}
    for name in MODALITIES:
        table = np.array(rows[name])  # (videos, 4 + lags)
        chosen = table
        if like is not None:
            distance = np.abs(table[:, 0] - like[name].one_mean_norm)
            chosen = table[np.argsort(distance)[: max(1, round(LIKE * len(table)))]]
        norm, frame_norm, within, clipped, *memory = chosen.mean(axis=0).tolist()
        mean_norm, between = float(table[:, 0].mean()), octaves(np.std(means[name], axis=0))
        result[name] = FrameStatistics(mean_norm, between, norm, frame_norm, within, clipped, tuple(memory))
    return result


def octaves(values: Float[np.ndarray, " dim"]) -> tuple[float, ...]:
    """Averages over dimensions 1, 2-3, 4-7, ..."""
    edges = [2**power - 1 for power in range(1, int(np.log2(len(values))))]
    return tuple(float(part.mean()) for part in np.split(values, edges))
