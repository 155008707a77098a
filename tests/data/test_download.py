"""Downloads from a server that cuts, lies, hangs and refuses: what is there afterwards is right, or told missing."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import namedtuple
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from pipeline.base.errors import DownloadError
from pipeline.base.identity import fingerprint
from pipeline.prepare import download as module
from pipeline.prepare import fetcher as single
from pipeline.prepare.download import download
from pipeline.prepare.fetcher import RETRY, Fetcher, Remote
from pipeline.prepare.youtube8m import yt8m_files
from pipeline.run.cli import main
from pipeline.scale.workers import in_threads
from tests.data import servers
from tests.data.servers import NAMES, cut, length, offer_audioset, offer_yt8m, other_bytes, status

PART = (1, 1000)
HASTY = {"retry": RETRY.new(total=2, backoff_factor=0.005, backoff_jitter=0), "timeout": 1.0}
VOCABULARY = "/youtube8m/csv/2/vocabulary.csv"
FIVE = ["traindw", "traineA", "trainha", "trainjw", "trainI1"]  # train's part 1,1000
Usage = namedtuple("Usage", "total used free")


class Clock(threading.Event):
    """Time passes at once: what is waited is written down instead."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return self.is_set()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers.serving() as running:
        yield running


@pytest.fixture
def hasty(monkeypatch):
    """The command line's pauses and time-outs are those of the tests."""
    monkeypatch.setattr(module, "Fetcher", lambda folder, say, *_: Fetcher(folder, say, **HASTY))


@pytest.fixture
def fetcher(tmp_path):
    """With the real pauses, on a clock that does not wait."""
    made = Fetcher(tmp_path, lambda text: None)
    made.stop = Clock()
    return made


def tries(count, timeout=5.0):
    return {"retry": HASTY["retry"].new(total=count - 1), "timeout": timeout}


def fetch(server, folder, **options):
    return download(
        "yt8m", folder, **{"part": PART, "splits": ["train"], "progress": False, "server": server.url} | HASTY | options
    )


def fetch_audioset(server, folder, **options):
    return download("audioset", folder, **{"progress": False, "server": server.url} | HASTY | options)


def path_of(stem):
    return f"/2/frame/{stem[:-2]}/{stem}.tfrecord"


def local(stem):
    """The shard's name here, by its place among all two characters."""
    return f"{stem[:-2]}{NAMES.index(stem[-2:]):04d}.tfrecord"


def asked_for(server, made):
    """The bytes of shards that were asked of the server."""
    return sum(
        len(made[path]) - int(span[6:-1] if span else 0)
        for method, path, span, _ in server.asked
        if method == "GET" and path in made
    )


def assert_whole(folder, made, splits=("train",)):
    """Every shard under its name with its bytes, nothing else, and nothing half done."""
    wanted = {
        local(path.rpartition("/")[2].removesuffix(".tfrecord")): content
        for path, content in made.items()
        if path.split("/")[3] in splits
    }
    found = {path.name: path.read_bytes() for path in folder.glob("*.tfrecord*")}
    assert found == wanted


# names and parts


def chosen(split, part):
    """What of a plan of all shards belongs to a part: the name here by the name on the server."""
    plan = json.dumps({"files": {f"{split}{two}.tfrecord": "0" * 32 for two in NAMES}}).encode()
    assert split != "validate" or len(plan) == 226_807  # as the real one
    files = yt8m_files(lambda url, limit: plan, split, part, "us", "")
    return {file.url.rpartition("/")[2].removesuffix(".tfrecord"): file.name for file in files}


def test_local_names():
    """By hand: place of the first character in a-zA-Z0-9 times 62, plus that of the second."""
    by_hand = {"aa": 0, "ab": 1, "az": 25, "aA": 26, "aZ": 51, "a0": 52, "a9": 61, "ba": 62, "zz": 1575, "Aa": 1612,
               "Z9": 3223, "0a": 3224, "98": 3842, "99": 3843}  # fmt: skip
    for split in ("train", "validate"):
        names = chosen(split, (1, 1))
        for suffix, number in by_hand.items():
            assert names[f"{split}{suffix}"] == f"{split}{number:04d}.tfrecord"
        assert list(names.values()) == [f"{split}{i:04d}.tfrecord" for i in range(3844)]  # each has its own


