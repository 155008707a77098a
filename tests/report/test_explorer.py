"""The explorer without a browser: equal to the figures' numbers, to the predictions, and to sums done by hand."""

import base64
import contextlib
import html
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from artpaper.attacks import random_direction
from pipeline.base.errors import ArtpaperError, CheckpointError, DataError
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.explorer import explorer as module
from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.explorer import Explorer, lead, open_explorer, run_title
from pipeline.explorer.scene import LISTED, ORDERS, about, first_state, pooled
from pipeline.explorer.static import EPSILONS, VIDEOS, chosen, page_of, write_page
from pipeline.explorer.videos import Videos, public_address
from pipeline.explorer.view import ExplorerView, Newest, Superseded
from pipeline.predict.one_step import attack
from pipeline.predict.one_video import example
from pipeline.run.workspace import Workspace
from pipeline.train.training import train
from tests import toy
from tests.pipeline import ROOT, changed, link_frames
from tests.report.test_attention import write_predictions

RUNS = (("non_art", 0), ("art", 0))


@pytest.fixture(scope="module")
def explorer(small, small_params: Params, tmp_path_factory) -> Explorer:
    """Two models of the small profile with their predictions."""
    workspace = link_frames(small, tmp_path_factory.mktemp("explorer"))
    predictions = {}
    for run in RUNS:
        train(small_params, *run, workspace, progress=False)
        predictions[run] = attack(small_params, *run, workspace, progress=False)
    made = Explorer(small_params, workspace, predictions)
    made.workspace = workspace
    return made


@pytest.fixture(scope="module")
def rows(explorer: Explorer) -> dict[str, list[dict]]:
    """The predictions files, read by themselves."""
    folder = explorer.workspace / "predictions"
    return {name: pq.read_table(folder / name / "seed0" / "one_step.parquet").to_pylist() for name, _ in RUNS}


@pytest.mark.parametrize("row", [0, 17])
def test_maps_and_top_labels_are_those_of_figures_1_and_2(explorer: Explorer, small_params, row) -> None:
    video = explorer.videos.id(row)
    shown = example(small_params, explorer.workspace, [name for name, _ in RUNS], 0, video, "named")
    for run in RUNS:
        view, seen = explorer.look(row, run, "one_step", small_params.attack.epsilon), shown.models[run[0]]
        for modality in explorer.modalities:
            before, after = view.maps(modality)
            np.testing.assert_allclose(before, seen.clean[modality], atol=1e-12)
            np.testing.assert_allclose(after, seen.adversarial[modality], atol=1e-12)
        assert (view.before.top[0].name, view.after.top[0].name) == (seen.top, seen.attacked_top)
        assert (view.before.right, view.after.right) == (seen.right, seen.attacked_right)
    assert explorer.videos.labels(row) == shown.labels


def test_probabilities_and_norms_are_those_of_the_predictions(explorer: Explorer, small_params, rows) -> None:
    for row in (0, 5):
        told, view = rows["art"][row], explorer.look(row, ("art", 0), "one_step", small_params.attack.epsilon)
        for labels, name in ((view.before.top, "clean"), (view.after.top, "adversarial")):
            assert [explorer.classes[index] for index in told[f"{name}_classes"][: len(labels)]] == [
                label.name for label in labels
            ]
            expected = 1 / (1 + np.exp(-np.array(told[f"{name}_scores"][: len(labels)], np.float64)))
            assert [label.probability for label in labels] == pytest.approx(expected, rel=1e-4)
            assert [label.true for label in labels] == [
                index in told["labels"] for index in told[f"{name}_classes"][: len(labels)]
            ]
        assert view.norm == pytest.approx(told["norm"], rel=1e-6)
        assert view.norm / view.video_norm == pytest.approx(told["relative_norm"], rel=1e-6)


