"""The synthetic data: the same bytes every time, YouTube-8M's statistics, and evidence where it is said to be."""

import csv
import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.base.groups import Compute, Synthetic
from pipeline.data.labels import NO_VERTICAL, VERTICALS, Vocabulary
from pipeline.records.tfrecord import YT8M_MODALITIES, Video, read_videos
from pipeline.synthetic import generator as synthetic
from pipeline.synthetic.calibration import (
    LAGS,
    RANKS,
    REAL,
    FrameStatistics,
    LabelStatistics,
    frame_statistics,
    label_statistics,
    real_statistics,
)
from pipeline.synthetic.calibration_figure import evidence_figure, real_beside_synthetic
from pipeline.synthetic.generator import make_video, make_world, read_marker, write_synthetic
from pipeline.synthetic.labels import (
    COLUMNS,
    NAMES,
    SyntheticVocabulary,
    draw_label_sets,
    make_vocabulary,
    target_shares,
    write_vocabulary,
)
from tests.pipeline import digest

TINY = Synthetic(
    train_videos=20, validate_videos=9, min_frames=6, max_frames=9, entities=100, videos_per_shard=8,
    rare_vertical_floor=0.01,
)  # fmt: skip
LIKE_REAL = Synthetic(min_frames=120, max_frames=300)
ALL_ENTITIES = list(range(3862))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tiny"
    write_synthetic(folder, TINY, seed=3, progress=False)
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> LabelStatistics:
    """Of 57,975 label sets, as many as were measured on the real side."""
    made = make_vocabulary(LIKE_REAL, seed=0)
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.csv"
    write_vocabulary(path, made, 12_000)
    sets = draw_label_sets(made, np.random.default_rng(0), 57_975)
    return label_statistics(sets, Vocabulary.read(path, 3862))


def videos_of(config: Synthetic, count: int, seed: int = 0) -> list[Video]:
    world = make_world(config, seed=seed)
    rng = np.random.default_rng(seed)
    sets = draw_label_sets(world.vocabulary, rng, count)
    return [Video("", tuple(one.tolist()), (make_video(world, rng, one)[0],)) for one in sets]


def videos_by_vertical(made: SyntheticVocabulary, sets: list[np.ndarray]) -> Counter[str]:
    verticals = [made.verticals(entity) for entity in range(len(made.names))]
    return Counter(NAMES[index] for one in sets for index in {index for e in one.tolist() for index in verticals[e]})


@pytest.fixture(scope="module")
def frames() -> dict[str, FrameStatistics]:
    """Of 300 synthetic videos with YouTube-8M's lengths."""
    return frame_statistics(videos_of(LIKE_REAL, 300), REAL.frames)


# ---- files


def test_same_bytes_with_more_workers(tiny: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "again", TINY, seed=3, compute=Compute(workers=2), progress=False)
    assert digest(tmp_path / "again") == digest(tiny)
    assert sorted(path.name for path in tiny.iterdir()) == [
        "synthetic.json",
        *(f"train{shard:04d}.tfrecord" for shard in range(3)),
        *(f"validate{shard:04d}.tfrecord" for shard in range(2)),
        "vocabulary.csv",
    ]


