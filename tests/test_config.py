"""Parameters: the ready-made files are complete and fit, and whatever does not fit is named."""

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.base.errors import ConfigError
from pipeline.base.parameters import Params, as_dict, build, load_params

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "params.yaml", ROOT / "profiles" / "default.yaml"]


def keys(values: object, prefix: str = "") -> set[str]:
    if not isinstance(values, dict):
        return {prefix}
    return set().union(*(keys(value, f"{prefix}.{key}") for key, value in values.items()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_names_every_key(path: Path) -> None:
    """So that a reader, and DVC, finds each value in the file and never has to know a default."""
    assert keys(YAML(typ="safe").load(path.read_text())) == keys(as_dict(load_params(path)))


def test_the_paper_profile_is_the_papers_setting() -> None:
    ours, paper = load_params(ROOT / "profiles" / "paper.yaml"), Params()
    for field in dataclasses.fields(Params):
        if field.name != "synthetic":  # the paper has no synthetic data
            assert getattr(ours, field.name) == getattr(paper, field.name), field.name
    art = ours.models["art"]
    assert (art.alpha, art.epsilon, ours.models["a_art"].beta) == (1.0, 0.5, 0.001)
    assert (ours.train.learning_rate, ours.train.batch_size, ours.train.validate_every) == (2e-4, 64, 10_000)
    assert (ours.train.early_stop_patience, ours.train.lr_patience, ours.train.lr_factor) == (5, 3, 0.1)
    assert (ours.model.heads, ours.features.max_frames, ours.data.validation_videos) == (8, 300, 64_000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, r"unknown parameter modle; did you mean model\?"),
        ({"train": {"batchsize": 3}}, r"unknown parameter train.batchsize; did you mean batch_size\?"),
        ({"models": {"art": {"alhpa": 1.0}}}, r"unknown parameter models.art.alhpa; did you mean alpha\?"),
        ({"train": {"learning_rate": "2e-4"}}, "train.learning_rate: input should be a valid number, got '2e-4'"),
        ({"train": {"learning_rate": -1.0}}, "train.learning_rate: .*greater than 0, got -1.0"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate: .*finite"),
        ({"model": {"heads": True}}, "model.heads: .*valid integer, got True"),
        (
            {"model": {"attention": "soft"}},
            "model.attention: .*'softmax', 'uniform', 'position' or 'random', got 'soft'",
        ),
        ({"data": {"source": "audioset"}}, "audioset has audioset527"),
        ({"data": {"source": "audoset"}}, r"data.source: no source 'audoset'; did you mean audioset\?"),
        ({"data": {"source": "arrays"}}, "label_space 'h317' does not fit source 'arrays': .*arrays has given"),
        ({"data": {"source": "yt8m", "label_space": "given"}}, "label_space 'given' does not fit source 'yt8m'"),
        (
            {"data": {"source": "audioset", "label_space": "given"}},
            "label_space 'given' does not fit source 'audioset'",
        ),
        ({"data": {"source": "arrays", "label_space": "given", "vocabulary": "x"}}, "vocabulary must be null"),
        ({"synthetic": {"min_frames": 30, "max_frames": 20}}, "max_frames 20 is below min_frames 30"),
        ({"experiment": {"models": ["x"]}}, "experiment.models names 'x'"),
        ({"experiment": {"seeds": [1, 1]}}, "experiment: seeds names one twice: 1, 1"),
        ({"study": {"seeds": [0, 0]}}, "study: seeds names one twice: 0, 0"),
        ({"study": {"epsilons": [0.5, 1.0, 0.5]}}, "study: epsilons names one twice"),
        ({"study": {"models": {"alpha": ["art", "art"]}}}, "study.models: alpha names one twice: art, art"),
        ({"stress": {"seeds": [2, 0, 2]}}, "stress: seeds names one twice: 2, 0, 2"),
        ({"stress": {"epsilons": [0.0, -0.0]}}, "stress: epsilons names one twice"),
        ({"verdict": {"draws": 1}}, "verdict: draws 1: with fewer than 20 bootstrap samples .* 1000 for results"),
        ({"stress": {"videos": 1}}, "stress.videos: .*greater than or equal to 2, got 1"),
        ({"verdict": {"draws": 19}}, "verdict: draws 19: "),
        ({"base": 3}, "base: .*got 3"),
        ({"base": {"seed": {1, 2}}}, "not a plain value"),
    ],
)
def test_what_does_not_fit_is_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: .*{message}"):
        build(Params, values, "here")


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Params, {"train": {"batchsize": 3, "learning_rate": "x"}}, "here")
    assert len(str(caught.value).splitlines()) == 2


def test_round_trip() -> None:
    assert build(Params, as_dict(Params()), "here") == Params()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such parameter file"),
        ("- 1", "expected groups"),
        ("base:\n  seed: [", "not valid YAML: .*line 2"),
        ("base: {seed: 0}\nbase: {seed: 1}", 'not valid YAML: .*duplicate key "base".*line 2'),
        ("base: 2001-99-99", "not valid YAML: month must be in 1..12"),
        ("base: \udcff", "not valid YAML: not UTF-8"),
        ("base:\0", "not valid YAML"),
        ("%YAML 9.9\n---\nbase: {seed: 1}\n", "not valid YAML"),
        ("base: !!set {a}", "not a plain value"),
        ("base: &a [*a]\n", "not a plain value"),
        (f"base: {{seed: 0x{'f' * 400}}}", "base.seed: input should be less than"),
    ],
)
def test_files_that_are_no_parameter_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=rf"(?s)params\.yaml: {message}"):
        load_params(path)


def test_a_wrong_value_is_not_shown_whole() -> None:
    with pytest.raises(ConfigError, match="scope") as raised:
        build(Params, {"attack": {"scope": "x" * 100_000}}, "test")
    assert len(str(raised.value)) < 1000


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean a_art"):
        Params().model_for("aart")