@pytest.mark.parametrize("attack", [name for name, choice in ATTACKS.items() if choice.takes_epsilon])
def test_the_norm_is_epsilon_and_nothing_changes_without_one(explorer: Explorer, attack: str) -> None:
    for epsilon in (0.05, 0.7):
        view = explorer.look(3, RUNS[1], attack, epsilon)
        assert view.norm == pytest.approx(epsilon, rel=1e-6)
        assert np.sqrt((view.frame_norms**2).sum()) == pytest.approx(epsilon, rel=1e-6)
        assert any((view.clean[name] != view.adversarial[name]).any() for name in explorer.modalities)
    still = explorer.look(3, RUNS[1], attack, 0.0)
    assert still.norm == 0
    assert still.before == still.after
    for name in explorer.modalities:
        np.testing.assert_array_equal(still.clean[name], still.adversarial[name])


def test_deepfool_fools_whatever_epsilon_says(explorer: Explorer) -> None:
    """By the page's own meaning: with another, it said "not fooled" of a search that had reached its aim."""
    rows = [row for row in range(24) if explorer.look(row, RUNS[0], "random", 0.0).before.right]
    for row in rows:  # with several true labels on top, another of them would do for a change of the top label
        assert not explorer.look(row, RUNS[0], "deepfool", 0.0).after.right
    far, near = (explorer.look(rows[0], RUNS[0], "deepfool", epsilon) for epsilon in (9.0, 0.0))
    assert far.norm == near.norm > 0


def test_the_head_average_is_the_mean_of_the_heads(explorer: Explorer, small_params) -> None:
    view = explorer.look(1, RUNS[0], "one_step", 0.1)
    heads = [view.maps("audio", head) for head in range(small_params.model.heads)]
    for kind, average in enumerate(view.maps("audio")):
        np.testing.assert_allclose(average, sum(pair[kind] for pair in heads) / len(heads), atol=1e-12)
        assert average.sum(axis=1) == pytest.approx(np.ones(len(average)), abs=1e-5)


def test_videos_are_found_by_id_and_by_label(explorer: Explorer, rows) -> None:
    told, classes = rows["art"], explorer.classes
    part = told[7]["id"][1:3].swapcase()
    found = explorer.find("store", part, RUNS[0], "one_step", 0.1).rows
    wanted = [
        row
        for row, video in enumerate(told)
        if part.lower() in video["id"].lower() or any(part.lower() in classes[i].lower() for i in video["labels"])
    ]
    assert found.tolist() == wanted
    assert 7 in wanted
    assert not len(explorer.find("store", "no such thing", RUNS[0], "one_step", 0.1).rows)


def test_the_whole_name_of_a_class_stands_for_that_class_alone(explorer: Explorer, rows, monkeypatch) -> None:
    games, other = explorer.classes.index("Games"), explorer.classes.index("Sports")
    names = [*explorer.classes]
    names[other] = "Board games"
    monkeypatch.setattr(explorer.videos, "_space", replace(explorer.videos._space, classes=tuple(names)))
    for text, wanted in (("games", {games}), ("board", {other}), ("game", {games, other})):
        found = explorer.find("store", text, RUNS[0], "one_step", 0.1).rows.tolist()
        assert found == [row for row, video in enumerate(rows["art"]) if wanted & set(video["labels"])]


def test_change_is_the_mean_over_modalities(tmp_path, explorer: Explorer) -> None:
    numbers = {("rgb", "mse"): np.array([1.0, 4.0, 0.0]), ("audio", "mse"): np.array([5.0, 4.0, 1.0])}
    path = write_predictions(tmp_path / "a", "art", videos=3, numbers=numbers)
    videos = Videos({("art", 0): path}, explorer._store.label_space)
    assert videos.change(("art", 0)).tolist() == [3.0, 4.0, 0.5]


def test_the_most_changed_come_first(explorer: Explorer, rows) -> None:
    change = [(v["rgb_attention_mse"] + v["audio_attention_mse"]) / 2 for v in rows["non_art"]]
    found = explorer.find("changed", "", RUNS[0], "one_step", 0.1)
    assert found.rows.tolist() == sorted(range(len(change)), key=lambda row: -change[row])
    assert "Non-ART" in found.text