def test_parts_are_those_of_the_published_script():
    """It reported 5, 5, 4 files for shard=1,1000 of train, validate, test, and a validate plan of 226,807 bytes."""
    assert [len(chosen(split, PART)) for split in ("train", "validate", "test")] == [5, 5, 4]
    assert sorted(chosen("train", PART)) == sorted(FIVE)
    parts = [set(chosen("validate", (x, 3))) for x in range(1, 4)]
    assert sum(map(len, parts)) == 3844 == len(set.union(*parts))
    assert len(chosen("train", (1, 100))) == 41


def test_the_page_tells_how_many_shards_a_part_has():
    page = (Path(__file__).parents[2] / "docs" / "download.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `1,(\d+)` \| ([\d,]+) and ([\d,]+) \|", page, re.M)
    assert len(rows) == 4
    for parts, *told in rows:
        assert [f"{len(chosen(split, (1, int(parts)))):,}" for split in ("train", "validate")] == told


MD5 = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Please log in</html>", "Expecting value: line 1"),
        (b"\xff\xfe", "Expecting value: line 1"),
        (b'"\xff"', "can't decode"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
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
    assert "is there a proxy or a login page in between?" in str(error.value)
    assert len(str(error.value)) < 500
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_plan_that_is_too_large_or_lacks_the_part(server, tmp_path):
    server.files["/2/download_plans/frame_train.json"] = b'{"files": {"' + b"a" * (5 << 20)
    with pytest.raises(DownloadError, match="larger than 4194304 bytes"):
        fetch(server, tmp_path)
    server.files["/2/download_plans/frame_train.json"] = json.dumps({"files": {"trainaa.tfrecord": MD5}}).encode()
    with pytest.raises(DownloadError, match="part 1,1000 has none of the 1 shards of train; lower the 1000"):
        fetch(server, tmp_path)


def test_what_is_asked_of_which_of_the_published_servers(tmp_path, monkeypatch):
    asked = set()

    def refuse(self, method, url, headers, **_):
        asked.add((url, headers["Accept-Encoding"]))
        raise requests.exceptions.InvalidURL("not today")

    monkeypatch.setattr(requests.Session, "request", refuse)
    for source in ("yt8m", "audioset"):
        with pytest.raises(DownloadError, match="not today"):
            download(source, tmp_path, mirror="eu", progress=False)
    storage = "https://storage.googleapis.com/{}_audioset/youtube_corpus/v1/{}"
    assert asked == {
        ("http://data.yt8m.org/2/download_plans/frame_train.json", "identity"),
        (storage.format("us", "csv/class_labels_indices.csv"), "identity"),
        (storage.format("eu", "features/features.tar.gz"), "identity"),
    }
    plan = json.dumps({"files": {"trainab.tfrecord": MD5}}).encode()
    [shard] = yt8m_files(lambda url, limit: plan, "train", (1, 1), "asia", "")
    assert shard == Remote("http://asia.data.yt8m.org/2/frame/train/trainab.tfrecord", "train0001.tfrecord", MD5)


# cuts


def test_a_hundredth_of_the_data_comes_whole_through_twenty_cuts(server, tmp_path):
    """41 and 39 shards; ten connections end early, ten are reset, some shards are hit three times."""
    made = offer_yt8m(server, (1, 100))
    assert len(made) == 80
    paths, lost = sorted(made), 0
    for number in range(20):
        path = paths[number * 5 if number < 14 else (number - 14) // 2 * 5]
        server.faults[path].append(cut(1000 + 500 * number, reset=number % 2 == 1))
        lost += (1000 + 500 * number) * (number % 2)
    done = fetch(server, tmp_path, part=(1, 100), splits=["train", "validate"], **tries(6))
    assert_whole(tmp_path, made, ("train", "validate"))
    assert server.cuts == 20
    assert ": 80 files fetched (" in done
    assert "), 0 were there already" in done
    total = sum(map(len, made.values()))
    sent = sum(server.sent[path] for path in made)
    assert total <= sent <= total + lost  # a reset loses at most what was on its way; nothing else came twice
    assert total > 2_500_000
    for split in ("train", "validate"):
        plan = json.loads(server.files[f"/2/download_plans/frame_{split}.json"])["files"]
        for stem, name in chosen(split, (1, 100)).items():
            assert hashlib.md5((tmp_path / name).read_bytes()).hexdigest() == plan[f"{stem}.tfrecord"]


def test_a_file_may_be_cut_more_often_than_there_are_tries_as_long_as_it_grows(server, tmp_path, monkeypatch):
    assert single.STRIDE == 1 << 20
    monkeypatch.setattr(single, "STRIDE", 1 << 14)
    made = offer_yt8m(server, size=160_000, splits=["train"])
    path = max(made, key=lambda path: len(made[path]))
    server.faults[path] = [cut(17_000) for _ in range(6)]
    fetch(server, tmp_path, **tries(2))
    assert_whole(tmp_path, made)
    assert server.cuts == 6
    assert server.sent[path] == len(made[path])
    server.faults[path] = [cut(1000) for _ in range(6)]
    (tmp_path / local(path.rpartition("/")[2].removesuffix(".tfrecord"))).unlink()
    rest = len(made[path]) - 2000
    with pytest.raises(DownloadError, match=rf"1000 bytes read, {rest} more expected\); 2 tries in a row"):
        fetch(server, tmp_path, **tries(2))


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
    for stem, excess in (("traindw", 0), ("traineA", -500), ("trainha", 700)):
        content = made[path_of(stem)]
        part = f"{local(stem)}.{fingerprint(hashlib.md5(content).hexdigest())}.part"
        (tmp_path / part).write_bytes(bytes(len(content) + excess))
    whole = made[path_of("trainjw")]  # stopped after the last byte
    (tmp_path / f"{local('trainjw')}.{fingerprint(hashlib.md5(whole).hexdigest())}.part").write_bytes(whole)
    (tmp_path / "train0208.tfrecord.000000000000.part").write_bytes(b"of another release")
    fetch(server, tmp_path)
    assert server.gets(path_of("trainjw")) == []
    assert len(server.gets(path_of("traineA"))) == 2
    assert_whole(tmp_path, made)


def test_bytes_come_as_they_were_stored(server, tmp_path):
    """Servers call an archive ``Content-Encoding: gzip``: unpacked it would be another file, not to be resumed."""
    [features, _] = made = offer_audioset(server, stated_md5=True)
    server.headers[features]["Content-Encoding"] = "gzip"
    server.faults[features] = [cut(100_000)]
    fetch_audioset(server, tmp_path)
    assert server.gets(features) == [None, "bytes=100000-"]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]


def started(server, folder, *options):
    command = [
        sys.executable,
        "-m",
        "pipeline.run.cli",
        "download",
        "yt8m",
        "--server",
        server.url,
        "--shard",
        "1,1000",
    ]
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
    made = offer_yt8m(server, size=600_000, splits=["train"])
    server.pace = 0.01
    running = started(server, tmp_path)
    names = {local(stem): stem for stem in FIVE}
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
    server.asked.clear()
    fetch(server, tmp_path)
    assert_whole(tmp_path, made)
    assert asked_for(server, made) == sum(map(len, made.values())) - there
    assert not any(server.gets(path_of(names[name])) for name in finished)


def test_a_second_download_into_the_same_folder_is_told(server, tmp_path, capsys):
    """While the first is still at it, in another thread of this process; the lock goes when it ends."""
    offer_yt8m(server)
    hold, told = threading.Event(), []
    server.faults[path_of("traindw")] = [lambda handler, content: (hold.wait(20), handler.give(content))]
    first = threading.Thread(target=lambda: told.append(fetch(server, tmp_path, timeout=20.0)))
    first.start()
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.tfrecord"))) == 4)
        assert main(["download", "yt8m", "--shard", "1,1000", "--folder", str(tmp_path), "--server", server.url]) == 1
        assert "another run is at work on download here (process" in capsys.readouterr().err
    finally:
        hold.set()
        first.join(20)
    assert "5 files fetched" in told[0]
    assert "0 files fetched (0.00B), 5 were there already" in fetch(server, tmp_path)


# what the server says


def test_wrong_bytes_once_are_fetched_again_and_always_are_an_error(server, tmp_path, capsys, hasty):
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [other_bytes]
    fetch(server, tmp_path / "once")
    assert_whole(tmp_path / "once", made)

    server.always[path_of("trainha")] = other_bytes
    assert main(["download", "yt8m", "--shard", "1,1000", "--split", "train", "--folder", str(tmp_path / "always"),
                 "--server", server.url]) == 1  # fmt: skip
    told = capsys.readouterr().err
    right = hashlib.md5(made[path_of("trainha")]).hexdigest()
    assert "1 of 5 files failed, the others are in" in told
    assert f"{server.url}{path_of('trainha')} (for {tmp_path / 'always'}/train0434.tfrecord): MD5 of the" in told
    assert f"expected {right}; 3 tries in a row; run the same command again" in told
    assert len(server.gets(path_of("trainha"))) == 1 + 3
    assert sorted(path.name for path in (tmp_path / "always").glob("train*.tfrecord")) == sorted(
        local(stem) for stem in FIVE if stem != "trainha"
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


@pytest.mark.parametrize("stated_md5", [True, False])
def test_a_web_page_instead_of_the_file_is_no_file(server, tmp_path, stated_md5):
    """A proxy or a login page answers 200 to everything: it would be kept as the archive where no MD5 is stated."""
    [features, _] = offer_audioset(server, stated_md5=stated_md5)
    server.files[features], right = b"<html>Please log in</html>", server.files[features]
    server.headers[features]["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"features\.tar\.gz .*: a web page came instead of the file; .*login page"):
        fetch_audioset(server, tmp_path)
    assert not (tmp_path / "features.tar.gz").exists()
    server.files[features] = right
    del server.headers[features]["Content-Type"]
    fetch_audioset(server, tmp_path)
    assert (tmp_path / "features.tar.gz").read_bytes() == right


SOON = [("1", 1), ("7", 7), ("", 0), ("soon", 0), ("-5", 0), ("9" * 6000, 0), ("Mon, 01 Jan 0001 00:00:00 GMT", 0)]


@pytest.mark.parametrize(("text", "seconds"), SOON)
@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(server, fetcher, code, text, seconds):
    server.files["/x"] = b"content"
    server.faults["/x"] = [status(code, Retry_After=text), status(500)]
    assert fetcher.text(f"{server.url}/x", 10) == b"content"
    assert fetcher.stop.waits[:2] == [0, seconds]
    assert 2 <= fetcher.stop.waits[2] <= 3  # it was not asked to wait the second time


def test_the_time_to_come_back_may_be_a_date(server, fetcher):
    server.files["/x"] = b"content"
    server.faults["/x"] = [status(429, Retry_After=formatdate(time.time() + 60, usegmt=True))]
    assert fetcher.text(f"{server.url}/x", 10) == b"content"
    assert 50 < fetcher.stop.waits[1] <= 60


def test_a_server_that_wants_to_be_left_for_a_day_is_left(server, tmp_path):
    made = offer_yt8m(server)
    server.faults["/2/download_plans/frame_train.json"] = [status(503)]
    server.always[path_of("trainI1")] = status(429, Retry_After="86400")
    with pytest.raises(
        DownloadError, match="HTTP 429 Too Many Requests, to come back in 86400 s; run the same command"
    ):
        fetch(server, tmp_path)
    assert len(server.gets(path_of("trainI1"))) == 1
    assert len(list(tmp_path.glob("*.tfrecord"))) == len(FIVE) - 1
    del server.always[path_of("trainI1")]
    fetch(server, tmp_path)
    assert_whole(tmp_path, made)


def test_pauses_double_up_to_a_minute(server, fetcher):
    """At once, then after 2, 4, 8, ... seconds or one more at random, so that a crowd does not come back together."""
    server.always["/x"] = status(503)
    fetcher.retry = RETRY.new(total=9)
    with pytest.raises(DownloadError, match="/x: HTTP 503 Service Unavailable; 10 tries in a row; run the same"):
        fetcher.text(f"{server.url}/x", 10)
    assert len(server.gets("/x")) == 10
    first, second, *waits = fetcher.stop.waits
    assert (first, second) == (0, 0)
    for wait, least in zip(waits, (2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert least <= wait <= min(least + 1, 60)
    assert RETRY.total == 5


@pytest.mark.parametrize("fault", [servers.drip, servers.drip_head])
def test_a_server_that_drips_is_left(server, tmp_path, fault):
    """A byte every 50 ms never runs into the timeout of a socket."""
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [fault]
    before = time.monotonic()
    fetch(server, tmp_path, **tries(2, timeout=0.5))
    assert time.monotonic() - before < 5
    assert_whole(tmp_path, made)
    assert len(server.gets(path_of("traindw"))) == 2


def test_nobody_answers(tmp_path):
    with servers.serving() as gone:
        address = gone.url
    with pytest.raises(DownloadError, match=r"frame_train\.json: \[Errno \d+\] .*refused; 3 tries in a row; run the"):
        download("yt8m", tmp_path, part=PART, server=address, progress=False, **HASTY)
    with pytest.raises(ValueError, match="source 'kinetics': expected 'yt8m' or 'audioset'"):
        download("kinetics", tmp_path)
    for server in ("ftp://host", "file:///etc", "localhost:80", "http://", "http://[", "http://host/?x"):
        with pytest.raises(DownloadError, match="no address of a server"):
            download("audioset", tmp_path, server=server)


def test_redirections(server, tmp_path):
    made = offer_yt8m(server)
    server.files["/elsewhere"] = made[path_of("traindw")]
    server.always[path_of("traindw")] = servers.endless_redirection("/elsewhere")
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
    assert "Exceeded 5 redirects" in lines[1]
    assert "No connection adapters were found for 'file://" in lines[2]
    assert "No connection adapters were found for 'ftp://" in lines[3]
    assert "Invalid IPv6 URL" in lines[4]
    assert all(
        line.endswith("; check the address (https is not left for http); is there a proxy or a login page in between?")
        for line in lines[1:]
    )
    assert len(server.gets(path_of("traineA"))) == 2


class Elsewhere(BaseAdapter):
    """In the place of the network: the first address sends to ``location``, any other is the file."""

    def __init__(self, location):
        super().__init__()
        self.location, self.asked = location, []

    def send(self, request, **_):
        answer = requests.Response()
        answer.request, answer.url, answer.status_code = request, request.url, 200 if self.asked else 302
        answer.headers["location"] = self.location
        answer.raw = urllib3.HTTPResponse(io.BytesIO(b"content"), preload_content=False)
        self.asked.append(request.url)
        return answer

    def close(self): ...


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [("https://a/x", "/y", "https://a/y"), ("http://a/x", "https://b/y", "https://b/y"),
     ("http://a/x", "y", "http://a/y"), ("https://a/x", "https://b/é y".encode().decode("latin1"), "https://b/%C3%A9%20y"),
     *(("https://a/x", location, None) for location in ("http://a/y", "HTTP://a/y", "javascript:1", "data:,1",
                                                        "file:/etc/passwd", "https://b/é"))],
)  # fmt: skip
def test_no_redirection_from_https_to_http(fetcher, monkeypatch, url, location, target):
    network = Elsewhere(location)
    monkeypatch.setattr(single, "_Adapter", lambda: network)
    fetcher.retry = RETRY.new(total=0)
    if target:
        assert fetcher.text(url, 10) == b"content"
        assert network.asked == [url, target]
    else:
        with pytest.raises(
            DownloadError, match=r"https://a/x: .*; check the address \(https is not left for http\); is there a proxy"
        ):
            fetcher.text(url, 10)
        assert network.asked == [url]


def test_a_stated_length_that_is_wrong(server, tmp_path):
    """Too long is no harm, the MD5 is right; too short is a wrong MD5; neither hangs."""
    made = offer_yt8m(server)
    server.faults[path_of("traindw")] = [length(+1000)]
    server.faults[path_of("traineA")] = [length(+1000, hold=5)]
    server.faults[path_of("trainha")] = [length(-1000)]
    before = time.monotonic()
    fetch(server, tmp_path, timeout=0.5)
    assert time.monotonic() - before < 4
    assert_whole(tmp_path, made)
    assert [len(server.gets(path_of(stem))) for stem in ("traindw", "traineA", "trainha")] == [1, 1, 2]

    server.faults[path_of("traindw")] = [length(+1000)]
    fetch(server, tmp_path / "one", **tries(1))  # it is there at the first
    assert_whole(tmp_path / "one", made)

    server.always[path_of("trainha")] = length(-1000)
    with pytest.raises(DownloadError, match=r"MD5 of the .* bytes is .*, expected"):
        fetch(server, tmp_path / "new")


def test_a_stream_without_an_end_and_a_length_beyond_reason(server, tmp_path, monkeypatch):
    offer_yt8m(server)
    monkeypatch.setattr(single, "LARGEST", 1 << 20)
    server.always[path_of("traindw")] = servers.endless
    server.always[path_of("traineA")] = length(1 << 20)
    with pytest.raises(DownloadError) as error:
        fetch(server, tmp_path)
    for stem in ("traindw", "traineA"):
        assert re.search(
            rf"{stem}\.tfrecord \(for .*\): larger than 1048576 bytes, and no such file is", str(error.value)
        )
        assert len(server.gets(path_of(stem))) == 1
    assert server.sent[path_of("traineA")] < 1 << 20
    assert sum(path.stat().st_size for path in tmp_path.glob("*.part")) == 0


# the disk


def test_too_little_room_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    made = offer_yt8m(server, (1, 100), size=8_000, splits=["train"])
    total, count = sum(map(len, made.values())), len(made)
    assert module.ASKED == 64
    monkeypatch.setattr(module, "ASKED", count // 2 - 1)  # so that the whole is told from a sample
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 100_000, 100_000))
    with pytest.raises(
        DownloadError, match=rf"{count} files to fetch, (\d+)kB, going by \d\d of them; 100kB are free; make"
    ) as error:
        fetch(server, tmp_path, part=(1, 100))
    told = int(re.search(r"(\d+)kB, going", str(error.value))[1])
    assert abs(told * 1000 - total) < total / 10 > 10_000
    assert not any(method == "GET" and "/frame/" in path for method, path, *_ in server.asked)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 10**9))
    fetch(server, tmp_path, part=(1, 100))
    assert_whole(tmp_path, made)


def test_a_server_that_tells_no_sizes(server, tmp_path, capsys):
    made = offer_yt8m(server)
    server.heads = False
    fetch(server, tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "5 files to fetch; the server does not say how large" in shown
    assert "5/5 files]" in shown  # one bar for all
    assert_whole(tmp_path, made)


def test_a_disk_that_fills_up_on_the_way(server, tmp_path, monkeypatch, capsys):
    """The write fails after 40,000 bytes; what came stays, and the next run adds the rest."""
    made = offer_yt8m(server, splits=["train"])
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
        return file if mode == "rb" else Full(file)

    monkeypatch.setattr(single, "open", opened, raising=False)
    command = ["download", "yt8m", "--shard", "1,1000", "--split", "train", "--folder", str(tmp_path), "--workers", "1"]
    assert main([*command, "--server", server.url]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path}: cannot be written (No space left on device): no space left on this disk; free some" in told
    assert "run again: what is finished is kept" in told
    kept = sum(path.stat().st_size for path in [*tmp_path.glob("*.part"), *tmp_path.glob("*.tfrecord")])
    assert kept == 40_000
    monkeypatch.undo()
    server.asked.clear()
    fetch(server, tmp_path)
    assert asked_for(server, made) == sum(map(len, made.values())) - 40_000
    assert_whole(tmp_path, made)


def test_memory_does_not_grow_with_the_files(server, tmp_path):
    made = offer_yt8m(server, size=6_000_000, splits=["train"])
    assert sum(map(len, made.values())) > 18_000_000
    tracemalloc.start()
    try:
        fetch(server, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert_whole(tmp_path, made)


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
        patched.setattr(Remote, "flaw", lambda self, path: pytest.fail(f"{path} was read again"))
        assert "0 files fetched (0.00B), 5 were there already" in fetch(server, tmp_path)
    assert not any("/frame/" in path for _, path, *_ in server.asked)

    damaged, touched = (tmp_path / local(stem) for stem in ("traindw", "traineA"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    os.utime(touched)
    assert re.search(r"1 files fetched \(.*\), 4 were there already", fetch(server, tmp_path))
    assert server.gets(path_of("traindw")) == [None]
    assert not server.gets(path_of("traineA"))
    assert_whole(tmp_path, made)


@pytest.mark.parametrize("record", [None, b"{", b"[]", b"5", b"\xff", b'{"train0199.tfrecord": 5}'])
def test_files_of_another_download_are_checked_once(server, tmp_path, record):
    """Those that Google's own script left, or a record that is lost or damaged."""
    made = offer_yt8m(server)
    for stem in FIVE[:3]:
        (tmp_path / local(stem)).write_bytes(made[path_of(stem)])
    if record:
        (tmp_path / ".download.json").write_bytes(record)
    assert "2 files fetched" in fetch(server, tmp_path)
    assert "5 were there already" in fetch(server, tmp_path)
    assert_whole(tmp_path, made)


# AudioSet and the vocabulary


@pytest.mark.parametrize("stated_md5", [True, False])
def test_audioset(server, tmp_path, capsys, hasty, stated_md5):
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
            fetch_audioset(server, tmp_path)


def test_audioset_that_changes_between_two_runs_is_begun_anew(server, tmp_path):
    """Without an MD5 nothing else would tell that the halves are of two versions."""
    [features, _] = offer_audioset(server, stated_md5=False)
    server.always[features] = cut(60_000)
    with pytest.raises(DownloadError, match="60000 bytes read, 180000 more expected"):
        fetch_audioset(server, tmp_path, **tries(2))
    assert [path.stat().st_size for path in tmp_path.glob("*.part")] == [120_000]
    del server.always[features]
    server.files[features] = server.files[features][::-1]
    server.headers[features] = {"ETag": '"second"'}
    server.asked.clear()
    fetch_audioset(server, tmp_path)
    assert server.gets(features) == [None]
    assert (tmp_path / "features.tar.gz").read_bytes() == server.files[features]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("heeds", [True, False])
def test_audioset_that_changes_in_the_middle_is_begun_anew(server, tmp_path, heeds):
    """As long as before; the server heeds If-Range and gives all of it, or gives the rest of the new version."""
    [features, _] = made = offer_audioset(server, stated_md5=False)

    def changes(handler, content):
        cut(60_000)(handler, content)
        server.files[features] = content[::-1]
        server.headers[features] = {"ETag": '"second"'}

    def rest(handler, content):
        del handler.headers["If-Range"]
        handler.give(content)

    server.faults[features] = [changes] if heeds else [changes, rest]
    fetch_audioset(server, tmp_path)
    assert server.gets(features) == [None, "bytes=60000-"] + [None] * (not heeds)
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features][::-1]


def test_a_rest_that_does_not_begin_where_it_should(server, tmp_path):
    """Without an MD5 nothing else would tell."""
    made = offer_audioset(server, stated_md5=False)
    [features, _] = made
    server.faults[features] = [cut(60_000), servers.other_range]
    fetch_audioset(server, tmp_path)
    assert server.gets(features) == [None, "bytes=60000-", None]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]


def test_a_server_that_tells_nothing_to_know_a_version_by(server, tmp_path):
    """Nothing is then added to a part, and a file that is there is taken for whole by its size."""
    [features, _] = made = offer_audioset(server, stated_md5=False)
    server.headers.clear()
    server.faults[features] = [cut(60_000)]
    fetch_audioset(server, tmp_path)
    assert server.gets(features) == [None, None]
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]
    assert "2 were there already" in fetch_audioset(server, tmp_path)
    assert len(server.gets(features)) == 2


def test_a_length_told_beforehand_alone_is_enough(server, tmp_path):
    """In chunks, as servers send what they do not store as it is."""
    [features, _] = made = offer_audioset(server, stated_md5=False)
    server.always[features] = servers.chunked
    fetch_audioset(server, tmp_path)
    assert (tmp_path / "features.tar.gz").read_bytes() == made[features]


def test_the_vocabulary(server, tmp_path, capsys, hasty):
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
    assert "vocabulary" not in fetch(server, tmp_path).partition(":")[2]
    assert (tmp_path / "vocabulary.csv").read_bytes() == server.files[VOCABULARY]
    assert_whole(tmp_path, made, ("train", "validate"))


@pytest.mark.parametrize(
    "options",
    [["--shard", "0,5"], ["--shard", "6,5"], ["--shard", "1"], ["--shard", "a,b"], ["--shard", "-1,5"], [],
     ["--shard", "1,5", "--workers", "0"], ["--shard", "1,5", "--split", "test"],
     ["--shard", "1,5", "--mirror", "mars"]],
)  # fmt: skip
def test_the_command_refuses(options, tmp_path):
    assert main(["download", "yt8m", "--folder", str(tmp_path / "new"), *options]) == 2
    assert not (tmp_path / "new").exists()
