"""Entropy production, the fluctuation theorem and Girsanov, against closed forms."""

import math
from itertools import pairwise

import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    DDPMChain,
    EulerMaruyama,
    GaussianMixture,
    X0Denoiser,
    log_likelihood,
    moments,
    uniform,
)
from scoresde.data import gm1, gm2
from scoresde.denoiser import Denoiser
from scoresde.physics.information import kl_to_prior
from scoresde.physics.path_weights import path_kl, weighted_paths
from scoresde.physics.thermodynamics import (
    ForwardKernel,
    entropy_production,
    entropy_production_rate,
    relative_entropy_decay,
)
from scoresde.prediction import convert

G6 = DDPMChain((0.05, 0.2, 0.4, 0.1, 0.3))
CHAINS = [G6, DDPMChain.linear(50, 0.01, 0.2), DDPMChain((0.9, 0.001, 0.7)), DDPMChain.cosine(20)]


def close(actual, expected, rtol=1e-12, atol=0.0):
    actual = torch.as_tensor(actual)
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual), rtol=rtol, atol=atol)


def gaussian(c, m=0.0, d=1, sde=None):
    one = torch.ones(1)
    return GaussianMixture(one, torch.full((1, d), m), c * torch.eye(d)[None], sde or VPSDE())


class MisScaled(Denoiser):
    """A model whose score is too long by the factor 1 + delta, everywhere."""

    regular = True

    def __init__(self, law, delta):
        super().__init__(law.sde)
        self.law, self.delta = law, delta

    def predict(self, quantity, x, t, **cond):
        score = (1 + self.delta) * self.law.score(x, t)
        return convert(self.sde, "score", quantity, x, t, score)


# ---- entropy production -----------------------------------------------------------------------
def test_p08_the_rate_of_the_relative_entropy(reference):
    rows, law = reference["P08"]["expected"]["one_d"], gm1(VPSDE())
    t = torch.tensor([row["t"] for row in rows])
    rate = torch.tensor([row["KL_rate"] for row in rows])
    close(entropy_production_rate(law, t).value, -rate, 1e-9)


def test_the_entropy_production_both_ways():
    law = gm1(VPSDE())
    kl = kl_to_prior(law, torch.tensor([0.0, 0.3, 1.0])).value
    close(kl[0] - kl[2], 0.7810892537775, 1e-11)
    close(entropy_production(law).value, 0.7810892537775, 1e-11)
    close(entropy_production(law, 0.0, 0.3).value, 0.70669104804, 1e-10)
    close(entropy_production(law, 0.3).value, kl[1] - kl[2], 1e-9)
    assert float(entropy_production(law).stderr) == 0


@pytest.mark.parametrize("sde", [VPSDE(), CosineVPSDE(), DDPMChain.linear(100).sde()])
def test_the_production_is_the_free_energy_that_is_lost(sde):
    law = gaussian(0.04, 1.3, 6, sde)
    kl = kl_to_prior(law, torch.tensor([0.0, sde.t_max])).value
    close(entropy_production(law, nodes=160).value, kl[0] - kl[1], 1e-5)


def test_a_network_produces_entropy_too():
    law, g = gm2(VPSDE()), torch.Generator().manual_seed(0)
    net, x0 = X0Denoiser(law, law.sde), law.sample(8000, generator=g)
    found = entropy_production(net, 0.1, 0.9, x0, generator=g)
    truth = float(entropy_production(law, 0.1, 0.9).value)
    assert abs(float(found.value) - truth) < 5 * float(found.stderr)
    assert 0 < float(found.stderr) < 0.03 * truth


def test_the_relative_entropy_decays_at_least_as_the_slowest_mode():
    law, t = gm1(VPSDE()), torch.linspace(0, 1, 21)
    scaled = relative_entropy_decay(law, t).value
    close(scaled[[0, -1]], [0.7810946522, 0.1250046], 1e-6)
    assert (scaled.diff() < 0).all()
    # log-Sobolev itself: -dKL/dt >= beta KL
    assert (
        entropy_production_rate(law, t).value > law.sde.beta(t) * kl_to_prior(law, t).value
    ).all()


def test_a_shifted_stationary_law_saturates_the_log_sobolev_inequality():
    law, t = gaussian(1.0, 0.7, 3), torch.linspace(0, 1, 5)
    close(relative_entropy_decay(law, t).value, torch.full((5,), 3 * 0.7**2 / 2), 1e-9)


# ---- the fluctuation theorem ------------------------------------------------------------------
@pytest.mark.parametrize("chain", CHAINS, ids=repr)
@pytest.mark.parametrize("law", [gm1, gm2, lambda sde: gaussian(4.0, 1.0, 3, sde)])
def test_ddpm_obeys_the_fluctuation_theorem_at_any_beta(chain, law):
    kernel = ForwardKernel.of_chain(chain)
    close(kernel.fluctuation(law(VPSDE())), 1.0, 1e-12)
    # and its kernel is that of the SDE through it
    sde = ForwardKernel.of_sde(chain.sde(), 1.0)
    close([kernel.scale, kernel.var], [sde.scale, sde.var], 1e-10)


