"""Hostile inputs made of good ones: records, whole shards and parameter files, each from a seed alone."""

import random
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pipeline.records.tfrecord import masked_crc32c

Mutation = Callable[[random.Random, bytes], bytes]
ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
HUGE = (1 << 20, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 5, (1 << 64) - 1)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 2**31, 2**63,
    10**30, 10**5000, "", "0", "x" * 1000, "\x00", "\ud800", "nan", [], [1], {}, {"a": 1}, {1: 2}, {None: None},
    [[[[]]]], b"bytes", {1, 2}, object,
)  # fmt: skip
ODD_TEXTS = (
    "\t", "\x00", "\x07", "\ufeff", "\u2028", "&a ", "*a", "*b", "<<: *a\n", "<<: 1\n",
    "!!python/object/apply:os.system ['x']", "!!binary x", "!!set {a}", "!!timestamp 2001-99-99", "2001-99-99",
    "2001-12-14t21:59:43.10-25:00", "? [a]\n: 1\n",
    "? {a: 1}\n: 1\n", "---\n", "...\n", "%YAML 9.9\n---\n", "%YAML 1.1\n---\n", "%TAG ! x\n", "{", "}", "[", "]", "- ",
    ": ", "|\n", ">\n", '"', "'", "\\", '"\\ud800"', '"\\U00110000"', "0x" + "f" * 9000, "9" * 5000, "1e999", ".nan",
    "-.inf", "0o9", "1_0", "~", "=", "@", "`", "# ", "\r", "\u0085", "&a [*a]", "{a: &a {b: *a}}",
    "[" * 2000, "{a: " * 500,
)  # fmt: skip


def record(source: random.Random, whole: bytes, other: bytes) -> tuple[str, bytes]:
    """A record with up to three changes.

    Args:
        source: of chance.
        whole: a serialised SequenceExample.
        other: another one, to take parts from.
    Returns:
        What was done first, and the bytes.
    """
    name = source.choice(list(RECORD))
    made = RECORD[name](source, whole) if name != "splice" else _splice(source, whole, other)
    for _ in range(source.choice((0, 0, 1, 2))):
        made = RECORD[source.choice(list(RECORD))](source, made)
    return name, made


def shard(source: random.Random, records: Sequence[bytes]) -> tuple[str, bytes]:
    """A TFRecord file whose framing is hostile: checksums may be right over wrong lengths and contents.

    Args:
        source: of chance.
        records: good ones.
    Returns:
        What was done, and the bytes of the file.
    """
    framed = [frame(one) for one in records]
    name = source.choice(("flip", "truncate", "length", "length, right checksum", "record, right checksum", "garbage"))
    at = source.randrange(len(records))
    if name == "length":
        framed[at] = struct.pack("<Q", source.choice(HUGE)) + framed[at][8:]
    elif name == "length, right checksum":
        length = source.choice((*HUGE, len(records[at]) - 1, len(records[at]) + 1, 0, source.getrandbits(64)))
        framed[at] = head(length) + framed[at][12:]
    elif name == "record, right checksum":
        framed[at] = frame(record(source, records[at], records[0])[1])
    elif name == "garbage":
        framed.insert(at, source.randbytes(source.randrange(64)))
    whole = b"".join(framed)
    if name == "truncate":
        whole = whole[: source.randrange(len(whole))]
    elif name == "flip":
        whole = _flip(source, whole)
    return name, whole


def text(source: random.Random, whole: str) -> tuple[str, bytes]:
    """A parameter file with a few hostile changes.

    Args:
        source: of chance.
        whole: a good one.
    Returns:
        What was done first, and the bytes.
    """
    name = source.choice(("odd text", "bytes", "lines", "deep", "value"))
    if name == "deep":
        opened, closed = source.choice((("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")))
        deep = source.choice((10, 100))
        return name, f"{whole}\nextra: {opened * deep}{closed * source.choice((0, deep))}\n".encode()
    if name == "bytes":
        made = whole.encode()
        for _ in range(source.randint(1, 4)):
            made = source.choice((_flip, _set, _truncate, _delete))(source, made)
        return name, made
    for _ in range(source.randint(1, 3)):
        lines = whole.split("\n")
        at = source.randrange(len(lines))
        if name == "lines":
            lines[at] = source.choice((lines[source.randrange(len(lines))], " " + lines[at], lines[at].strip(), ""))
        elif name == "value" and ": " in lines[at]:
            lines[at] = lines[at].partition(": ")[0] + ": " + source.choice(ODD_TEXTS)
        else:
            cut = source.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + source.choice(ODD_TEXTS) + lines[at][cut:]
        whole = "\n".join(lines)
    return name, whole.encode(errors="surrogatepass")


