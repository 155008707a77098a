"""The explorer without a browser: equal to the figures' numbers, to the predictions, and to sums done by hand."""

import contextlib
import html
import io
import json
from dataclasses import replace
from unittest.mock import Mock

import ipywidgets as widgets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from artpaper.attacks import random_direction
from pipeline.base.errors import ArtpaperError, CheckpointError, DataError
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.explorer import explorer as module
from pipeline.explorer.explorer import ATTACKS, Explorer, open_explorer, run_title
from pipeline.explorer.videos import Videos, public_address
from pipeline.explorer.view import LISTED, ExplorerView
from pipeline.paper.paper import MODELS
from pipeline.predict.one_step import attack
from pipeline.predict.one_video import example
from pipeline.run.workspace import Workspace
from pipeline.train.training import train
from tests import toy
from tests.pipeline import ROOT, changed, link_frames
from tests.report.test_attention import write_predictions

ODD = '<i>{0}</i> & "x"\''
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
        assert (view.top[0].name, view.attacked_top[0].name) == (seen.top, seen.attacked_top)
        assert (view.right, view.attacked_right) == (seen.right, seen.attacked_right)
    assert explorer.videos.labels(row) == shown.labels


def test_probabilities_and_norms_are_those_of_the_predictions(explorer: Explorer, small_params, rows) -> None:
    for row in (0, 5):
        told, view = rows["art"][row], explorer.look(row, ("art", 0), "one_step", small_params.attack.epsilon)
        for labels, name in ((view.top, "clean"), (view.attacked_top, "adversarial")):
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
    assert still.top == still.attacked_top
    for name in explorer.modalities:
        np.testing.assert_array_equal(still.clean[name], still.adversarial[name])


def test_deepfool_changes_the_top_label_whatever_epsilon_says(explorer: Explorer) -> None:
    far, near = (explorer.look(3, RUNS[0], "deepfool", epsilon) for epsilon in (9.0, 0.0))
    assert far.norm == near.norm > 0
    assert far.top[0].name != far.attacked_top[0].name


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
        assert found.rows.tolist() == [row for row, view in views.items() if view.right and not view.attacked_right]
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
    cells = json.loads((ROOT / "notebooks" / "explore_attention.ipynb").read_text())["cells"]
    (check,) = [cell for cell in cells if "nbval-check-output" in cell["metadata"].get("tags", [])]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec("".join(check["source"]), {"explorer": explorer})
    assert said.getvalue() == "".join(check["outputs"][0]["text"])
    assert said.getvalue().count(": True") == len(said.getvalue().splitlines()) == 4


@pytest.fixture
def view(explorer: Explorer) -> ExplorerView:
    return ExplorerView(explorer)


def drawn(view: ExplorerView, side: int, kind: str) -> np.ndarray:
    return np.array(view._figure._traces[f"{side} {kind}"].z)


def test_controls_show_what_the_library_says(view: ExplorerView, explorer: Explorer) -> None:
    view.epsilon.value, view.head.value, view.modality.value = 0.2, 4, "audio"
    view.video.value = 6
    for side, run in enumerate(RUNS):
        before, after = explorer.look(6, run, "one_step", 0.2).maps("audio", 4)
        np.testing.assert_allclose(drawn(view, side, "clean"), before, atol=1e-6)
        np.testing.assert_allclose(drawn(view, side, "adversarial"), after, atol=1e-6)
        np.testing.assert_allclose(drawn(view, side, "difference"), after - before, atol=1e-6)
        traces = view._figure._traces
        np.testing.assert_allclose(traces[f"{side} profile adversarial"].y, after.mean(axis=0))
        view.frame.value = 2
        np.testing.assert_allclose(traces[f"{side} attends clean"].y, before[:, 2])
        np.testing.assert_allclose(traces[f"{side} norm"].y, view.views[side].frame_norms)
        strongest = int(before[:, 3].argmax())
        assert traces[f"{side} profile clean"].customdata[3].startswith(f"{strongest} ({before[strongest, 3]:.3f})")
    scale, changes = view._figure.widget.layout.coloraxis, view._figure.widget.layout.coloraxis2
    assert scale.cmax == pytest.approx(max(drawn(view, s, k).max() for s in (0, 1) for k in ("clean", "adversarial")))
    assert changes.cmax == -changes.cmin == pytest.approx(max(abs(drawn(view, s, "difference")).max() for s in (0, 1)))
    view.magnify.value = False
    assert changes.cmax == scale.cmax
    assert html.escape(explorer.videos.id(6)) in view.heading.value


def test_every_control_has_a_visible_name(view: ExplorerView) -> None:
    controls = [view.text, view.order, view.video, view.left, view.right, view.modality, view.head, view.attack]
    controls += [view.epsilon, view.frame, view.magnify, view.again]
    names = [control.description for control in controls]
    assert all(names)
    assert len(set(names)) == len(names)


def test_labels_are_marked_in_words(view: ExplorerView) -> None:
    first = view.views[0]
    assert view.labels[0].value.count("✓ true") == sum(label.true for label in (*first.top, *first.attacked_top))


def test_names_are_text_never_markup(explorer: Explorer, monkeypatch) -> None:
    """Classes and ids come with data, models from params.yaml, notes from errors: each holds a tag here."""
    odd = ODD.format
    monkeypatch.setattr(explorer, "note", odd("note"))
    monkeypatch.setattr(explorer, "classes", tuple(odd("class") for _ in explorer.classes))
    monkeypatch.setattr(explorer.videos, "_space", replace(explorer.videos._space, classes=explorer.classes))
    monkeypatch.setattr(explorer.videos, "source", "yt8m")  # of which the id is in a link, too
    monkeypatch.setitem(MODELS, "non_art", odd("model"))
    look = explorer.look
    monkeypatch.setattr(explorer, "look", lambda *choice: replace(look(*choice), video=odd("video")))
    view = ExplorerView(explorer)
    view.order.value = "changed"
    note = next(child.value for child in view.page.children if isinstance(child, widgets.HTML))
    said = {
        "note": [note], "class": [view.heading.value, view.labels[0].value],
        "model": [view.matches.value, view.labels[0].value], "video": [view.heading.value],
    }  # fmt: skip
    for name, places in said.items():
        for place in places:
            assert html.escape(odd(name)) in place
            assert "<i>" not in place
            assert '"x"' not in place
    monkeypatch.setattr(explorer, "look", Mock(side_effect=DataError(odd("error"))))
    view.video.value = 3
    assert html.escape(odd("error")) in view.heading.value
    assert "<i>" not in view.heading.value
    monkeypatch.setattr(explorer, "find", Mock(side_effect=DataError(odd("error"))))
    view.text.value = "anything"
    assert html.escape(odd("error")) in view.matches.value
    assert "<i>" not in view.matches.value


def test_what_failed_is_said_and_nothing_else_is_shown(view: ExplorerView, explorer: Explorer, monkeypatch) -> None:
    look, old = explorer.look, view.heading.value
    with monkeypatch.context() as broken:
        broken.setattr(explorer, "look", Mock(side_effect=CheckpointError("models/art: gone")))
        view.video.value = 4
        for control, value in ((view.modality, "audio"), (view.head, 2), (view.frame, 1)):
            control.value = value  # none of them can be drawn, none may hide what was said
        assert "models/art: gone" in view.heading.value
        assert explorer.videos.id(0) not in view.heading.value
        assert view.status.value == view.strength.value == view.labels[0].value == view.labels[1].value == ""
        assert view._pictures.layout.visibility == "hidden"
    assert explorer.look == look
    view.video.value = 5
    assert "gone" not in view.heading.value
    assert explorer.videos.id(5) in view.heading.value != old
    assert view._pictures.layout.visibility == "visible"
    np.testing.assert_allclose(
        drawn(view, 0, "clean"), look(5, RUNS[0], "one_step", 0.1).maps("audio", 2)[0], atol=1e-6
    )


def test_the_first_video_may_fail_too(explorer: Explorer, monkeypatch) -> None:
    monkeypatch.setattr(explorer, "look", Mock(side_effect=CheckpointError("models/art: gone")))
    view = ExplorerView(explorer)
    view.head.value = 2
    assert "models/art: gone" in view.heading.value


def test_strength_is_that_of_epsilon_and_a_video_of_zeros_has_none(explorer: Explorer, monkeypatch) -> None:
    look = explorer.look
    monkeypatch.setattr(explorer, "look", lambda *choice: replace(look(*choice), norm=0.0, video_norm=4.0))
    view = ExplorerView(explorer)  # a model whose gradient is 0 is not moved, but epsilon is what it is
    assert view.epsilon.value == 0.1
    assert "ε is 2.50 % of the video's norm 4." in view.strength.value
    monkeypatch.setattr(explorer, "look", lambda *choice: replace(look(*choice), video_norm=0.0))
    for chosen in ("deepfool", "random"):
        view.attack.value = chosen
        assert "no share" in view.strength.value
        assert "computed" in view.status.value


def test_a_search_says_so_while_it_lasts(view: ExplorerView, explorer: Explorer, monkeypatch) -> None:
    find, meanwhile = explorer.find, []

    def watched(*choice: object) -> object:
        meanwhile.append(view.matches.value)
        return find(*choice)

    monkeypatch.setattr(explorer, "find", watched)
    view.order.value = "changed"
    assert "searching" in meanwhile[0]
    assert "searching" not in view.matches.value


@pytest.mark.parametrize(("source", "unit"), [("arrays", ""), ("synthetic", " (s)"), ("yt8m", " (s)")])
def test_seconds_are_said_only_where_they_are_known(explorer: Explorer, monkeypatch, source: str, unit: str) -> None:
    monkeypatch.setattr(explorer.videos, "source", source)
    view = ExplorerView(explorer)
    layout = view._figure.widget.layout.to_plotly_json()
    titles = {axis["title"]["text"] for name, axis in layout.items() if "axis" in name and "title" in axis}
    assert {title for title in titles if "frame" in title} == {
        f"attending frame{unit}", f"attended frame{unit}", f"frame{unit}"
    }  # fmt: skip
    assert view.frame.description == f"Frame{unit}"


def test_a_video_of_fewer_frames_takes_the_marked_frame_with_it(view: ExplorerView, explorer: Explorer) -> None:
    lengths = [explorer.look(row, RUNS[0], "random", 0.0).frame_norms.size for row in range(30)]
    longest, shortest = int(np.argmax(lengths)), int(np.argmin(lengths))
    view.video.value = longest
    view.frame.value = lengths[longest] - 1
    view.video.value = shortest
    assert view.frame.value == view.frame.max == lengths[shortest] - 1
    assert drawn(view, 0, "clean").shape == (lengths[shortest],) * 2


def test_deepfool_disables_epsilon_and_long_lists_are_cut(view: ExplorerView, explorer: Explorer, monkeypatch) -> None:
    view.attack.value = "deepfool"
    assert view.epsilon.disabled
    assert f"{view.views[0].norm:.4g}" in view.strength.value
    view.attack.value = "random"
    assert not view.epsilon.disabled
    assert len(view.video.options) == min(LISTED, len(explorer.videos))
    view.text.value = "no such thing"
    assert "0 of" in view.matches.value
    assert view.views


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