def test_same_bytes_after_an_interruption(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    made = itertools.count()

    def interrupted(*arguments):
        if next(made) == 12:  # in the second shard
            raise KeyboardInterrupt
        return make_video(*arguments)

    monkeypatch.setattr(synthetic, "make_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path, TINY, seed=3, progress=False)
    monkeypatch.undo()
    finished = tmp_path / "train0000.tfrecord"
    assert [path.name for path in tmp_path.glob("*.tfrecord")] == [finished.name]
    (tmp_path / ".train0001.tfrecord.abc.tfrecord").write_bytes(b"left by a killed run")
    before = finished.stat().st_mtime_ns
    write_synthetic(tmp_path, TINY, seed=3, progress=False)
    assert digest(tmp_path) == digest(tiny)
    assert finished.stat().st_mtime_ns == before


def test_another_seed_gives_other_videos(tiny: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path, TINY, seed=4, progress=False)
    ours, others = digest(tiny), digest(tmp_path)
    assert ours.keys() == others.keys()
    assert not set(ours.values()) & set(others.values())


def test_records(tiny: Path) -> None:
    read = {path.name: list(read_videos(path, YT8M_MODALITIES)) for path in sorted(tiny.glob("*.tfrecord"))}
    assert [len(videos) for videos in read.values()] == [8, 8, 4, 8, 1]
    videos = [video for shard in read.values() for video in shard]
    assert len({video.id for video in videos}) == len(videos)
    for video in videos:
        assert len(video.id) == 4
        assert video.id.isalnum()
        assert video.labels == tuple(sorted(set(video.labels)))
        assert video.labels
        assert 0 <= video.labels[0] <= video.labels[-1] < TINY.entities
        assert 6 <= len(video.frames) <= 9
        assert video.frames.shape[1] == 1152


def test_another_configuration_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"another configuration: difficulty 1.0 \(wanted 2.0\)"):
        write_synthetic(tiny, dataclasses.replace(TINY, difficulty=2.0), seed=3, progress=False)
    with pytest.raises(DataError, match="seed 3"):
        write_synthetic(tiny, TINY, seed=4, progress=False)
    (tmp_path / "train0000.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match="folder of their own"):
        write_synthetic(tmp_path, TINY, seed=3, progress=False)
    with pytest.raises(DataError, match="no folder of synthetic data"):
        read_marker(tmp_path)
    assert read_marker(tiny) == (TINY, 3)


# ---- vocabulary


def test_vocabulary_file(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocabulary.csv", make_vocabulary(LIKE_REAL, seed=0), 12_000)
    with open(tmp_path / "vocabulary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["Index"]) for row in rows] == ALL_ENTITIES
    counts = [int(row["TrainVideoCount"]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1
    assert len({row["Name"] for row in rows}) == len({row["KnowledgeGraphId"] for row in rows}) == 3862
    assert {row["Vertical1"] for row in rows} == {*VERTICALS, NO_VERTICAL}
    sizes = Counter(sum(bool(row[f"Vertical{place}"]) for place in (1, 2, 3)) for row in rows)
    assert sizes == {1: 3278, 2: 552, 3: 32}  # as in YouTube-8M
    for row in rows:
        given = [row[f"Vertical{place}"] for place in (1, 2, 3) if row[f"Vertical{place}"]]
        assert len(set(given)) == len(given)


@pytest.mark.parametrize("entities", [48, 61, 400])
def test_small_vocabularies_keep_every_vertical(entities: int) -> None:
    made = make_vocabulary(Synthetic(entities=entities), seed=0)
    assert len(made.names) == entities
    sets = draw_label_sets(made, np.random.default_rng(0), 6000)
    found = videos_by_vertical(made, sets)
    assert set(found) == set(NAMES)
    del found[NO_VERTICAL]
    assert max(found, key=found.__getitem__) == "Arts & Entertainment"


# ---- calibration: the bounds are what the generator reaches, with some room; a drift beyond them is a defect


def test_labels_a_video(labels: LabelStatistics) -> None:
    assert labels.mean == pytest.approx(REAL.labels.mean, rel=0.02)
    assert labels.per_video[:8] == pytest.approx(REAL.labels.per_video[:8], rel=0.07)


def test_entity_frequencies(labels: LabelStatistics) -> None:
    ratio = np.log(np.array(labels.by_rank) / np.array(REAL.labels.by_rank))
    assert np.abs(ratio).max() < np.log(1.3)
    assert np.abs(ratio).mean() < np.log(1.12)
    assert len(ratio) == len(RANKS)


def test_verticals(labels: LabelStatistics) -> None:
    assert labels.verticals == pytest.approx(REAL.labels.verticals, rel=0.15)


def test_co_occurrence(labels: LabelStatistics) -> None:
    assert labels.same_vertical == pytest.approx(REAL.labels.same_vertical, rel=0.07)
    assert labels.lift_within == pytest.approx(REAL.labels.lift_within, rel=0.15)
    assert labels.lift_across == pytest.approx(REAL.labels.lift_across, rel=0.15)


@pytest.mark.parametrize("name", ["rgb", "audio"])
def test_frames(frames: dict[str, FrameStatistics], name: str) -> None:
    ours, real = frames[name], REAL.frames[name]
    assert ours.mean_norm == pytest.approx(real.mean_norm, rel=0.07)
    assert ours.one_frame_norm == pytest.approx(real.one_frame_norm, rel=0.05)
    assert ours.one_within == pytest.approx(real.one_within, rel=0.04)
    assert ours.one_clipped == pytest.approx(real.one_clipped, abs=0.025)
    assert ours.between == pytest.approx(real.between, rel=0.2)
    assert ours.between[-4:] == pytest.approx(real.between[-4:], rel=0.08)
    assert ours.one_autocorrelation == pytest.approx(real.one_autocorrelation, abs=0.06)
    assert len(ours.one_autocorrelation) == len(LAGS)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_largest_and_smallest_vertical(floor: float) -> None:
    """A test set of the size that the default profile has, in several seeds."""
    targets = target_shares(floor)
    assert targets.min() >= floor
    assert NAMES[int(targets.argmin())] == "Finance"
    for seed in range(2):
        made = make_vocabulary(Synthetic(rare_vertical_floor=floor), seed=seed)
        sets = draw_label_sets(made, np.random.default_rng(seed), 17_000)
        found = videos_by_vertical(made, sets)
        del found[NO_VERTICAL]
        order = [name for name, _ in found.most_common()]
        assert (order[0], order[-1]) == ("Arts & Entertainment", "Finance")
        assert found["Finance"] / len(sets) == pytest.approx(max(floor, 0.0011), rel=0.3)


def test_frozen_figures_are_those_of_the_real_files(real_data) -> None:
    again = real_statistics(real_data("yt8m/labels.parquet").parent.parent)
    assert again.labels.mean == pytest.approx(REAL.labels.mean, rel=0.01)
    for ours, theirs in zip(dataclasses.astuple(again.labels)[1:], dataclasses.astuple(REAL.labels)[1:], strict=True):
        assert ours == pytest.approx(theirs, rel=0.01)
    for name, measured in again.frames.items():
        for ours, theirs in zip(dataclasses.astuple(measured), dataclasses.astuple(REAL.frames[name]), strict=True):
            assert ours == pytest.approx(theirs, rel=0.01)


# ---- evidence


@pytest.mark.parametrize("evidence", [0.1, 0.4, 1.0])
def test_evidence_shows_only_in_its_segments(evidence: float) -> None:
    world = make_world(Synthetic(min_frames=60, max_frames=60, evidence=evidence), seed=0)
    rng = np.random.default_rng(0)
    inside, outside = [], []
    for label in range(100, 130):
        made, present = make_video(world, rng, np.array([label]))
        assert present.shape == (1, 60)
        assert present.sum() == round(evidence * 60)
        assert np.count_nonzero(np.diff(present[0].astype(int)) == 1) <= 4  # a few contiguous segments
        x = made / np.float32(63.75) - 2  # (frames, dim)
        cosine = x @ world.prototypes[label] / np.linalg.norm(x, axis=1) / np.linalg.norm(world.prototypes[label])
        inside.append(cosine[present[0]].mean())
        outside.append(cosine[~present[0]].mean() if evidence < 1 else 0.0)
    assert np.mean(np.array(inside) > np.array(outside) + 0.1) > 0.8
    assert abs(np.mean(outside)) < 0.02


def test_an_ordered_entity_is_told_by_order_alone() -> None:
    """The fault it alone catches: evidence whose mean over frames still tells the label, so that no order is needed."""
    config = Synthetic(min_frames=100, max_frames=100, difficulty=0.0, order=True, evidence=0.4)
    world = make_world(config, seed=0)
    direction = world.prototypes[0] / np.linalg.norm(world.prototypes[0])
    means, slopes = [], []
    for labels in ([0], [1]):
        videos = [make_video(world, np.random.default_rng(k), np.array(labels))[0] for k in range(200)]
        seen = np.array([(frames * (4 / 255) - 2) @ direction for frames in videos])  # (videos, frames)
        means.append(seen.mean(axis=1))
        slopes.append(seen @ np.linspace(-1, 1, 100))
    gap = abs(means[0].mean() - means[1].mean()) / np.sqrt(means[0].var() / 200 + means[1].var() / 200)
    assert gap < 4
    assert slopes[0].mean() < -5 * slopes[0].std() / 200**0.5  # first itself, then its opposite
    assert slopes[1].mean() > 5 * slopes[1].std() / 200**0.5  # half of the others the other way round


def test_difficulty_makes_labels_harder_to_find_and_leaves_norms() -> None:
    """A nearest-prototype probe on mean frames: no model is trained, so none can be favoured."""
    hits, norms = [], []
    for difficulty in (0.0, 1.0, 2.0, 3.0):
        world = make_world(Synthetic(difficulty=difficulty), seed=0)
        rng = np.random.default_rng(1)
        found, norm = [], []
        for label in np.resize(np.arange(0, 200, 4), 200):
            x = make_video(world, rng, np.array([label]))[0] / np.float32(63.75) - 2
            candidates = world.prototypes[:200]
            found.append(int(np.argmax(candidates @ x.mean(axis=0) / np.linalg.norm(candidates, axis=1))) == label)
            norm.append([np.linalg.norm(x[:, :1024], axis=1).mean(), np.linalg.norm(x[:, 1024:].mean(axis=0))])
        hits.append(np.mean(found))
        norms.append(np.mean(norm, axis=0))
    assert all(easier > harder + 0.05 for easier, harder in itertools.pairwise(hits))
    np.testing.assert_allclose(norms, np.broadcast_to(norms[1], (4, 2)), rtol=0.03)


def test_entities_of_one_vertical_resemble_each_other() -> None:
    world = make_world(LIKE_REAL, seed=0)
    prototypes = world.prototypes / np.linalg.norm(world.prototypes, axis=1, keepdims=True)
    single = np.array([e for e in range(800) if len(world.vocabulary.verticals(e)) == 1])
    cosines = prototypes[single] @ prototypes[single].T
    same = world.vocabulary.primary[single][:, None] == world.vocabulary.primary[single]
    np.fill_diagonal(cosines, np.nan)
    assert np.nanmean(cosines[same]) == pytest.approx(synthetic.KINSHIP, abs=0.02)
    assert abs(np.nanmean(cosines[~same])) < 0.01


def test_comparison_is_drawn_without_the_real_files(tiny: Path) -> None:
    table, figure = real_beside_synthetic(None, tiny)
    assert list(table.columns) == ["statistic", "real", "synthetic", "source"]
    assert "SYNTHETIC" in figure.get_suptitle()
    assert any("Deliberate deviation" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_evidence_is_the_cosine_of_a_centred_frame_with_its_labels_direction() -> None:
    frames, present = np.array([[10, 0], [0, 10]], np.uint8), np.array([[True, False], [False, True]])
    panels = evidence_figure(frames, present, np.array([[2.0, 0.0], [0.0, 3.0]]), ["a", "b"]).axes
    assert [panel.get_title() for panel in panels] == ["a (synthetic entity)", "b (synthetic entity)"]
    for panel, cosine in zip(panels, ([0.5**0.5, -(0.5**0.5)], [-(0.5**0.5), 0.5**0.5]), strict=True):
        assert panel.lines[0].get_ydata() == pytest.approx(cosine)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(DataError, match="no videos"):
        frame_statistics([])
