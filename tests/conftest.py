"""Fixtures that several test files share."""

import functools
import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from pipeline.base.parameters import Params, load_params
from tests.pipeline import changed

ROOT = Path(__file__).resolve().parents[1]
RUN = "test_pipeline.py"  # each process takes a copy of the run
# Files whose tests take five seconds of processor or more in all, as measured. They are left out of `make quick`, and
# begun first by the others: what takes long must not begin last. `--durations=0` tells when this list is out of date.
SECONDS = {
    RUN: 100,
    "test_checks.py": 30,
    "report/test_page.py": 25,
    "test_training.py": 26,
    "data/test_synthetic.py": 25,
    "test_statistics.py": 24,
    "test_study.py": 22,
    "test_evaluation.py": 20,
    "attacks/test_ordering.py": 19,
    "test_team.py": 18,
    "attacks/test_auto_projected_gradient.py": 17,
    "report/test_explorer.py": 16,
    "test_stress.py": 15,
    "attacks/test_minimum_norm.py": 15,
    "test_git.py": 13,
    "test_trial.py": 14,
    "report/test_stress.py": 13,
    "data/test_prepare.py": 12,
    "attacks/test_entry.py": 12,
    "report/test_attention.py": 11,
    "attacks/test_attention.py": 9,
    "test_repro.py": 8,
    "test_benchmarks.py": 8,
    "report/test_claims.py": 8,
    "attacks/test_projected_gradient.py": 8,
    "test_reference_training.py": 6,
    "test_random_calls.py": 6,
    "test_profiles.py": 6,
    "test_experiments.py": 6,
    "test_own_data.py": 5,
    "data/test_tfrecord.py": 5,
    "data/test_download.py": 5,
    "attacks/test_square.py": 5,
}


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("audioset/features.tar.gz")`` is the path of a file of real data; the test is skipped without it."""
    folder = (ROOT / os.environ.get("ARTPAPER_REAL_DATA", "../shared/data")).resolve()

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"real data {name} is not there; set ARTPAPER_REAL_DATA to the folder that holds it")
        return folder / name

    return find


@pytest.fixture(scope="session")
def small_params() -> Params:
    """The parameters of the small profile."""
    return load_params(ROOT / "profiles" / "small.yaml")


@pytest.fixture(scope="session")
def small(small_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the prepared frames of the small profile; leave it as it is."""
    from pipeline.prepare.prepare import prepare

    workspace = tmp_path_factory.mktemp("small")
    prepare(small_params, workspace, progress=False)
    return workspace


@pytest.fixture(scope="session")
def tiny_params(small_params: Params) -> Params:
    """A few short videos, a narrow model and six steps: for tests of what is run, not of what is learned."""
    return changed(
        small_params, synthetic={"train_videos": 200, "validate_videos": 96, "min_frames": 3, "max_frames": 6},
        features={"max_frames": 6}, model={"projection": 32, "heads": 4}, attack={"batch_size": 32},
        train={"learning_rate": 0.03, "batch_size": 32, "max_steps": 6, "validate_every": 3}, compute={"workers": 1},
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tiny_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the frames of :func:`tiny_params`; leave it as it is."""
    from pipeline.prepare.prepare import prepare

    workspace = tmp_path_factory.mktemp("tiny")
    prepare(tiny_params, workspace, progress=False)
    return workspace


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's profiles, as the current one."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_finish() -> None:
    """What was imported lives to the end; to look through it for garbage again and again took a quarter of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is not asked for is not even imported: browser tests, by `make quick` the long files."""
    unasked = {"not browser": collection_path.name == "browser", "not slow": seconds(collection_path) > 0}
    return True if any(unasked[mark] for mark in unasked if mark in config.option.markexpr) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; last those that wait for the run of the small profile, which `make test` begins beside them."""
    for item in items:
        if seconds(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: (item.path.name == RUN, -seconds(item.path)))


class Together(LoadScopeScheduling):
    """One by one, but the tests of a file that makes something for all of them go to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if shares(file) else nodeid


@functools.cache
def shares(file: str) -> bool:
    text = (ROOT / file).read_text(encoding="utf-8")
    return not file.endswith(RUN) and ('scope="module"' in text or "\n@cache\n" in text)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def seconds(path: Path) -> int:
    return SECONDS.get(path.relative_to(ROOT / "tests").as_posix(), 0) if path.is_relative_to(ROOT / "tests") else 0
