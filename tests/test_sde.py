"""Forward processes: what is derived against the textbook, a quadrature, scipy and themselves."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

from scoresde import (
    VESDE,
    VPSDE,
    Ancestral,
    CosineVPSDE,
    DDPMChain,
    GaussianMixture,
    KarrasSDE,
    StraightPath,
    SubVPSDE,
    sample,
    uniform,
)
from scoresde.physics import kl_to_prior
from scoresde.sde import like

SDES = [
    VPSDE(),
    VPSDE(5.0, 1.0),  # a rate may also fall
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear(100).sde(),
]
VP_TYPE = (VPSDE, CosineVPSDE, SubVPSDE, StraightPath)
FUNCTIONS = ["alpha", "sigma", "sigma2", "f", "g2", "beta", "lam", "log_alpha", "log_snr"]
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)


def times(sde):
    return torch.cat([torch.logspace(-6, -1, 60), torch.linspace(0.1, sde.t_max, 60)[1:]])


def close(actual, expected, rtol, atol=0.0):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def rate(t, first=0.1, last=20.0):
    return first + (last - first) * t


def integrated(t, first=0.1, last=20.0):
    return first * t + 0.5 * (last - first) * t**2


def cosine_rate(t):
    return math.pi / 1.008 * torch.tan(math.pi * (t + 0.008) / 2.016)


TEXTBOOK = [  # the drift rate f and g^2 as the papers print them
    (VPSDE(), lambda t: -rate(t) / 2, rate),
    (VPSDE(5.0, 1.0), lambda t: -rate(t, 5.0, 1.0) / 2, lambda t: rate(t, 5.0, 1.0)),
    (CosineVPSDE(), lambda t: -cosine_rate(t) / 2, cosine_rate),
    (SubVPSDE(), lambda t: -rate(t) / 2, lambda t: -rate(t) * torch.expm1(-2 * integrated(t))),
    (VESDE(), torch.zeros_like, lambda t: 2 * math.log(5000) * (0.01 * 5000**t) ** 2),
    (KarrasSDE(), torch.zeros_like, lambda t: 2 * 80**2 * t),
    (StraightPath(), lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
]


@pytest.mark.parametrize(("sde", "f", "g2"), TEXTBOOK, ids=lambda v: type(v).__name__)
def test_the_textbook_follows(sde, f, g2):
    t = times(sde)
    # At t_max the cosine's tan turns one rounding of its argument into 1500; 5000^(2t) has 17.
    rtol = {CosineVPSDE: 1e-12, VESDE: 1e-14}.get(type(sde), 2e-15)
    close(sde.f(t), f(t), rtol)
    close(sde.g2(t), g2(t), rtol)
    close(sde.beta(t), -2 * f(t), rtol)


def test_p01_schedule(reference):
    item, sde = reference["P01"], VPSDE()
    table = item["expected"]["table"]
    t = torch.tensor([float(row["t"]) for row in table])
    for name, values in {
        "B": -2 * sde.log_alpha(t),
        "abar": sde.alpha(t) ** 2,
        "sigma2": sde.sigma2(t),
        "log_snr": sde.log_snr(t),
        "beta": sde.beta(t),
    }.items():
        close(values, torch.tensor([row[name] for row in table]), item["rtol"])
    inverse = item["expected"]["t_of_logsnr"]
    found = sde.time_of_log_snr(torch.tensor([float(level) for level in inverse]))
    close(found, torch.tensor(list(inverse.values())), item["rtol"])


@each_sde
def test_the_path_is_consistent(sde):
    t = times(sde)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    close(sde.sigma2(t), sigma**2, 1e-14)
    close(sde.lam(t), torch.log(alpha / sigma), 1e-13, 1e-13)
    close(sde.log_snr(t), 2 * sde.lam(t), 0.0)
    assert (sde.lam(t).diff() < 0).all()
    assert (sde.g2(t) >= 0).all()
    zero = torch.zeros(())
    assert sde.alpha(zero) == 1
    assert sde.sigma(zero) == sde.sigma2(zero) == 0
    assert torch.isfinite(sde.f(zero)) and torch.isfinite(sde.g2(zero))


@each_sde
def test_variance_preserving_is_a_type(sde):
    t = times(sde)
    kept = torch.allclose(sde.alpha(t) ** 2 + sde.sigma2(t), torch.ones_like(t), atol=1e-14)
    assert kept == isinstance(sde, (VPSDE, CosineVPSDE, type(SDES[-1])))
    if kept:
        close(sde.g2(t), sde.beta(t), 1e-13)


@pytest.mark.parametrize(
    ("sde", "ratio"),
    [
        (VPSDE(), lambda t: torch.expm1(integrated(t)).sqrt()),
        (SubVPSDE(), lambda t: 2 * torch.sinh(integrated(t) / 2)),
        (StraightPath(), lambda t: t / (1 - t)),
        (KarrasSDE(), lambda t: 80 * t),
    ],
    ids=lambda v: type(v).__name__,
)
def test_noise_to_signal(sde, ratio):
    t = times(sde)
    close((-sde.lam(t)).exp(), ratio(t), 2e-14)


@each_sde
def test_time_of_log_snr_inverts(sde):
    t = times(sde)
    close(sde.time_of_log_snr(sde.log_snr(t)), t, 2e-14)
    levels = torch.linspace(*sde.log_snr(torch.tensor([sde.t_max, 1e-6])).tolist(), 50)
    # Rounding of t is multiplied by t dlog_snr/dt, which is 2000 at t_max of the straight path.
    close(sde.log_snr(sde.time_of_log_snr(levels)), levels, 0.0, 1e-12)
    t = times(sde).float()
    close(sde.time_of_log_snr(sde.log_snr(t)), t, 5e-6)


def test_inverse_survives_strong_noise():
    """B up to 1000: e^B overflows, e^-B does not, and counts up to B = 37."""
    sde, t = VPSDE(0.1, 2000.0), torch.linspace(0.05, 1, 200)
    close(sde.time_of_log_snr(sde.log_snr(t)), t, 1e-14)
    assert torch.isfinite(sde.time_of_log_snr(sde.log_snr(t.float()))).all()


# ---- the exact kernel -------------------------------------------------------------------------
PAIRS = [(1e-5, 1e-4), (0.01, 0.3), (0.2, 0.9), (0.5, 0.51), (0.0, 0.4)]


@pytest.mark.parametrize("pair", PAIRS)
@each_sde
def test_transition(sde, pair):
    s, t = torch.tensor(pair)
    u = 0.4 * s + 0.6 * t
    scale, std = sde.transition(s, t)
    first, second = sde.transition(s, u), sde.transition(u, t)
    close(scale, first[0] * second[0], 1e-14)
    close(std**2, (second[0] * first[1]) ** 2 + second[1] ** 2, 1e-13)
    # Through the marginal at s it leads to the marginal at t.
    close(scale * sde.alpha(s), sde.alpha(t), 1e-14)
    close(scale**2 * sde.sigma2(s) + std**2, sde.sigma2(t), 1e-13)


@pytest.mark.parametrize("pair", PAIRS)
@each_sde
def test_transition_solves_the_sde(sde, pair):
    """The variance is int_s^t (alpha_t/alpha_u)^2 g^2(u) du, by Gauss-Legendre panels."""
    s, t = pair
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(8))
    cuts = torch.unique(torch.cat([torch.linspace(s, t, 11), torch.arange(100) / 100]))
    cuts = cuts[(cuts >= s) & (cuts <= t)]  # the chain's rate has a kink at each 1/100
    middle, half = (cuts[1:] + cuts[:-1]) / 2, cuts.diff() / 2
    u = middle[:, None] + half[:, None] * nodes
    scale = (sde.log_alpha(torch.tensor(t)) - sde.log_alpha(u)).exp()
    total = (scale**2 * sde.g2(u) * weights * half[:, None]).sum()
    close(sde.transition(torch.tensor(s), torch.tensor(t))[1] ** 2, total, 1e-12)


@each_sde
def test_transition_from_the_data_is_the_marginal(sde):
    t = times(sde)
    scale, std = sde.transition(torch.zeros_like(t), t)
    close(scale, sde.alpha(t), 0.0)
    close(std, sde.sigma(t), 0.0)
    assert sde.transition(t, t)[1].abs().max() == 0


# ---- states -----------------------------------------------------------------------------------
@pytest.mark.parametrize("event", [(), (2,), (5, 2), (3, 4, 4)])
@each_sde
def test_perturb_and_drift_treat_each_sample_by_its_time(sde, event):
    x0, z = torch.randn(2, 4, *event)
    t = torch.tensor([0.01, 0.2, 0.5, 0.9])
    together = sde.perturb(x0, t, z)
    for i in range(4):
        one = slice(i, i + 1)
        alone = sde.alpha(t[i]) * x0[i] + sde.sigma(t[i]) * z[i]
        close(together[i], alone, 1e-15, 1e-15)
        close(sde.perturb(x0[one], t[i], z[one])[0], alone, 1e-15, 1e-15)
        close(sde.drift(x0, t)[i], sde.f(t[i]) * x0[i], 1e-15, 1e-15)


@each_sde
def test_prior(sde):
    std = 1.0 if isinstance(sde, (*VP_TYPE, type(SDES[-1]))) else float(sde.sigma(torch.ones(())))
    prior = sde.prior(sde.t_max)
    close(torch.tensor(prior.std), torch.tensor(std), 1e-15)
    x = 2 * std * torch.randn(5, 3, 2)
    exact = scipy.stats.norm(0, std).logpdf(x.numpy()).sum((1, 2))
    close(sde.prior_log_prob(x), torch.from_numpy(exact), 1e-13)
    n = 200_000
    draw = prior.sample((n,), torch.Generator().manual_seed(1)) / std
    assert abs(draw.mean()) < 5 / n**0.5
    assert abs(draw.var() - 1) < 5 * (2 / n) ** 0.5
    assert prior.sample((2, 3), dtype=torch.float32).dtype == torch.float32


def test_prior_follows_the_start():
    """Where the variance explodes, it is that of the time at which a run starts."""
    assert KarrasSDE().prior(0.5).std == KarrasSDE().prior(torch.tensor(0.5)).std == 40.0
    close(torch.tensor(VESDE().prior(1.0).std), torch.tensor(math.sqrt(50**2 - 0.01**2)), 1e-15)


@pytest.mark.parametrize(
    ("sde", "t_max", "alpha", "t_eps", "sigma"),
    [
        (VPSDE(), 1.0, math.exp(-10.05 / 2), 1e-3, 1.0485e-2),
        (CosineVPSDE(), 0.99936, 1e-3, 1e-3, None),
        (SubVPSDE(), 1.0, math.exp(-10.05 / 2), 1e-3, None),
        (VESDE(), 1.0, 1.0, 1e-3, None),
        (KarrasSDE(), 1.0, 1.0, 2.5e-5, 2e-3),
        (StraightPath(), 0.999, 1e-3, 1e-3, 1e-3),
    ],
    ids=lambda v: type(v).__name__,
)
def test_ends_of_time(sde, t_max, alpha, t_eps, sigma):
    assert sde.t_max == pytest.approx(t_max, abs=1e-5)
    assert float(sde.alpha(torch.tensor(sde.t_max))) == pytest.approx(alpha, rel=1e-12)
    assert sde.t_eps == t_eps
    if sigma is not None:
        assert float(sde.sigma(torch.tensor(t_eps))) == pytest.approx(sigma, rel=1e-4)


# ---- numerics ---------------------------------------------------------------------------------
@each_sde
def test_float32_keeps_its_digits(sde):
    """Against float64 at the same times."""
    t = times(sde).float()
    rtol = 3e-6 if isinstance(sde, VESDE) else 1e-6  # e^{17 t}: 17 roundings
    for name in FUNCTIONS:
        actual, exact = getattr(sde, name)(t), getattr(sde, name)(t.double())
        close(actual.double(), exact, rtol, 2e-6 if name in ("lam", "log_snr") else 0.0)


def test_why_sigma_is_not_the_root_of_one_minus_alpha_squared():
    t = torch.tensor(1e-5, dtype=torch.float32)
    exact, sde = math.sqrt(1.0009944990046721e-06), VPSDE()  # P01
    assert abs(float(sde.sigma(t)) / exact - 1) < 1e-6
    assert abs(float((1 - sde.alpha(t) ** 2).sqrt()) / exact - 1) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_sde
def test_shape_and_dtype_are_those_of_t(sde, dtype):
    t = 0.05 + 0.9 * torch.rand(2, 3, dtype=dtype)
    for name in [*FUNCTIONS, "time_of_log_snr"]:
        function = getattr(sde, name)
        one_by_one = torch.stack([function(one) for one in t.flatten()]).reshape(t.shape)
        rtol = 4 * torch.finfo(dtype).eps  # vectorised or not, exp is not the same to the last bit
        close(function(t), one_by_one, rtol, rtol)  # the dtype is checked as well


def fresh(sde):
    """One that has not been used: a chain's SDE fills its tables on first use."""
    return dataclasses.replace(sde)