def test_the_fooled_are_those_whose_top_label_becomes_wrong(explorer: Explorer, small_params, rows) -> None:
    epsilon = small_params.attack.epsilon
    recorded = explorer.find("fooled", "", RUNS[0], "one_step", epsilon).rows.tolist()
    assert recorded == [row for row, video in enumerate(rows["non_art"]) if video["fooled"]]
    label = next(name for name in explorer.classes if 20 <= len(explorer.videos.matching(name)) <= 60)
    for name, strength in (("one_step", 3 * epsilon), ("random", 3 * epsilon), ("deepfool", 0.0)):
        found = explorer.find("fooled", label, RUNS[0], name, strength)
        views = {row: explorer.look(row, RUNS[0], name, strength) for row in explorer.videos.matching(label).tolist()}
        assert len(views) <= ATTACKS[name].searched
        assert found.rows.tolist() == [row for row, view in views.items() if view.before.right and not view.after.right]
        assert f"{len(found.rows)} of {len(views)} videos are fooled" in found.text
    assert explorer.find("fooled", label, RUNS[0], "one_step", 3 * epsilon).rows.size  # or the above compares nothing


def test_a_search_among_many_says_how_many_it_asked(explorer: Explorer, monkeypatch) -> None:
    monkeypatch.setitem(ATTACKS, "one_step", replace(ATTACKS["one_step"], searched=20))
    found = explorer.find("fooled", "", RUNS[0], "one_step", 0.9)
    assert f"of 20 searched of {len(explorer.videos)}" in found.text
    assert len(found.rows) <= 20
    assert "of 64 searched of" in explorer.find("fooled", "", RUNS[0], "deepfool", 0.0).text  # it takes many steps


def test_the_pipelines_epsilon_is_known_again_after_rounding(explorer: Explorer, small_params, monkeypatch) -> None:
    """A slider that counts in notches says 0.30000000000000004; what was recorded is looked up all the same."""
    monkeypatch.setattr(explorer, "_fooled", None)  # nothing may be tried anew
    epsilon = small_params.attack.epsilon
    slid = np.nextafter(epsilon, 1)
    assert slid != epsilon
    assert explorer.find("fooled", "", RUNS[0], "one_step", slid).rows.size
    with pytest.raises(TypeError):  # another epsilon is tried
        explorer.find("fooled", "", RUNS[0], "one_step", 1.01 * epsilon)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attack.epsilon", 0.2),
        ("attack.scope", "frame"),
        ("attack.labels", "predicted"),
        ("features.norm", "none"),
        ("features.max_frames", 11),
    ],
)
def test_predictions_of_another_attack_are_refused(explorer: Explorer, small_params, key: str, value) -> None:
    """Else "fooled" would list the videos of the attack that was, under the name of the one that is."""
    paths = {run: explorer.workspace / "predictions" / run[0] / "seed0" / "one_step.parquet" for run in RUNS}
    group, name = key.split(".")
    was = getattr(getattr(small_params, group), name)
    with pytest.raises(DataError) as refused:
        Explorer(changed(small_params, **{group: {name: value}}), explorer.workspace, paths)
    said = str(refused.value)
    assert f"made with {key} {was}, the parameters say {value}; " in said
    assert said.endswith("`dvc repro attack`")
    assert str(paths[RUNS[0]]) in said


def test_both_models_shown_first_are_checked_before_there_is_a_page(explorer: Explorer, small_params) -> None:
    paths = {run: explorer.workspace / "predictions" / run[0] / "seed0" / "one_step.parquet" for run in RUNS}
    models = {"art": {**as_dict(small_params.models["art"]), "alpha": 3.0}}
    with pytest.raises(CheckpointError, match="art"):
        Explorer(changed(small_params, models=models), explorer.workspace, paths)


