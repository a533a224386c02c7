"""Promises of accuracy in docstrings, each against 50 digits of mpmath or a closed form.

What a docstring says of digits ("to rounding", "loses no digits") is held here where the tests of
its room do not.
"""

import math

import mpmath as mp
import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    DDPMChain,
    GaussianMixture,
    KarrasSDE,
    StraightPath,
    SubVPSDE,
    metrics,
)
from scoresde.data import rings, two_modes
from scoresde.data.trajectories.mechanics import eccentric_anomaly
from scoresde.diagnosis.bias import _kl
from scoresde.samplers.fixed.interpolation import moments_of_decay

mp.mp.dps = 50
TIMES = [1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.3, 0.49, 0.51, 0.8, 0.95, 0.998]


def vp(t, first="0.1", last="20"):
    first, last = mp.mpf(first), mp.mpf(last)
    b = first * t + (last - first) * t**2 / 2
    return -b / 2, mp.sqrt(-mp.expm1(-b))


def cosine(t):
    angle = lambda u: mp.pi / 2 * (u + mp.mpf(0.008)) / (1 + mp.mpf(0.008))
    alpha = mp.cos(angle(t)) / mp.cos(angle(mp.mpf(0)))
    return mp.log(alpha), mp.sqrt(1 - alpha**2)


def ve(t):
    low, high = mp.mpf(0.01), mp.mpf(50)
    return mp.mpf(0), mp.sqrt((low * (high / low) ** t) ** 2 - low**2)


EXACT = {  # t -> (log alpha, sigma), in 50 digits
    VPSDE(): vp,
    CosineVPSDE(): cosine,
    SubVPSDE(): lambda t: (vp(t)[0], vp(t)[1] ** 2),
    VESDE(): ve,
    KarrasSDE(): lambda t: (mp.mpf(0), 80 * t),
    StraightPath(): lambda t: (mp.log(1 - t), t),
}
each = pytest.mark.parametrize("sde", EXACT, ids=lambda sde: type(sde).__name__)


@each
def test_a_process_keeps_its_digits_at_every_time(sde):
    """``sigma2`` "exact to rounding for small t", ``CosineVPSDE``: "no cancellation at 0"."""
    for time in TIMES:
        t = torch.tensor(time)
        log_alpha, sigma = EXACT[sde](mp.mpf(time))
        assert float(sde.sigma(t)) == pytest.approx(float(sigma), rel=4e-15)
        assert float(sde.sigma2(t)) == pytest.approx(float(sigma**2), rel=8e-15)
        assert float(sde.log_alpha(t)) == pytest.approx(float(log_alpha), rel=1e-13, abs=1e-300)
        log_snr = float(2 * log_alpha - 2 * mp.log(sigma))
        assert float(sde.log_snr(t)) == pytest.approx(log_snr, rel=1e-14, abs=1e-14)


@each
def test_the_transition_has_no_cancellation(sde):
    """std^2 = sigma_t^2 - scale^2 sigma_s^2: 1e-14 of log-SNR over its difference, 2e-4."""
    for start in TIMES[2:-1]:
        stop = start * (1 + 1e-4)
        scale, std = sde.transition(torch.tensor(start), torch.tensor(stop))
        (first, low), (last, high) = (EXACT[sde](mp.mpf(u)) for u in (start, stop))
        exact = mp.exp(last - first)
        assert float(scale) == pytest.approx(float(exact), rel=1e-14)
        noise = mp.sqrt(high**2 - (exact * low) ** 2)
        assert float(std) == pytest.approx(float(noise), rel=1e-10)


@each
def test_the_inverse_of_log_snr(sde):
    """ "Down to the last bit", or in closed form: within rounding of log-SNR itself."""
    for time in TIMES:
        log_alpha, sigma = EXACT[sde](mp.mpf(time))
        log_snr = torch.tensor(float(2 * log_alpha - 2 * mp.log(sigma)))
        assert float(sde.time_of_log_snr(log_snr)) == pytest.approx(time, rel=3e-14)


