"""The exact law: against published numbers, scipy, Bayes by quadrature, and its own equations."""

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
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
)
from scoresde.losses import irreducible_loss
from scoresde.physics import entropy, fisher_information

SDES = [
    VPSDE(),
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear(100).sde(),
]
TIMES = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.95], dtype=torch.float64)
QUANTITIES = ["__call__", "eps", "v", "score", "velocity", "log_prob", "posterior"]
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)


def close(actual, expected, rtol=1e-12, atol=0.0):
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def gm1(sde=None):
    means, covs = torch.tensor([[1.5], [-1.0]]), torch.tensor([[[0.09]], [[0.25]]])
    return GaussianMixture(torch.tensor([0.6, 0.4]), means, covs, sde or VPSDE())


def gm2(sde=None):
    means = torch.tensor([[2.0, 0.0], [-1.5, 1.5], [0.0, -2.0]])
    covs = torch.tensor(
        [[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.08], [-0.08, 0.35]], [[0.4, 0.0], [0.0, 0.05]]]
    )
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, covs, sde or VPSDE())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- published numbers ------------------------------------------------------------------------
@pytest.mark.parametrize("i", range(4))
def test_p03_every_quantity(reference, i):
    item, law = reference["P03"], gm2()
    point, expected = item["inputs"]["points"][i], item["expected"][i]
    x, t = torch.tensor([point["x"]]), torch.tensor(point["t"])
    jacobian = torch.func.jacrev(lambda y: law.score(y, t))(x)[0, :, 0]
    found = {
        "log_density": law.log_prob(x, t)[0],
        "responsibilities": law.posterior(x, t)[0],
        "score": law.score(x, t)[0],
        "score_jacobian": jacobian,
        "divergence_of_score": jacobian.trace(),
        "posterior_mean_x0": law(x, t)[0],
        "posterior_cov_x0": law.posterior_cov(x, t)[0],
        "d_dt_log_density": time_derivative(law.log_prob, x, t)[0],
        "eps_optimal": law.eps(x, t)[0],
    }
    assert found.keys() == expected.keys()
    for name, value in found.items():
        close(value, expected[name], item["rtol"], item["atol"])


@pytest.mark.parametrize(("name", "make"), [("GM2", gm2), ("one_d", gm1)])
def test_p08_loss_floors(reference, name, make):
    """The mmse, and what follows from it."""
    rows, law = reference["P08"]["expected"][name], make()
    t = torch.tensor([row["t"] for row in rows])
    mmse = law.dim * law.mmse(t)
    alpha2, sigma2 = law.sde.alpha(t) ** 2, law.sde.sigma2(t)
    for key, value in {
        "x0_loss_floor_mmse": mmse,
        "eps_loss_floor": alpha2 / sigma2 * mmse,
        "v_loss_floor": mmse / sigma2,
        "fisher_information": (law.dim - alpha2 / sigma2 * mmse) / sigma2,
    }.items():
        close(value, [row[key] for row in rows], reference["P08"]["rtol"])


def test_p04_the_flow_is_a_quantile_map(reference):
    item, law = reference["P04"], gm1()
    for case, expected in zip(item["inputs"]["cases"], item["expected"], strict=True):
        x = torch.tensor([[case["x"]]])
        start, end = torch.tensor(float(case["t_start"])), torch.tensor(float(case["t_end"]))
        moved = flow(law, x, start, end)
        close(moved.item(), expected["x_end"], 0.0, item["atol"])
        close(law.log_prob(x, start).item(), expected["log_density_start"], 1e-9)
        close(law.log_prob(moved, end).item(), expected["log_density_end"], 0.0, item["atol"])


# ---- against other ways to compute the same ---------------------------------------------------
@each_sde
def test_density_is_that_of_scipy(sde):
    law, x = gm2(sde), 2 * torch.randn(20, 2)
    for t in TIMES:
        a, s2 = float(sde.alpha(t)), float(sde.sigma2(t))
        parts = [
            w * scipy.stats.multivariate_normal(a * m, a**2 * c + s2 * np.eye(2)).pdf(x.numpy())
            for w, m, c in zip(
                law.weights.numpy(), law.means.numpy(), law.covs.numpy(), strict=True
            )
        ]
        close(law.log_prob(x, t).exp(), sum(parts), 1e-11)
        close(law.posterior(x, t), np.stack(parts, 1) / sum(parts)[:, None], 1e-11)
    close(law.log_prob(x), law.log_prob(x, torch.tensor(0.0)), 0.0)