def test_other_frames_or_other_parameters_are_refused(explorer: Explorer, small_params) -> None:
    paths = {run: explorer.workspace / "predictions" / run[0] / "seed0" / "one_step.parquet" for run in RUNS}
    with pytest.raises(CheckpointError, match="this run needs"):
        Explorer(changed(small_params, train={"max_steps": 7}), explorer.workspace, paths)
    with pytest.raises(DataError, match="holds model"):
        Explorer(small_params, explorer.workspace, {("a_art", 0): paths[RUNS[0]]})
    other = Explorer(small_params, explorer.workspace, paths)
    other._store = FrameStore(explorer.workspace / "frames" / "validation")
    with pytest.raises(DataError, match="not the videos of the predictions"):
        other.look(0, RUNS[0], "one_step", 0.1)


def test_auto_says_what_makes_the_models_and_goes_on_with_the_small_ones(explorer, small_params, monkeypatch) -> None:
    """Without the pipeline's models; those of the small profile are put in place of a training."""
    empty = explorer.workspace / "nothing"

    def opened(params: str, workspace: str) -> Workspace:
        if workspace == ".":
            return Workspace(small_params, empty, scratch=False)
        few = changed(small_params, experiment={"models": ["non_art", "art"]})
        return Workspace(few, explorer.workspace, scratch=True)

    monkeypatch.setattr(module, "open_workspace", opened)
    found = open_explorer()
    assert found.runs == RUNS
    assert "small profile" in found.note
    assert "`dvc repro`" in found.note
    with pytest.raises(ArtpaperError, match="dvc repro"):
        open_explorer("params.yaml", ".")


def test_public_addresses() -> None:
    assert public_address("yt8m", "nXSc")[0] == "https://data.yt8m.org/2/j/i/nX/nXSc.js"  # the example of its page
    assert public_address("audioset", "--U7joUcTCo")[0] == "https://www.youtube.com/watch?v=--U7joUcTCo"
    assert public_address("synthetic", "nXSc") is None


def test_seeds_are_named_where_there_are_several() -> None:
    assert run_title(("a_art", 0), [("a_art", 0), ("art", 0)]) == "A-ART"
    assert run_title(("a_art", 1), [("a_art", 0), ("a_art", 1)]) == "A-ART, seed 1"


def test_errors_are_shown_without_a_traceback() -> None:
    assert DataError("frames: gone; make them")._render_traceback_() == ["DataError: frames: gone; make them"]


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
def test_the_notebooks_check_holds_for_every_scope(explorer: Explorer, monkeypatch, scope: str) -> None:
    """The page opens whatever the project has; what its check says may not depend on that."""
    monkeypatch.setattr(explorer, "params", changed(explorer.params, attack={"scope": scope}))
    explorer._step.cache_clear()
    cells = json.loads((ROOT / "notebooks" / "explore_attention.ipynb").read_text())["cells"]
    (check,) = [cell for cell in cells if "nbval-check-output" in cell["metadata"].get("tags", [])]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec("".join(check["source"]), {"explorer": explorer})
    explorer._step.cache_clear()
    assert said.getvalue() == "".join(check["outputs"][0]["text"])
    assert said.getvalue().count(": True") == len(said.getvalue().splitlines()) == 4


@pytest.fixture
def view(explorer: Explorer) -> Iterator[ExplorerView]:
    made = ExplorerView(explorer)
    made.wait()
    yield made
    made.close()


def show(view: ExplorerView, **changed: object) -> dict:
    """The scene of the view's state with some of it changed."""
    view.state = {**view.state, **changed}
    view.wait()
    return view.scene


def numbers(told: dict, name: str) -> np.ndarray:
    """A map as it travels, in weights again."""
    most = told["most" if name == "clean" else "widest"]
    values = np.frombuffer(told[name], "<i2") * most / 32_767
    return values.reshape((round(len(values) ** 0.5),) * 2)


