"""What only TensorFlow reads: shards compressed with gzip, and file systems it knows by URL. Its only import."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

from pipeline.base.errors import DataError
from pipeline.records.tfrecord import AGAIN, GZIP, HEAD, masked_crc32c, split_records

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets every worker process otherwise
try:
    import tensorflow as tf
except ImportError:
    raise DataError(
        "data.reader is tensorflow, which is not installed: pip install -e './pipeline[tensorflow]', or set it to "
        "native"
    ) from None

DEFLATE = 1032  # as many times as large can be what was packed


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder by its URL: of ``pathlib.Path``, what it takes to find shards."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Without its folder."""
        return self.url.rstrip("/").rpartition("/")[2]

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        with _in_words(self.url):
            return tf.io.gfile.isdir(self.url)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """What a folder holds under such names."""
        with _in_words(self.url):
            return map(RemotePath, tf.io.gfile.glob(f"{self.url.rstrip('/')}/{pattern}"))

    def stat(self) -> SimpleNamespace:
        """Size and time of change, as ``os.stat_result`` names them."""
        with _in_words(self.url):
            state = tf.io.gfile.stat(self.url)
        return SimpleNamespace(st_size=state.length, st_mtime_ns=state.mtime_nsec)


def read_records(path: str) -> Iterator[tuple[int, bytes]]:
    """The records of one file, and at which byte each one's content begins (of what gzip makes of it).

    TensorFlow opens the file, and no more: its own reader takes memory for as many bytes as a record promises, which
    may end the process, and passes over a gzip file that was cut off at its end.
    """
    number = 0
    try:
        with _in_words(path), tf.io.gfile.GFile(path, "rb") as file:
            if tf.io.gfile.isdir(path):
                raise DataError(f"{path}: is a folder; a TFRecord shard is a file")
            head, size = file.read(HEAD), file.size()
            file.seek(0)
            packed = head.startswith(GZIP) and masked_crc32c(head[:8]) != int.from_bytes(head[8:], "little")
            read, most = (gzip.GzipFile(fileobj=file).read, DEFLATE * size) if packed else (file.read, size)
            for record in split_records(read, most, path):
                yield record
                number += 1
    except EOFError:
        raise DataError(f"{path}: record {number}: the file ends inside this record (truncated): {AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: record {number}: corrupt for gzip ({error}): {AGAIN}") from None


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """Say what TensorFlow cannot open as the other errors are said."""
    try:
        yield
    except tf.errors.NotFoundError:
        raise DataError(f"{path}: no such file or folder; {AGAIN}") from None
    except tf.errors.OpError as error:
        raise DataError(f"{path}: cannot be read ({error.message}); see to its URL, the network, your rights") from None
