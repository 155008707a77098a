"""Small data sets in YouTube-8M's format: a vocabulary of 3,862 entities and shards of a few videos."""

import csv
import hashlib
from pathlib import Path

import numpy as np

from pipeline.base.groups import Compute, Data
from pipeline.base.parameters import Params
from pipeline.data.labels import VERTICALS
from pipeline.records.tfrecord import YT8M_MODALITIES, Video, write_videos

COLUMNS = ("Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "Vertical1", "Vertical2", "Vertical3")
ENTITIES = 3862
UNKNOWN = 3861  # the last entity has no vertical


def vocabulary_rows() -> list[list[str]]:
    """Entity i has 900,000 - 200 i videos and vertical i % 24; of the last one the vertical is unknown."""
    rows = []
    for index in range(ENTITIES):
        vertical = "(Unknown)" if index == UNKNOWN else VERTICALS[index % 24]
        rows.append([str(index), str(900_000 - 200 * index), f"/m/{index}", f"Entity {index}", vertical, "", ""])
    return rows


def write_csv(path: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def make_videos(names: list[str], seed: int = 0, frames: tuple[int, int] = (2, 6)) -> list[Video]:
    random = np.random.default_rng(seed)
    videos = []
    for name in names:
        content = random.integers(0, 256, (random.integers(*frames, endpoint=True), 1152), dtype=np.uint8)
        labels = tuple(sorted({int(label) for label in random.integers(0, ENTITIES - 1, 3)}))
        videos.append(Video(name, labels, (content,)))
    return videos


def write_world(folder: Path, train: int = 3, validate: int = 2, videos: int = 40) -> dict[str, Video]:
    """Write shards ``train0000.tfrecord`` ... and a vocabulary; returns every video by its id."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "vocabulary.csv", vocabulary_rows())
    every: dict[str, Video] = {}
    for partition, shards in (("train", train), ("validate", validate)):
        for shard in range(shards):
            names = [f"{partition[0]}{shard}-{video}" for video in range(videos)]
            made = make_videos(names, seed=shard + (1000 if partition == "train" else 2000))
            write_videos(folder / f"{partition}{shard:04d}.tfrecord", made, YT8M_MODALITIES)
            every |= {video.id: video for video in made}
    return every


def lay_out(folder: Path, source: str) -> Path:
    """A folder that looks like the data of a source until it is read: the files are there, and all but empty."""
    files = {
        "yt8m": ("train0000.tfrecord", "validate0000.tfrecord", "vocabulary.csv"),
        "audioset": ("bal_train/00.tfrecord", "eval/00.tfrecord", "class_labels_indices.csv"),
        "arrays": ("rgb/one.npy", "labels.csv"),
    }
    for name in files[source]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("id,labels\none,class\n" if name == "labels.csv" else "")
    return folder


def params(folder: Path | None, workers: int = 1, **data: object) -> Params:
    path = None if folder is None else str(folder)
    return Params(data=Data(path=path, **data), compute=Compute(workers=workers))  # type: ignore[arg-type]


def folder_bytes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file, by its path inside ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
