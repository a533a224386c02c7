"""The adaptive rule, against integrals that are known."""

import math

import pytest
import torch

from scoresde.distributions.quadrature import POINTS, adaptive


def never(centre, half):
    return torch.zeros(len(centre), dtype=torch.bool)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("width", [1e-1, 1e-3])
def test_a_peak_off_the_middle(d, width):
    """prod_j 1/(1 + ((x_j - 0.3)/w)^2) on [-1, 1]^d: its poles are a width away."""
    function = lambda x: (1 / (1 + ((x - 0.3) / width) ** 2)).prod(1)
    rule = adaptive(function, torch.zeros(d), torch.tensor(1.0), lambda c, h: h > 0.1)
    exact = (width * (math.atan(0.7 / width) + math.atan(1.3 / width))) ** d
    assert float(rule.weights @ rule.values) == pytest.approx(exact, rel=1e-12)
    assert float(rule.weights.sum()) == pytest.approx(2**d, rel=1e-12)
    torch.testing.assert_close(rule.values, function(rule.x))


def test_what_is_smooth_is_not_cut():
    rule = adaptive(lambda x: (0.3 * x[:, 0]).exp(), torch.ones(1), torch.tensor(1.0), never)
    assert len(rule.x) == POINTS
    assert float(rule.weights @ rule.values) == pytest.approx(math.expm1(0.6) / 0.3, rel=1e-14)


def test_nothing_is_overlooked_where_cells_are_cut_before_looking():
    near = lambda c, h: h > 1e-4 + 0.5 * (c[:, 0] - 0.2137).abs()
    function = lambda x: (-0.5 * ((x[:, 0] - 0.2137) / 1e-4) ** 2).exp()
    rule = adaptive(function, torch.zeros(1), torch.tensor(1.0), near)
    exact = 1e-4 * math.sqrt(2 * math.pi)
    assert float(rule.weights @ rule.values) == pytest.approx(exact, rel=1e-12)


def test_noise_is_refused():
    with pytest.raises(RuntimeError, match="not smooth"):
        adaptive(lambda x: torch.rand(len(x)), torch.zeros(1), torch.tensor(1.0), never)
