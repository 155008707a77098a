"""The command line: the pipeline's steps one by one, notebooks, and ready-made parameter sets."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from artpaper import __version__
from pipeline.base.errors import ArtpaperError
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.base.sources import SOURCES
from pipeline.scale.workers import threads_each

# of use to jsonschema alone, for a kind of address that no notebook has, and it compiles a grammar for two seconds
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

STEPS = {
    "prepare": "frame features to frame stores",
    "verify": "whether the frame stores, and the data they came from, are as when they were prepared",
    "train": "train one model",
    "attack": "one-step predictions of one model",
    "deepfool": "minimal perturbations of one model",
    "study": "the trainings of Figure 3; those done before are kept",
    "tables": "Tables 1-3 from predictions",
    "stress": "strong attacks on the paper's models and their controls, and the verdict",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with one clear message on an error of this project's own."""
    _open_streams()
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except ArtpaperError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        return _failed(f"this command needs {error.name}: pip install -e . -e ./pipeline, in a checkout")
    except UnicodeEncodeError as error:
        what = ascii(error.object[error.start : error.end])
        return _failed(f"the {error.encoding} of this system's locale has no {what}; run it with PYTHONUTF8=1")
    except BrokenPipeError:
        return _failed("what reads the output has closed it; the same command goes on from here")
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _failed(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        _failed("interrupted; the same command goes on from here")
        return 130
    return 0


def _open_streams() -> None:
    """What cannot be shown stops no work: a name that the terminal's encoding lacks, a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _failed(message: str) -> int:
    with suppress(OSError):
        print(f"artpaper: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # or Python would try again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="artpaper", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    use = commands.add_parser("use", help="write params.yaml from one of profiles/, such as default or small")
    use.add_argument("profile", help="a name in profiles/, or the path of a parameter file")
    use.add_argument("--path", type=_path, help="data.path: the archive or folder with the data")
    use.add_argument(
        "--vocabulary", type=_path, help="data.vocabulary: where the vocabulary lies, if not beside the data"
    )
    use.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another key, as train.max_steps=9"
    )
    use.add_argument(
        "--retrain", action="store_true", help="also train models on the videos of each vertical of Tables 2-3 alone"
    )
    use.set_defaults(run=_use)

    check = commands.add_parser("check", help="list every fault of a folder of one's own arrays at once")
    check.add_argument("folder", type=_path, help="what artpaper use arrays --path is to be given")
    check.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as for use, such as data.rates=mean"
    )
    check.set_defaults(run=_check)

    fetched = " or ".join(record.name for record in SOURCES.values() if record.download)
    download = commands.add_parser(
        "download",
        help=f"fetch {fetched} from Google's servers",
        description="Fetch a data set, several files at a time. What came is checked; after a cut, Ctrl-C or a full "
        "disk the same command goes on where it stopped.",
    )
    sources = download.add_subparsers(title="data sets", metavar="DATA", required=True)
    for name, record in SOURCES.items():
        if not record.download:
            continue
        data = sources.add_parser(name, help=record.download, description=f"Fetch {record.download}.")
        data.add_argument(
            "--folder", type=_path, default=Path("data", name), help="where the files go (default: %(default)s)"
        )
        data.add_argument(
            "--mirror",
            choices=("us", "eu", "asia"),
            default="us",
            help="the nearest of Google's (default: %(default)s)",
        )
        data.add_argument(
            "--server", metavar="URL", default="", help="another server that has the same files at the same paths"
        )
        data.add_argument("--workers", type=_count, default=4, help="files at a time (default: %(default)s)")
        if record.in_parts:
            data.add_argument(
                "--shard",
                type=_part,
                required=True,
                metavar="X,Y",
                help="the X-th of Y parts, as in Google's script: 1,100 is a hundredth (13 GB), 1,1 is all (1.2 TB)",
            )
            data.add_argument(
                "--split",
                nargs="+",
                choices=("train", "validate"),
                default=["train", "validate"],
                help="default: both; the pipeline makes validation and test set of validate",
            )
        data.set_defaults(run=_download, source=name)

    for name, text in STEPS.items():
        step = commands.add_parser(name, help=text)
        step.add_argument("--params", type=_path, default="params.yaml", help="parameter file (default: %(default)s)")
        step.add_argument(
            "--workspace", type=_path, default=".", help="folder of the results (default: the current one)"
        )
        if name in ("train", "attack", "deepfool"):
            step.add_argument("--model", required=True, help="entry of group models, such as a_art")
            step.add_argument("--seed", type=_seed, default=0, help="training seed (default: %(default)s)")
        if name == "stress":
            step.add_argument(
                "--quick", action="store_true", help="minutes instead of hours; its numbers prove nothing"
            )
        step.set_defaults(run=_step, step=name)

    trial = commands.add_parser(
        "trial", help="go on with the trial of docs/trial.md: units of one data set, until the time is used"
    )
    trial.add_argument("set", help="a data set of the trial, such as utd_mhad")
    trial.add_argument("--path", type=_path, help="data.path: the archive or folder with the data")
    trial.add_argument("--minutes", type=_count, default=60, help="no unit is begun that would not be done by then")
    trial.add_argument("--report", action="store_true", help="table, figure and page from the finished units alone")
    trial.set_defaults(run=_trial)

    look = commands.add_parser(
        "look", help="write the explorer as a page that needs no kernel: videos computed beforehand"
    )
    look.add_argument("--static", type=_path, required=True, metavar="FOLDER", help="where index.html goes")
    look.add_argument("--params", default="params.yaml", help="parameter file (default: %(default)s)")
    look.add_argument("--workspace", default=".", help="folder of the results (default: the project's)")
    look.set_defaults(run=_look)

    clean = commands.add_parser("clean", help="write clean copies of the notebooks")
    clean.add_argument("--source", type=_path, default=Path("notebooks"))
    clean.add_argument("--target", type=_path, default=Path(".clean"))
    clean.set_defaults(run=_clean)

    run = commands.add_parser("run", help="execute a notebook")
    run.add_argument("notebook", type=_path)
    run.add_argument("report", type=_path, help="where the executed copy goes")
    run.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.set_defaults(run=_run)

    repro = commands.add_parser("repro", help="what `dvc repro` runs, compute.workers stages at a time")
    repro.add_argument("stage", nargs="?", help="with what it needs (default: all of dvc.yaml)")
    repro.set_defaults(run=_repro)

    refresh = commands.add_parser(
        "refresh", help="run notebooks by hand's settings and keep the outputs nbval compares"
    )
    refresh.add_argument("notebooks", type=_path, nargs="+")
    refresh.set_defaults(run=_refresh)

    publish = commands.add_parser(
        "publish", help="keep this run's tables and figures under results/, with what made them"
    )
    publish.add_argument("target", type=_path, help="such as results/audioset")
    publish.add_argument("--command", required=True, help="what a reader types to make the same")
    publish.add_argument("--stress", action="store_true", help="the stress test's verdict instead, into TARGET/stress")
    publish.set_defaults(run=_publish)

    claims = commands.add_parser("claims", help="write CLAIMS.md from the published runs in results/")
    claims.set_defaults(run=_claims)

    report = commands.add_parser("report", help="write one HTML file with all that a run found, from what is there")
    report.add_argument("--results", type=_path, help="a published run, such as results/audioset (default: this one)")
    report.add_argument("--output", type=_path, help="the file (default: report.html, or NAME.html of results/NAME)")
    report.set_defaults(run=_report)
    return parser


def _use(parsed: argparse.Namespace) -> None:
    from pipeline.base.git import tell_dvc
    from pipeline.base.project import project_root
    from pipeline.run.profiles import use

    changes = dict(_pair(item) for item in parsed.set)
    profile = use(parsed.profile, changes, parsed.path, parsed.vocabulary, parsed.retrain)
    tell_dvc(project_root())
    print(f"params.yaml is now {profile}; `dvc repro` makes its tables and figures")


def _download(parsed: argparse.Namespace) -> None:
    from pipeline.prepare.download import download

    record = SOURCES[parsed.source]
    parts = {"part": parsed.shard, "splits": parsed.split} if record.in_parts else {}
    options = {"mirror": parsed.mirror, "server": parsed.server, "workers": parsed.workers}
    print(download(parsed.source, parsed.folder, **parts, **options))
    place = parsed.folder if record.path == "FOLDER" else parsed.folder / record.path
    then = "once both splits are there" if record.in_parts else "next"
    print(f"{then}: artpaper use {record.profile} --path {place} && dvc repro")


def _check(parsed: argparse.Namespace) -> None:
    from pipeline.arrays.check import faults
    from pipeline.base.groups import Data
    from pipeline.base.project import project_root

    data = {"path": str(parsed.folder)}
    for key, value in map(_pair, parsed.set):
        if key not in ("data.rates", "data.separator"):
            raise ArtpaperError(f"--set {key}: how arrays are read depends on data.rates and data.separator alone")
        data[key.removeprefix("data.")] = value
    params = load_params(project_root() / "profiles" / "arrays.yaml")
    params = dataclasses.replace(params, data=build(Data, as_dict(params.data) | data, "data"))
    count = 0
    for fault in faults(params):
        count += 1
        print(fault, flush=True)
    if count:
        raise ArtpaperError(f"{parsed.folder}: {count} to mend")
    print(f"{parsed.folder}: nothing to mend; next: artpaper use arrays --path {parsed.folder} && dvc repro")


def _step(parsed: argparse.Namespace) -> None:
    params, workspace = load_params(parsed.params), parsed.workspace
    _limit_threads(params)
    if parsed.step == "prepare":
        from pipeline.prepare.prepare import prepare

        prepare(params, workspace)
    elif parsed.step == "verify":
        from pipeline.prepare.verify import verify

        print(verify(params, workspace))
    elif parsed.step == "train":
        from pipeline.train.training import train

        print(train(params, parsed.model, parsed.seed, workspace))
    elif parsed.step == "attack":
        from pipeline.predict.one_step import attack

        print(attack(params, parsed.model, parsed.seed, workspace))
    elif parsed.step == "deepfool":
        from pipeline.predict.deepfool import minimal_perturbations

        print(minimal_perturbations(params, parsed.model, parsed.seed, workspace))
    elif parsed.step == "study":
        from pipeline.paper.hyperparameters import summary
        from pipeline.predict.sweep import sweep

        print(summary(sweep(params, workspace)).to_string(index=False))
    elif parsed.step == "stress":
        from pipeline.stress.attacks.stress import quick, stress
        from pipeline.stress.verdict.page import stress_verdict

        target, out = workspace / "stress", workspace / "verdict"
        if parsed.quick:
            params, target, out = quick(params), target / "quick", target / "quick" / "verdict"
        print(stress_verdict(params, stress(params, workspace, target=target), out))
    else:
        from pipeline.paper.tables import tables

        print(tables(params, workspace))


def _trial(parsed: argparse.Namespace) -> None:
    from pipeline.base.project import project_root

    root = project_root()
    if not parsed.report:
        from pipeline.trial.units import run_trial

        run_trial(parsed.set, root, parsed.path, parsed.minutes, say=lambda text: print(text, flush=True))
    from pipeline.trial.page import write_page

    print(write_page(root / "results" / parsed.set / "trial"))


def _look(parsed: argparse.Namespace) -> None:
    from pipeline.explorer.explorer import open_explorer
    from pipeline.explorer.static import write_page

    print(write_page(open_explorer(parsed.params, parsed.workspace), parsed.static))


def _clean(parsed: argparse.Namespace) -> None:
    from pipeline.run.notebooks import clean

    for path in clean(parsed.source, parsed.target):
        print(path)


def _run(parsed: argparse.Namespace) -> None:
    from pipeline.run.notebooks import run

    parameters = {name: _scalar(value) for name, value in parsed.parameters}
    if isinstance(file := parameters.get("params"), str):
        _limit_threads(load_params(file))
    run(parsed.notebook, parsed.report, parameters)


def _limit_threads(params: Params) -> None:
    """A stage's share of the cores, whether others run beside it or not: results may depend on it by rounding.

    PyTorch reads it when it is loaded, in the kernels and workers too that inherit it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_each(params.compute.workers)))