def test_bisection_down_to_the_last_bit():
    sde = DDPMChain.linear(1000).sde()  # has no closed form
    for time in TIMES[2:]:
        log_snr = sde.log_snr(torch.tensor(time))
        back = float(sde.time_of_log_snr(log_snr))
        assert back == pytest.approx(time, rel=1e-13)
        assert float(sde.log_snr(torch.tensor(back))) == pytest.approx(float(log_snr), rel=1e-14)


def test_a_chain_to_rounding():
    """B_i = -sum log(1 - beta_j), and the process through it is exact at every t_i."""
    chain = DDPMChain.linear(1000)
    total, exact = mp.mpf(0), []
    for beta in chain.betas:
        total -= mp.log1p(-mp.mpf(beta))
        exact.append(float(total))
    torch.testing.assert_close(chain.B[1:], torch.tensor(exact), rtol=1e-14, atol=0)
    t = torch.arange(1, 1001) / 1000
    torch.testing.assert_close(
        -2 * chain.sde().log_alpha(t), torch.tensor(exact), rtol=1e-13, atol=0
    )


def test_moments_of_decay():
    """J_n = int_0^1 x e^{-x (1 - r)} r^n dr on both sides of where the series takes over."""
    for x in (1e-9, 1e-3, 0.7, 0.999, 1.001, 2.5, 30.0, -0.5, -2.0):
        found = moments_of_decay(torch.tensor([x]), 4)[0].tolist()
        big = mp.mpf(x)
        for n, value in enumerate(found):
            exact = mp.quad(
                lambda r, n=n, big=big: big * mp.exp(-big * (1 - r)) * r**n, [0, 0.5, 1]
            )
            assert value == pytest.approx(float(exact), rel=1e-12)


def test_keplers_equation_to_rounding():
    """For e <= 0.99, the worst of them and the worst places."""
    for e in (0.0, 0.5, 0.9, 0.99):
        for anomaly in (1e-6, 1e-2, 0.3, 3.0, 6.2, 37.7):
            m, ecc = mp.mpf(anomaly), mp.mpf(e)
            exact = mp.findroot(
                lambda u, m=m, ecc=ecc: u - ecc * mp.sin(u) - m, m + ecc * mp.sin(m)
            )
            found = float(eccentric_anomaly(torch.tensor([anomaly]), torch.tensor([e])))
            slope = 1 / (1 - e * math.cos(found))  # of u against M
            assert abs(found - float(exact)) < 4e-16 * (1 + anomaly) * slope + 1e-16


def test_gaussian_w2_loses_no_digits_near_equality():
    """One rotated and stretched by 1e-7, where a trace would stop at 1e-8."""
    c = mp.matrix([[1.0, 0.4], [0.4, 0.5]])
    turn = mp.mpf("1e-7")
    r = mp.matrix([[mp.cos(turn), -mp.sin(turn)], [mp.sin(turn), mp.cos(turn)]])
    d = r * c * r.T * (1 + mp.mpf("3e-7"))
    found = metrics.gaussian_w2(torch.zeros(2), _float(c), torch.zeros(2), _float(d))
    e = mp.matrix([[mp.mpf(float(d[i, j])) for j in range(2)] for i in range(2)])
    root = _root(c)
    square = sum(c[i, i] + e[i, i] for i in range(2)) - 2 * _trace(_root(root * e * root))
    assert float(found) == pytest.approx(float(mp.sqrt(square)), rel=1e-7)


def _root(m):
    """Of a 2 x 2 matrix: (m + sqrt(det))/sqrt(tr + 2 sqrt(det))."""
    s = mp.sqrt(mp.det(m))
    return (m + s * mp.eye(2)) / mp.sqrt(_trace(m) + 2 * s)


def _trace(m):
    return m[0, 0] + m[1, 1]


