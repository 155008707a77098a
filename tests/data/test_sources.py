"""Finding the shards: what is accepted, and what a wrong path is answered with."""

import ast
import io
import json
import os
import pwd
import tarfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import pipeline
from pipeline.base.errors import DataError
from pipeline.base.groups import Compute, Data, Synthetic
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES, DataSource
from pipeline.data.store import FrameStore
from pipeline.data.video import resolve
from pipeline.explorer.videos import public_address
from pipeline.paper.paper import table_groups
from pipeline.prepare.download import download
from pipeline.prepare.prepare import prepare
from pipeline.prepare.verify import verify
from pipeline.synthetic import generator
from tests.data.worlds import params, vocabulary_rows, write_csv, write_world
from tests.pipeline import ROOT


def audioset(path, vocabulary=None):
    data = Data(source="audioset", label_space="audioset527", path=str(path), vocabulary=vocabulary)
    return Params(data=data)


@pytest.fixture
def classes(tmp_path):
    names = [f"class {index}" for index in range(527)]
    names[0], names[7], names[137], names[282] = "Speech", "Speech synthesizer", "Music", "Scary music"
    rows = [[str(index), f"/m/{index}", name] for index, name in enumerate(names)]
    return str(write_csv(tmp_path / "class_labels_indices.csv", rows, ("index", "mid", "display_name")))