def values(source: random.Random, whole: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Parameters as plain values, some of them of wrong types, out of range, missing or unknown.

    Args:
        source: of chance.
        whole: good ones, as :func:`pipeline.base.parameters.as_dict` gives them; left as they are.
    Returns:
        What was done first, and the values.
    """
    made = {group: dict(found) if isinstance(found, dict) else found for group, found in whole.items()}
    kinds = [source.choice(("value", "unknown", "missing", "group")) for _ in range(source.randint(1, 3))]
    for kind in kinds:
        group = source.choice(list(made))
        odd = source.choice(ODD_VALUES)
        inner = made[group]
        if kind == "group" or not isinstance(inner, dict) or not inner:
            made[group] = odd
            continue
        key = source.choice(list(inner))
        if kind == "missing":
            del inner[key]
        else:
            place = key if kind == "value" else source.choice((f"{key}x", "", str(key).upper(), "x" * 5000))
            inner[place] = source.choice((odd, [odd], {key: odd}))
    return kinds[0], made


@lru_cache(64)
def frame(data: bytes) -> bytes:
    """One record of a TFRecord file, with its checksums."""
    return head(len(data)) + data + struct.pack("<I", masked_crc32c(data))


def head(length: int) -> bytes:
    """The first twelve bytes of a record that promises ``length`` bytes, with their checksum."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc32c(packed))


def _flip(source: random.Random, whole: bytes) -> bytes:
    made = bytearray(whole)
    for _ in range(source.choice((1, 1, 2, 8)) if made else 0):
        made[source.randrange(len(made))] ^= 1 << source.randrange(8)
    return bytes(made)


def _set(source: random.Random, whole: bytes) -> bytes:
    made = bytearray(whole)
    for _ in range(source.choice((1, 2, 4)) if made else 0):
        made[_place(source, whole)] = source.choice(ODD_BYTES)
    return bytes(made)


def _truncate(source: random.Random, whole: bytes) -> bytes:
    return whole[: _place(source, whole)]


def _delete(source: random.Random, whole: bytes) -> bytes:
    start = _place(source, whole)
    return whole[:start] + whole[start + source.choice((1, 2, 16, 300)) :]


def _repeat(source: random.Random, whole: bytes) -> bytes:
    """A stretch of it several times: a field twice, or thousands of fields."""
    start, length = _place(source, whole), source.choice((1, 2, 4, 40, 1000))
    return whole[:start] + whole[start : start + length] * source.choice((2, 2, 3, 1000)) + whole[start + length :]


def _insert_number(source: random.Random, whole: bytes) -> bytes:
    """A huge, overlong or unending length in place of a byte."""
    number, encoded = source.choice(HUGE), bytearray()
    while number:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded += source.choice((b"\x00", b"\x01", b"\xff" * 64, b"\xff" * 100_000))
    at = _place(source, whole)
    return whole[:at] + bytes(encoded) + whole[at + 1 :]


def _many_fields(source: random.Random, whole: bytes) -> bytes:
    """Thousands of empty or tiny fields of one kind."""
    field = source.choice(
        (b"\x0a\x00", b"\x12\x00", b"\x12\x02\x0a\x00", b"\x0a\x01\x00", b"\x12\x06\x0a\x02\x0a\x00\x12\x00")
    )
    return whole + field * source.choice((10, 1000, 50_000))


def _splice(source: random.Random, whole: bytes, other: bytes) -> bytes:
    return whole[: _place(source, whole)] + other[_place(source, other) :]


def _place(source: random.Random, whole: bytes) -> int:
    """Anywhere, half of the time among the first bytes, where the structure is."""
    return source.randrange(max(1, min(len(whole), source.choice((160, len(whole))))))


RECORD: dict[str, Mutation] = {
    "flip": _flip,
    "odd bytes": _set,
    "truncate": _truncate,
    "delete": _delete,
    "repeat": _repeat,
    "length": _insert_number,
    "many fields": _many_fields,
    "splice": lambda source, whole: _splice(source, whole, whole),
}
