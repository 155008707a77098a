"""Downloads from a server that cuts, lies, hangs and refuses: what is there afterwards is right, or told missing."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest

from artpaper.cli import main
from artpaper.data import download, download_file
from artpaper.data.download import download_audioset, download_yt8m
from artpaper.data.download_file import Patience
from artpaper.data.download_http import Failed, redirected, retry_after
from artpaper.data.download_plan import in_part, local_name, read_plan
from artpaper.errors import DownloadError
from artpaper.workers import in_threads
from tests.data import servers
from tests.data.servers import NAMES, cut, length, offer_audioset, offer_yt8m, other_bytes, status

PART = (1, 1000)
HASTY = Patience(tries=3, timeout=1.0, pause=0.01)
VOCABULARY = "/youtube8m/csv/2/vocabulary.csv"
FIVE = ["traindw", "traineA", "trainha", "trainjw", "trainI1"]  # train's part 1,1000
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers.serving() as running:
        yield running


def fetch(server, folder, **options):
    options = {"part": PART, "splits": ["train"], "patience": HASTY, "progress": False, "server": server.url} | options
    return download_yt8m(folder, **options)


def path_of(stem):
    return f"/2/frame/{stem[:-2]}/{stem}.tfrecord"


def assert_whole(folder, made, splits=("train",)):
    """Every shard under its name with its bytes, nothing else, and nothing half done."""
    wanted = {
        local_name(path.rpartition("/")[2], split): content
        for split in splits
        for path, content in made.items()
        if f"/{split}/" in path
    }
    found = {path.name: path.read_bytes() for path in folder.glob("*.tfrecord*")}
    assert found == wanted


# names and parts


@pytest.mark.parametrize(
    ("suffix", "number"),
    [("aa", 0), ("ab", 1), ("az", 25), ("aA", 26), ("aZ", 51), ("a0", 52), ("a9", 61), ("ba", 62), ("zz", 1575),
     ("Aa", 1612), ("Z9", 3223), ("0a", 3224), ("98", 3842), ("99", 3843)],
)  # fmt: skip
def test_local_names(suffix, number):
    """By hand: place of the first character in a-zA-Z0-9 times 62, plus that of the second."""
    for split in ("train", "validate"):
        assert local_name(f"{split}{suffix}.tfrecord", split) == f"{split}{number:04d}.tfrecord"


def test_every_shard_has_a_name_of_its_own():
    assert {local_name(f"train{two}.tfrecord", "train") for two in NAMES} == {
        f"train{i:04d}.tfrecord" for i in range(3844)
    }


def test_parts_are_those_of_the_published_script():
    """It reported 5, 5, 4 files for shard=1,1000 of train, validate, test, and a validate plan of 226,807 bytes."""
    chosen = {
        split: [two for two in NAMES if in_part(f"{split}{two}.tfrecord", PART)]
        for split in ("train", "validate", "test")
    }
    assert [len(found) for found in chosen.values()] == [5, 5, 4]
    assert [f"train{two}" for two in chosen["train"]] == FIVE
    plan = json.dumps({"files": {f"validate{two}.tfrecord": "0" * 32 for two in NAMES}}).encode()
    assert len(plan) == 226_807
    parts = [{file.name for file in read_plan(plan, "validate", (x, 7))} for x in range(1, 8)]
    assert sum(map(len, parts)) == 3844 == len(set.union(*parts))
    assert len({name for name in NAMES if in_part(f"train{name}.tfrecord", (1, 100))}) == 41


def test_the_page_tells_how_many_shards_a_part_has():
    page = (Path(__file__).parents[2] / "docs" / "download.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `1,(\d+)` \| ([\d,]+) and ([\d,]+) \|", page, re.M)
    assert len(rows) == 4
    for parts, *told in rows:
        for split, count in zip(("train", "validate"), told, strict=True):
            shards = sum(in_part(f"{split}{two}.tfrecord", (1, int(parts))) for two in NAMES)
            assert f"{shards:,}" == count


MD5 = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Please log in</html>", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", 'no {"files": '),
        (b'{"files": {}}', 'no {"files": '),
        (b'{"files": ["trainaa.tfrecord"]}', 'no {"files": '),
        *(
            (json.dumps({"files": {name: MD5}}).encode(), "is no shard of train")
            for name in ("../trainaa.tfrecord", "/etc/trainaa.tfrecord", "validateaa.tfrecord", "trainaa.tfrecord\n",
                         "traina.tfrecord", "trainaé.tfrecord", "trainaa.tfrecord?x", "..", "", "a" * 5000)
        ),
        *(
            (json.dumps({"files": {"trainaa.tfrecord": md5}}).encode(), "no MD5 of 32 hex digits")
            for md5 in (None, 5, "0" * 31, "g" * 32, [MD5], MD5 + "\n")
        ),
    ],
)  # fmt: skip
def test_a_plan_that_is_none_is_refused(server, tmp_path, content, message):
    server.files["/2/download_plans/frame_train.json"] = content
    with pytest.raises(DownloadError, match=r"frame_train\.json: not a plan of YouTube-8M: ") as error:
        fetch(server, tmp_path / "in" / "side", part=(1, 1))
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_plan_that_is_too_large_or_lacks_the_part(server, tmp_path):
    server.files["/2/download_plans/frame_train.json"] = b'{"files": {"' + b"a" * (5 << 20)
    with pytest.raises(DownloadError, match="larger than 4194304 bytes"):
        fetch(server, tmp_path)
    server.files["/2/download_plans/frame_train.json"] = json.dumps({"files": {"trainaa.tfrecord": MD5}}).encode()
    with pytest.raises(DownloadError, match="part 1,1000 has none of the 1 shards of train; lower the 1000"):
        fetch(server, tmp_path)


# cuts


def test_a_hundredth_of_the_data_comes_whole_through_twenty_cuts(server, tmp_path):
    """41 and 39 shards; ten connections end early, ten are reset, some shards are hit three times."""
    made = offer_yt8m(server, (1, 100))
    assert len(made) == 80
    paths = sorted(made)
    for number in range(20):
        path = paths[number * 5 if number < 14 else (number - 14) // 2 * 5]
        server.faults[path].append(cut(1000 + 500 * number, reset=number % 2 == 1))
    patience = Patience(tries=6, timeout=5.0, pause=0.01)
    done = fetch(server, tmp_path, part=(1, 100), splits=["train", "validate"], patience=patience)
    assert_whole(tmp_path, made, ("train", "validate"))
    assert server.cuts == 20
    assert (done.fetched, done.kept) == (80, 0)
    total = sum(map(len, made.values()))
    assert total <= done.received < total + 5_000  # a reset loses what was on its way; nothing else came twice
    assert total > 2_500_000
    for split in ("train", "validate"):
        for file in read_plan(server.files[f"/2/download_plans/frame_{split}.json"], split, (1, 100)):
            assert hashlib.md5((tmp_path / file.name).read_bytes()).hexdigest() == file.md5


def test_a_file_may_be_cut_more_often_than_there_are_tries_as_long_as_it_grows(server, tmp_path):
    made = offer_yt8m(server, size=10_000_000)
    path = max((path for path in made if "/train/" in path), key=lambda path: len(made[path]))
    server.faults[path] = [cut(1_100_000) for _ in range(6)]
    fetch(server, tmp_path, patience=Patience(tries=2, timeout=5.0, pause=0.001))
    assert_whole(tmp_path, made)
    assert server.cuts == 6
    assert server.sent[path] == len(made[path])
    server.faults[path] = [cut(1000) for _ in range(6)]
    with pytest.raises(DownloadError, match=r"cut after 2000 of .* 2 tries in a row"):
        fetch(server, tmp_path / "slow", patience=Patience(tries=2, timeout=5.0, pause=0.001))


def test_without_ranges_a_cut_file_is_begun_anew(server, tmp_path):
    made = offer_yt8m(server)
    server.ranges = False
    server.faults[path_of("traindw")] = [cut(9_000)]
    fetch(server, tmp_path)
    assert_whole(tmp_path, made)
    assert server.gets(path_of("traindw")) == [None, "bytes=9000-"]
    assert server.sent[path_of("traindw")] == 9_000 + len(made[path_of("traindw")])


def test_a_wrong_or_too_long_part_is_thrown_away(server, tmp_path):
    made = offer_yt8m(server)
    plan = read_plan(server.files["/2/download_plans/frame_train.json"], "train", PART, server=server.url)
    for stem, excess in (("traindw", 0), ("traineA", -500), ("trainha", 700)):
        content = made[path_of(stem)]
        [file] = [file for file in plan if file.url.endswith(path_of(stem))]
        file.part(tmp_path).write_bytes(bytes(len(content) + excess))
    (tmp_path / "train0208.tfrecord.000000000000.part").write_bytes(b"of another release")
    fetch(server, tmp_path)
    assert len(server.gets(path_of("traineA"))) == 2
    assert_whole(tmp_path, made)


def started(server, folder, *options):
    command = [sys.executable, "-m", "artpaper.cli", "download", "yt8m", "--server", server.url, "--shard", "1,1000"]
    command += ["--split", "train", "--folder", str(folder), "--workers", "2", *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores Ctrl-C
    )


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_and_gone_on(server, tmp_path, how):
    """Killed, or by Ctrl-C: finished shards are not asked for again, and of the others only what is missing."""
    made = offer_yt8m(server, size=600_000)
    server.pace = 0.02
    running = started(server, tmp_path)
    names = {local_name(f"{stem}.tfrecord", "train"): stem for stem in FIVE}
    wait_for(
        lambda: len(list(tmp_path.glob("*.tfrecord"))) >= 2 and any(p.stat().st_size for p in tmp_path.glob("*.part"))
    )
    running.send_signal(how)
    _, told = running.communicate(timeout=10)
    assert running.returncode == (-9 if how == signal.SIGKILL else 130)
    assert how == signal.SIGKILL or "interrupted; the same command goes on from here" in told
    finished = {path.name: path for path in tmp_path.glob("*.tfrecord")}
    assert 2 <= len(finished) < 5
    for name, path in finished.items():
        assert path.read_bytes() == made[path_of(names[name])]
    there = sum(path.stat().st_size for path in [*finished.values(), *tmp_path.glob("*.part")])
    server.pace = 0.0
    time.sleep(0.2)  # what the first run's connections still had on their way
    server.asked.clear()
    before = dict(server.sent)
    done = fetch(server, tmp_path)
    assert_whole(tmp_path, made)
    total = sum(len(made[path_of(stem)]) for stem in FIVE)
    again = sum(server.sent[path_of(stem)] - before.get(path_of(stem), 0) for stem in FIVE)
    assert again == done.received == total - there
    assert not any(server.gets(path_of(names[name])) for name in finished)


def test_a_second_download_into_the_same_folder_is_told(server, tmp_path, capsys):
    offer_yt8m(server, size=600_000)
    server.pace = 0.05
    running = started(server, tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("*.part")))
        assert main(["download", "yt8m", "--shard", "1,1000", "--folder", str(tmp_path), "--server", server.url]) == 1
        assert "another run is at work on download here (process" in capsys.readouterr().err
    finally:
        running.kill()
        running.communicate()
    server.pace = 0.0
    assert fetch(server, tmp_path).fetched > 0  # the lock went with the process


# what the server says


def test_wrong_bytes_once_are_fetched_again_and_always_are_an_error(server, tmp_path, capsys, monkeypatch):
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [other_bytes]
    fetch(server, tmp_path / "once")
    assert_whole(tmp_path / "once", made)

    server.always[path_of("trainha")] = other_bytes
    monkeypatch.setattr(download, "Patience", lambda: HASTY)
    assert main(["download", "yt8m", "--shard", "1,1000", "--split", "train", "--folder", str(tmp_path / "always"),
                 "--server", server.url]) == 1  # fmt: skip
    told = capsys.readouterr().err
    right = hashlib.md5(made[path_of("trainha")]).hexdigest()
    assert "1 of 5 files failed, the others are in" in told
    assert f"{server.url}{path_of('trainha')} (for {tmp_path / 'always'}/train0434.tfrecord): MD5 of the" in told
    assert f"expected {right}; 3 tries in a row; run the same command again" in told
    assert len(server.gets(path_of("trainha"))) == 1 + 3
    assert sorted(path.name for path in (tmp_path / "always").glob("train*.tfrecord")) == sorted(
        local_name(f"{stem}.tfrecord", "train") for stem in FIVE if stem != "trainha"
    )

    del server.always[path_of("trainha")]
    server.asked.clear()
    fetch(server, tmp_path / "always")
    assert_whole(tmp_path / "always", made)
    assert [name for method, name, *_ in server.asked if method == "GET" and "/frame/" in name] == [path_of("trainha")]


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_file_that_is_not_there_is_not_asked_for_again(server, tmp_path, code):
    made = offer_yt8m(server)
    server.always[path_of("traineA")] = status(code)
    with pytest.raises(
        DownloadError, match=rf"traineA\.tfrecord \(for .*\): HTTP {code} [A-Z].*; .*take another --mirror"
    ):
        fetch(server, tmp_path)
    assert len(server.gets(path_of("traineA"))) == 1
    assert len(list(tmp_path.glob("*.tfrecord"))) == len(FIVE) - 1
    assert made


def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path):
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [status(429, Retry_After="1"), status(503), status(500)]
    server.faults["/2/download_plans/frame_train.json"] = [status(503)]
    fetch(server, tmp_path, patience=Patience(tries=4, timeout=1.0, pause=0.01))
    assert_whole(tmp_path, made)
    times = [at for method, path, _, at in server.asked if method == "GET" and path == path_of("traindw")]
    assert 1.0 <= times[1] - times[0] < 2.0
    assert times[3] - times[1] < 0.5

    server.always[path_of("trainI1")] = status(429, Retry_After="86400")
    (tmp_path / local_name("trainI1.tfrecord", "train")).unlink()
    with pytest.raises(
        DownloadError, match="HTTP 429 Too Many Requests, to come back in 86400 s; run the same command"
    ):
        fetch(server, tmp_path)


def test_retry_after_may_be_a_date():
    assert 50 < retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))) <= 60
    assert [retry_after(text) for text in ("7", "", "soon", "-5", "9" * 6000, "Mon, 01 Jan 0001 00:00:00 GMT")] == [
        7,
        *[0] * 5,
    ]


@pytest.mark.parametrize("fault", [servers.drip, servers.drip_head])
def test_a_server_that_drips_is_left(server, tmp_path, fault):
    """A byte every 50 ms never runs into the timeout of a socket."""
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [fault]
    before = time.monotonic()
    fetch(server, tmp_path, patience=Patience(tries=2, timeout=0.5, pause=0.01))
    assert time.monotonic() - before < 5
    assert_whole(tmp_path, made)
    assert len(server.gets(path_of("traindw"))) == 2


def test_nobody_answers(tmp_path):
    with servers.serving() as gone:
        address = gone.url
    with pytest.raises(DownloadError, match=r"frame_train\.json: no answer \(.*refused\); 3 tries in a row"):
        download_yt8m(tmp_path, PART, server=address, patience=HASTY, progress=False)
    for server in ("ftp://host", "file:///etc", "localhost:80", "http://", "http://[", "http://host/?x"):
        with pytest.raises(DownloadError, match="no address of a server"):
            download_audioset(tmp_path, server=server)


def test_redirections(server, tmp_path):
    made = offer_yt8m(server)
    server.files["/elsewhere"] = made[path_of("traindw")]
    server.always[path_of("traindw")] = status(302, Location="/elsewhere")
    server.faults["/elsewhere"] = [cut(5_000)]
    fetch(server, tmp_path)
    assert server.gets("/elsewhere") == [None, "bytes=5000-"]
    assert_whole(tmp_path, made)

    secret = tmp_path / "secret"
    secret.write_bytes(b"of this machine")
    for stem, target in (("traindw", path_of("traindw")), ("traineA", secret.as_uri()), ("trainha", "ftp://127.0.0.1/x"),
                         ("trainjw", "http://[")):  # fmt: skip
        server.always[path_of(stem)] = status(301, Location=target)
    with pytest.raises(DownloadError) as error:
        fetch(server, tmp_path / "new")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("4 of 5 files failed")
    assert "redirected more than 5 times" in lines[1]
    assert "redirected to 'file://" in lines[2]
    assert "redirected to 'ftp://" in lines[3]
    assert "redirected to 'http://[" in lines[4]
    assert len(server.gets(path_of("traineA"))) == 2


def test_no_redirection_from_https_to_http():
    for url, location, target in (
        ("https://a/x", "/y", "https://a/y"),
        ("https://a/x", "https://b/é y", "https://b/%C3%A9%20y"),
        ("http://a/x", "https://b/y", "https://b/y"),
        ("http://a/x", "y", "http://a/y"),
    ):
        assert redirected(url, location) == target
    for location in ("http://a/y", "javascript:1", "data:,1", "file:/etc/passwd"):
        with pytest.raises(Failed, match="which is not followed"):
            redirected("https://a/x", location)


def test_a_stated_length_that_is_wrong(server, tmp_path):
    """Too long is no harm, the MD5 is right; too short is a wrong MD5; neither hangs."""
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [length(+1000)]
    server.faults[path_of("traineA")] = [length(+1000, hold=5)]
    server.faults[path_of("trainha")] = [length(-1000)]
    before = time.monotonic()
    fetch(server, tmp_path)
    assert time.monotonic() - before < 4
    assert_whole(tmp_path, made)
    assert [len(server.gets(path_of(stem))) for stem in ("traindw", "traineA", "trainha")] == [1, 1, 2]

    server.always[path_of("trainha")] = length(-1000)
    with pytest.raises(DownloadError, match=r"MD5 of the .* bytes is .*, expected"):
        fetch(server, tmp_path / "new")


def test_a_stream_without_an_end_and_a_length_beyond_reason(server, tmp_path, monkeypatch):
    offer_yt8m(server)
    monkeypatch.setattr(download_file, "LARGEST", 1 << 20)
    server.always[path_of("traindw")] = servers.endless
    server.always[path_of("traineA")] = length(1 << 20)
    with pytest.raises(DownloadError) as error:
        fetch(server, tmp_path)
    assert "more than 1048576 bytes, and no end" in str(error.value)
    assert "no file of the data set is as large" in str(error.value)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.part")) == 0


# the disk


def test_too_little_room_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    made = offer_yt8m(server, (1, 20), size=2_000)
    total = sum(len(content) for path, content in made.items() if "/train/" in path)
    count = sum("/train/" in path for path in made)
    assert count > 2 * download.ASKED  # so that the whole is told from a sample
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 100_000, 100_000))
    with pytest.raises(
        DownloadError, match=rf"{count} files to fetch, 2\d\dkB, going by \d\d of them; 100kB are free; make"
    ):
        fetch(server, tmp_path, part=(1, 20))
    assert total > 200_000
    assert not any(method == "GET" and "/frame/" in path for method, path, *_ in server.asked)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 10**9))
    fetch(server, tmp_path, part=(1, 20))
    assert_whole(tmp_path, made)


def test_a_server_that_tells_no_sizes(server, tmp_path, capsys):
    made = offer_yt8m(server)
    server.heads = False
    fetch(server, tmp_path, progress=True)
    assert "5 files to fetch; the server does not say how large" in capsys.readouterr().err
    assert_whole(tmp_path, made)


def test_a_disk_that_fills_up_on_the_way(server, tmp_path, monkeypatch, capsys):
    """The write fails after 40,000 bytes; what came stays, and the next run adds the rest."""
    made = offer_yt8m(server)
    room = [40_000]

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, chunk):
            if len(chunk) > room[0]:
                self._file.write(chunk[: room[0]])
                room[0] = 0
                raise OSError(28, os.strerror(28))
            room[0] -= len(chunk)
            return self._file.write(chunk)

    def opened(path, mode, *options):
        file = open(path, mode, *options)  # noqa: SIM115
        return Full(file) if "a" in mode else file

    monkeypatch.setattr(download_file, "open", opened, raising=False)
    monkeypatch.setattr(download_file.hashlib, "file_digest", lambda file, kind: _digest(file, kind))
    arguments = [
        "download",
        "yt8m",
        "--shard",
        "1,1000",
        "--split",
        "train",
        "--folder",
        str(tmp_path),
        "--workers",
        "1",
    ]
    assert main([*arguments, "--server", server.url]) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "are free; make room there" in told
    kept = sum(path.stat().st_size for path in [*tmp_path.glob("*.part"), *tmp_path.glob("*.tfrecord")])
    assert kept == 40_000
    monkeypatch.undo()
    assert fetch(server, tmp_path).received == sum(len(made[path_of(stem)]) for stem in FIVE) - 40_000
    assert_whole(tmp_path, made)


def _digest(file, kind):
    digest = kind()
    digest.update(file.read())
    return digest


def test_memory_does_not_grow_with_the_files(server, tmp_path):
    code = (
        "import resource, sys; from artpaper.data.download import download_yt8m;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "download_yt8m(sys.argv[1], (1, 1000), splits=['train'], server=sys.argv[2], progress=False);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    made = offer_yt8m(server, size=30_000_000)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, server.url], capture_output=True, text=True, check=True
    )
    assert sum(len(content) for path, content in made.items() if "/train/" in path) > 80_000_000
    assert int(done.stdout) < 25_000  # kB


def test_an_error_in_one_thread_ends_the_others():
    stop, begun = threading.Event(), []

    def work(item):
        begun.append(item)
        if item == 1:
            raise OSError(28, "full")
        stop.wait(5)

    with pytest.raises(OSError, match="full"):
        list(in_threads(work, range(10), 2, stop))
    assert stop.is_set()
    assert sorted(begun) == [0, 1]
    assert sorted(in_threads(lambda item: -item, range(10), 3, threading.Event())) == [
        (item, -item) for item in range(10)
    ]


# what is there already


def test_what_was_found_right_is_not_read_again(server, tmp_path, monkeypatch):
    made = offer_yt8m(server)
    fetch(server, tmp_path)
    server.asked.clear()
    with monkeypatch.context() as patched:
        patched.setattr(download, "md5_of", lambda path: pytest.fail(f"{path} was read again"))
        done = fetch(server, tmp_path)
    assert (done.fetched, done.kept, done.received) == (0, 5, 0)
    assert not any("/frame/" in path for _, path, *_ in server.asked)

    damaged, touched = (tmp_path / local_name(f"{stem}.tfrecord", "train") for stem in ("traindw", "traineA"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    os.utime(touched)
    done = fetch(server, tmp_path)
    assert (done.fetched, done.kept) == (1, 4)
    assert server.gets(path_of("traindw")) == [None]
    assert_whole(tmp_path, made)


@pytest.mark.parametrize("record", [None, b"{", b"[]", b'{"train0199.tfrecord": 5}'])
def test_files_of_another_download_are_checked_once(server, tmp_path, record):
    """Those that Google's own script left, or a record that is lost or damaged."""
    made = offer_yt8m(server)
    for stem in FIVE[:3]:
        (tmp_path / local_name(f"{stem}.tfrecord", "train")).write_bytes(made[path_of(stem)])
    if record:
        (tmp_path / ".download.json").write_bytes(record)
    assert (fetch(server, tmp_path).fetched, fetch(server, tmp_path).kept) == (2, 5)
    assert_whole(tmp_path, made)