@pytest.mark.parametrize("shape", [(), (3,)])
@each_sde
def test_derivatives_work_everywhere(sde, shape):
    t = torch.rand(shape) * 0.8 + 0.1
    expected = sde.g2(t)
    with torch.inference_mode():
        close(fresh(sde).g2(t), expected, 0.0)
    slope = torch.func.grad(lambda u: fresh(sde).g2(u).sum())(t)
    ahead, behind = sde.g2(t + 1e-5), sde.g2(t - 1e-5)
    close(slope, (ahead - behind) / 2e-5, 1e-5, 1e-5 * float(expected.abs().max()))
    leaf = t.clone().requires_grad_()
    fresh(sde).g2(leaf).sum().backward()
    close(leaf.grad, slope, 1e-14)
    if t.ndim:
        close(torch.func.vmap(fresh(sde).g2)(t), expected, 1e-15)


@each_sde
def test_values_that_compare_copy_and_pickle(sde):
    used = fresh(sde)
    used.g2(torch.tensor(0.3))  # the first use is under a transform of torch.func
    assert used == sde and hash(used) == hash(sde)
    for other in (copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        assert other == sde
        close(other.g2(torch.tensor(0.3)), sde.g2(torch.tensor(0.3)), 0.0)


@pytest.mark.parametrize("shape", [(), (4,)])
@each_sde
def test_no_function_of_time_waits_for_the_device(sde, shape, no_sync):
    t, x = torch.full(shape, 0.3), torch.randn(4, 2)
    sde.g2(t)  # a chain's table is made once, on the CPU
    with no_sync():
        for name in FUNCTIONS:
            getattr(sde, name)(t)
        sde.perturb(x, t, x)
        sde.drift(x, t)
        sde.time_of_log_snr(sde.log_snr(t))


# ---- at the door ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPSDE(-0.1, 20.0), "rates cannot be negative"),
        (lambda: VPSDE(0.1, 0.0), "expected beta_min >= 0 and beta_max > 0"),
        (lambda: VPSDE(float("nan"), 1.0), "got nan"),
        (lambda: SubVPSDE(-0.1, 20.0), "rates cannot be negative"),
        (lambda: CosineVPSDE(0.0), r"expected an offset s > 0, got 0\.0"),
        (lambda: VESDE(1.0, 0.5), "expected 0 < s_min < s_max, got 1.0 and 0.5"),
        (lambda: VESDE(0.0, 0.5), "expected 0 < s_min"),
        (lambda: KarrasSDE(0.0), "expected sigma_max > 0"),
    ],
)
def test_bad_constants_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("shape", [(3,), (4, 1), (1,)])
def test_a_time_for_each_sample_or_one_for_all(shape):
    x = torch.zeros(4, 2)
    with pytest.raises(
        ValueError, match=r"expected a time \(\) or \(4,\) for x of shape \(4, 2\)"
    ):
        VPSDE().perturb(x, torch.full(shape, 0.5), x)
    assert like(torch.zeros(4), x).shape == (4, 1)
    assert like(torch.zeros(()), x).shape == ()