def archive(path, *names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return path


def test_youtube8m_folder(tmp_path):
    write_world(tmp_path, videos=1)
    source = resolve(params(tmp_path), tmp_path / "work")
    assert [shard.path.name for shard in source.partitions["train"]] == [
        f"train000{number}.tfrecord" for number in range(3)
    ]
    assert [shard.path.name for shard in source.partitions["validate"]] == [
        "validate0000.tfrecord",
        "validate0001.tfrecord",
    ]
    assert source.label_space.name == "h317"
    assert source.provenance["path"] == str(tmp_path)
    assert source.provenance["licence"] == "CC BY 4.0"
    assert (source.provenance["train_shards"], source.provenance["validate_shards"]) == (3, 2)


def test_youtube8m_errors(tmp_path):
    def refused(folder, message):
        with pytest.raises(DataError, match=message):
            resolve(params(folder), tmp_path / "work")

    data = tmp_path / "data"
    refused(None, r"data\.path is not given; .*https://research\.google\.com/youtube8m/download\.html")
    refused(data, r"data: no such file or folder")
    data.mkdir()
    refused(data, r"no train\*\.tfrecord \(the folder is empty\)")
    (data / "train0000.tfrecord").write_bytes(b"")
    refused(data / "train0000.tfrecord", r"is a file; set data\.path to the folder")
    refused(data, r"no validate\*\.tfrecord \(other files only\)")
    (data / "validate0000.tfrecord").write_bytes(b"")
    refused(data, r"vocabulary\.csv: no such vocabulary; get vocabulary\.csv .*put it beside the shards, or set")
    write_csv(data / "vocabulary.csv", vocabulary_rows()[:1000])
    refused(data, r"1000 entities, expected 3862; this is the vocabulary of the 2019 segments")


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("given", ["", "2", "2/frame"])
@pytest.mark.parametrize("vocabulary", ["", "2", "2/frame"])
def test_youtube8m_as_google_lays_it_out(tmp_path, given, vocabulary):
    """2/frame/train and 2/frame/validate, as its bucket and its instructions have them; 2/video is another data set."""
    put(tmp_path / "2" / "frame" / "train", "train0001.tfrecord", "train0000.tfrecord", "readme.txt")
    put(tmp_path / "2" / "frame" / "validate", "validate0000.tfrecord")
    put(tmp_path / "2" / "video" / "train", "train0007.tfrecord")
    path = write_csv(tmp_path / vocabulary / "vocabulary.csv", vocabulary_rows())
    named = None if vocabulary.startswith(given) else str(path)  # it is looked for from data.path down to the shards
    source = resolve(params(tmp_path / given, vocabulary=named), tmp_path / "work")
    assert [shard.path.name for shard in source.partitions["train"]] == ["train0000.tfrecord", "train0001.tfrecord"]
    assert [shard.path.parent for shard in source.partitions["validate"]] == [tmp_path / "2" / "frame" / "validate"]


def test_youtube8m_in_two_layouts_or_in_half_of_one(tmp_path):
    put(tmp_path, "train0000.tfrecord", "validate0000.tfrecord")
    put(tmp_path / "2" / "frame" / "train", "train0000.tfrecord")
    with pytest.raises(
        DataError, match=rf"shards lie in {tmp_path} and in {tmp_path}/2/frame/train; move one away, or"
    ):
        resolve(params(tmp_path), tmp_path / "work")
    for name in ("train", "validate"):
        (tmp_path / f"{name}0000.tfrecord").unlink()
    with pytest.raises(DataError, match=r"2/frame/validate: no such folder; https://research"):
        resolve(params(tmp_path), tmp_path / "work")
    (tmp_path / "2" / "frame" / "train" / "train0000.tfrecord").rename(tmp_path / "other.tfrecord")
    with pytest.raises(
        DataError, match=r"no train\*\.tfrecord \(other files only\), nor 2/frame/train below it; https"
    ):
        resolve(params(tmp_path), tmp_path / "work")


def test_home_in_paths(tmp_path, monkeypatch, classes):
    """No shell replaces the ~ of a parameter; the home of a user who does not exist stays a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "yt", "train0000.tfrecord", "validate0000.tfrecord")
    write_csv(tmp_path / "words.csv", vocabulary_rows())
    own = Data(path="~/yt", vocabulary="~/words.csv")
    assert (own.path, own.vocabulary) == (f"{tmp_path}/yt", f"{tmp_path}/words.csv")
    assert len(resolve(Params(data=own), tmp_path / "work").partitions["train"]) == 1
    path = archive(tmp_path / "features.tar.gz", "a/bal_train/00.tfrecord", "a/eval/00.tfrecord")
    with pytest.raises(DataError, match=r"work/.*bal_train: no such folder"):
        resolve(audioset(f"~/{path.name}"), tmp_path / "work")
    assert Data(path=f"~{pwd.getpwuid(os.getuid()).pw_name}/x").path == f"{pwd.getpwuid(os.getuid()).pw_dir}/x"
    with pytest.raises(DataError, match=r"data\.path ~no-such-user/x: no such file or folder"):
        resolve(Params(data=Data(path="~no-such-user/x")), tmp_path / "work")


def test_audioset_folder_or_its_parent(tmp_path, classes):
    for name in ("bal_train", "eval"):
        (tmp_path / "audioset_v1_embeddings" / name).mkdir(parents=True)
        (tmp_path / "audioset_v1_embeddings" / name / "00.tfrecord").write_bytes(b"")
    for given in (tmp_path, tmp_path / "audioset_v1_embeddings"):
        source = resolve(audioset(given), tmp_path / "work")
        assert [(name, len(shards)) for name, shards in source.partitions.items()] == [("train", 1), ("validate", 1)]
        assert source.modalities[0].feature == "audio_embedding"
    with pytest.raises(DataError, match=r"nolist\.csv: no such class list"):
        resolve(audioset(tmp_path, str(tmp_path / "nolist.csv")), tmp_path / "work")


def test_audioset_archive_may_be_given_by_its_folder(tmp_path, classes):
    names = [f"audioset_v1_embeddings/{name}/00.tfrecord" for name in ("bal_train", "eval")]
    archive(tmp_path / "features.tar.gz", *names)
    found = [shard.path for shard in resolve(audioset(tmp_path), tmp_path / "work").partitions["train"]]
    assert [path.name for path in found] == ["00.tfrecord"]
    put(tmp_path / "bal_train", "01.tfrecord")
    put(tmp_path / "eval", "01.tfrecord")
    found = [shard.path for shard in resolve(audioset(tmp_path), tmp_path / "work").partitions["train"]]
    assert found == [tmp_path / "bal_train" / "01.tfrecord"]  # what is unpacked is taken as it is


def test_audioset_archive_is_unpacked_once(tmp_path, classes):
    names = [f"audioset_v1_embeddings/{name}/00.tfrecord" for name in ("bal_train", "eval", "unbal_train")]
    path = archive(tmp_path / "features.tar.gz", *names)
    source = resolve(audioset(path), tmp_path / "work")
    [folder] = (tmp_path / "work" / ".resume").iterdir()
    assert sorted(file.parent.name for file in folder.rglob("*.tfrecord")) == [
        "bal_train",
        "eval",
    ]  # no more than needed
    before = source.partitions["train"][0].path.stat().st_ino
    assert resolve(audioset(path), tmp_path / "work").partitions["train"][0].path.stat().st_ino == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["other/readme.txt"], r"holds no bal_train/\*\.tfrecord"),
        (["../../bal_train/00.tfrecord"], r"refused, it would write outside its folder"),
        (["/tmp/x/../../../bal_train/00.tfrecord"], r"refused, it would write outside its folder"),
        (["audioset_v1_embeddings/bal_train/00.tfrecord"], r"eval: no such folder"),
    ],
)
def test_wrong_archives(tmp_path, classes, names, message):
    path = archive(tmp_path / "features.tar.gz", *names)
    with pytest.raises(DataError, match=message):
        resolve(audioset(path), tmp_path / "deep" / "inner")
    assert not list(tmp_path.glob("bal_train"))
    assert not list(tmp_path.glob("deep/inner/.resume/.*"))


def test_damaged_archive(tmp_path, classes):
    path = archive(tmp_path / "features.tar.gz", *[f"a/bal_train/{number}.tfrecord" for number in range(500)])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"features\.tar\.gz: no whole tar archive .*again"):
        resolve(audioset(path), tmp_path / "work")
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"features\.tar\.gz: no whole tar archive"):
        resolve(audioset(path), tmp_path / "work")
    assert not list(tmp_path.glob("work/.resume/*"))


def test_synthetic(tmp_path, monkeypatch):
    calls = []

    def write_synthetic(folder, config, *, seed, compute, progress):
        calls.append((folder, seed, compute.workers, progress))
        write_world(folder, videos=1)
        write_csv(folder / "vocabulary.csv", vocabulary_rows()[: config.entities])

    monkeypatch.setattr(generator, "write_synthetic", write_synthetic)
    config = Params(
        data=Data(source="synthetic", label_space="k3862"), synthetic=Synthetic(entities=60), compute=Compute(workers=3)
    )
    source = resolve(config, tmp_path, progress=False)
    [(folder, seed, workers, progress)] = calls
    assert (folder.parent, seed, workers, progress) == (tmp_path / ".resume", 0, 3, False)
    assert len(source.label_space) == 60
    resolve(Params(data=config.data, synthetic=Synthetic(entities=61)), tmp_path)
    assert calls[1][0] != folder


TOY = """
import json
from pathlib import Path

import numpy as np

from pipeline.data.labels import LabelSpace
from pipeline.data.video import Dataset, Modality, Video, given_path, provenance


class Numbers:
    name, size, state = "numbers.json", 1, ()

    def __init__(self, path, chosen):
        self.path, self.chosen = path, chosen

    def read(self):
        for number, value in enumerate(json.loads(self.path.read_text())):
            if value % 3 in self.chosen:
                yield number, Video(f"n{value}", (value % 2,), (np.full((2, 4), value, np.uint8),))

    def place(self, number):
        return f"{self.path}: number {number}"


def resolve(params, workspace, progress):
    path = given_path(params, "a list of numbers")
    numbers = {"train": (Numbers(path, [0]),), "validate": (Numbers(path, [1, 2]),)}
    space = LabelSpace("parity", ("even", "odd"), ((), ()), ((0,), (1,)), "By parity.")
    return Dataset((Modality("rgb", "", 4),), numbers, space, provenance(params, numbers))
"""


def test_another_source_takes_a_record_and_a_module(tmp_path, monkeypatch):
    """Its parameters are checked, its videos prepared and named, and nothing else of the project was told of it."""
    (tmp_path / "toy_numbers.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    record = DataSource(
        "toy numbers", "TOY data", "Data: numbers.", "toy_numbers", ("parity",), licence="none", path="FILE"
    )
    monkeypatch.setitem(SOURCES, "toy", record)
    with pytest.raises(ValueError, match=r"label_space 'h317' does not fit source 'toy': .*; toy has parity"):
        Data(source="toy")
    (tmp_path / "numbers.json").write_text(json.dumps([*range(60)]))
    data = Data(source="toy", label_space="parity", path=str(tmp_path / "numbers.json"))
    own = Params(data=data, compute=Compute(workers=1))
    summary = prepare(own, tmp_path, progress=False)
    assert {name: split["videos"] for name, split in summary["splits"].items()} == {
        "train": 20, "validation": 8, "test": 32
    }  # fmt: skip
    assert (summary["provenance"]["source"], summary["provenance"]["licence"]) == ("toy", "none")
    store = FrameStore(tmp_path / "frames" / "train")
    assert [(store[row].id, store[row].frames[0, 0], store[row].labels) for row in (1, 2)] == [
        ("n3", 3, (1,)), ("n6", 6, (0,))
    ]  # fmt: skip
    assert verify(own, tmp_path, progress=False).startswith("2 shards are as they were written")
    assert table_groups("toy", ["low", "high", "low"]) == {2: "low", 3: "high"}
    assert public_address("toy", "n3") is None
    with pytest.raises(ValueError, match="source 'toy': expected 'yt8m' or 'audioset'"):
        download("toy", tmp_path)


def test_no_code_asks_which_source_it_is():
    """What depends on the source stands in its record, or in the module that the record names."""
    asked = []
    for path in Path(pipeline.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and "source" in ast.unparse(node):
                constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                asked += [f"{path}:{node.lineno}"] if SOURCES.keys() & {*constants} else []
    assert not asked


def test_what_is_written_about_the_data_depends_on_the_record_of_their_source():
    for path in (ROOT / "dvc.yaml", ROOT / "stress" / "dvc.yaml"):
        for name, stage in YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"].items():
            if name == "prepare" or "pipeline/paper" in stage["deps"]:
                assert {"pipeline/base/sources.toml": ["${data.source}"]} in stage["params"], name
