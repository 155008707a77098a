"""Which test videos the explorer offers: by id, by label, by how much an attack changed them, by who was fooled."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from pipeline.base.errors import DataError
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.labels import LabelSpace
from pipeline.paper.attention import AttentionFile, attention_files

Run = tuple[str, int]
"""A trained model: its name and its training seed."""


def public_address(source: str, video: str) -> tuple[str, str] | None:
    """The page where a video can be seen, which nothing here ever asks for, and what it says; None if there is none."""
    record = SOURCES[source]
    return (record.link.format(id=video), record.link_text) if record.link else None


class Videos:
    """The test videos of a set of predictions files, all of the same videos and attack, in the order of the store.

    ``source`` is the data set and ``epsilon`` the radius of the pipeline's attack, unit of the features; ``space`` has
    the classes of the labels.
    """

    def __init__(self, predictions: Mapping[Run, Path], space: LabelSpace) -> None:
        by_model: dict[str, list[Path]] = {}
        for (model, _), path in predictions.items():
            by_model.setdefault(model, []).append(path)
        opened = {(file.model, file.seed): file for files in attention_files(by_model).values() for file in files}
        if set(opened) != set(predictions):
            raise DataError(f"predictions files of {sorted(opened)} found under the names of {sorted(predictions)}")
        self._files: dict[Run, AttentionFile] = opened
        first = next(iter(opened.values()))
        self._space, self._ids = space, first.ids
        self._labels = first.column("labels").combine_chunks()
        self.source: str = first.settings["source"]
        self.epsilon: float = first.settings["epsilon"]

    def expect(self, params: Params) -> None:
        """Refuse predictions of another attack than that of ``params``; the message has both values."""
        file = next(iter(self._files.values()))  # the others are of the same attack
        for group, names in (("attack", ("epsilon", "scope", "labels")), ("features", ("norm", "max_frames"))):
            for name in names:
                used = file.settings["feature_norm" if name == "norm" else name]
                if used != (wanted := getattr(getattr(params, group), name)):
                    raise DataError(
                        f"{file.path}: made with {group}.{name} {used}, the parameters say {wanted}; "
                        "make it anew with `dvc repro attack`"
                    )

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> list[str]:
        """The id of each video, in the order of the store."""
        return self._ids.to_pylist()

    def id(self, row: int) -> str:
        """The id of the video at a row of the store."""
        return self._ids[row].as_py()

    def row(self, video: str) -> int:
        """The row of the video with that id, or a ``ValueError``."""
        row = self._ids.index(video).as_py()
        if row < 0:
            raise ValueError(f"no test video {video}")
        return row

    def labels(self, row: int) -> tuple[str, ...]:
        """The names of its true classes."""
        return tuple(self._space.classes[label] for label in self._labels[row].as_py())

    def matching(self, text: str) -> Int64[np.ndarray, " matches"]:
        """Rows whose id contains ``text``, or that have a label whose name does, whatever the case.

        A text that is the whole name of a class stands for that class alone. An empty text matches all.
        """
        text = text.strip()
        if not text:
            return np.arange(len(self))
        wanted = text.casefold()
        names = [name.casefold() for name in self._space.classes]
        whole = [index for index, name in enumerate(names) if name == wanted]
        classes = whole or [index for index, name in enumerate(names) if wanted in name]
        owners = pc.list_parent_indices(self._labels).to_numpy()  # (labels,) video of each label
        matches = np.zeros(len(self), bool)
        matches[owners[np.isin(self._labels.flatten(), classes)]] = True
        if not whole:
            matches |= pc.match_substring(self._ids, text, ignore_case=True).to_numpy(zero_copy_only=False)
        return np.flatnonzero(matches)

    def change(self, run: Run) -> Float64[np.ndarray, " videos"]:
        """How much the pipeline's attack changes each video's maps (``mse``, mean over modalities; weight squared)."""
        return self._files[run].change()

    def fooled(self, run: Run) -> Bool[np.ndarray, " videos"]:
        """Which videos the pipeline's attack fools: the clean top label is a true one, the adversarial one is not."""
        return self._files[run].column("fooled").to_numpy()
