"""The stress test's files of attacked videos, one an attack, model and seed: their columns, and how they are read."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from artpaper.attacks.result import FLAGS
from pipeline.predict.files import read_file
from pipeline.train.checkpoints import Note

DIAGNOSTICS = ("clean_loss", "loss", "norm", "relative_norm", "gradient_norm")
ATTENTION = ("attention_change", "attention_uniform", "attention_entropy")
SCHEMA = pa.schema(
    {"id": pa.string()}
    | dict.fromkeys(("labels", "classes"), pa.list_(pa.int32()))
    | {"scores": pa.list_(pa.float32())}
    | dict.fromkeys((*DIAGNOSTICS, *ATTENTION), pa.float64())
    | dict.fromkeys(("zero_gradient", *FLAGS, "already_wrong", "fooled"), pa.bool_())
    | {"iterations": pa.int64()}
)
"""Columns of a file. ``attention_change`` is ||A - A_adv||_Fr, ``attention_uniform`` ||A - 1/T||_Fr of the clean maps
(the uniform map's norm is 1), ``attention_entropy`` their rows' entropy over log T; all are means over modalities."""

MAKER = "`dvc repro stress/dvc.yaml`"
SAID = ("model", "seed", "attack", "epsilon", "source", "classes")  # what each file says of itself, beside much else


def read_attacked(path: Path, *columns: str) -> tuple[pa.Table, Note]:
    """Columns of one file (default: all), and what it says of itself; a DataError if it is not such a file."""
    fields = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
    return read_file(path, fields, SAID, "file of the stress test", MAKER)


def losses(target: Path) -> pd.DataFrame:
    """Every video's loss under every attack of every model, from the folder that holds ``predictions/``.

    Columns ``id``, ``loss`` (nats), ``norm`` (unit of the features), ``model, seed, attack, epsilon, member``.
    """
    parts = []
    for path in sorted((target / "predictions").glob("*/seed*/*.parquet")):
        table, note = read_attacked(path, "id", "loss", "norm")
        about = {name: note[name] for name in ("model", "seed", "attack", "epsilon", "member")}
        parts.append(table.to_pandas().assign(**about))
    return pd.concat(parts, ignore_index=True)
