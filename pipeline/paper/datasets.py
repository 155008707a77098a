"""Pictures of prepared data: what is in each split, and what one video looks like."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from pipeline.base.groups import Features
from pipeline.data.batches import features
from pipeline.data.store import FrameStore
from pipeline.paper.style import legible, panels, plain, tell_apart

SAMPLE = 2000  # videos a split that a histogram looks at


def split_figure(stores: Mapping[str, FrameStore], source: str) -> Figure:
    """Labels a video and frames a video, one line a split, of at most :data:`SAMPLE` videos evenly spaced."""
    rows = []
    for split, store in stores.items():
        for index in np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(int):
            video = store[int(index)]
            rows.append((f"{split} ({len(store):,} videos)", len(video.labels), len(video.frames)))
    table = pd.DataFrame(rows, columns=["split", "labels a video", "frames a video"])
    figure, both = panels(1, 2, (9, 3.2))
    for axes, column in zip(both, table.columns[1:], strict=True):
        sns.histplot(
            table, x=column, hue="split", stat="percent", common_norm=False, discrete=True, element="step",
            fill=False, palette="colorblind", ax=axes,
        )  # fmt: skip
        tell_apart(axes)
        axes.set(ylabel="videos (%)")
    both[1].get_legend().remove()
    figure.suptitle(f"{source} data: the three splits")
    return figure


def video_figure(store: FrameStore, index: int, config: Features) -> Figure:
    """One video as stored, and the norm of every frame of every modality as the model receives it."""
    video = store[index]
    names = [store.label_space.classes[label] for label in video.labels]
    frames = torch.from_numpy(video.frames[: config.max_frames].copy())[None]  # (1, T, D)
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    x = features(frames, mask, config, store.modalities)[0]  # (T, D)
    figure, (left, right) = panels(1, 2, (10, 3.4), "white", width_ratios=(2, 1))
    image = left.imshow(video.frames, aspect="auto", cmap="cividis", interpolation="nearest")
    edges = np.cumsum([0, *store.modalities.values()])
    for name, start, end in zip(store.modalities, edges, edges[1:], strict=False):
        left.axvline(start - 0.5, color="white", linewidth=1)
        left.text((start + end) / 2, -0.02, name, transform=left.get_xaxis_transform(), ha="center", va="top")
    frame = "frame" if store.label_space.name == "given" else "frame (s)"  # one's own may come at any rate
    left.set(ylabel=frame, xticks=[])
    figure.colorbar(image, ax=left, label="stored byte" if store.dtype == "uint8" else "stored value")
    parts = x.split(list(store.modalities.values()), dim=-1)
    for name, part, style in zip(store.modalities, parts, itertools.cycle(("-", "--", ":", "-.")), strict=False):
        right.plot(part.norm(dim=-1), style, label=name)
    right.set(xlabel=frame, ylabel=f"L2 norm ({config.norm})", ylim=(0, None))
    right.legend()
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    figure.suptitle(plain(f"video {video.id}: {shown}"), fontsize=10)
    return legible(figure)