def test_a_scene_has_what_the_library_says(view: ExplorerView, explorer: Explorer) -> None:
    shown = {"models": ["art/0", "non_art/0"], "modalities": ["rgb", "audio"], "head": 5, "epsilon": 0.2}
    scene = show(view, video=explorer.videos.id(6), **shown)
    order = [(run, name) for run in (RUNS[1], RUNS[0]) for name in ("rgb", "audio")]
    for told, (run, name) in zip(scene["maps"], order, strict=True):
        seen = explorer.look(6, run, "one_step", 0.2)
        before, after = seen.maps(name, 4)
        assert (scene["models"][told["model"]]["key"], told["modality"], told["head"]) == (f"{run[0]}/0", name, 5)
        np.testing.assert_allclose(numbers(told, "clean"), before, atol=before.max() / 60_000)
        np.testing.assert_allclose(numbers(told, "change"), after - before, atol=abs(after - before).max() / 60_000)
        received = np.frombuffer(told["received"], "<f4").reshape(2, -1)
        np.testing.assert_allclose(received, [before.mean(axis=0), after.mean(axis=0)], rtol=1e-6)
        answer = scene["models"][told["model"]]
        np.testing.assert_allclose(np.frombuffer(answer["norms"], "<f4"), seen.frame_norms, rtol=1e-6)
        assert answer["margins"] == [seen.before.margin, seen.after.margin]
        assert answer["top"] == [[label.name, label.probability, label.true] for label in seen.before.top]
    assert len(show(view, head="all")["maps"]) == 4 * explorer.params.model.heads


def test_maps_come_before_the_answers_where_these_take_long(view: ExplorerView) -> None:
    """A page that waits for both redraws late: the answer takes most of the time."""
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "scene")
    for slow in (True, False):
        seen.clear()
        view._slow = slow
        whole = show(view, epsilon=0.3 + slow / 10)
        assert len(seen) == 1 + slow
        assert seen[0]["maps"] == whole["maps"]
        assert ("attacked_top" in seen[0]["models"][0], "asked" in seen[0]) == (not slow, not slow)
        assert whole["models"][0]["attacked_top"]


def test_clean_maps_do_not_change_with_epsilon(view: ExplorerView) -> None:
    """Their numbers, and where their colours end: a scale that follows the attack darkens them while it is dragged."""
    clean = [[(told["most"], told["clean"]) for told in show(view, epsilon=epsilon)["maps"]] for epsilon in (0.0, 0.5)]
    assert clean[0] == clean[1]


@pytest.mark.parametrize("step", [1, 2, 5, 7, 9])
def test_a_pixel_is_the_mean_of_its_frames(step: int) -> None:
    values = np.random.default_rng(0).random((7, 7))
    starts = range(0, 7, step)
    wanted = [[values[row : row + step, column : column + step].mean() for column in starts] for row in starts]
    np.testing.assert_allclose(pooled(values, step), wanted)


