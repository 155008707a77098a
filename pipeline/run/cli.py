"""The command line: which data, the pipeline's steps, its notebooks, and what is made of their results."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from artpaper import __version__
from pipeline.base.errors import ArtpaperError
from pipeline.base.git import NO_COMMIT, tell_dvc
from pipeline.base.project import project_root
from pipeline.base.sources import SOURCES, DataSource
from pipeline.run.command import PARAMS, PATH, WORKSPACE, Commands, answer, change, part, scalar
from pipeline.run.in_use import opened, still
from pipeline.run.steps import steps

HEADINGS = {
    "Data": ("use", "check", "download"),
    "Run": ("repro", "prepare", "verify", "train", "attack", "deepfool", "study", "tables", "stress", "trial"),
    "Look": ("look", "report"),
    "Publish": ("publish", "claims"),
    "Notebooks": ("run", "clean", "refresh"),
}
COUNT = click.IntRange(min=1)
SET = partial(click.option, "--set", "changes", type=change, multiple=True, metavar="KEY=VALUE")
DATA = click.option("--path", "data", type=PATH, help="data.path: the archive or folder with the data.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status, after one clear message if that is not 0."""
    return answer(commands, "artpaper", sys.argv[1:] if arguments is None else arguments)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
    epilog="First: artpaper use small && artpaper repro",
)
@click.version_option(__version__, message="%(version)s")
def commands() -> None:
    """Train, attack and measure the paper's models, on synthetic videos, AudioSet, YouTube-8M or data of your own."""


commands.headings = HEADINGS


def _profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    with suppress(ArtpaperError):  # no project, no profiles
        return sorted(path.stem for path in (project_root() / "profiles").glob(f"{incomplete}*.yaml"))
    return []


@commands.command()
@click.argument("profile", shell_complete=_profiles)
@DATA
@click.option("--vocabulary", type=PATH, help="data.vocabulary: where the vocabulary lies, if not beside the data.")
@SET(help="Another key, as train.max_steps=9; once for each.")
@click.option("--retrain", is_flag=True, help="Also train models on the videos of each vertical of Tables 2-3 alone.")
def use(profile: str, changes: Sequence[tuple[str, str]], **options: Any) -> None:
    """Write params.yaml from a profile, such as default or small.

    PROFILE is a name in profiles/, or the path of a parameter file.
    """
    from pipeline.run.profiles import use

    root = project_root()
    try:
        now = use(profile, dict(changes), **options)
    except ArtpaperError as error:
        raise ArtpaperError(f"{error}{still(root / 'params.yaml')}") from None
    tell_dvc(root)
    print(f"params.yaml is now {now}; `dvc repro` makes its tables and figures")


@commands.command()
@click.argument("folder", type=PATH)
@SET(help="As for use, such as data.rates=mean.")
def check(folder: Path, changes: Sequence[tuple[str, str]]) -> None:
    """List every fault of a folder of one's own arrays at once.

    FOLDER is what artpaper use arrays --path is to be given.
    """
    from pipeline.arrays.check import faults_of

    count = 0
    for fault in faults_of(folder, dict(changes)):
        count += 1
        print(fault, flush=True)
    if count:
        raise ArtpaperError(f"{folder}: {count} to mend")
    print(f"{folder}: nothing to mend; next: artpaper use arrays --path {folder} && dvc repro")


@commands.group()
def download() -> None:
    """Fetch a data set from Google's servers.

    Several files come at a time, and are checked; after a cut, Ctrl-C or a full disk the same command goes on where it
    stopped.
    """


def _add_download(source: str, record: DataSource) -> None:
    @download.command(source, help=f"Fetch {record.download}.")
    @click.option("--folder", type=PATH, default=Path("data", source), help="Where the files go.")
    @click.option("--mirror", type=click.Choice(("us", "eu", "asia")), default="us", help="The nearest of Google's.")
    @click.option(
        "--server", default="", show_default="Google's", help="Another with the same files at the same paths."
    )
    @click.option("--workers", type=COUNT, metavar="N", default=4, help="Files at a time.")
    def fetch(folder: Path, **options: Any) -> None:
        from pipeline.prepare.download import download

        print(download(source, folder, **options))
        place = folder if record.path == "FOLDER" else folder / record.path
        then = "once both splits are there" if record.in_parts else "next"
        print(f"{then}: artpaper use {record.profile} --path {place} && dvc repro")

    if record.in_parts:
        shard = "The X-th of Y parts, as in Google's script: 1,100 is a hundredth (13 GB), 1,1 is all (1.2 TB)."
        click.option("--shard", "part", type=part, required=True, metavar="X,Y", help=shard)(fetch)
        split = "Once for each; the pipeline makes validation and test set of validate."
        both = ("train", "validate")
        click.option("--split", "splits", type=click.Choice(both), multiple=True, default=both, help=split)(fetch)


for _source, _record in SOURCES.items():
    if _record.download:
        _add_download(_source, _record)


