"""croissant.json, which machines read, says of the synthetic data what the code, the parameters and the results say."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML

from pipeline.base.parameters import load_params
from pipeline.base.sources import SOURCES
from pipeline.data.store import FrameStore
from pipeline.data.store_writer import shard_schema

ROOT = Path(__file__).resolve().parents[1]
SAID = json.loads((ROOT / "croissant.json").read_text(encoding="utf-8"))
WIDTHS = SOURCES["synthetic"].widths


def record_set(name: str) -> dict[str, Any]:
    return next(one for one in SAID["recordSet"] if one["@id"] == name)


def test_version_licence_and_author_are_the_projects() -> None:
    project = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    assert (SAID["version"], SAID["license"]) == (project["version"], project["license"])
    assert [SAID["creator"]["name"]] == [author["name"] for author in project["author"]]
    assert SAID["citeAs"].startswith("Choudhary")
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")["preferred-citation"]
    assert cited["title"] in SAID["citeAs"]


def test_it_says_at_once_that_the_videos_are_invented() -> None:
    assert SAID["name"] == "artpaper-synthetic"
    assert SAID["description"].startswith("SYNTHETIC videos")


def test_the_splits_are_those_of_the_default_parameters() -> None:
    summary = json.loads((ROOT / "results" / "synthetic" / "summary.json").read_text(encoding="utf-8"))
    told = {row["splits/name"]: (row["splits/videos"], row["splits/frames"]) for row in record_set("splits")["data"]}
    assert told == {name: (split["videos"], split["frames"]) for name, split in summary["splits"].items()}
    made = load_params(ROOT / "profiles" / "default.yaml").synthetic
    left_out = sum(part["left_out_without_class"] for part in summary["partitions"].values())
    assert sum(videos for videos, _ in told.values()) == made.train_videos + made.validate_videos - left_out
    assert record_set("classes")["description"].startswith(f"The {summary['classes']} classes")


def test_the_fields_of_a_video_are_the_columns_of_a_shard() -> None:
    schema = shard_schema(WIDTHS)
    fields = {field["source"]["extract"]["column"]: field for field in record_set("videos")["field"]}
    assert fields.keys() == set(schema.names)
    for name, field in fields.items():
        kind, shape = schema.field(name).type, []
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            shape.append(str(getattr(kind, "list_size", -1)))
            kind = kind.value_type
        assert field.get("arrayShape", "") == ",".join(shape)
        assert field["dataType"].partition(":")[2].lower() == {"string": "text"}.get(str(kind), str(kind))
    columns = re.findall(r"(\d+) to (\d+)(?: are)? (\w+)", fields["frames"]["description"])
    ends = [0, WIDTHS["rgb"], sum(WIDTHS.values())]
    assert columns == [(str(ends[k]), str(ends[k + 1] - 1), name) for k, name in enumerate(WIDTHS)]


def test_the_files_are_there_once_they_are_generated_and_hold_what_is_said(small: Path) -> None:
    found = {one["@id"]: [*small.glob(one["includes"])] for one in SAID["distribution"]}
    assert all(found.values())
    videos = [pa.ipc.open_file(path).read_all().num_rows for path in found["shards"]]
    stores = {split: FrameStore(small / "frames" / split) for split in ("train", "validation", "test")}
    assert sum(videos) == sum(map(len, stores.values()))
    for split, store in stores.items():
        [path] = found[f"{split}-ids"]
        assert gzip.decompress(path.read_bytes()).decode().splitlines() == store.ids
    [space] = found["label-space"]
    assert json.loads(space.read_text(encoding="utf-8"))["classes"] == list(stores["train"].label_space.classes)