def test_frozen():
    with pytest.raises(AttributeError, match="beta_min"):
        VPSDE().beta_min = 1.0


# ---- a start that is not noise ----------------------------------------------------------------
@each_sde
def test_n08_every_process_ends_in_its_prior(sde):
    mismatch = sde.prior_mismatch(sde.t_max)
    if sde in (SDES[1], SDES[-1]):  # these two do not: alpha^2 = e^-3 and e^-1.01
        left = float(sde.alpha(torch.tensor(1.0))) ** 2
        assert mismatch == pytest.approx(-0.5 * math.log1p(-left)) and mismatch > 0.02
    else:
        assert 0 < mismatch < 3e-4


@each_sde
def test_n08_the_bound_is_one_and_tight_for_a_point(sde):
    """KL of a point mass's forward process is the bound itself; of a mixture it is less."""
    t = torch.tensor(0.4 * sde.t_max)
    point = GaussianMixture([1.0], [[1.3]], [[[0.0]]], sde)
    kl = float(kl_to_prior(point, t).value)
    assert sde.prior_mismatch(t, 1.3**2) == pytest.approx(kl, rel=1e-9)
    pair = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.0]], [[0.0]]], sde)
    assert 0 <= float(kl_to_prior(pair, t).value) < sde.prior_mismatch(t)


