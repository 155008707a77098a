"""The one message that a frame-level record holds, ``tf.train.SequenceExample``, without TensorFlow.

It is declared here, and protobuf reads and writes it. The values of its two maps are declared as bytes, which is the
same on the wire: so the frames of a video, which are nearly all of it, need not become a message each.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from jaxtyping import UInt8

KINDS = ("bytes", "float", "int64", "string")
SCALARS = {kind: getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}") for kind in KINDS}
REPEATED, SINGLE = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.LABEL_OPTIONAL
DECLARED = {  # each field's name, type and label, in the order of the field numbers
    "BytesList": [("value", "bytes", REPEATED)],
    "FloatList": [("value", "float", REPEATED)],
    "Int64List": [("value", "int64", REPEATED)],
    "Feature": [(f"{name.lower()}_list", f"{name}List", SINGLE) for name in ("Bytes", "Float", "Int64")],
    "FeatureList": [("feature", "Feature", REPEATED)],
    "Entry": [("key", "string", SINGLE), ("value", "bytes", REPEATED)],  # pieces of one value are to be merged
    "Map": [("entry", "Entry", REPEATED)],
    "SequenceExample": [("context", "Map", SINGLE), ("feature_lists", "Map", SINGLE)],
}


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="sequence_example.proto", package="artpaper", syntax="proto3")
    for name, fields in DECLARED.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, label) in enumerate(fields, start=1):
            of = {"type": SCALARS[kind]} if kind in SCALARS else {"type_name": f".artpaper.{kind}"}
            message.field.add(name=field, number=number, label=label, **of)
        if name == "Feature":
            message.oneof_decl.add(name="kind")
            for member in message.field:
                member.oneof_index = 0
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"artpaper.{name}")) for name in DECLARED}


CLASSES = _classes()
Feature, FeatureList, SequenceExample = (CLASSES[name] for name in ("Feature", "FeatureList", "SequenceExample"))


def parse(data: bytes) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """The features of a serialised SequenceExample's context, and its feature lists, for :func:`unpack`.

    protobuf's ``DecodeError`` where it is none.
    """
    example = SequenceExample.FromString(data)
    context = {entry.key: _merged(Feature, entry.value) for entry in example.context.entry}
    return context, {entry.key: list(entry.value) for entry in example.feature_lists.entry}


def unpack(pieces: list[bytes], width: int) -> UInt8[np.ndarray, "frames width"] | list[bytes]:
    """The frames of a feature list; several byte strings of one frame are joined.

    Where all are of ``width`` and written as TensorFlow does, a view, in a quarter of the time of a message each.
    """
    head = _head(width)
    stride = len(head) + width
    if len(pieces) == 1 and pieces[0] and len(pieces[0]) % stride == 0:
        rows = np.frombuffer(pieces[0], np.uint8).reshape(-1, stride)  # (frames, stride)
        if (rows[:, : len(head)] == np.frombuffer(head, np.uint8)).all():
            return rows[:, len(head) :]
    return [b"".join(feature.bytes_list.value) for feature in _merged(FeatureList, pieces).feature]


def _merged(kind: Any, pieces: Iterable[bytes]) -> Any:
    message = kind()
    for piece in pieces:
        message.MergeFromString(piece)
    return message


def serialise(
    id_key: str, name: str, labels: Sequence[int], lists: dict[str, UInt8[np.ndarray, "frames width"]]
) -> bytes:
    """One SequenceExample as TensorFlow writes it, keys in order; labels are 64-bit integers."""
    example = SequenceExample()
    context: dict[str, Any] = {
        id_key: {"bytes_list": {"value": [name.encode()]}},
        "labels": {"int64_list": {"value": labels}},
    }
    for key in sorted(context):
        example.context.entry.add(key=key, value=[Feature(**context[key]).SerializeToString()])
    for key in sorted(lists):
        example.feature_lists.entry.add(key=key, value=[_pack(lists[key])])
    return example.SerializeToString()


def _pack(frames: UInt8[np.ndarray, "frames width"]) -> bytes:
    return FeatureList(feature=[{"bytes_list": {"value": [row.tobytes()]}} for row in frames]).SerializeToString()


@lru_cache
def _head(width: int) -> bytes:
    """What stands before the bytes of each frame of that width."""
    return _pack(np.zeros((1, width), np.uint8))[:-width]
