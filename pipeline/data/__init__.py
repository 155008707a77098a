"""From frame features to batches: downloading, reading, label spaces, the frame store, the synthetic source."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.data.store import FrameStore

__all__ = ["FrameStore"]


def __getattr__(name: str) -> Any:
    """Import the store when it is first asked for: what needs only torch must not load pyarrow."""
    if name != "FrameStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.data.store import FrameStore

    return FrameStore
