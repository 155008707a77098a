"""The promises of the packaging: two distributions, one set of versions, a light import, a command line that helps."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from pipeline.run.cli import HEADINGS, commands, main

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, PIPELINE = (
    tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for folder in (".", "pipeline")
)


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^;\s]+)\s*(;.*)?$", line.strip()) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def required(project: dict[str, Any]) -> set[str]:
    extras = project.get("optional-dependencies", {}).values()
    wanted = [*project["dependencies"], *(item for extra in extras for item in extra)]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in wanted}
    return names - {LIBRARY["name"], PIPELINE["name"]}


def test_environment_yml_names_the_versions_of_the_lock_file() -> None:
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    environment = YAML(typ="safe").load((ROOT / "environment.yml").read_text())
    conda = pins(next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict)))
    assert len(conda) > 20
    assert {name: lock.get(name) for name in conda} == conda


@pytest.mark.parametrize("project", [LIBRARY, PIPELINE], ids=lambda project: project["name"])
def test_every_direct_requirement_is_pinned_in_both(project: dict[str, Any]) -> None:
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    environment = (ROOT / "environment.yml").read_text()
    assert len(required(project)) > 3
    assert not {name for name in required(project) if name not in lock}
    assert not {name for name in required(project) if f"- {name}==" not in environment}


def test_there_is_one_version() -> None:
    """Of both distributions, and in what machines read of them."""
    import artpaper

    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")["version"]
    described = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))["version"]
    assert {LIBRARY["version"], PIPELINE["version"], cited, described} == {artpaper.__version__}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of the root holds, unpacked; made of the files that Git knows or would take."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "-w", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    info = f"artpaper-{LIBRARY['version']}.dist-info"
    assert {path.name for path in wheel.iterdir()} == {"artpaper", info}
    assert {path.name for path in (wheel / info).iterdir()} == {"METADATA", "WHEEL", "RECORD", "licenses"}  # no command
    held = {path.relative_to(wheel) for path in wheel.glob("artpaper/**/*.py")}
    assert held == {path.relative_to(ROOT) for path in ROOT.glob("artpaper/**/*.py")}


def test_the_library_of_the_wheel_needs_only_its_own_requirements(wheel: Path) -> None:
    """Every module of it, imported where none of the pipeline nor of its packages can be."""
    names = sorted(
        ".".join(path.relative_to(wheel).with_suffix("").parts).removesuffix(".__init__")
        for path in wheel.glob("artpaper/**/*.py")
    )
    barred = {"pipeline", "tests", "IPython"} | {name.replace("-", "_") for name in required(PIPELINE)}
    barred -= {"tqdm", "jinja2", "requests", "scipy", "urllib3", "pytest", "psutil"}  # torch and pydantic try these
    code = (
        f"import importlib, sys\nsys.path[0] = {str(wheel)!r}\nsys.modules.update(dict.fromkeys({barred}))\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "print(sys.modules['artpaper'].__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=wheel, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == wheel / "artpaper" / "__init__.py"


def test_only_one_module_imports_tensorflow() -> None:
    files = [*(ROOT / "artpaper").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]
    importing = [path.name for path in files if re.search(r"^\s*(import|from) tensorflow", path.read_text(), re.M)]
    assert importing == ["tensorflow_files.py"]


def every(group: click.Group, so_far: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, groups included, by what is typed for it."""
    yield so_far, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every(command, (*so_far, name))
        else:
            yield (*so_far, name), command


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(every(commands))
    assert {("download", "yt8m"), ("train",), ("claims",)} < set(found)
    for typed, command in found.items():
        assert main([*typed, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: {' '.join(('artpaper', *typed))} "), typed
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert not [option.name for option in options if not option.help], typed


def test_the_help_lists_every_command_once_in_whole_sentences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert sorted(name for names in HEADINGS.values() for name in names) == sorted(commands.commands)
    assert main(["-h"]) == 0
    told = capsys.readouterr().out
    assert [title for title in re.findall(r"^(\w+):$", told, re.M) if title != "Options"] == list(HEADINGS)
    assert re.search(r"\nRun:\n  repro     Run what .*\n  prepare   Make frame stores of frame features\.\n", told)
    assert "\n  look      Write the explorer" in told
    assert "..." not in told.partition("\n")[2]
    assert main([]) == 2
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["atack"], "attack"), (["train", "--modle", "art"], "--model"), (["download", "yt8"], "yt8m")],
)
def test_what_is_misspelt_is_answered_with_the_nearest(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "found"), [("tra", ["train"]), ("use au", ["audioset", "audioset_raw"]), ("train --se", ["--seed"])]
)
def test_a_shell_completes_commands_options_and_profiles(
    typed: str, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("_ARTPAPER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"artpaper {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    with pytest.raises(SystemExit, match="0"):
        main([])
    assert capsys.readouterr().out.split() == [f"plain,{name}" for name in found]


def test_help_waits_for_no_large_library() -> None:
    """One process: what this one has imported would not tell."""
    code = "import sys; from pipeline.run.cli import main; main(['--help']); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(told.splitlines()[-1].split())
    assert "pipeline.run.cli" in loaded
    assert not loaded & {"torch", "pandas", "numpy", "pyarrow", "matplotlib", "requests", "papermill"}


def test_the_installed_command_is_this_one() -> None:
    """One process: what pip made of the entry point."""
    done = subprocess.run([Path(sys.executable).parent / "artpaper", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{LIBRARY['version']}\n"), done.stderr


def test_an_error_is_one_message_and_a_failing_status(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--params", str(tmp_path / "none.yaml"), "--model", "art"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("artpaper: ")
    assert "none.yaml" in said
    assert "Traceback" not in said