@each_sde
def test_denoiser_is_bayes(sde):
    """Mean and variance of q(x0 | x_t) ~ p_0(x0) N(x_t; alpha x0, sigma^2), by quadrature."""
    law, nodes = gm1(sde), torch.linspace(-6, 6, 40_001)[:, None]
    prior = law.log_prob(nodes)
    for t in TIMES:
        for x in law.sample(5, t, generator()):
            square = ((x - sde.alpha(t) * nodes[:, 0]) ** 2) / sde.sigma2(t)
            weight = (prior - 0.5 * square).softmax(0)
            mean = weight @ nodes[:, 0]
            var = weight @ (nodes[:, 0] - mean) ** 2
            close(law(x[None], t)[0, 0], mean, 1e-10, 1e-12)
            close(law.posterior_cov(x[None], t)[0, 0, 0], var, 1e-10)


@each_sde
def test_score_is_the_gradient(sde):
    law, x = gm2(sde), 2 * torch.randn(20, 2)
    for t in (*TIMES, torch.linspace(0.02, 0.9, 20)):
        gradient = torch.func.grad(lambda y, t=t: law.log_prob(y, t).sum())(x)
        close(law.score(x, t), gradient, 1e-10, 1e-11)
        leaf = x.clone().requires_grad_()
        law.log_prob(leaf, t).sum().backward()
        close(leaf.grad, gradient)


@each_sde
def test_tweedie(sde):
    """E1: x0_hat = (x + sigma^2 score)/alpha, Cov = sigma^2/alpha^2 (I + sigma^2 grad score)."""
    law, eye = gm2(sde), torch.eye(2)
    for t in TIMES:
        x, a, s2 = law.sample(6, t, generator()), sde.alpha(t), sde.sigma2(t)
        close(law(x, t), (x + s2 * law.score(x, t)) / a, 1e-10, 1e-11)
        hessian = torch.func.vmap(torch.func.jacrev(lambda y, t=t: law.score(y[None], t)[0]))(x)
        close(law.posterior_cov(x, t), s2 / a**2 * (eye + s2 * hessian), 1e-9, 1e-9)
        drift, score = sde.f(t) * x, law.score(x, t)
        close(law.velocity(x, t), drift - 0.5 * sde.g2(t) * score, 1e-12, 1e-12)
        close(law.eps(x, t), -s2.sqrt() * score)


# ---- quadrature against 30 digits -------------------------------------------------------------
def two(distance, std, dim=1):
    means = distance * torch.tensor([[-0.5], [0.5]]) * torch.eye(1, dim)
    return GaussianMixture.isotropic(torch.ones(2), means, std, VPSDE())


def masses_at(ratio):
    """Two point masses at -1 and 1, where alpha/sigma is the ratio."""
    return two(2.0, 0.0), float(VPSDE().time_of_log_snr(torch.tensor(2 * math.log(ratio))))


def needle():
    means, covs = torch.tensor([[0.2], [0.0]]), torch.tensor([[[1e-6]], [[1.0]]])
    return GaussianMixture(torch.tensor([0.3, 0.7]), means, covs, VPSDE())


HARD = {  # (law, t), made in the dtype of the tests
    "two modes": lambda: (two(2.0, 0.25), 0.1),
    "far, narrow": lambda: (two(2.0, 0.05), masses_at(8.0)[1]),
    "far, narrow, early": lambda: (two(2.0, 0.05), 0.01),
    "masses, 2 widths": lambda: masses_at(2.0),
    "masses, 8 widths": lambda: masses_at(8.0),
    "masses, 13 widths": lambda: masses_at(13.0),
    "a needle in a heap": lambda: (needle(), 0.01),
    "unequal": lambda: (gm1(), 0.05),
    "noise": lambda: (gm1(), 1.0),
}
DIGITS = {
    "two modes": (0.05203441797997741, 1.1704770854299358, 5.306149344508058),
    "far, narrow": (0.002155172413921465, 0.0991020813757665, 56.03448275808668),
    "far, narrow, early": (0.0011101818900014803, -0.5910851350843049, 222.81497035576373),
    "masses, 2 widths": (0.06859740879073879, 1.2469397707244894, 3.6280518241852246),
    "masses, 8 widths": (1.9474895803316597e-15, 0.02489207881679783, 64.99999999999187),
    "masses, 13 widths": (1.9191437429064455e-38, -0.4558135047605129, 170.00000000000003),
    "a needle in a heap": (0.001593217112369021, 0.9385562785840116, 101.45013919015946),
    "unequal": (0.024687952264618833, 1.1814809566104971, 6.316263229016813),
    "noise": (1.6538818583873087, 1.4189526547451885, 0.9999717573178296),
}
"""(mmse, entropy, Fisher information) by ``thirty_digits``."""


def thirty_digits(law, t):
    """mmse, entropy and Fisher information of a mixture on the line, by mpmath."""
    mp.mp.dps = 30
    a, s2 = (mp.mpf(float(f(torch.tensor(t)))) for f in (law.sde.alpha, law.sde.sigma2))
    flat = lambda tensor: [mp.mpf(float(v)) for v in tensor.flatten()]
    w, m, c = flat(law.weights), flat(law.means), flat(law.spectrum)
    v = [a * a * ck + s2 for ck in c]
    places = {
        a * mk + k * mp.sqrt(vk) for mk, vk in zip(m, v, strict=True) for k in range(-11, 12)
    }
    layer = min(v) / abs(a * (m[1] - m[0]))  # where one component takes over from the other
    places |= {a * (m[0] + m[1]) / 2 + k * layer for k in range(-24, 25)}

    def integrand(x):
        d = [x - a * mk for mk in m]
        joint = [wk * mp.npdf(dk, 0, mp.sqrt(vk)) for wk, dk, vk in zip(w, d, v, strict=True)]
        p = mp.fsum(joint)
        local = [mk + a * ck / vk * dk for mk, ck, vk, dk in zip(m, c, v, d, strict=True)]
        mean = mp.fdot(joint, local) / p
        own = [s2 * ck / vk + (lk - mean) ** 2 for ck, vk, lk in zip(c, v, local, strict=True)]
        slope = mp.fsum(jk * dk / vk for jk, dk, vk in zip(joint, d, v, strict=True))
        return mp.matrix([mp.fdot(joint, own), -p * mp.log(p), slope**2 / p])

    places = sorted(places)
    return [float(mp.quad(lambda x, i=i: integrand(x)[i], places, maxdegree=4)) for i in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_n11_the_digits_themselves(name):
    assert thirty_digits(*HARD[name]()) == pytest.approx(list(DIGITS[name]), rel=1e-14)


@pytest.mark.parametrize("name", HARD)
def test_n11_integrals_of_a_mixture_on_the_line(name):
    """The mmse to 1e-10 of itself, as is promised; what physics makes of the same rule."""
    law, t = HARD[name]()
    mmse, h, fisher = DIGITS[name]
    at = torch.tensor(t)
    close(law.mmse(at), mmse, 1e-10)
    close(irreducible_loss(law, at[None]).value, law.sde.log_snr(at[None]).exp() * mmse, 1e-10)
    close(entropy(law, at).value, h, 1e-10, 1e-12)
    close(fisher_information(law, at).value, fisher, 1e-10)


@pytest.mark.parametrize("name", ["two modes", "far, narrow", "masses, 8 widths"])
def test_n11_in_the_plane_the_axes_add_up(name):
    """Beside an axis on which there is one Gaussian; and for the product of two mixtures."""
    line, t = HARD[name]()
    distance, std = float(line.means[1] - line.means[0]), float(line.spectrum[0]) ** 0.5
    mmse, _, _ = DIGITS[name]
    alone = line.component(0).mmse(torch.tensor(t))
    close(two(distance, std, dim=2).mmse(torch.tensor(t)), (mmse + alone) / 2, 1e-10)
    square = torch.cartesian_prod(line.means[:, 0], line.means[:, 0])
    square = square @ torch.tensor([[0.8, 0.6], [-0.6, 0.8]])  # turned: no cell has its edges
    law = GaussianMixture.isotropic(torch.ones(4), square, std, VPSDE())
    close(law.mmse(torch.tensor(t)), mmse, 1e-10)


def test_n11_tilted_and_unequal_in_the_plane():
    """By the trapezoid rule at a tenth of a width, which converges geometrically."""
    law, t = gm2(), torch.tensor(0.1)
    axis = torch.linspace(-7, 7, 500)
    x = torch.cartesian_prod(axis, axis)
    spread = law.posterior_cov(x, t).diagonal(0, 1, 2).sum(1)
    expected = (law.log_prob(x, t).exp() @ spread) * (axis[1] - axis[0]) ** 2 / 2
    close(law.mmse(t), expected, 1e-10)


@pytest.mark.parametrize("make", [gm1, gm2])
def test_n11_at_the_data_rounding_is_not_resolved(make):
    """There Cov[x0 | x_t] is rounding; entropy and score have their values all the same."""
    law, t = make(), torch.tensor(0.0)
    assert float(law.mmse(t)) == 0
    assert len(law._quadrature(t).x) < 10**5
    close(entropy(law, t).value, entropy(law, torch.tensor(1e-13)).value, 1e-11)
    with pytest.raises(ValueError, match="point masses have no density"):
        masses_at(2.0)[0]._quadrature(t)


def test_n11_posterior_covariance_of_what_is_all_but_certain():
    """r (1 - r) |m_1 - m_2|^2 keeps its digits where r is 1e-50, in float32 where 1e-30."""
    law, t = masses_at(8.0)
    gap = float(2 * law.sde.alpha(torch.tensor(t)) / law.sde.sigma2(torch.tensor(t)))
    for dtype, x, tolerance in ((torch.float64, 0.8, 1e-12), (torch.float32, 0.5, 1e-4)):
        at = torch.tensor([[x]], dtype=dtype)
        log_odds = gap * float(at)
        found = law.posterior_cov(at, torch.tensor(t, dtype=dtype))
        close(
            found.double().item(),
            4 * math.exp(-log_odds) / (1 + math.exp(-log_odds)) ** 2,
            tolerance,
        )


# ---- equations of motion ----------------------------------------------------------------------
def time_derivative(function, x, t):
    return torch.func.jvp(lambda time: function(x, time), (t,), (torch.ones_like(t),))[1]


@each_sde
def test_fokker_planck(sde):
    """E2 and E3: d_t log p = g^2/2 (div s + |s|^2) - f (d + x.s), and its gradient."""
    law = gm2(sde)

    def divergence(x, t):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda y: law.score(y[None], t)[0]))(x)
        return jacobian.diagonal(0, 1, 2).sum(1)

    def motion(x, t):
        score = law.score(x, t)
        spread = divergence(x, t) + score.square().sum(1)
        return 0.5 * sde.g2(t) * spread - sde.f(t) * (2 + (x * score).sum(1))

    for t in TIMES:
        x = law.sample(6, t, generator())
        scale = float(sde.g2(t) / sde.sigma2(t) ** 1.5 - sde.f(t))  # of the terms that cancel
        close(time_derivative(law.log_prob, x, t), motion(x, t), 1e-8, 1e-12 * scale)
        gradient = torch.func.grad(lambda y, t=t: motion(y, t).sum())(x)
        close(time_derivative(law.score, x, t), gradient, 1e-8, 1e-12 * scale)


def flow(law, x, start, end, tol=1e-9):
    """The probability-flow ODE from start to end."""

    def velocity(t, flat):
        state = torch.from_numpy(flat).reshape(x.shape)
        return law.velocity(state, torch.tensor(t)).numpy().ravel()

    span, first = (float(start), float(end)), x.numpy().ravel()
    done = scipy.integrate.solve_ivp(velocity, span, first, "DOP853", rtol=tol, atol=tol)
    return torch.from_numpy(done.y[:, -1]).reshape(x.shape)


@each_sde
def test_flow_keeps_quantiles(sde):
    """E6: in one dimension F_s(x_s) = F_t(x_t), for every process."""
    law, x = gm1(sde), torch.linspace(-1.5, 1.5, 7)[:, None]
    t, s = torch.tensor(min(0.9, sde.t_max)), torch.tensor(0.05)
    _, var = law.marginal(t)
    x = x * var.sqrt()
    close(cdf(law, flow(law, x, t, s), s), cdf(law, x, t), 1e-6)


def cdf(law, x, t):
    mean = law.sde.alpha(t) * law.means[:, 0]
    std = (law.sde.alpha(t) ** 2 * law.covs[:, 0, 0] + law.sde.sigma2(t)).sqrt()
    return torch.special.ndtr((x - mean) / std) @ law.weights


@pytest.mark.parametrize(
    "sde",
    [VPSDE(), SubVPSDE(), CosineVPSDE(), VESDE(0.01, 100.0), KarrasSDE(), StraightPath()],
    ids=lambda sde: type(sde).__name__,
)
def test_one_flow_in_other_coordinates(sde):
    """D: in y = x/alpha every process is dy/dlog(s) = y - x0_hat, s = sigma/alpha: 80 to 0.01."""
    edm, y = gm2(KarrasSDE()), 80 * torch.randn(3, 2, generator=generator(1))

    def velocity(log_s, flat):
        state = torch.from_numpy(flat).reshape(y.shape)
        return (state - edm(state, torch.tensor(math.exp(log_s) / 80))).numpy().ravel()

    span = (math.log(80), math.log(0.01))
    done = scipy.integrate.solve_ivp(
        velocity, span, y.numpy().ravel(), "DOP853", rtol=1e-11, atol=1e-11
    )
    expected = torch.from_numpy(done.y[:, -1]).reshape(y.shape)
    start, end = sde.time_of_log_snr(-2 * torch.tensor([80.0, 0.01]).log())
    moved = flow(gm2(sde), sde.alpha(start) * y, start, end, 1e-11) / sde.alpha(end)
    close(moved, expected, 0.0, 1e-8)


# ---- samples ----------------------------------------------------------------------------------
@each_sde
def test_samples_follow_the_law(sde):
    law, n = gm2(sde), 50_000
    for t in (None, torch.tensor(0.1), torch.tensor(0.6)):
        x = law.sample(n, t, generator(3))
        mean, cov = law.marginal(t)
        centred = x - mean
        assert (centred.mean(0).abs() < 5 * (cov.diagonal() / n).sqrt()).all()
        products = centred[:, :, None] * centred[:, None]
        assert ((products.mean(0) - cov).abs() < 5 * products.std(0) / n**0.5).all()
        # E r_k = w_k: the classes come with their weights
        r = law.posterior(x, t)
        assert ((r.mean(0) - law.weights).abs() < 5 * r.std(0) / n**0.5 + 1e-12).all()
    x = gm1(sde).sample(n, torch.tensor(0.3), generator(4))
    test = scipy.stats.kstest(
        x[:, 0].numpy(),
        lambda v: cdf(gm1(sde), torch.tensor(v)[:, None], torch.tensor(0.3)).numpy(),
    )
    assert test.pvalue > 6e-7  # 5 sigma


def test_marginal_is_that_of_the_mixture():
    law = gm2()
    mean, cov = law.marginal()
    close(mean, [0.55, 0.05])
    second = sum(
        w * (c + m[:, None] * m) for w, m, c in zip(law.weights, law.means, law.covs, strict=True)
    )
    close(cov, second - mean[:, None] * mean)
    t = torch.tensor(0.3)
    close(law.marginal(t)[0], law.sde.alpha(t) * mean)
    close(law.marginal(t)[1], law.sde.alpha(t) ** 2 * cov + law.sde.sigma2(t) * torch.eye(2))


# ---- shapes and parts -------------------------------------------------------------------------
@each_sde
def test_an_event_of_any_shape_is_its_flattened_self(sde):
    k, event, d = 3, (4, 2), 8
    factor = torch.randn(k, d, d)
    covs = factor @ factor.mT
    means, weights = torch.randn(k, *event), torch.rand(k) + 0.1
    law = GaussianMixture(weights, means, covs, sde)
    flat = GaussianMixture(weights, means.flatten(1), covs, sde)
    x, t = torch.randn(5, *event), torch.tensor([0.0, 0.1, 0.3, 0.6, 0.9])
    assert law.event == event and law.dim == d
    close(law.covs, covs, 1e-10, 1e-12)
    for name in QUANTITIES:
        if name == "v":
            continue  # it divides by sigma(0) = 0
        out = getattr(law, name)(x, t)
        close(out.flatten(1) if out.ndim > 2 else out, getattr(flat, name)(x.flatten(1), t))
    close(law.posterior_cov(x, t), flat.posterior_cov(x.flatten(1), t))
    same = flat.sample(7, t[2], generator()).reshape(7, *event)
    close(law.sample(7, t[2], generator()), same)


@each_sde
def test_a_time_for_each_sample(sde):
    law, x = gm2(sde), torch.randn(5, 2)
    for name in (*QUANTITIES, "posterior_cov"):
        function = getattr(law, name)
        together = function(x, TIMES)
        for i in range(5):
            close(together[i], function(x[i, None], TIMES[i])[0], 1e-13, 1e-14)


@each_sde
def test_components(sde):
    law, x, t = gm2(sde), torch.randn(5, 2), torch.tensor(0.2)
    parts = [law.component(k) for k in range(3)]
    joint = torch.stack([part.log_prob(x, t) for part in parts], 1) + law.weights.log()
    close(law.log_prob(x, t), joint.logsumexp(1))
    close(law.posterior(x, t), joint.softmax(1))
    close(law.posterior(x, t).sum(1), torch.ones(5))
    weighted = sum(law.posterior(x, t)[:, k, None] * parts[k](x, t) for k in range(3))
    close(law(x, t), weighted, 1e-11)
    one = parts[1]
    gain = law.covs[1] @ torch.linalg.inv(
        sde.alpha(t) ** 2 * law.covs[1] + sde.sigma2(t) * torch.eye(2)
    )
    expected = law.means[1] + sde.alpha(t) * (x - sde.alpha(t) * law.means[1]) @ gain.T
    close(one(x, t), expected, 1e-11)
    close(one.mmse(t), one.posterior_cov(x[:1], t)[0].trace() / 2)


def test_isotropic_and_unnormalised():
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    law = GaussianMixture.isotropic(torch.tensor([2.0, 6.0]), means, 0.3, VPSDE())
    close(law.weights, [0.25, 0.75])
    close(law.covs, 0.09 * torch.eye(2).expand(2, 2, 2))
    law = GaussianMixture.isotropic(torch.ones(2), means, torch.tensor([0.3, 0.4]), VPSDE())
    close(law.covs[1], 0.16 * torch.eye(2))


