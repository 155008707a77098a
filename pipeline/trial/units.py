"""The units of the trial, in the order of worth, until the time is used: each leaves one small file to commit."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float64, Int16

from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file
from pipeline.base.errors import ArtpaperError, BusyError, ConfigError, DataError
from pipeline.base.explain import nearest
from pipeline.base.git import revision
from pipeline.base.identity import code, fingerprint
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.paper.publish import environment
from pipeline.predict.study import Variation
from pipeline.prepare.prepare import prepare
from pipeline.train.checkpoints import read_note
from pipeline.train.history import attention_share
from pipeline.trial.audit import SURROGATE_SEED, SURROGATES, audit
from pipeline.trial.measure import measure
from pipeline.trial.rules import Rules, calibrate, fit, read_rules
from pipeline.trial.sets import SETS, in_trial, trial_params
from pipeline.trial.variants import ANY_RULES, Unit, audits, units, with_variant


def run_trial(
    name: str, root: Path, data: Path | None = None, minutes: float = 60, say: Callable[[str], None] = print,
    only: Sequence[str] = (), audited: bool = False,
) -> list[Path]:  # fmt: skip
    """Make what is missing of a set's results until ``minutes`` are used; the new files.

    Of the variants ``only`` those named, if any are; with ``audited`` units of the attack audit instead.
    What is finished stays, whenever this is killed; nothing but ``results/<set>/trial`` is needed to go on elsewhere.
    A unit that would, by those before it, not be done in time is not begun.
    """
    started = time.monotonic()
    names = {unit.variant for unit in (audits() if audited else units(ANY_RULES))}  # before the hours of a calibration
    if unknown := set(only) - names:
        raise ConfigError(f"no variant {min(unknown)!r}{nearest(min(unknown), sorted(names))}")
    commit, changed = revision(root)
    if changed:
        raise ArtpaperError("\n".join(["commit these first, or no commit says what was run:", *changed]))
    provenance = {"commit": commit, "code": code(__name__), "threads": torch.get_num_threads(), **environment()}
    params, target = trial_params(name, root, data), root / "results" / name / "trial"
    key = fingerprint([as_dict(part) for part in (params.data, params.synthetic, params.base)])
    workspace = root / ".resume" / "trial" / f"{name}-{key}"
    if not (workspace / "frames" / "summary.json").is_file():
        prepare(params, workspace, progress=False)
    if not (target / "rules.json").is_file():
        with alone(workspace / ".resume", "calibration"):
            calibrate(params, workspace, target / "rules.json", provenance, say)
    rules = read_rules(target / "rules.json")
    order = [unit for unit in (audits() if audited else units(rules)) if not only or unit.variant in only]
    if lacking := set(only) - {unit.variant for unit in order}:
        raise ConfigError(f"{min(lacking)}: {target / 'rules.json'} is of a calibration that did not measure its beta")
    made, known = [], _seconds(target / order[0].kind)
    for number, unit in enumerate(order, start=1):
        path = target / unit.kind / unit.file
        left = 60 * minutes - (time.monotonic() - started)
        expected = known.get(unit.variant, max(known.values(), default=0.0))
        if path.is_file():
            continue
        if expected > left:
            say(f"stopped: {left / 60:.0f} minutes are left, {unit.variant} takes about {expected / 60:.0f}")
            break
        say(f"unit {number} of {len(order)}, {unit.variant} seed {unit.seed}; {left / 60:.0f} minutes left")
        try:
            with alone(workspace / ".resume", f"{unit.kind}-{path.stem}"):
                gap, seconds = make_unit(unit, params, rules, workspace, path, provenance)
        except BusyError:  # another process is at it
            continue
        known[unit.variant] = seconds
        made.append(path)
        say("  " + ", ".join(f"{key} {value:.2f}" for key, value in gap.items()) + f"; {seconds:.0f} s")
    return made


def make_unit(
    unit: Unit, params: Params, rules: Rules, workspace: Path, path: Path, provenance: Mapping[str, Any]
) -> tuple[dict[str, float], float]:
    """Train, attack, measure and write one file; its GAP by condition, percent, and the seconds it took.

    ``seconds`` in the file are the processor's for ``train`` and ``attack``; a training that the calibration has done
    takes none.
    """
    audited = unit.kind == "audit"
    surrogates = {name: fit(with_variant(params, rules, name), name, SURROGATE_SEED, workspace)
                  for name in SURROGATES if audited}  # fmt: skip
    begun, started = time.perf_counter(), time.process_time()
    name = path.parts[-4]
    own = with_variant(params, rules, unit.variant)
    model = fit(own, unit.variant, unit.seed, workspace)
    trained = time.process_time()
    folder = Variation(own, unit.variant, unit.seed).model(workspace)
    train, test = (FrameStore(workspace / "frames" / split) for split in ("train", "test"))
    all_, part = (test.subset(in_trial(test.ids, most).tolist()) for most in (None, SETS[name].attacked))
    people = SETS[name].people
    result = audit(model, own, part, people, surrogates) if audited else measure(model, own, train, all_, part, people)
    note = read_note(folder)
    seconds = {"train": trained - started, "attack": time.process_time() - trained, "wall": time.perf_counter() - begun}
    about = {
        "set": name,
        "variant": unit.variant,
        "seed": unit.seed,
        "gap": result.points,
        "maps": result.maps,
        "videos": {"all": len(all_), "part": len(part)},
        "drawn": result.drawn,
        "seconds": seconds,
        "training": {key: note[key] for key in ("steps", "best_step", "best_validation_gap", "stopped")},
        "attention_share": attention_share(folder / "history.csv", own.models[unit.variant].beta),
        "parameters": {"loss": as_dict(own.models[unit.variant]), "attack": as_dict(own.attack),
                       "train": as_dict(own.train), "features": as_dict(own.features), "model": as_dict(own.model)},
        "frames": test.fingerprint,
        "provenance": dict(provenance),
    }  # fmt: skip
    write_unit(path, about, result.draws)
    return result.points, seconds["wall"]


def write_unit(path: Path, about: Mapping[str, Any], draws: Mapping[str, Int16[np.ndarray, " draws"]]) -> None:
    """One Parquet file: a column of draws for each condition, all else in its metadata."""
    schema = pa.schema(dict.fromkeys(draws, pa.int16()), {"artpaper": json.dumps(about, sort_keys=True)})
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(dict(draws), schema), temporary, compression="zstd")


def read_unit(path: Path) -> tuple[dict[str, Any], dict[str, Float64[np.ndarray, " draws"]]]:
    """What :func:`write_unit` wrote: all about the unit, and its draws in percent of GAP."""
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"artpaper"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: no unit of the trial ({error}); take it away, `artpaper trial` makes it anew"
        ) from None
    if path.name != Unit(about["variant"], about["seed"]).file:
        raise DataError(f"{path}: says that it is {about['variant']} seed {about['seed']}; rename it")
    return about, {name: table[name].to_numpy() / 100 for name in table.column_names}


def _seconds(folder: Path) -> dict[str, float]:
    """What a unit of each variant in a folder took at most."""
    known: dict[str, float] = {}
    for path in sorted(folder.glob("*.parquet")):
        about, _ = read_unit(path)
        known[about["variant"]] = max(known.get(about["variant"], 0.0), about["seconds"]["wall"])
    return known
