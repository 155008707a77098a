"""Hostile input ends in our own errors, soon and in little memory; nothing is unpickled; `make lab` is private."""

import ast
import random
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.base.parameters import Params
from pipeline.records.tfrecord import YT8M_MODALITIES, _video, masked_crc32c, read_videos
from tests.faults.fuzz import COUNTS, Corpus, run
from tests.faults.mutations import frame, head
from tests.pipeline import ROOT


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_inputs_end_in_a_result_or_our_own_error(tmp_path: Path, kind: str) -> None:
    """A few of those that `make faults` tries."""
    case, inputs = getattr(Corpus(tmp_path), kind.removesuffix("s")), COUNTS[kind] // 400
    found = run(case, kind, 1, 0, inputs)
    assert found["crashes"] == []
    assert found["accepted"] + found["refused"] == inputs
    assert 0 < found["accepted"] < inputs


def test_the_fuzzer_sees_a_wrong_error_and_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.fuzz.SECONDS", 0.05)

    def bad(source: random.Random) -> str:
        if source.random() < 0.5:
            raise KeyError("not ours")
        while True:
            pass  # until the timer of the processor's time goes off

    crashes = run(bad, "bad", 0, 0, 6)["crashes"]
    assert len(crashes) == 6
    assert {"KeyError", "TookTooLong"} == {
        kind for _, told in crashes for kind in ("KeyError", "TookTooLong") if kind in told
    }


def test_checksums_are_tensorflows(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        for data in (b"", b"hello", bytes(range(256)) * 3):
            writer.write(data)
    assert (tmp_path / "a").read_bytes() == b"".join(frame(data) for data in (b"", b"hello", bytes(range(256)) * 3))
    assert masked_crc32c(b"123456789") == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("length", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_length_that_nothing_backs_is_refused_though_its_checksum_is_right(tmp_path: Path, length: int) -> None:
    """TensorFlow would ask for so much memory, and end the process."""
    path = tmp_path / "a.tfrecord"
    path.write_bytes(head(length) + b"x" * 100)
    with pytest.raises(DataError, match=r"a\.tfrecord: record 0: the file ends inside this record \(truncated\)"):
        list(read_videos(path, YT8M_MODALITIES))


def test_many_small_parts_take_time_in_proportion() -> None:
    """Joined one by one, these would take ten seconds and more."""
    part = b"\x0a" + bytes([200, 1]) + b"\x0a" + bytes([197, 1]) + bytes(197)
    began = time.monotonic()
    with pytest.raises(DataError):
        _video(part * 30_000, YT8M_MODALITIES, "test: record 0")
    with pytest.raises(DataError, match=r"is no tf\.train\.SequenceExample"):
        _video(b"\x0a" + b"\xff" * 1_000_000, YT8M_MODALITIES, "test: record 0")
    assert time.monotonic() - began < 5


UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_nothing_is_unpickled() -> None:
    """No module that unpickles is imported, and no function is called that would do so on the quiet."""
    seen = 0
    for path in [
        *(ROOT / "artpaper").rglob("*.py"),
        *(ROOT / "pipeline").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            if isinstance(node, ast.Import):
                assert not {name.name.partition(".")[0] for name in node.names} & UNPICKLING, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in UNPICKLING, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called != "torch.load", path
                assert not called.endswith(("read_pickle", "to_pickle")), path
                given = {ast.unparse(keyword) for keyword in node.keywords}
                assert not given & {"allow_pickle=True", "typ='unsafe'"}, path  # NumPy's own default is not to
    assert seen > 10_000


def test_an_archive_of_another_kind_of_members_is_refused(tmp_path: Path) -> None:
    """A link out of the folder under a wanted name; paths that lead out are tested with the sources."""
    import tarfile

    from pipeline.base.groups import Compute, Data
    from pipeline.data.video import resolve

    with tarfile.open(tmp_path / "features.tar.gz", "w:gz") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("audioset_v1_embeddings/bal_train/00.tfrecord")
            member.type, member.linkname = kind, "../../../../etc/passwd"
            tar.addfile(member)
    (tmp_path / "class_labels_indices.csv").touch()
    config = Params(
        data=Data(source="audioset", path=str(tmp_path / "features.tar.gz"), label_space="audioset527"),
        compute=Compute(workers=1),
    )
    with pytest.raises(DataError, match=r"holds no bal_train/\*\.tfrecord"):
        resolve(config, tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord*"))


def test_make_lab_listens_here_alone_and_asks_for_a_token() -> None:
    """The command as make would run it, given to the server's own reading of it."""
    from jupyter_server.serverapp import ServerApp

    said = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [line] = [line for line in said.splitlines() if " lab " in line]
    options = [part for part in line.split() if part.startswith("-")]
    app = ServerApp()
    app.parse_command_line(options)
    assert app.ip == "127.0.0.1"
    assert not app.allow_remote_access
    provider = app.identity_provider_class(parent=app)
    assert len(provider.token) >= 32
    assert provider.token_generated  # anew for each start
    assert provider.auth_enabled
