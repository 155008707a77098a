"""Which videos a model is trained and validated on, and how many are left to test it."""

from pathlib import Path

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.explain import nearest
from pipeline.base.parameters import Params
from pipeline.data.store import FrameStore

YT8M_VALIDATE_VIDEOS = 1_112_356


def validation_size(videos: int, wanted: int) -> int:
    """How many of the ``videos`` of the validate partition become validation videos; the rest is the test set.

    ``wanted`` is meant for the full partition. Of a part of it the same share is taken, but at least a fifth of the
    part (never more than ``wanted``), as a small copy would otherwise be left with a handful.
    """
    return min(wanted, max(round(wanted * videos / YT8M_VALIDATE_VIDEOS), videos // 5))


def training_splits(params: Params, name: str, workspace: Path) -> list[FrameStore]:
    """The train and the validation split of one model: all videos, or those of ``models.<name>.vertical``."""
    params.model_for(name)
    stores = [FrameStore(workspace / "frames" / split) for split in ("train", "validation")]
    vertical = params.models[name].vertical
    if vertical is None:
        return stores
    space = stores[0].label_space
    if vertical not in space.group_names:
        raise ConfigError(
            f"models.{name}.vertical: no {vertical!r} in {space.name}{nearest(vertical, list(space.group_names))}"
        )
    chosen = [store.subset(store.with_labels(space.members(vertical))) for store in stores]
    for store in chosen:
        if not len(store):
            raise DataError(f"{store.path}: no video of {vertical!r}, which models.{name}.vertical asks for")
    return chosen