def test_n08_a_chain_that_does_not_reach_noise():
    """The mean of N(3, 0.25) became 2.17, and nothing said so."""
    chain = DDPMChain.linear(50)
    law = GaussianMixture([1.0], [[3.0]], [[[0.25]]], chain.sde())
    cost = -0.5 * math.log(1 - float(chain.alpha_bar[-1]))
    with pytest.warns(UserWarning, match=rf"alpha\^2 = 0.6 .* KL = {cost:.2g} nats") as found:
        sample(law, Ancestral(), (4, 1), chain.grid(), seed=0)
    assert len(found) == 1 and found[0].filename == __file__
    with pytest.warns(UserWarning, match="start is not noise: at t = 0.5"):
        sample(
            GaussianMixture([1.0], [[3.0]], [[[0.25]]], VPSDE()),
            Ancestral(),
            (4, 1),
            uniform(2, 0.5),
        )


@pytest.mark.parametrize("sde", [*SDES[:-1], VESDE(0.01, 348.0)], ids=repr)
def test_n09_sixteen_bits(sde):
    """sigma and log-SNR wherever they are representable, also where sigma^2 is not."""
    t = torch.linspace(0.05, sde.t_max, 40).half()
    wide = t.double().clamp(max=sde.t_max)
    close(sde.sigma(t).double(), sde.sigma(wide), 1e-2)
    noisy = sde.alpha(wide) > 0.05  # log(1 - t) of the straight path has no digits near 1
    close(sde.lam(t).double()[noisy], sde.lam(wide)[noisy], 1e-2, 2e-2)
    back = sde.time_of_log_snr(sde.log_snr(wide).half()).double()
    close(back[noisy], wide[noisy], 2e-2, 2e-3)
