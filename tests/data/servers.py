"""A server on this machine with the layout of Google's, that misbehaves on request."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

NAMES = [first + second for first, second in product(ascii_lowercase + ascii_uppercase + digits, repeat=2)]
Fault = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """Holds ``files`` by path; ``faults[path]`` are used up one a GET, the last for ever if it is in ``always``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.headers: dict[str, dict[str, str]] = defaultdict(dict)
        self.ranges, self.heads, self.pace = True, True, 0.0
        self.asked: list[tuple[str, str, str | None, float]] = []  # method, path, range, time
        self.sent: dict[str, int] = defaultdict(int)  # body bytes by path
        self.cuts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self, path: str) -> list[str | None]:
        """The ranges asked of a path, one a GET."""
        return [span for method, name, span, _ in self.asked if method == "GET" and name == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.server.asked.append(("HEAD", self.path, None, time.monotonic()))
        content = self.server.files.get(self.path)
        if content is None or not self.server.heads:
            self.answer(404 if self.server.heads else 405)
        else:
            self.answer(200, {"Content-Length": str(len(content)), **self.server.headers[self.path]})

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, self.headers.get("Range"), time.monotonic()))
        faults = self.server.faults[self.path]
        fault = faults.pop(0) if faults else self.server.always.get(self.path)
        content = self.server.files.get(self.path)
        if fault:
            fault(self, content or b"")
        elif content is None:
            self.answer(404, {"Content-Length": "0"})
        else:
            self.give(content)

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def begin(self, content: bytes, length: int | None = None) -> bytes:
        """Send the head of a good answer; what of the content is to follow."""
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        known = self.server.headers[self.path]
        changed = self.headers.get("If-Range", known.get("ETag")) != known.get("ETag")
        start = int(span[1]) if span and self.server.ranges and not changed else 0
        if start >= len(content) > 0:
            self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return b""
        headers = {"Content-Length": str(len(content) - start if length is None else length), **known}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, headers)
        return content[start:]

    def body(self, content: bytes) -> None:
        for at in range(0, len(content), 16384):
            self.wfile.write(content[at : at + 16384])
            self.server.sent[self.path] += len(content[at : at + 16384])
            time.sleep(self.server.pace)

    def give(self, content: bytes) -> None:
        self.body(self.begin(content))


def cut(after: int, *, reset: bool = False) -> Fault:
    """Break the connection after so many bytes of the body; politely, or with a reset."""

    def fault(handler: Handler, content: bytes) -> None:
        rest = handler.begin(content)
        handler.body(rest[:after])
        handler.server.cuts += len(rest) > after
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True

    return fault


def status(code: int, **headers: str) -> Fault:
    told = {"Content-Length": "0"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(code, told)


def other_bytes(handler: Handler, content: bytes) -> None:
    """As many bytes, one of them wrong."""
    handler.body(handler.begin(bytes([content[0] ^ 1]) + content[1:]))


def length(difference: int, *, hold: float = 0.0) -> Fault:
    """State another length than the body has, and keep the connection open for so many seconds."""

    def fault(handler: Handler, content: bytes) -> None:
        rest = handler.begin(content, len(content) + difference)
        handler.body(rest)
        handler.wfile.flush()
        time.sleep(hold)
        handler.close_connection = True

    return fault


def other_range(handler: Handler, content: bytes) -> None:
    """Asked for the rest, as many bytes from the beginning, under the status that means the rest."""
    start = int(handler.headers["Range"][6:-1])
    count = len(content) - start
    handler.answer(206, {"Content-Range": f"bytes 0-{count - 1}/{len(content)}", "Content-Length": str(count)})
    handler.body(content[:count])


def drip(handler: Handler, content: bytes) -> None:
    """A byte every 50 ms."""
    for at, byte in enumerate(handler.begin(content)):
        handler.body(bytes([byte]))
        time.sleep(0.05)
        if at > 200:
            break


def drip_head(handler: Handler, content: bytes) -> None:
    """The same before the body has begun: an endless header."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(200):
        handler.wfile.write(b"a")
        time.sleep(0.05)


def endless(handler: Handler, content: bytes) -> None:
    """Chunks without an end."""
    handler.answer(200, {"Transfer-Encoding": "chunked"})
    block = bytes(1 << 16)
    while True:
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def chunked(handler: Handler, content: bytes) -> None:
    """In one chunk, without a length of the whole."""
    handler.answer(200, {"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))


def endless_redirection(location: str) -> Fault:
    """To another place, with a body without an end."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.answer(302, {"Transfer-Encoding": "chunked", "Location": location})
        while True:
            handler.wfile.write(b"10000\r\n%b\r\n" % bytes(1 << 16))

    return fault


def offer_yt8m(
    server: Server,
    part: tuple[int, int] = (1, 1000),
    size: int = 50_000,
    splits: Sequence[str] = ("train", "validate"),
) -> dict[str, bytes]:
    """Plans, and the shards of one part of each split; those, by the path on the server."""
    random, made = np.random.default_rng(0), {}
    for split in splits:
        plan = {f"{split}{suffix}.tfrecord": "0" * 32 for suffix in NAMES[::64]}
        for name in names_in(split, part):
            content = random.bytes(int(random.integers(size // 2, size)))
            made[f"/2/frame/{split}/{name}"] = content
            plan[name] = hashlib.md5(content).hexdigest()
        server.files[f"/2/download_plans/frame_{split}.json"] = json.dumps({"files": plan}).encode()
    server.files |= made
    return made


@cache
def names_in(split: str, part: tuple[int, int]) -> list[str]:
    """The shards of one part, of all 3,844."""
    names = [f"{split}{suffix}.tfrecord" for suffix in NAMES]
    return [name for name in names if int(hashlib.md5(name.encode()).hexdigest(), 16) % part[1] == part[0] - 1]


def offer_audioset(server: Server, *, stated_md5: bool, size: int = 300_000) -> dict[str, bytes]:
    """AudioSet's two files; the storage states their MD5, or only an ETag."""
    made = {"/youtube_corpus/v1/features/features.tar.gz": np.random.default_rng(1).bytes(size),
            "/youtube_corpus/v1/csv/class_labels_indices.csv": b"index,mid,display_name\n"}  # fmt: skip
    for path, content in made.items():
        digest = hashlib.md5(content)
        stated = {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(digest.digest()).decode()}"}
        server.headers[path] = {"ETag": f'"{digest.hexdigest()}"'} | (stated if stated_md5 else {})
    server.files |= made
    return made
