"""What the benchmarks hold ours against computes the same; and they say when a target is missed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from artpaper.losses import attention_adversarial
from artpaper.metrics import gap
from artpaper.models import FrameTransformer
from artpaper.settings import Loss, Model
from benchmarks import gpu
from benchmarks.__main__ import RESULTS, markdown
from benchmarks.measure import Line, Times, machine, peak_bytes, take_turns
from benchmarks.projection import markdown as computed
from benchmarks.projection import projection
from benchmarks.straightforward import StraightforwardTransformer, global_average_precision, three_pass_step
from benchmarks.training_step import LOSSES
from pipeline.train.device import best_device
from tests import toy
from tests.pipeline import ROOT


@pytest.mark.parametrize(("alive", "fused"), [(2**21, False), (1, False), (2**21, True)])
def test_a_step_of_a_art_has_the_gradients_of_the_usual_three_passes(alive: int, fused: bool, monkeypatch) -> None:
    """All maps at once, some at a time, and as on an accelerator."""
    monkeypatch.setattr("artpaper.models.ALIVE", alive)
    monkeypatch.setattr("artpaper.models._fuses", lambda _: fused)
    config = Model(heads=4, dropout=0.0)
    torch.manual_seed(0)
    ours = FrameTransformer(config, toy.MODALITIES, toy.CLASSES).double()
    theirs = StraightforwardTransformer(config, toy.MODALITIES, toy.CLASSES).double()
    theirs.load_state_dict(usual_names(ours))
    x, y, mask = toy.batch(dtype=torch.float64)
    loss = Loss(alpha=0.7, beta=0.5, epsilon=0.4)
    attention_adversarial(ours, x, y, mask, loss)[0].backward()
    three_pass_step(theirs, x, y, mask, loss)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = usual_names(ours, lambda parameter: parameter.grad)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-10, rtol=0, msg=name)


def usual_names(net: FrameTransformer, of=lambda parameter: parameter.detach()) -> dict[str, torch.Tensor]:
    """Our parameters, or what ``of`` gives of each, under the names of PyTorch's own attention."""
    named = {name: of(parameter) for name, parameter in net.named_parameters()}
    found = {name: value for name, value in named.items() if not name.startswith("encoders")}
    for modality in net.modalities:
        for kind in ("weight", "bias"):
            start = f"encoders.{modality}"
            joined = torch.cat([named[f"{start}.{part}.{kind}"] for part in ("query_key", "value")])
            found[f"{start}.attention.in_proj_{kind}"] = joined
            found[f"{start}.attention.out_proj.{kind}"] = named[f"{start}.output.{kind}"]
            for part in ("ffn.0", "ffn.2", "norms.0", "norms.1"):
                found[f"{start}.{part}.{kind}"] = named[f"{start}.{part}.{kind}"]
    return found


def test_the_reference_finds_the_same_gap() -> None:
    random = np.random.default_rng(0)
    labels = random.random((200, 30)) < 0.1
    scores = random.random((200, 30)) + labels
    assert global_average_precision(scores, labels) == pytest.approx(gap(scores, labels), abs=1e-12)


def test_a_ratio_is_taken_within_a_round() -> None:
    """What slows every call of a round down leaves it alone."""
    times = Times({"slow": [2.0, 20.0, 4.0], "fast": [1.0, 10.0, 2.0]})
    assert times.ratio("slow", "fast") == 2
    order = []
    timed = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3)
    assert order == list("ab" * 4)  # once before the rounds
    assert [len(values) for values in timed.seconds.values()] == [3, 3]


def test_memory_is_that_of_the_call() -> None:
    held = peak_bytes(lambda: torch.ones(64, 2**20).sum())  # 256 MiB, freed again
    assert 0.99 * 2**28 < held < 1.2 * 2**28


def test_the_table_says_which_target_is_missed() -> None:
    lines = [Line("one", 2.0, 2.15, False, "x", "other"), Line("two", 1.0, 2.0, True, "GB/s", "")]
    found = {"training_step": {"machine": machine(), "seconds": 1, "rows": [line.as_dict() for line in lines]}}
    page = markdown(json.loads(json.dumps(found)))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    assert rows[-2] == ["one", "at most 2.15 x", "2 x", "other", "yes"]
    assert rows[-1] == ["two", "at least 2 GB/s", "1 GB/s", "", "no"]
    assert f"cores {machine()['cores']}" in page


def test_what_measures_a_gpu_runs_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part, and what one that fails had found; nobody has a GPU at hand who changes what it calls."""
    if best_device().type != "cpu":
        pytest.skip("there is a GPU; python -m benchmarks.gpu measures it")
    with pytest.raises(SystemExit, match="nothing was measured: PyTorch's best device here is cpu"):
        gpu.main([])

    def breaks(_: gpu.Size) -> Iterator[gpu.Row]:
        yield {"what": "first", "with": "", "ms": 2.0}
        raise RuntimeError("out of order\nand more")

    monkeypatch.setattr("benchmarks.measure.gc.collect", int)  # most of the time
    monkeypatch.setattr(gpu, "PARTS", (breaks, *gpu.PARTS))
    gpu.main(["--device", "cpu", "--small", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["what"] for row in rows] == [
        "first", "breaks", "matrix products", *2 * [f"{name}'s step" for name in LOSSES],
        *(f"{name}, trained" for name in LOSSES), "PGD", "DeepFool", "input",
    ]  # fmt: skip
    assert [row["with"] for row in rows if len(row) == 2] == ["RuntimeError: out of order"]
    assert all(row["loss"] == row["on the CPU"] for row in rows if "loss" in row)  # this is the CPU
    page = (tmp_path / "gpu.md").read_text()
    assert ", commit " in page
    assert "| 2 ms " in page


def test_no_row_is_begun_when_the_time_is_up() -> None:
    assert [row["with"] for row in gpu._until(gpu.steps, gpu.SMALL, 0.0)] == ["no time was left for more"]


def test_the_documentation_shows_what_was_measured() -> None:
    bench, full = (json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in ("bench", "full_size"))
    tables = {"speed": markdown(bench).partition("\n|")[2], "full-size": computed(projection(full))}
    for page, table in tables.items():
        assert table.strip() in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), page
