"""Time grids: equal steps in the right variable, ends kept exactly."""

import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    DDPMChain,
    KarrasSDE,
    StraightPath,
    SubVPSDE,
    karras,
    log_snr,
    quadratic,
    uniform,
)

SDES = [
    VPSDE(),
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear(100).sde(),
]
GRIDS = {  # how to make it, and the variable in which its steps are equal
    "uniform": (lambda sde, n: uniform(n, sde.t_max), lambda sde, t: t),
    "quadratic": (lambda sde, n: quadratic(n, sde.t_max), lambda sde, t: t.sqrt()),
    "log_snr": (log_snr, lambda sde, t: sde.log_snr(t)),
    "karras": (karras, lambda sde, t: (-sde.lam(t) / 7).exp()),
    "karras, rho = 2": (
        lambda sde, n: karras(sde, n, rho=2.0),
        lambda sde, t: (-sde.lam(t) / 2).exp(),
    ),
}
each_grid = pytest.mark.parametrize("name", GRIDS)
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)


@pytest.mark.parametrize("n", [1, 2, 37])
@each_grid
@each_sde
def test_equal_steps(sde, name, n):
    make, variable = GRIDS[name]
    ts = make(sde, n)
    assert (ts.shape, ts.dtype, ts.device.type) == ((n + 1,), torch.float64, "cpu")
    assert ts[0] == sde.t_max  # to the bit: a later time would be refused
    assert ts[-1] == (sde.t_eps if name not in ("uniform", "quadratic") else 1e-3)
    assert (ts.diff() < 0).all()
    steps = variable(sde, ts).diff()
    # At t_max one rounding of t is 2000 roundings of log-SNR (straight path, cosine).
    torch.testing.assert_close(steps, steps.mean().expand(n), rtol=2e-11, atol=0)


@each_grid
def test_float64_whatever_the_default(name, float32):
    ts = GRIDS[name][0](VPSDE(), 9)
    assert ts.dtype == torch.float64
    torch.set_default_dtype(torch.float64)
    assert torch.equal(ts, GRIDS[name][0](VPSDE(), 9))


def test_karras_equation_5():
    """sigma_i = (smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho, on their own SDE."""
    i = torch.arange(18) / 17
    sigma = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(80 * karras(KarrasSDE(), 17), sigma, rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", [uniform, quadratic])
def test_the_data_can_be_reached(make):
    ts = make(10, t_eps=0.0)
    assert ts[0] == 1 and ts[-1] == 0
    assert torch.equal(make(3, 0.7, 0.2)[[0, -1]], torch.tensor([0.7, 0.2]))


@pytest.mark.parametrize("make", [log_snr, karras])
def test_other_ends(make):
    ts = make(VPSDE(), 5, t_max=0.8, t_eps=1e-6)
    assert ts[0] == 0.8 and ts[-1] == 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(0), "expected a number of steps n >= 1, got 0"),
        (lambda: quadratic(2.5), r"expected a number of steps n >= 1, got 2\.5"),
        (lambda: uniform(5, 1.2), r"t_max <= 1, got t_eps = 0\.001 and t_max = 1\.2"),
        (lambda: uniform(5, 0.1, 0.5), "expected 0 <= t_eps < t_max <= 1"),
        (lambda: uniform(5, 0.5, 0.5), "expected 0 <= t_eps < t_max <= 1"),
        (lambda: quadratic(5, 1.0, -0.1), "expected 0 <= t_eps < t_max <= 1"),
        (lambda: log_snr(VPSDE(), 5, t_eps=0.0), "log-SNR is infinite: pass t_eps = 1e-6"),
        (lambda: karras(VPSDE(), 5, t_eps=0.0), "expected t_eps > 0"),
        (lambda: karras(VPSDE(), 5, rho=0.0), "expected rho > 0, got 0.0: the paper uses 7"),
        # alpha(1) = 0 there: log-SNR is not finite, and neither would the grid be
        (lambda: log_snr(StraightPath(), 5, t_max=1.0), "expected t_max <= 0.999, where alpha"),
        (lambda: karras(CosineVPSDE(), 5, t_max=1.0), "expected t_max <= 0.999358"),
    ],
)
def test_bad_grids_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