# AudioSet and the vocabulary


@pytest.mark.parametrize("stated_md5", [True, False])
def test_audioset(server, tmp_path, capsys, stated_md5):
    made = offer_audioset(server, stated_md5=stated_md5)
    features, classes = made
    server.faults[features] = [cut(100_000)]
    arguments = ["download", "audioset", "--folder", str(tmp_path), "--server", server.url]
    assert main(arguments) == 0
    assert f"artpaper use audioset --path {tmp_path}/features.tar.gz" in capsys.readouterr().out
    assert server.gets(features) == [None, "bytes=100000-"]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]
    assert (tmp_path / "class_labels_indices.csv").read_bytes() == made[classes]
    server.asked.clear()
    assert main(arguments) == 0
    assert not server.gets(features)

    if stated_md5:
        (tmp_path / "features.tar.gz").unlink()
        server.always[features] = other_bytes
        with pytest.raises(DownloadError, match=r"features\.tar\.gz .*MD5 of the 300000 bytes is .*, expected"):
            download_audioset(tmp_path, server=server.url, patience=HASTY, progress=False)


def test_audioset_that_changes_between_two_runs_is_begun_anew(server, tmp_path):
    """Without an MD5 nothing else would tell that the halves are of two versions."""
    [features, _] = offer_audioset(server, stated_md5=False)
    server.always[features] = cut(60_000)
    options = {"server": server.url, "patience": Patience(tries=2, timeout=1.0, pause=0.01), "progress": False}
    with pytest.raises(DownloadError, match="cut after 120000 of 300000 bytes"):
        download_audioset(tmp_path, **options)
    assert [path.stat().st_size for path in tmp_path.glob("*.part")] == [120_000]
    del server.always[features]
    server.files[features] = server.files[features][::-1]
    server.headers[features] = {"ETag": '"second"'}
    server.asked.clear()
    download_audioset(tmp_path, **options)
    assert server.gets(features) == [None]
    assert (tmp_path / "features.tar.gz").read_bytes() == server.files[features]
    assert not list(tmp_path.glob("*.part"))