def test_maps_fit_the_screen_and_zoom(view: ExplorerView, explorer: Explorer) -> None:
    frames = view.scene["frames"]
    before, _ = explorer.look(0, RUNS[0], "one_step", 0.1).maps("rgb")
    view.pixels = frames // 2
    view.wait()
    assert view.scene["step"] == -(-frames // (frames // 2))
    np.testing.assert_allclose(numbers(view.scene["maps"][0], "clean"), pooled(before, view.scene["step"]), atol=1e-4)
    scene = show(view, zoom=[2, 4])
    assert (scene["window"], scene["step"]) == ([1, 4], 1)
    np.testing.assert_allclose(numbers(scene["maps"][0], "clean"), before[1:4, 1:4], atol=1e-4)
    assert show(view, zoom=[90, 99])["window"] == [frames - 1, frames]  # of a longer video


@pytest.mark.parametrize("attack", [name for name, choice in ATTACKS.items() if choice.straight])
def test_a_way_that_was_found_is_gone_further(explorer: Explorer, monkeypatch, attack: str) -> None:
    """Dragging epsilon asks for no gradient again, and is the attack at each epsilon all the same."""
    explorer.look(9, RUNS[0], attack, 0.3)
    choice, x = ATTACKS[attack], explorer._video(9, RUNS[0], ())
    wanted = choice.run(explorer._model(RUNS[0]), *x, 0.7, explorer.params)
    monkeypatch.setitem(ATTACKS, attack, replace(choice, run=Mock(side_effect=AssertionError("found again"))))
    view = explorer.look(9, RUNS[0], attack, 0.7)
    torch.testing.assert_close(explorer._perturbation(9, RUNS[0], attack, 0.7, ()), wanted.perturbation)
    assert view.after.margin == pytest.approx(lead(wanted.adversarial_logits[0], x[1][0]), abs=1e-4)


def test_margins_are_above_0_where_the_top_label_is_true(explorer: Explorer) -> None:
    epsilons, signs = [0.0, 0.1, 0.4], set()
    for row in range(12):
        told = list(explorer.margins(row, RUNS[0], "one_step", epsilons))
        for epsilon, margin in zip(epsilons, told, strict=True):
            view = explorer.look(row, RUNS[0], "one_step", epsilon)
            assert margin == pytest.approx(view.after.margin, abs=1e-4)
            assert (view.after.margin > 0) == view.after.right
            signs.add(view.after.right)
        assert (view.before.margin > 0) == view.before.right
    assert signs == {True, False}
    assert np.isnan(lead(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])))


def test_a_masked_frame_is_padding(explorer: Explorer) -> None:
    view = explorer.look(0, RUNS[0], "one_step", 0.4, masked=(1, 3))
    assert (view.frame_norms[[1, 3]] == 0).all()
    for name in explorer.modalities:
        for heads in (view.clean[name], view.adversarial[name]):
            assert (heads[:, [1, 3]] == 0).all()
            assert (heads[:, :, [1, 3]] == 0).all()
            np.testing.assert_allclose(np.delete(heads, [1, 3], axis=1).sum(axis=2), 1, atol=1e-5)
    assert view.norm == pytest.approx(0.4, rel=1e-6)
    with pytest.raises(ArtpaperError, match="every frame of test video"):
        explorer.look(0, RUNS[0], "one_step", 0.4, masked=tuple(range(len(view.frame_norms))))


def test_the_first_models_are_of_one_seed(explorer: Explorer, monkeypatch) -> None:
    monkeypatch.setattr(explorer, "runs", (("non_art", 0), ("non_art", 2), ("a_art", 0), ("a_art", 2)))
    assert explorer.first == (("non_art", 0), ("a_art", 0))


@pytest.mark.parametrize(
    "wrong",
    [{"video": "nobody's"}, {"models": ["gone/0"]}, {"models": []}, {"head": 99}, {"head": 0}, {"epsilon": -1.0},
     {"attack": "none"}, {"modalities": ["smell"]}, {"zoom": ["a", "b"]}],
)  # fmt: skip
def test_a_view_of_another_run_is_refused_and_the_next_is_shown(view: ExplorerView, wrong: dict) -> None:
    right = {name: view.state[name] for name in wrong}
    assert "does not have" in show(view, **wrong)["error"]
    assert "maps" not in view.scene
    assert show(view, **right)["maps"]


def test_a_view_that_was_sent_is_opened(explorer: Explorer) -> None:
    sent = json.dumps({"video": explorer.videos.id(5), "head": 3, "masked": [2]})
    view = ExplorerView(explorer, sent)
    view.wait()
    view.close()
    assert (view.scene["video"], view.scene["maps"][0]["head"]) == (explorer.videos.id(5), 3)


def test_what_failed_is_said_and_nothing_else_is_shown(view: ExplorerView, explorer: Explorer, monkeypatch) -> None:
    for error in (CheckpointError("models/art: gone"), RuntimeError("no memory")):
        with monkeypatch.context() as broken:
            broken.setattr(explorer, "look", Mock(side_effect=error))
            assert str(error) in show(view, video=explorer.videos.id(4))["error"]
            assert "maps" not in show(view, head=2)
        assert show(view, video=explorer.videos.id(5))["video"] == explorer.videos.id(5)