@commands.command()
@click.argument("stage", required=False)
def repro(stage: str | None) -> None:
    """Run what `dvc repro` runs, compute.workers stages at a time.

    STAGE is run with what it needs; without one, all of dvc.yaml.
    """
    from pipeline.run.profiles import check_stages
    from pipeline.run.repro import repro

    root = project_root()
    params = opened(root / "params.yaml")
    if not stage:
        check_stages(params)
    ended = repro(root, params.compute.workers, stage)
    print(f"{len(ended)} stages ran" if ended else "everything is up to date")


for _step in steps():
    commands.add_command(_step)


@commands.command()
@click.argument("name", metavar="SET")
@DATA
@click.option("--minutes", type=COUNT, metavar="N", default=60, help="No unit is begun that would not be done by then.")
@click.option("--only", multiple=True, metavar="VARIANT", help="This one alone, such as art_2e; once for each.")
@click.option("--audit", is_flag=True, help="More attacks on the planned models instead.")
@click.option(
    "--report",
    is_flag=True,
    help="Only results/SET/trial and results/trial.*, all sets together, from the finished units.",
)
def trial(name: str, data: Path | None, minutes: int, only: Sequence[str], audit: bool, report: bool) -> None:
    """Go on with the trial of docs/trial.md, until the time is used.

    SET is one of its data sets, such as utd_mhad, of which it makes unit after unit.
    """
    root = project_root()
    if not report:
        from pipeline.trial.units import run_trial

        run_trial(name, root, data, minutes, partial(print, flush=True), only, audit)
    from pipeline.trial.overall import write_overall
    from pipeline.trial.page import write_page

    print(write_page(root / "results" / name / "trial"), *write_overall(root / "results")[-1:], sep="\n")


@commands.command()
@click.option("--static", type=PATH, required=True, metavar="FOLDER", help="Where index.html goes.")
@PARAMS
@WORKSPACE
def look(static: Path, params: Path, workspace: Path) -> None:
    """Write the explorer as a page that needs no kernel.

    Its videos are computed beforehand.
    """
    from pipeline.explorer.explorer import open_explorer
    from pipeline.explorer.static import write_page

    print(write_page(open_explorer(str(params), str(workspace)), static))


@commands.command()
@click.option("--results", type=PATH, help="A published run, such as results/audioset; without it, this one.")
@click.option("--output", type=PATH, help="The file; without it, report.html, or NAME.html of results/NAME.")
def report(results: Path | None, output: Path | None) -> None:
    """Write one HTML file with all that a run found, from what is there."""
    from pipeline.report.page import write_report

    root = project_root()
    name = results.resolve().name if results else "report"
    print(write_report(results or root, output or Path(f"{name}.html"), root))


@commands.command()
@click.argument("target", type=PATH)
@click.option("--command", required=True, help="What a reader types to make the same.")
@click.option("--stress", is_flag=True, help="The stress test's verdict instead, into TARGET/stress.")
def publish(target: Path, command: str, stress: bool) -> None:
    """Keep this run's tables and figures, with what made them.

    TARGET is a folder below results/, such as results/audioset.
    """
    from pipeline.paper.publish import publish, publish_stress

    commit = (publish_stress if stress else publish)(project_root(), target, command)["commit"]
    print(f"{target}: results of {commit if commit == NO_COMMIT else f'commit {commit[:12]}'}")
    if not stress:
        sizes = [path.stat().st_size for path in (target / "notebooks").rglob("*.ipynb")]
        print(f"{target / 'notebooks'}: {len(sizes)} executed notebooks, {sum(sizes) / 1e6:.1f} MB")


@commands.command()
def claims() -> None:
    """Write CLAIMS.md from the published runs in results/."""
    from pipeline.paper.claims_page import write_claims

    root = project_root()
    print(f"CLAIMS.md: {', '.join(write_claims(root / 'results', root / 'CLAIMS.md'))}")


@commands.command()
@click.argument("notebook", type=PATH)
@click.argument("report", type=PATH)
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter; once for each.")
def run(notebook: Path, report: Path, parameters: Sequence[tuple[str, str]]) -> None:
    """Execute a notebook.

    REPORT is where the executed copy goes.
    """
    from pipeline.run.notebooks import run

    values = {name: scalar(value) for name, value in parameters}
    if isinstance(file := values.get("params"), str):
        opened(Path(file))
    run(notebook, report, values)


@commands.command()
@click.option("--source", type=PATH, default="notebooks", help="Folder of the notebooks.")
@click.option("--target", type=PATH, default=".clean", help="Folder of the copies.")
def clean(source: Path, target: Path) -> None:
    """Write clean copies of the notebooks."""
    from pipeline.run.notebooks import clean

    print("\n".join(map(str, clean(source, target))))


@commands.command()
@click.argument("notebooks", type=PATH, nargs=-1, required=True)
def refresh(notebooks: Sequence[Path]) -> None:
    """Run notebooks as by hand and keep what is committed of them."""
    from pipeline.run.notebooks import refresh

    for path in notebooks:
        refresh(path)
        print(path)


if __name__ == "__main__":
    sys.exit(main())
