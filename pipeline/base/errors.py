"""Errors a person can act on: each message names what was wrong, where, and what to do about it."""


class ArtpaperError(Exception):
    """Base of every error this project raises on purpose; the command line prints it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the message alone, as the command line does."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(ArtpaperError):
    """A parameter is unknown, of the wrong type, or has an impossible value."""


class DataError(ArtpaperError):
    """An input file or record is missing, damaged, or of the wrong kind."""


class CheckpointError(ArtpaperError):
    """A checkpoint is missing, damaged, or belongs to another model or run."""


class DownloadError(ArtpaperError):
    """A file could not be fetched, or what came is not what was published."""


class BusyError(ArtpaperError):
    """Another run is making the same thing in the same folder."""


class MemoryShortError(ArtpaperError):
    """The memory of the machine or of its GPU has run out."""


class OutputError(ArtpaperError, OSError):
    """A file cannot be written: no permission, a read-only file system, or a full disk; ``errno`` says which."""