def test_all_that_a_page_draws_from_is_told_again_to_one_that_came_late(view: ExplorerView, monkeypatch) -> None:
    sent = Mock()
    monkeypatch.setattr(view, "send_state", sent)
    view.arrived = 1.0
    told = {name for call in sent.call_args_list for names in call.args for name in names}
    assert told >= {"about", "scene", "listing", "moved", "margins"}


def test_only_the_newest_request_is_worked_on() -> None:
    """What waits is replaced; what is under way goes on for as long as it was given, then gives way."""
    done, begun, go, given_up = [], threading.Event(), threading.Event(), []

    def work(request: int) -> None:
        begun.set()
        go.wait(5)
        try:
            worker.give_way()
        except Superseded:
            given_up.append(request)
            raise
        done.append(request)

    worker = Newest(work)
    worker.ask(0)
    begun.wait(5)
    for request in range(1, 9):
        worker.ask(request)
    worker.give_way()  # not the thread whose work it is
    go.set()
    assert worker.wait(5)
    worker.close()
    assert (given_up, done) == ([0], [8])


def test_a_view_under_way_is_not_given_up_for_every_step_of_a_drag() -> None:
    def work(_: int) -> None:
        with worker.patient(60):
            time.sleep(0.02)
            worker.give_way()
        done.append(1)

    done: list[int] = []
    worker = Newest(work)
    for request in range(3):
        worker.ask(request)
        time.sleep(0.01)
    assert worker.wait(5)
    worker.close()
    assert len(done) > 1


def test_strength_is_that_of_epsilon_and_a_video_of_zeros_has_none(
    view: ExplorerView, explorer: Explorer, monkeypatch
) -> None:
    look = explorer.look
    monkeypatch.setattr(explorer, "look", lambda *choice: replace(look(*choice), norm=0.0, video_norm=4.0))
    assert "ε is 2.50 % of the video's norm 4." in show(view, head=2)["strength"]  # whatever the model's gradient was
    monkeypatch.setattr(explorer, "look", lambda *choice: replace(look(*choice), video_norm=0.0))
    for name in ("deepfool", "random"):
        assert "no share" in show(view, attack=name)["strength"]


@pytest.mark.parametrize(("source", "known"), [("arrays", False), ("synthetic", True), ("yt8m", True)])
def test_seconds_are_said_only_where_they_are_known(explorer: Explorer, monkeypatch, source: str, known: bool) -> None:
    monkeypatch.setattr(explorer.videos, "source", source)
    assert about(explorer)["seconds"] is known


def test_lists_are_cut_and_say_so(view: ExplorerView, explorer: Explorer) -> None:
    assert len(view.listing["videos"]) == min(LISTED, len(explorer.videos))
    show(view, find={"text": "no such thing", "order": "fooled"})
    assert view.listing == {"text": "no test video has “no such thing” in its id or as a label", "videos": []}
    assert view.scene["maps"]


def test_every_video_has_its_place_on_the_map_of_all(view: ExplorerView, explorer: Explorer, rows) -> None:
    told = view.moved
    moved, fooled = (
        np.frombuffer(told[name], kind).reshape(2, -1) for name, kind in (("moved", "<f4"), ("fooled", "u1"))
    )
    assert told["ids"] == [video["id"] for video in rows["art"]]
    change = [(v["rgb_attention_mse"] + v["audio_attention_mse"]) / 2 for v in rows["art"]]
    np.testing.assert_allclose(moved[1], np.sqrt(change), rtol=1e-6)
    assert fooled[0].tolist() == [video["fooled"] for video in rows["non_art"]]