def test_euler_maruyama_does_not():
    close(ForwardKernel.of_euler(G6).fluctuation(gm1(VPSDE())), 1.009357, 0, 1e-6)


def test_the_closed_form_is_the_double_integral():
    """The average by its definition: over x0 and x, on a grid, step by step in nothing."""
    law = gm1(VPSDE())
    for kernel in (ForwardKernel.of_chain(G6), ForwardKernel.of_euler(G6)):
        x0, x = torch.linspace(-8, 8, 801)[:, None], torch.linspace(-8, 8, 401)[:, None]
        density = (
            law.log_prob(x0).exp()[:, None]
            * torch.distributions.Normal(kernel.scale * x0, math.sqrt(kernel.var))
            .log_prob(x.T)
            .exp()
        )
        sigma = kernel.path_entropy(law, x0.repeat_interleave(401, 0), x.repeat(801, 1))
        total = (density.flatten() * (-sigma).exp()).sum() * 0.02 * 0.04
        close(kernel.fluctuation(law), total, 1e-9)


def walk(law, chain, n, euler=False):
    """Walk n paths of the chain, or of Euler-Maruyama with the same betas, step by step."""
    g = torch.Generator().manual_seed(4)
    x0 = x = law.sample(n, generator=g)
    for i, beta in enumerate(chain.betas, 1):
        z = torch.randn(x.shape, generator=g)
        x = (1 - beta / 2) * x + beta**0.5 * z if euler else chain.forward_step(x, i, z)
    return x0, x


@pytest.mark.parametrize("euler", [False, True])
def test_the_fluctuation_theorem_on_paths(euler):
    """On data wider than pi, or else rare paths rule the average."""
    law = gaussian(2.0, 1.0)
    kernel = ForwardKernel.of_euler(G6) if euler else ForwardKernel.of_chain(G6)
    weight = (-kernel.path_entropy(law, *walk(law, G6, 400_000, euler))).exp()
    error = float(weight.std() / math.sqrt(len(weight)))
    assert abs(float(weight.mean()) - (1.0195824955 if euler else 1.0)) < 5 * error
    assert error < 1.6e-3  # so that the two are told apart


def test_the_mean_of_sigma_is_the_entropy_produced():
    law, sde = gm1(VPSDE()), VPSDE()
    kernel, g = ForwardKernel.of_sde(sde, 0.3), torch.Generator().manual_seed(5)
    x0 = law.sample(200_000, generator=g)
    x = sde.perturb(x0, torch.tensor(0.3), torch.randn(x0.shape, generator=g))
    sigma = kernel.path_entropy(law, x0, x)
    error = float(sigma.std() / math.sqrt(len(sigma)))
    assert abs(float(sigma.mean()) - 0.70669104804) < 5 * error < 0.02


def test_eulers_error_is_of_first_order_with_a_constant():
    """N (E e^{-Sigma} - 1) -> (E x_1^2 - 1)/8 int beta^2 e^{-(B_1 - B)}."""
    sde = VPSDE(0.1, 2.0)
    law, t = gm1(sde), torch.linspace(0, 1, 20001)
    big_b = -2 * sde.log_alpha(t)
    constant = torch.trapezoid(sde.beta(t).square() * (big_b - big_b[-1]).exp(), t) / 8
    mean, cov = law.marginal(t[-1])
    constant = float(constant * (mean.square() + cov[0] - 1))
    error = lambda n: (
        n
        * (float(ForwardKernel.of_euler(DDPMChain.from_sde(sde, n, "song")).fluctuation(law)) - 1)
    )
    richardson = 2 * error(2000) - error(1000)
    close(richardson, constant, 1e-3)
    assert abs(constant) > 0.03


def test_the_average_diverges_where_euler_spreads_more_than_the_data_fall():
    assert (
        float(ForwardKernel.of_euler(DDPMChain((0.9,))).fluctuation(gaussian(100.0))) == math.inf
    )


# ---- Girsanov ---------------------------------------------------------------------------------
@pytest.mark.parametrize("i", range(4))
def test_p11_the_bound_holds_for_the_sde_and_not_for_the_ode(reference, i):
    row, law = reference["P11"]["expected"][i], gaussian(0.25)
    model = MisScaled(law, row["delta"])
    found = path_kl(model, law)
    close(found.total.value, row["path_KL_upper_bound"], 1e-9)
    assert float(found.total.stderr) == 0
    assert row["KL_p0_SDE"] < float(found.total.value) < row["KL_p0_ODE"]