def _repro(parsed: argparse.Namespace) -> None:
    from pipeline.base.project import project_root
    from pipeline.run.repro import repro

    root = project_root()
    ended = repro(root, load_params(root / "params.yaml").compute.workers, parsed.stage)
    print(f"{len(ended)} stages ran" if ended else "everything is up to date")


def _refresh(parsed: argparse.Namespace) -> None:
    from pipeline.run.notebooks import refresh

    for path in parsed.notebooks:
        refresh(path)
        print(path)


def _publish(parsed: argparse.Namespace) -> None:
    from pipeline.base.git import NO_COMMIT
    from pipeline.base.project import project_root
    from pipeline.paper.publish import publish, publish_stress

    keep = publish_stress if parsed.stress else publish
    commit = keep(project_root(), parsed.target, parsed.command)["commit"]
    print(f"{parsed.target}: results of {commit if commit == NO_COMMIT else f'commit {commit[:12]}'}")
    if not parsed.stress:
        sizes = [path.stat().st_size for path in (parsed.target / "notebooks").rglob("*.ipynb")]
        print(f"{parsed.target / 'notebooks'}: {len(sizes)} executed notebooks, {sum(sizes) / 1e6:.1f} MB")


def _claims(parsed: argparse.Namespace) -> None:
    from pipeline.base.project import project_root
    from pipeline.paper.claims_page import write_claims

    root = project_root()
    print(f"CLAIMS.md: {', '.join(write_claims(root / 'results', root / 'CLAIMS.md'))}")


def _report(parsed: argparse.Namespace) -> None:
    from pipeline.base.project import project_root
    from pipeline.report.page import write_report

    root = project_root()
    name = parsed.results.resolve().name if parsed.results else "report"
    print(write_report(parsed.results or root, parsed.output or Path(f"{name}.html"), root))


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ArtpaperError(f"--set {item}: expected KEY=VALUE, such as train.max_steps=100")
    return key, value


def _path(text: str) -> Path:
    """A path whose ~ no shell has replaced, as in --path=~/data."""
    return Path(os.path.expanduser(text))


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: a seed is a whole number, 0 or above")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or above")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    chosen, comma, parts = text.partition(",")
    if not comma or not chosen.isdecimal() or not parts.isdecimal() or not 1 <= int(chosen) <= int(parts):
        raise argparse.ArgumentTypeError(f"{text}: expected X,Y with 1 <= X <= Y, such as 1,100")
    return int(chosen), int(parts)


def _scalar(value: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return os.path.expanduser(value)


if __name__ == "__main__":
    sys.exit(main())
