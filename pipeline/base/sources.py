"""The data sources, a record each in ``sources.toml``.

Another source takes a record there and a module of its own, which the record names as its reader.
"""

import dataclasses
import json
import tomllib
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from artpaper.settings import CHECKED


@dataclass(frozen=True, config=CHECKED)
class DataSource:
    """What is said of a source. Its ``reader`` is a module with ``resolve(params, workspace, progress) -> Dataset``.

    It may also have ``look_at(params)``, which refuses what does not lie where ``data.path`` says; `artpaper use` asks
    it. A source with a text under ``download`` can be fetched; its reader then also has ``remote_files``, as
    :mod:`pipeline.prepare.audioset` does.
    """

    name: str  # in a sentence
    title: str  # over a figure: what is invented, or not public, is called so wherever it appears
    caption: str  # under a table
    reader: str
    label_spaces: tuple[str, ...]
    widths: dict[str, int] = dataclasses.field(default_factory=dict)  # of each modality; none: known once read
    groups: tuple[str, ...] = ()  # of Tables 2 and 3; none: two of those that its classes have
    shards: bool = True  # TFRecords; else arrays of one's own, with labels.csv
    frame_unit: str = " (s)"  # of a frame's number on an axis: released frames are a second apart
    licence: str = ""
    attribution: str = ""
    page: str = ""  # where it can be had
    profile: str = ""
    path: str = ""  # what data.path names: an archive, or FOLDER; nothing if the source is built in
    download: str = ""  # what `artpaper download` fetches
    in_parts: bool = False  # whether it can fetch some of the shards alone
    link: str = ""  # to the page of a video, from its id; never followed by this project
    link_text: str = ""


RECORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SOURCES = TypeAdapter(dict[str, DataSource]).validate_json(json.dumps(RECORDS))