def test_a_page_holds_every_view_asked_for_once(explorer: Explorer, monkeypatch, tmp_path) -> None:
    """Names are data there, never markup, though each holds a tag."""
    odd = '</script><i>&"x"'
    monkeypatch.setattr(explorer, "classes", tuple(odd for _ in explorer.classes))
    monkeypatch.setattr(explorer.videos, "_space", replace(explorer.videos._space, classes=explorer.classes))
    first = first_state(explorer)
    states = [first | {"epsilon": epsilon} for epsilon in (0.0, 0.1)]
    text = page_of(explorer, states, odd)
    assert html.escape(odd) in text
    assert odd not in text
    data = json.loads(text.split('id="explorer-data">')[1].split("</script>")[0])
    assert data["scenes"][0]["labels"][0] == odd
    clean = [[told["clean"] for told in scene["maps"]] for scene in data["scenes"]]
    assert clean[0] == clean[1]  # the same places: epsilon does not change them
    before, _ = explorer.look(0, RUNS[0], "one_step", 0.0).maps("rgb")
    packed = base64.b64decode(data["buffers"][clean[0][0]["buffer"]])
    np.testing.assert_allclose(np.frombuffer(packed, "<i2") * before.max() / 32_767, before.ravel(), atol=1e-5)
    curve = data["margins"][json.dumps([first["video"], "one_step", []], separators=(",", ":"))]
    assert len(curve["of"]["art/0"]) == len(curve["epsilons"])


def test_a_run_s_page_opens_attacked_and_holds_its_videos_at_every_step(explorer: Explorer, tmp_path) -> None:
    path = write_page(explorer, tmp_path / "made" / "here")
    assert path.stat().st_size < 10_000_000
    data = json.loads(path.read_text().split('id="explorer-data">')[1].split("</script>")[0])
    assert data["state"]["epsilon"] == explorer.epsilon
    assert len(data["listing"]["videos"]) == VIDEOS
    assert len(data["scenes"]) == 2 * VIDEOS * len(EPSILONS)  # the mean of the heads, and all of them


def test_the_videos_of_a_page_are_changed_fooled_and_others(explorer: Explorer) -> None:
    rows = chosen(explorer, RUNS[0], 9)
    assert len(set(rows)) == 9
    assert set(explorer.find("changed", "", RUNS[0], "one_step", 0.1).rows[:3]) <= set(rows)
    assert len(set(explorer.find("fooled", "", RUNS[0], "one_step", 0.1).rows) & set(rows)) >= 3


def test_a_search_without_a_match_is_said_in_words(explorer: Explorer) -> None:
    for order in ORDERS:
        assert "no test video has “zzz” in its id" in explorer.find(order, "zzz ", RUNS[0], "one_step", 0.1).text


def test_a_random_step_is_one_draw_whatever_the_batch() -> None:
    model = toy.model()
    x, y, mask = toy.batch()
    together = random_direction(model, x, y, mask, epsilon=0.3).perturbation
    assert together.flatten(1).norm(dim=1) == pytest.approx(0.3, rel=1e-6)
    assert (together[~mask] == 0).all()
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = random_direction(
            model, x[row : row + 1, :length], y[row : row + 1], mask[row : row + 1, :length], epsilon=0.3
        ).perturbation
        torch.testing.assert_close(together[row, :length], alone[0])
    other = random_direction(model, x, y, mask, epsilon=0.3, seed=1).perturbation
    assert torch.cosine_similarity(together[0].flatten(), other[0].flatten(), dim=0).abs() < 0.3
    attack = random_direction(model, x, y, mask, epsilon=0.3)
    assert attack.diagnostics["gradient_norm"].isnan().all()
    assert not attack.diagnostics["zero_gradient"].any()


def test_a_random_step_tells_what_a_foreign_model_answers_wrong() -> None:
    x, y, mask = toy.batch()
    with pytest.raises(ValueError, match="returned a tuple, not one tensor of logits"):
        random_direction(lambda x, mask: (y, x), x, y, mask, epsilon=0.1)
    with pytest.raises(ValueError, match=r"attacks need logits \(batch, classes\)"):
        random_direction(lambda x, mask: y.sum(), x, y, mask, epsilon=0.1)
