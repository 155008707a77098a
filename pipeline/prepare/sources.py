"""From ``data.source`` to the videos, by the reader that the source's record names."""

from importlib import import_module
from pathlib import Path

from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.video import Dataset


def resolve(params: Params, workspace: Path, progress: bool = True) -> Dataset:
    """Find the videos that ``params.data`` names, at least one piece a partition; unpack or generate them where needed.

    What is unpacked or generated goes to ``workspace/.resume``, where a second call finds it.
    """
    reader = import_module(SOURCES[params.data.source].reader)
    dataset: Dataset = reader.resolve(params, workspace, progress)
    return dataset


def look_at(params: Params) -> None:
    """Refuse what the reader would not find where ``data.path`` says; nothing is unpacked or read through."""
    look = getattr(import_module(SOURCES[params.data.source].reader), "look_at", None)
    if look:
        look(params)