def test_a_rest_that_does_not_begin_where_it_should(server, tmp_path):
    """Without an MD5 nothing else would tell."""
    made = offer_audioset(server, stated_md5=False)
    [features, _] = made
    server.faults[features] = [cut(60_000), servers.other_range]
    download_audioset(tmp_path, server=server.url, patience=HASTY, progress=False)
    assert server.gets(features) == [None, "bytes=60000-", None]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]


def test_a_server_that_tells_nothing_to_know_a_version_by(server, tmp_path):
    """Nothing is then added to a part, and a file that is there is taken for whole by its size."""
    [features, _] = made = offer_audioset(server, stated_md5=False)
    server.headers.clear()
    server.faults[features] = [cut(60_000)]
    download_audioset(tmp_path, server=server.url, patience=HASTY, progress=False)
    assert server.gets(features) == [None, None]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]
    assert download_audioset(tmp_path, server=server.url, patience=HASTY, progress=False).kept == 2
    assert len(server.gets(features)) == 2


def test_the_vocabulary(server, tmp_path, capsys):
    made = offer_yt8m(server)
    server.always[VOCABULARY] = status(403)
    for page, reason in ((None, "HTTP 403 Forbidden"), (b"<html>", "what came is no vocabulary of 3862 entities")):
        if page:
            del server.always[VOCABULARY]
            server.files[VOCABULARY] = page
        assert main(["download", "yt8m", "--shard", "1,1000", "--folder", str(tmp_path), "--server", server.url]) == 0
        told = capsys.readouterr().out
        assert f"vocabulary.csv is still to be had: {server.url}{VOCABULARY}: {reason}" in told
        assert (
            f"put it at {tmp_path}/vocabulary.csv, or name its place with artpaper use paper --vocabulary FILE" in told
        )
        assert not list(tmp_path.glob("*vocabulary*"))
    rows = ["Index,TrainVideoCount,KnowledgeGraphId,Name,Vertical1,Vertical2,Vertical3"]
    rows += [f"{i},1,/m/{i},Entity {i},Games,," for i in range(3862)]
    server.files[VOCABULARY] = "\n".join(rows).encode()
    assert not fetch(server, tmp_path).notes
    assert (tmp_path / "vocabulary.csv").read_bytes() == server.files[VOCABULARY]
    assert_whole(tmp_path, made, ("train", "validate"))


@pytest.mark.parametrize(
    "options",
    [["--shard", "0,5"], ["--shard", "6,5"], ["--shard", "1"], ["--shard", "a,b"], ["--shard", "-1,5"], [],
     ["--shard", "1,5", "--workers", "0"], ["--shard", "1,5", "--split", "test"],
     ["--shard", "1,5", "--mirror", "mars"]],
)  # fmt: skip
def test_the_command_refuses(options, tmp_path):
    with pytest.raises(SystemExit) as left:
        main(["download", "yt8m", "--folder", str(tmp_path / "new"), *options])
    assert left.value.code == 2
    assert not (tmp_path / "new").exists()
