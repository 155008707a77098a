"""The one message that a frame-level record holds, ``tf.train.SequenceExample``, from and to protobuf's wire format.

What protobuf's own parser accepts is accepted and means the same: a repeated message is merged, of a repeated key or a
``oneof`` the last counts, numbers stand packed or singly, unknown fields are passed over. The rest is refused.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

BYTES, FLOATS, INTEGERS = 1, 2, 3  # the kinds of a Feature, by their field numbers
# how a field is written: the tag's lower three bits
NUMBER, EIGHT_BYTES, SIZED, GROUP, GROUP_END, FOUR_BYTES = range(6)
FIRST, SECOND, THIRD = (number << 3 | SIZED for number in (1, 2, 3))  # tags of sized fields
DEPTH = 100  # groups in groups, as in protobuf

Feature = dict[int, list]  # its values by their kind, one at most; floats are checked, not kept
Frames = UInt8[np.ndarray, "frames width"] | list[bytes]  # a list where they are not all written alike
Span = tuple[int, int]


class MalformedError(ValueError):
    """Bytes that are no such message: ``reason``, and ``at`` which of them."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"{reason} at byte {at}")
        self.reason, self.at = reason, at


def parse(data: bytes) -> tuple[dict[str, Feature], dict[str, Frames]]:
    """The context of a serialised SequenceExample, and the byte strings of its feature lists, a row a frame.

    Several of one frame are joined. What protobuf would not read either raises MalformedError.
    """
    context: dict[str, Feature] = {}
    lists: dict[str, Frames] = {}
    for tag, start, stop in _fields(data, 0, len(data)):
        if tag == FIRST:
            for name, spans in _entries(data, start, stop):
                feature: Feature = {}
                for span in spans:
                    _merge(feature, data, *span)
                context[name] = feature
        elif tag == SECOND:
            lists.update((name, _frames(data, spans)) for name, spans in _entries(data, start, stop))
    return context, lists


def serialise(
    id_key: str, name: str, labels: Sequence[int], lists: dict[str, UInt8[np.ndarray, "frames width"]]
) -> bytes:
    """One SequenceExample as TensorFlow writes it, keys in order; labels are 64-bit integers."""
    for label in labels:
        if not -(1 << 63) <= label < 1 << 63:
            raise ValueError(f"{label} has more than 64 bits")
    packed = b"".join(_varint(label & (1 << 64) - 1) for label in labels)
    context = {id_key: _sized(1, _sized(1, name.encode())), "labels": _sized(3, _sized(1, packed) if packed else b"")}
    written = {feature: _frame_list(frames) for feature, frames in lists.items()}
    return b"".join(
        _sized(number, b"".join(_sized(1, _sized(1, key.encode()) + _sized(2, values[key])) for key in sorted(values)))
        for number, values in ((1, context), (2, written))
    )


def _entries(data: bytes, start: int, stop: int) -> Iterator[tuple[str, list[Span]]]:
    """The entries of a map: each key, and where its value lies, in pieces that are to be merged."""
    for tag, at, end in _fields(data, start, stop):
        if tag == FIRST:
            name, spans = "", []
            for inner, begin, close in _fields(data, at, end):
                if inner == FIRST:
                    try:
                        name = data[begin:close].decode()
                    except UnicodeDecodeError:
                        raise MalformedError("a key that is not UTF-8", begin) from None
                elif inner == SECOND:
                    spans.append((begin, close))
            yield name, spans


def _frames(data: bytes, spans: list[Span]) -> Frames:
    """The frames of one FeatureList: a view where all are written alike, which takes a quarter of protobuf's time."""
    if len(spans) == 1 and (rows := _alike(data, *spans[0])) is not None:
        return rows
    frames = []
    for span in spans:
        for tag, start, stop in _fields(data, *span):
            if tag == FIRST:
                feature: Feature = {}
                _merge(feature, data, start, stop)
                frames.append(b"".join(feature.get(BYTES, ())))
    return frames


def _alike(data: bytes, start: int, stop: int) -> UInt8[np.ndarray, "frames width"] | None:
    """Rows of equal size, each a Feature of a BytesList of one value; None if they are anything else."""
    at, ends = start, set()
    for _ in range(3):
        if at >= stop or data[at] != FIRST:
            return None
        size, at = _number(data, at + 1, stop, 5)
        ends.add(at + size)
    stride, head = ends.pop() - start, at - start
    if ends or (stop - start) % stride:
        return None
    rows = np.frombuffer(data, np.uint8, stop - start, start).reshape(-1, stride)  # (frames, stride)
    return rows[:, head:] if (rows[:, :head] == rows[0, :head]).all() else None


def _merge(feature: Feature, data: bytes, start: int, stop: int) -> None:
    """Read a Feature into what was read of it before."""
    for tag, begin, close in _fields(data, start, stop):
        if tag not in (FIRST, SECOND, THIRD):
            continue
        kind = tag >> 3
        if kind not in feature:
            feature.clear()
            feature[kind] = []
        values = feature[kind]
        for inner, at, end in _fields(data, begin, close):  # of a BytesList, FloatList or Int64List
            if kind == BYTES and inner == FIRST:
                values.append(data[at:end])
            elif kind == INTEGERS and inner in (FIRST, 1 << 3 | NUMBER):
                while at < end:
                    value, at = _number(data, at, end, 10)
                    values.append(value - (value >> 63 << 64))
            elif kind == FLOATS and inner == FIRST and (end - at) % 4:
                raise MalformedError("packed floats that are not of four bytes each", at)


def _fields(data: bytes, at: int, stop: int) -> list[tuple[int, int, int]]:
    """Tag, start and end of each field of the message in ``data[at:stop]``; groups are passed over."""
    fields: list[tuple[int, int, int]] = []
    groups: list[int] = []  # those that are open
    while at < stop:
        began, tag = at, data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _number(data, at, stop, 5)
        kind, start = tag & 7, at
        if tag < 8 or tag >= 1 << 32:
            raise MalformedError(f"field number {tag >> 3}", began)
        if kind == SIZED:
            if at < stop and data[at] < 0x80:
                start = at + 1
                at = start + data[at]
            else:
                size, start = _number(data, at, stop, 5)
                at = start + size
        elif kind == NUMBER:
            _, at = _number(data, at, stop, 10)
        elif kind == GROUP and len(groups) < DEPTH:
            groups.append(tag >> 3)
        elif kind == GROUP_END and groups and groups[-1] == tag >> 3:
            groups.pop()
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if kind == EIGHT_BYTES else 4
        else:
            raise MalformedError("no field of any kind", began)
        if at > stop:
            raise MalformedError("a field longer than its message", began)
        if not groups:
            fields.append((tag, start, at))
    if groups:
        raise MalformedError("a group without an end", at)
    return fields


def _number(data: bytes, at: int, stop: int, most: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    for end in range(at, min(stop, at + most)):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, end + 1
        shift += 7
    raise MalformedError("a number without an end", at)


def _frame_list(frames: UInt8[np.ndarray, "frames width"]) -> bytes:
    """A FeatureList with a byte string a frame."""
    count, width = frames.shape
    whole = _sized(1, _sized(1, _sized(1, bytes(width))))
    head = len(whole) - width
    rows = np.empty((count, len(whole)), np.uint8)  # (frames, stride)
    rows[:, :head] = np.frombuffer(whole, np.uint8, head)
    rows[:, head:] = frames
    return rows.tobytes()


def _sized(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | SIZED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
