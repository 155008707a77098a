"""Finding the shards: what is accepted, and what a wrong path is answered with."""

import io
import sys
import tarfile
import types

import pytest

from artpaper.config import Compute, Data, Params, Synthetic
from artpaper.data.sources import resolve
from artpaper.errors import DataError
from tests.data.worlds import params, vocabulary_rows, write_csv, write_world


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
    assert [shard.path.name for shard in source.train] == [f"train000{number}.tfrecord" for number in range(3)]
    assert [shard.path.name for shard in source.validate] == ["validate0000.tfrecord", "validate0001.tfrecord"]
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


def test_audioset_folder_or_its_parent(tmp_path, classes):
    for name in ("bal_train", "eval"):
        (tmp_path / "audioset_v1_embeddings" / name).mkdir(parents=True)
        (tmp_path / "audioset_v1_embeddings" / name / "00.tfrecord").write_bytes(b"")
    for given in (tmp_path, tmp_path / "audioset_v1_embeddings"):
        source = resolve(audioset(given), tmp_path / "work")
        assert (len(source.train), len(source.validate)) == (1, 1)
        assert source.modalities[0].feature == "audio_embedding"
    with pytest.raises(DataError, match=r"nolist\.csv: no such class list"):
        resolve(audioset(tmp_path, str(tmp_path / "nolist.csv")), tmp_path / "work")


def test_audioset_archive_is_unpacked_once(tmp_path, classes):
    names = [f"audioset_v1_embeddings/{name}/00.tfrecord" for name in ("bal_train", "eval", "unbal_train")]
    path = archive(tmp_path / "features.tar.gz", *names)
    source = resolve(audioset(path), tmp_path / "work")
    [folder] = (tmp_path / "work" / ".resume").iterdir()
    assert sorted(file.parent.name for file in folder.rglob("*.tfrecord")) == [
        "bal_train",
        "eval",
    ]  # no more than needed
    before = source.train[0].path.stat().st_ino
    assert resolve(audioset(path), tmp_path / "work").train[0].path.stat().st_ino == before


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

    monkeypatch.setitem(sys.modules, "artpaper.data.synthetic", types.SimpleNamespace(write_synthetic=write_synthetic))
    config = Params(
        data=Data(source="synthetic", label_space="k3862"), synthetic=Synthetic(entities=60), compute=Compute(workers=3)
    )
    source = resolve(config, tmp_path, progress=False)
    [(folder, seed, workers, progress)] = calls
    assert (folder.parent, seed, workers, progress) == (tmp_path / ".resume", 0, 3, False)
    assert len(source.label_space) == 60
    resolve(Params(data=config.data, synthetic=Synthetic(entities=61)), tmp_path)
    assert calls[1][0] != folder