def _float(m):
    return torch.tensor([[float(m[i, j]) for j in range(2)] for i in range(2)])


@pytest.mark.parametrize("x", [1e-3, 1e-6, 1e-9])
def test_small_divergences_keep_their_digits(x):
    """KL(N(m, c) || N(m', c')) at relative differences x: of the order of x^2, to rounding / x."""
    c, other = mp.mpf(0.25), mp.mpf(float(0.25 * (1 + x)))
    m, n = mp.mpf(0.8), mp.mpf(0.8 + x)
    exact = (c / other - 1 - mp.log(c / other) + (m - n) ** 2 / other) / 2
    tensors = [torch.tensor([float(v)]) for v in (m, c, n, other)]
    found = _kl(tensors[0], tensors[1][None], tensors[2], tensors[3][None])
    assert float(found) == pytest.approx(float(exact), rel=1e-14 + 1e-15 / x)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_kl_quadrature_converges_geometrically(share):
    """At a spacing of h standard deviations its relative error is about e^{-2 (pi/h)^2}."""
    p, q = (GaussianMixture([1.0], [[m]], [[[0.04]]], VPSDE()) for m in (0.1, 0.23))
    points = round(8 / (0.2 * share)) + 1
    found = metrics.kl_quadrature(p.log_prob, q.log_prob, (-4, 4), points=points)
    tolerance = 3 * math.exp(-2 * (math.pi / share) ** 2) + 1e-13
    assert float(found) == pytest.approx(0.13**2 / 0.08, rel=tolerance)


def test_kl_quadrature_between_modes():
    """Two modes of width s, eight widths apart: an eighth of s, as the docstring asks."""
    law = two_modes(VPSDE())
    w, m, s = mp.mpf("0.5"), (mp.mpf(-1), mp.mpf(1)), mp.mpf("0.25")
    p = lambda x: mp.fsum(w * mp.npdf(x, mk, s) for mk in m)
    cross = mp.quad(lambda x: p(x) * mp.log(p(x)), [mp.mpf(k) / 4 for k in range(-16, 17)])
    exact = cross + (1 + s**2) / 2 + mp.log(2 * mp.pi) / 2  # against N(0, 1)
    found = metrics.kl_quadrature(
        law.log_prob, VPSDE().prior_log_prob, (-4, 4), points=8 * 4 * 8 + 1
    )
    assert float(found) == pytest.approx(float(exact), rel=1e-12)


def test_ripples_of_the_curves():
    """0.5 % along a straight piece, 2 e^{-2 pi^2 0.55^2}; 1.7 % on the innermost ring."""
    assert 2 * math.exp(-2 * math.pi**2 * 0.55**2) == pytest.approx(0.005, rel=0.05)
    angle = torch.linspace(0, 2 * math.pi, 4000)
    circle = 0.8 * torch.stack((angle.cos(), angle.sin()), 1)
    p = rings(VPSDE()).log_prob(circle).exp()
    assert float((p.max() - p.min()) / (p.max() + p.min())) == pytest.approx(0.017, abs=5e-4)


def test_tumbles_enough():
    """``RunAndTumble`` draws m + 10 sqrt(m) + 35 waits: more come with probability < 1e-15."""
    for expected in (0.01, 1.0, 4.0, 30.0, 1000.0):
        most = math.ceil(expected + 10 * math.sqrt(expected) + 35)
        assert mp.gammainc(most, 0, expected, regularized=True) < 1e-15


def test_mass_within_three_widths():
    """98.9 % in two dimensions, as ``mode_coverage`` says."""
    assert 1 - math.exp(-4.5) == pytest.approx(0.989, abs=5e-4)


def test_a_first_row_of_lower_order_is_not_seen():
    """ "Its slope in lam is O(alpha^2/sigma^2), 4e-5 for VPSDE" at t_max."""
    t = torch.tensor(1.0)
    assert float(VPSDE().log_snr(t).exp()) == pytest.approx(4e-5, rel=0.1)
