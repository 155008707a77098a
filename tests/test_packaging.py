"""The promises of the packaging: one set of versions, a light import, a command line that helps."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^;\s]+)\s*(;.*)?$", line.strip()) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_environment_yml_names_the_versions_of_the_lock_file() -> None:
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    environment = YAML(typ="safe").load((ROOT / "environment.yml").read_text())
    conda = pins(next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict)))
    assert len(conda) > 20
    assert {name: lock.get(name) for name in conda} == conda


def test_every_direct_requirement_is_pinned_in_both() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in wanted} - {"artpaper"}
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    environment = (ROOT / "environment.yml").read_text()
    assert not {name for name in names if name not in lock}
    assert not {name for name in names if f"- {name}==" not in environment}


def test_the_library_needs_only_its_own_requirements() -> None:
    """Models, losses, attacks and metrics import none of the pipeline's packages."""
    code = (
        "import sys, artpaper.models, artpaper.losses, artpaper.attacks, artpaper.metrics;"
        "heavy = {'tensorflow', 'pyarrow', 'pandas', 'dvc', 'papermill', 'IPython', 'matplotlib', 'safetensors',"
        "'ruamel'} & set(sys.modules); sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_one_module_imports_tensorflow() -> None:
    files = [*(ROOT / "artpaper").rglob("*.py")]
    importing = [path.name for path in files if re.search(r"^\s*(import|from) tensorflow", path.read_text(), re.M)]
    assert importing == ["tensorflow_files.py"]


@pytest.mark.parametrize(
    "command",
    [
        "",
        "use",
        "download",
        "download yt8m",
        "download audioset",
        "prepare",
        "train",
        "attack",
        "deepfool",
        "study",
        "tables",
        "clean",
        "run",
        "refresh",
        "publish",
        "claims",
        "report",
    ],
)
def test_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.run.cli", *command.split(), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "usage: artpaper" in done.stdout


def test_an_error_is_one_message_and_a_failing_status(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.run.cli", "train", "--params", str(tmp_path / "none.yaml"), "--model", "art"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("artpaper: ")
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr
