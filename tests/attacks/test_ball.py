"""The ball: the way back into it against its definition, and points drawn in it against the uniform distribution."""

import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats

from artpaper.attacks import l2_norm, project, steepest
from artpaper.ball import finite_rows, uniform
from tests import toy

SCOPES = ("joint", "modality", "frame")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("scale", [1e-3, 0.3, 1e6])
def test_projection_l2(scope: str, scale: float) -> None:
    """A point inside stays as it is; one outside comes to the boundary in its own direction, ball by ball."""
    x, _, mask = toy.batch()
    inside = project(x * scale, mask, epsilon=0.5, scope=scope, modalities=toy.MODALITIES)
    before = l2_norm((x * scale).double(), scope, toy.MODALITIES).expand_as(x)
    expected = x.double() * scale * torch.where(before > 0.5, 0.5 / before, 1.0)
    torch.testing.assert_close(inside.double(), expected, atol=0, rtol=1e-6)
    assert l2_norm(inside.double(), scope, toy.MODALITIES).max() <= 0.5 * (1 + 1e-6)
    again = project(inside, mask, epsilon=0.5 * (1 + 1e-6), scope=scope, modalities=toy.MODALITIES)
    assert torch.equal(again, inside)


def test_projection_linf_cuts_entry_by_entry() -> None:
    x, _, mask = toy.batch()
    cut = project(x, mask, epsilon=0.5, norm="linf")
    assert torch.equal(cut, torch.where(x.abs() > 0.5, 0.5 * x.sign(), x))
    assert (x.abs() > 0.5).any()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_padding_is_brought_back_and_radius_zero_is_the_video(norm: str) -> None:
    _, _, mask = toy.batch()
    inside = project(torch.randn(6, 9, 24), mask, epsilon=0.5, norm=norm)
    assert (inside[~mask] == 0).all()
    assert inside[mask].all()
    assert not project(inside, mask, epsilon=0.0, norm=norm).any()


def test_steepest_linf_is_the_corner() -> None:
    gradient = torch.tensor([[[3.0, -1e-30, 0.0], [1.0, 2.0, 3.0]]])
    step = steepest(gradient, torch.tensor([[True, False]]), epsilon=0.5, norm="linf")
    assert step.tolist() == [[[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]]


def radii(scope: str, movable: torch.Tensor, seeds: int) -> torch.Tensor:
    """Lengths of the points drawn, as shares of epsilon, one for each seed and ball."""
    drawn = [uniform(movable, epsilon=0.5, scope=scope, modalities={"a": 3, "b": 2}, seed=(7, s)) for s in range(seeds)]
    return torch.stack([l2_norm(one, scope, {"a": 3, "b": 2}).expand_as(one) for one in drawn]) / 0.5


@pytest.mark.parametrize(
    ("scope", "entries"), [("joint", (slice(None), 0)), ("modality", (0, 0)), ("modality", (0, 4)), ("frame", (1, 0))]
)
def test_points_are_uniform_in_the_volume(scope: str, entries: tuple) -> None:
    """In n dimensions the n-th power of the radius is uniform; n counts what may be moved, and no more."""
    movable = torch.ones(1, 2, 5, dtype=torch.bool)
    movable[0, 0, 1] = False
    found = radii(scope, movable, 400)[(slice(None), 0, *entries)].reshape(400, -1)[:, 0]
    n = {"joint": 9, "modality": 5 if entries == (0, 0) else 4, "frame": 5}[scope]
    assert stats.kstest((found**n).numpy(), "uniform").pvalue > 0.01
    assert stats.kstest((found ** (n + 2)).numpy(), "uniform").pvalue < 0.01


def test_directions_and_the_balls_of_one_video_are_independent() -> None:
    points = uniform(torch.ones(1, 400, 2, dtype=torch.bool), epsilon=1.0, scope="frame")[0]
    angle = torch.atan2(points[:, 1], points[:, 0]) / torch.pi
    assert stats.kstest((angle / 2 + 0.5).numpy(), "uniform").pvalue > 0.01
    area = points.square().sum(dim=1)
    assert stats.kstest(area.numpy(), "uniform").pvalue > 0.01
    assert stats.spearmanr(area[:-1], area[1:]).pvalue > 0.01
    both = radii("modality", torch.ones(1, 2, 5, dtype=torch.bool), 300)[:, 0, 0]
    assert stats.spearmanr(both[:, 0], both[:, 4]).pvalue > 0.01


def test_points_are_uniform_in_the_cube() -> None:
    points = uniform(torch.ones(1, 40, 20, dtype=torch.bool), epsilon=0.5, norm="linf")
    assert stats.kstest((points.flatten() + 0.5).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_longer_video_begins_with_the_draw_of_a_shorter_one(norm: str, scope: str) -> None:
    movable = torch.ones(1, 9, 24, dtype=torch.bool)
    padded = torch.arange(9)[:, None] < torch.tensor([[[9]], [[4]]])
    both = uniform(padded.expand(2, 9, 24), epsilon=0.5, norm=norm, scope=scope, modalities=toy.MODALITIES)
    alone = uniform(movable[:, :4], epsilon=0.5, norm=norm, scope=scope, modalities=toy.MODALITIES)
    torch.testing.assert_close(both[1, :4], alone[0], atol=1e-15, rtol=0)
    assert not both[1, 4:].any()
    other = uniform(movable, epsilon=0.5, norm=norm, scope=scope, modalities=toy.MODALITIES, seed=1)
    assert (other != both[:1]).all()


def test_bad_arguments_are_refused() -> None:
    x, _, mask = toy.batch()
    for function in (steepest, project):
        with pytest.raises((ValueError, TypeCheckError), match="norm"):
            function(x, mask, epsilon=1.0, norm="l1")
        with pytest.raises(ValueError, match="radius"):
            function(x, mask, epsilon=-1.0)
        with pytest.raises(ValueError, match="widths"):
            function(x, mask, epsilon=1.0, scope="modality")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).min])
def test_finite_rows_are_those_whose_every_entry_is(value: float) -> None:
    """Alone catches that a highest entry is looked at, which -inf never is."""
    x = torch.zeros(2, 3, 4)
    x[1, 2, 1] = value
    assert finite_rows(x).tolist() == x.isfinite().flatten(1).all(dim=1).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_narrow_type_is_brought_to_the_edge(dtype: torch.dtype) -> None:
    """The fault it alone catches: a norm above 65,504 is infinite in float16, and what it divided became 0."""
    far, mask = torch.full((1, 30, 100), 2000.0, dtype=dtype), torch.ones(1, 30, dtype=torch.bool)
    torch.testing.assert_close(l2_norm(project(far, mask, epsilon=3.0)).flatten(), torch.tensor([3.0]))
    torch.testing.assert_close(l2_norm(far).flatten(), 2000 * torch.tensor([3000.0]).sqrt(), rtol=1e-2, atol=0)