def test_p11_the_kl_of_the_ode_and_of_the_sde_themselves(reference):
    row, law = reference["P11"]["expected"][1], gaussian(0.25)
    model, x = MisScaled(law, 0.1), torch.tensor([[0.5], [-0.5]])  # their mean square is 0.25
    ode = (
        law.log_prob(x) - log_likelihood(model, x, t_eps=1e-9)
    ).mean()  # exact: log p is quadratic
    close(ode, row["KL_p0_ODE"], 3e-4)
    ts = uniform(4000, 1.0, 0.0)
    v = 1.0  # of the model's SDE, from its prior
    for t, s in pairwise(ts):
        scale = 1 + (t - s) * law.sde.beta(t) * (
            0.5 - 1.1 / (0.25 * law.sde.alpha(t) ** 2 + law.sde.sigma2(t))
        )
        v = float(scale**2 * v + (t - s) * law.sde.beta(t))
    close(0.5 * (0.25 / v - 1 - math.log(0.25 / v)), row["KL_p0_SDE"], 5e-3)
    assert v == pytest.approx(row["V_SDE"], rel=1e-3)
    assert float(ode) > 8 * float(path_kl(model, law).total.value)


def test_between_two_true_scores_the_bound_is_an_equality():
    """KL(p_0 || q_0) - KL(p_T || q_T) = 1/2 int g^2 E_p |s_p - s_q|^2, for two Gaussians."""
    c, d, m = 0.3, 0.8, 0.6
    law, other = gaussian(c), gaussian(d, m)
    kl = lambda v, w, m: 0.5 * (v / w - 1 - math.log(v / w) + m * m / w)
    alpha2 = float(law.sde.alpha(torch.tensor(1.0)) ** 2)
    late = kl(*(alpha2 * u + 1 - alpha2 for u in (c, d)), alpha2**0.5 * m)
    close(path_kl(other, law).score.value, kl(c, d, m) - late, 1e-9)


def test_in_three_dimensions_by_samples():
    law = gaussian(0.25, d=3)
    found = path_kl(MisScaled(law, 0.3), law, n=4096, generator=torch.Generator().manual_seed(6))
    assert abs(float(found.total.value) - 3 * 0.5146317889700323) < 5 * float(found.total.stderr)
    assert 0 < float(found.total.stderr) < 0.02


def test_a_model_in_float32_is_judged_in_its_own_precision():
    law = gm1(VPSDE())
    net = X0Denoiser(torch.nn.Linear(1, 1).float(), law.sde)
    net.net.forward = lambda x, t: (
        law(x, t) + 0 * net.net.weight.sum() if x.dtype == torch.float32 else 1 / 0
    )
    found = path_kl(net, law, 0.05)
    assert 0 < float(found.score.value) < 1e-8  # the rounding of float32, squared
    assert path_kl(net, law).score.value > found.score.value  # goes down to t_eps, not to 0


def test_weights_of_paths_average_to_one_and_their_log_to_the_kl_of_the_walk():
    """On the grid itself both are exact: the variance of the walk is known from its table."""
    law, delta = gaussian(0.25), 0.1

    def kl_of_the_walk(ts):
        v_walk = moments(EulerMaruyama(), law, ts)[1].flatten()[:-1]
        v = (0.25 * law.sde.alpha(ts) ** 2 + law.sde.sigma2(ts))[:-1]
        steps = 0.5 * -ts.diff() * law.sde.g2(ts[:-1]) * delta**2 * v_walk / v**2
        return float(kl_to_prior(law, torch.tensor(1.0)).value + steps.sum())

    g, ts = torch.Generator().manual_seed(7), uniform(40, 1.0, 0.0)
    x, ratio = weighted_paths(MisScaled(law, delta), law, ts, 50_000, g)
    v_model = 1.0  # of the model's own walk, from its prior
    for t, s in pairwise(ts):
        v = 0.25 * law.sde.alpha(t) ** 2 + law.sde.sigma2(t)
        h_beta = float((t - s) * law.sde.beta(t))
        v_model = (1 + h_beta * (0.5 - float((1 + delta) / v))) ** 2 * v_model + h_beta
    weight = (-ratio).exp()
    square = weight * x.flatten().square()
    for values, truth in ((ratio, kl_of_the_walk(ts)), (weight, 1.0), (square, v_model)):
        assert abs(float(values.mean()) - truth) < 5 * float(values.std()) / math.sqrt(len(values))
    assert abs(float(x.square().mean()) - v_model) > 0.03  # which the true walk has not
    limit = float(path_kl(MisScaled(law, delta), law).total.value)
    coarse, fine = (kl_of_the_walk(uniform(n, 1.0, 0.0)) for n in (2000, 4000))
    assert 2 * fine - coarse == pytest.approx(limit, rel=1e-4)


def test_what_cannot_be_is_refused():
    ve = gm1(VESDE())
    for call in (
        lambda: entropy_production(ve),
        lambda: entropy_production_rate(ve, torch.tensor([0.1])),
        lambda: relative_entropy_decay(ve, torch.tensor([0.1])),
        lambda: ForwardKernel.of_sde(VESDE(), 0.5),
    ):
        with pytest.raises(TypeError, match="expected a variance-preserving process, got VESDE"):
            call()
    with pytest.raises(ValueError, match="expected one process"):
        path_kl(ve, gm1(VPSDE()))
    with pytest.raises(ValueError, match="0 <= start < stop"):
        entropy_production(gm1(VPSDE()), 0.5, 0.2)