# ---- the ends of time and of space ------------------------------------------------------------
@each_sde
def test_regular_at_the_data(sde):
    """At t = 0 all that an ODE asks for is finite, and the limit of what comes before."""
    law, x, zero = gm2(sde), torch.randn(6, 2), torch.tensor(0.0)
    assert law.regular
    close(law(x, zero), x, 1e-12)
    close(law.score(x, zero), torch.func.grad(lambda y: law.log_prob(y).sum())(x), 1e-11)
    assert torch.equal(law.eps(x, zero), torch.zeros(6, 2))
    close(law.velocity(x, zero), law.velocity(x, torch.tensor(1e-13)), 1e-7, 1e-7)
    assert law.posterior_cov(x, zero).abs().max() < 1e-28


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_sde
def test_far_tails_are_finite(sde, dtype):
    """Where every density underflows the widest component (in that direction) is all there is."""
    law = gm2(sde)
    x = torch.tensor([[1e3, -1e3], [1e6, 0.0], [0.0, 1e5]], dtype=dtype)
    for t in torch.tensor([0.0, 1e-5, 1e-3, 0.3, 0.9], dtype=dtype):
        for name in QUANTITIES:
            if t == 0 and name == "v":
                continue
            out = getattr(law, name)(x, t)
            assert out.dtype == dtype
            assert torch.isfinite(out).all()
        assert torch.isfinite(law.posterior_cov(x, t)).all()
    t = torch.tensor(1e-3, dtype=dtype)
    k = law.posterior(x, t).argmax(1).tolist()
    alone = torch.cat([law.component(j)(x[i, None], t) for i, j in enumerate(k)])
    close(law(x, t), alone, 1e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_sde
def test_point_masses(sde, dtype):
    """An empirical law: its denoiser is a softmax over the points."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    law = GaussianMixture(torch.ones(3), points, torch.zeros(3, 2, 2), sde)
    assert not law.regular
    drawn = law.sample(100, generator=generator())
    assert all((row == points).all(1).any() for row in drawn)
    x = torch.tensor([[0.1, 0.2], [0.7, 0.4], [5.0, 5.0]], dtype=dtype)
    for t in torch.tensor([1e-5, 1e-3, 0.1, 0.9], dtype=dtype):
        a, s2 = sde.alpha(t), sde.sigma2(t)
        r = (-(x[:, None] - a * points.to(dtype)).square().sum(2) / (2 * s2)).softmax(1)
        tolerance = 1e-4 if dtype == torch.float32 else 1e-10
        close(law(x, t), r @ points.to(dtype), 0.0, tolerance)
        assert torch.isfinite(law.score(x, t)).all()
        assert torch.isfinite(law.log_prob(x, t)).all()
    # At t = 0 the law has no density, but its points are what they are.
    assert torch.equal(law(points.to(dtype), torch.tensor(0.0, dtype=dtype)), points.to(dtype))


def test_a_flat_direction():
    """A singular covariance (data on a line) needs no jitter."""
    direction = torch.tensor([0.6, 0.8])
    cov = torch.outer(direction, direction)[None]
    law = GaussianMixture(torch.ones(1), torch.zeros(1, 2), cov, VPSDE())
    x = law.sample(50, generator=generator())
    close(x[:, 0] * 0.8, x[:, 1] * 0.6, 1e-7, 1e-7)
    t = torch.tensor(1e-4)
    off = law(torch.randn(5, 2), t) @ torch.tensor([0.8, -0.6])
    assert off.abs().max() < 1e-10
    assert not law.regular


@each_sde
def test_nothing_waits_for_the_device(sde, no_sync):
    law, x = gm2(sde), torch.randn(4, 2)
    for t in (torch.tensor(0.3), torch.full((4,), 0.3)):
        with no_sync(x, t):
            for name in (*QUANTITIES, "posterior_cov"):
                getattr(law, name)(x, t)


def test_state_dict():
    law, other = gm2(), GaussianMixture.isotropic(torch.ones(3), torch.zeros(3, 2), 1.0, VPSDE())
    other.load_state_dict(law.state_dict())
    x, t = torch.randn(4, 2), torch.tensor(0.2)
    assert torch.equal(other(x, t), law(x, t))
    assert torch.equal(other.log_prob(x, t), law.log_prob(x, t))


# ---- at the door ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("weights", "means", "covs", "message"),
    [
        ([1.0], [0.0], [[[1.0]]], r"for one dimension use means \(K, 1\)"),
        ([1.0, 1.0], [[0.0]], [[[1.0]]], r"expected weights \(K,\), means \(K, \*event\)"),
        ([1.0], [[0.0, 0.0]], [[[1.0]]], r"got \(1,\), \(1, 2\) and \(1, 1, 1\)"),
        ([0.0], [[0.0]], [[[1.0]]], r"expected positive weights, got \[0.0\]"),
        ([float("nan")], [[0.0]], [[[1.0]]], "expected positive weights"),
        ([1.0], [[float("inf")]], [[[1.0]]], "expected finite means and covs"),
        ([1.0], [[0.0]], [[[float("nan")]]], "expected finite means and covs"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]], "expected symmetric covs"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]], "got a negative eigenvalue"),
    ],
)
def test_bad_mixtures_are_refused(weights, means, covs, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*map(torch.tensor, (weights, means, covs)), VPSDE())


def test_bad_states_are_refused():
    law = gm2()
    for x in (torch.zeros(4, 3), torch.zeros(2), torch.zeros(4, 1, 2)):
        with pytest.raises(ValueError, match=r"expected x of shape \(B, 2\), got"):
            law.log_prob(x)
    with pytest.raises(ValueError, match=r"expected a time \(\) or \(4,\)"):
        law(torch.zeros(4, 2), torch.zeros(3))
    cube = GaussianMixture.isotropic(torch.ones(2), torch.randn(2, 3), 1.0, VPSDE())
    with pytest.raises(ValueError, match="expected at most two dimensions, got 3"):
        cube.mmse(torch.tensor(0.3))
