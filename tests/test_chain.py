"""The chain: published numbers, Bayes by hand, and its exact conversion to and from an SDE."""

import math

import numpy as np
import pytest
import torch

from scoresde import (
    VESDE,
    VPSDE,
    ChainSDE,
    CosineVPSDE,
    DDPMChain,
    GaussianMixture,
    StraightPath,
    SubVPSDE,
)

B0, B1 = 0.1, 20.0
VAR, MEAN = 0.25, 0.8  # the Gaussian data of theory.md
RANDOM = DDPMChain(torch.rand(30, generator=torch.Generator().manual_seed(3)) ** 2 * 0.9 + 1e-6)
CHAINS = {
    "linear": DDPMChain.linear(100),
    "cosine": DDPMChain.cosine(100),
    "exact": DDPMChain.from_sde(VPSDE(), 100),
    "random": RANDOM,
    "one": DDPMChain([0.7]),
    "two": DDPMChain([0.7, 0.1]),
}
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def close(actual, expected, rtol=1e-13, atol=0.0):
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def richardson(f, n):
    """The limit of f, whose error is a/n + b/n^2."""
    return (f(n) - 6 * f(2 * n) + 8 * f(4 * n)) / 3


def gaussian(chain, d=1, mean=MEAN, var=VAR):
    means = torch.full((1, d), mean)
    return GaussianMixture(torch.ones(1), means, var * torch.eye(d)[None], chain.sde())


# ---- published numbers ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "chain"),
    [("linspace", DDPMChain.linear(1000)), ("cosine", DDPMChain.cosine(1000))],
)
def test_p02_tables(reference, name, chain):
    item = reference["P02"]
    expected, rtol = item["expected"][name], item["rtol"]
    zero = torch.zeros(1, 1)
    for i, beta in expected["beta"].items():
        close(chain.betas[int(i) - 1], beta, rtol)
        close(chain.alpha_bar[int(i)], expected["abar"][i], rtol)
        close(chain.posterior(zero, zero, int(i))[1], expected["beta_tilde"][i], rtol)
    if name == "cosine":
        assert chain.betas.count(0.999) == expected["number_of_clipped"]
        rates = expected["equivalent_constant_beta_on_interval_minus_N_log1p"]
        for i, constant in rates.items():
            close(1000 * chain.B.diff()[int(i) - 1], constant, rtol)


@pytest.mark.parametrize("t", [1.0, 0.25])
@pytest.mark.parametrize("rule", ["song", "midpoint", "linspace"])
def test_naive_rules_miss_by_one_over_n(rule, t):
    """N (log abar_chain - log abar) -> -C(t), and C is not small (A1)."""
    sde, at = VPSDE(B0, B1), torch.tensor(t)
    squares = float((sde.beta(at) ** 3 - B0**3) / (3 * (B1 - B0)))  # int_0^t beta^2
    make, constant = {
        "song": (
            lambda n: DDPMChain.from_sde(sde, n, rule="song"),
            0.5 * (float(sde.beta(at)) - B0 + squares),
        ),
        "midpoint": (
            lambda n: DDPMChain(sde.beta((torch.arange(n) + 0.5) / n) / n),
            0.5 * squares,
        ),
        "linspace": (
            lambda n: DDPMChain.linear(n, B0 / n, B1 / n),
            0.5 * squares - 0.5 * (B1 - B0) * t * (1 - t),
        ),
    }[rule]

    def miss(n):
        return n * float(-make(n).B[round(n * t)] - 2 * sde.log_alpha(at))

    assert richardson(miss, 400) == pytest.approx(-constant, rel=1e-4)
    printed = {
        "song": (-76.9517, -3.58221),
        "midpoint": (-67.0017, -1.09471),
        "linspace": (-67.0017, 0.77091),
    }
    assert -constant == pytest.approx(printed[rule][t < 1], rel=1e-5)


def test_ddpm_1000_is_not_on_the_sde():
    """A2."""
    t = torch.arange(1001) / 1000
    gap = (DDPMChain.linear(1000).alpha_bar - VPSDE().alpha(t) ** 2).abs()
    close(DDPMChain.linear(1000).alpha_bar[-1], 4.03583e-5, 2e-6)
    close(VPSDE().alpha(t[-1]) ** 2, 4.31857e-5, 2e-6)
    close(gap.max(), 8.113e-4, 1e-4)
    assert t[gap.argmax()] == 0.141

    def scaled(n):
        chain = DDPMChain.linear(n, B0 / n, B1 / n)
        return n * float(
            (chain.alpha_bar - VPSDE().alpha(torch.arange(n + 1) / n) ** 2).abs().max()
        )

    assert richardson(scaled, 1000) == pytest.approx(0.809, abs=5e-4)


# ---- conversions ------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 10, 1000, 4000])
@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(5.0, 1.0), CosineVPSDE()])
def test_from_sde_is_exact(sde, n):
    """A3; but for the last node of the cosine, where alpha = 0 (A5)."""
    chain, exact = DDPMChain.from_sde(sde, n), sde.alpha(torch.arange(n + 1) / n) ** 2
    last = -1 if isinstance(sde, CosineVPSDE) else None
    rtol = 1e-13 if n > 1 else 1e-11  # the one beta is 1 - 4e-5, stored to 1e-16
    close(chain.alpha_bar[:last], exact[:last], rtol)
    close(-torch.expm1(-chain.B)[:last], sde.sigma2(torch.arange(n + 1) / n)[:last])
    assert chain.grid().tolist() == [i / n for i in range(n, -1, -1)]
    assert (chain.grid() * n).round().tolist() == list(range(n, -1, -1))


@pytest.mark.parametrize("n", [10, 11, 100, 1000, 4000])
def test_the_cosine_clips_one_beta(n):
    chain = DDPMChain.cosine(n)
    assert [i for i, b in enumerate(chain.betas) if b >= 0.999] == [n - 1]
    close(chain.alpha_bar[-1], 0.001 * chain.alpha_bar[-2])
    assert chain.betas[-2] == pytest.approx(0.75, abs=0.7 / n)
    assert chain == DDPMChain.from_sde(CosineVPSDE(), n)


@each_chain
def test_to_sde_is_exact_at_the_nodes(chain):
    sde, t = chain.sde(), torch.arange(chain.N + 1) / chain.N
    assert isinstance(sde, ChainSDE) and sde.chain() == chain
    close(sde.alpha(t) ** 2, chain.alpha_bar)
    close(sde.sigma2(t), -torch.expm1(-chain.B))
    close(DDPMChain.from_sde(sde, chain.N).betas, chain.betas, 1e-11)
    # Both cubics agree at a node, so it does not matter on which side float32 puts it.
    close(sde.alpha(t.float()).double() ** 2, chain.alpha_bar, 2e-6 * (1 + float(chain.B[-1])))


@each_chain
def test_the_rate_is_continuous_and_not_negative(chain):
    sde, t = chain.sde(), torch.linspace(0, 1, 20_001)
    rate = sde.g2(t)
    assert (rate >= 0).all() and (sde.beta(t) >= 0).all()
    nodes = torch.arange(1, chain.N) / chain.N
    jump = sde.beta(nodes + 1e-10) - sde.beta(nodes - 1e-10)
    assert (jump.abs() < 1e-6 * rate.max()).all()


@pytest.mark.parametrize("n", [20, 1000])
@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(0.001, 20.0), VPSDE(5.0, 1.0)])
def test_a_linear_rate_is_recovered(sde, n):
    """A6: to rounding between the nodes too, for B is then a parabola."""
    found, t = DDPMChain.from_sde(sde, n).sde(), torch.linspace(1e-4, 1, 10_001)
    close(found.beta(t), sde.beta(t), 1e-8)
    close(found.sigma2(t), sde.sigma2(t), 1e-11)


def test_a_smooth_rate_is_recovered_to_second_order():
    """A6 for the cosine, away from its clipped end: four times better per doubling."""
    sde, t = CosineVPSDE(), torch.linspace(0, 0.9, 10_001)
    errors = []
    for n in (250, 500, 1000):
        found = DDPMChain.from_sde(sde, n).sde()
        errors.append(float((found.beta(t) / sde.beta(t) - 1).abs().max()))
    assert errors[-1] < 2e-4
    assert errors[0] / errors[1] > 3.5 and errors[1] / errors[2] > 3.5


def test_betas_from_anything():
    betas = [0.1, 0.2, 0.3]
    chain = DDPMChain(betas)
    assert chain == DDPMChain(np.array(betas)) == DDPMChain(torch.tensor(betas))
    assert hash(chain) == hash(DDPMChain(tuple(betas)))
    assert chain.N == 3
    close(chain.alpha_bar, [1.0, 0.9, 0.72, 0.504])
    close(chain.B, -chain.alpha_bar.log(), atol=1e-16)


# ---- steps ------------------------------------------------------------------------------------
@each_chain
def test_steps_compose_to_the_jump(chain):
    """The mean and the variance of n forward steps are those of the direct jump."""
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    scale, var = one, zero
    for i in range(1, chain.N + 1):
        step = chain.forward_step(one, i, zero)
        scale, var = step * scale, step**2 * var + chain.forward_step(zero, i, one) ** 2
        close(chain.q_sample(one, i, zero), scale)
        close(chain.q_sample(zero, i, one) ** 2, var)
    x = torch.randn(3, 2)
    assert torch.equal(chain.q_sample(x, 0, x), x)


@each_chain
def test_posterior_is_bayes(chain):
    """q(x_{i-1} | x_i, x0) ~ q(x_i | x_{i-1}) q(x_{i-1} | x0), a product of Gaussians."""
    x, x0 = torch.randn(2, 5, 2)
    for i in range(1, chain.N + 1):
        mean, var = chain.posterior(x, x0, i)
        if i == 1:
            close(mean, x0)
            assert var == 0
            continue
        beta, before = chain.betas[i - 1], float(chain.alpha_bar[i - 1])
        spread = -math.expm1(-float(chain.B[i - 1]))
        precision = (1 - beta) / beta + 1 / spread
        pull = math.sqrt(1 - beta) / beta * x + math.sqrt(before) / spread * x0
        close(var, 1 / precision, 1e-12)
        close(mean, pull / precision, 1e-12, 1e-14)


def test_an_index_for_each_sample():
    chain, i = DDPMChain.linear(50), torch.tensor([1, 7, 7, 50])
    x, z = torch.randn(2, 4, 3, 2)
    for function in (
        chain.forward_step,
        chain.q_sample,
        lambda x, i, z: chain.posterior(x, z, i)[0],
        lambda x, i, z: x + chain.posterior(x, z, i)[1],
    ):
        together = function(x, i, z)
        for j in range(4):
            one = slice(j, j + 1)
            close(function(x[one], int(i[j]), z[one]), together[one])
            close(function(x[one], i[j], z[one]), together[one])
        assert function(x.float(), i, z.float()).dtype == torch.float32


def test_float32_keeps_small_noise():
    """1 - abar_1 from a float32 product would be wrong by 1.7e-4."""
    chain, i = DDPMChain.linear(1000), torch.arange(1, 1001)
    zero, one = torch.zeros(1000, 1), torch.ones(1000, 1)
    noise = chain.q_sample(zero.float(), i, one.float()).double()
    close(noise, chain.q_sample(zero, i, one), 1e-7)


def test_the_indices_wait_for_nothing(no_sync):
    chain, x = DDPMChain.linear(50), torch.randn(4, 2)
    i = torch.tensor([1, 7, 7, 50])
    with no_sync(x, i):
        chain.forward_step(x, i, x)
        chain.q_sample(x, i, x)
        chain.posterior(x, x, i)


# ---- the reverse step on Gaussian data (section B) --------------------------------------------
@each_chain
def test_posterior_mean_by_tweedie(chain):
    """B1: (x + beta score)/sqrt(1 - beta); B2: on Gaussian data it is E[x_{i-1} | x_i]."""
    law, x = gaussian(chain, 2), torch.randn(4, 2)
    for i in range(1, chain.N + 1):
        t, beta = torch.tensor(i / chain.N), chain.betas[i - 1]
        mean, _ = chain.posterior(x, law(x, t), i)
        close(mean, (x + beta * law.score(x, t)) / math.sqrt(1 - beta), 1e-11, 1e-12)
        (m_s, v_s), (m_t, v_t) = (law.marginal(torch.tensor(j / chain.N)) for j in (i - 1, i))
        gain = math.sqrt(1 - beta) * v_s[0, 0] / v_t[0, 0]
        close(mean, m_s + gain * (x - m_t), 1e-11, 1e-12)


def test_variances():
    """B4 and B5: beta~ is not beta at the first indices, and beta bounds only c <= 1."""
    chain, i = DDPMChain.linear(1000), torch.arange(1, 1001)
    x = torch.zeros(1000, 1)
    beta, tilde = (chain.posterior(x, x, i, v)[1].squeeze() for v in ("beta", "posterior"))
    close(beta, chain.betas)
    ratio = (tilde / beta)[[0, 1, 2, 9]]
    close(ratio, [0.0, 0.4547, 0.6113, 0.8528], 0.0, 5e-5)
    before, after = chain.alpha_bar[:-1], chain.alpha_bar[1:]
    close(beta - tilde, beta**2 * before / (1 - after), 1e-9)
    for c in (0.0, 0.25, 1.0, 4.0):
        v_s, v_t = before * c + 1 - before, after * c + 1 - after
        mmse = c * -torch.expm1(-chain.B[1:]) / v_t
        best = chain.posterior(x, x, i, "optimal", mmse)[1].squeeze()
        close(best, beta * v_s / v_t, 1e-9, 1e-18)
        assert (best > beta).all() if c > 1 else (best <= beta * (1 + 1e-12)).all()
    close(chain.posterior(x, x, i, "optimal", 0.0)[1].squeeze(), tilde, 0.0)


@each_chain
def test_optimal_variance_reproduces_the_data(chain):
    """B6: from the exact p_N the chain ends in N(m, c) whatever the number of steps."""
    law = gaussian(chain)
    (mean, cov), var = law.marginal(torch.ones(())), None
    var = cov[0, 0]
    for i in range(chain.N, 0, -1):
        t = torch.tensor(i / chain.N)
        x = torch.stack([mean, mean + 1])
        out, noise = chain.posterior(x, law(x, t), i, "optimal", law.mmse(t))
        mean, var = out[0], (out[1] - out[0]) ** 2 * var + noise
        assert noise.shape == ()
    close(mean, [MEAN], 1e-12)
    close(var.squeeze(), VAR, 1e-12)


# ---- the variational bound (section I) --------------------------------------------------------
def exact_bound(chain, variance, d=1):
    """The expected bound on isotropic Gaussian data, term by term."""
    abar = chain.alpha_bar[1:]
    mmse = VAR * (1 - abar) / (VAR * abar + 1 - abar)
    return chain.vlb_terms(d * mmse, torch.tensor(d * (VAR + MEAN**2)), d, variance, mmse)


def truth(chain, d=1):
    """H(p0) + KL(p_N || N(0, I)), below which no chain can get."""
    mean, cov = gaussian(chain).marginal(torch.ones(()))
    mismatch = 0.5 * float(cov[0, 0] + mean**2 - 1 - cov[0, 0].log())
    return d * (0.5 * math.log(2 * math.pi * math.e * VAR) + mismatch)


@pytest.mark.parametrize("n", ["100", "1000"])
def test_p07_bound(reference, n):
    item = reference["P07"]
    expected, tolerance = item["expected"]["vlb"][n], {"rtol": item["rtol"], "atol": item["atol"]}
    chain = DDPMChain.from_sde(VPSDE(B0, B1), int(n))
    for variance in ("beta", "optimal"):
        bound, numbers = exact_bound(chain, variance), expected[f"sigma2={variance}"]
        assert bound.steps.shape == (int(n) - 1,)
        close(bound.prior, expected["L_N_prior"], **tolerance)
        close(bound.steps.sum(), numbers["sum_L_2_to_N"], **tolerance)
        close(bound.data, numbers["L_0"], **tolerance)
        close(bound.total, numbers["total_nats"], **tolerance)
        close(float(bound.total) - truth(chain), numbers["gap_to_entropy_plus_KL"], **tolerance)
    close(truth(chain), expected["entropy_p0"] + expected["KL_pN_prior"], **tolerance)


@pytest.mark.parametrize("d", [1, 3])
@each_chain
def test_the_optimal_variance_closes_the_bound(chain, d):
    """I.1: no gap at all, for any betas, N = 1 included."""
    close(exact_bound(chain, "optimal", d).total, truth(chain, d), 0.0, 1e-12 * d)


def test_the_gap_of_beta(reference):
    """I.2: N gap -> 1/4 int beta^2 (1 - v)^2/v^2 dt."""

    def gap(n):
        chain = DDPMChain.from_sde(VPSDE(), n)
        return n * (float(exact_bound(chain, "beta").total) - truth(chain))

    constant = reference["P07"]["expected"]["VLB_gap_times_N"]
    assert richardson(gap, 500) == pytest.approx(constant, rel=1e-5)


@pytest.mark.parametrize(("n", "gap"), [(100, 0.7735), (1000, 0.4432), (10_000, 0.3155)])
def test_the_gap_of_beta_tilde_stays(n, gap):
    """I.3: -> half of Euler's constant, .2886 (with the optimal decoder)."""
    chain = DDPMChain.from_sde(VPSDE(), n)
    tilde, best = exact_bound(chain, "posterior"), exact_bound(chain, "optimal")
    total = tilde.prior + tilde.steps.sum() + best.data
    close(float(total) - truth(chain), gap, 0.0, 6e-5)


def test_the_bounds_of_ddpm_1000():
    chain = DDPMChain.linear(1000)
    bounds = {v: exact_bound(chain, v) for v in ("beta", "posterior", "optimal")}
    close(bounds["beta"].total, 0.7268965, 0.0, 6e-8)
    close(bounds["optimal"].total, 0.7258043, 0.0, 6e-8)
    tilde = bounds["posterior"].prior + bounds["posterior"].steps.sum() + bounds["optimal"].data
    close(tilde, 1.1821527, 0.0, 6e-8)


@pytest.mark.parametrize("variance", ["beta", "posterior", "optimal"])
def test_the_sampled_bound_is_unbiased(variance):
    """Against the terms of the exact mmse, 5 standard errors each; a mixture, not a Gaussian."""
    means, covs = torch.tensor([[1.5], [-1.0]]), torch.tensor([[[0.09]], [[0.25]]])
    chain = DDPMChain.from_sde(VPSDE(), 12)
    law = GaussianMixture(torch.tensor([0.6, 0.4]), means, covs, VPSDE())
    x0 = law.sample(20_000, generator=torch.Generator().manual_seed(5))
    mmse = law.mmse(torch.arange(1, 13) / 12)
    sampled = chain.vlb(law, x0, variance, mmse, torch.Generator().manual_seed(6))
    mean, cov = law.marginal()
    exact = chain.vlb_terms(mmse, (mean**2 + cov[0])[0], 1, variance, mmse)
    for term in ("prior", "data", "total"):
        assert_mean(getattr(sampled, term), getattr(exact, term))
    assert sampled.steps.shape == (11, 20_000)
    for step, expected in zip(sampled.steps, exact.steps, strict=True):
        assert_mean(step, expected)


def assert_mean(values, expected):
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - expected) < 5 * error


def test_the_bound_sums_over_an_event():
    """Two dimensions as (2,) or (1, 2); float32 too."""
    chain, x0 = DDPMChain.linear(8), torch.randn(6, 2)
    nothing = lambda x, t: torch.zeros_like(x)
    flat = chain.vlb(nothing, x0)
    close(chain.vlb(nothing, x0[:, None]).total, flat.total)
    close(chain.vlb(nothing, x0.float()).total.double(), flat.total, 1e-5)
    close(flat.total, sum(chain.vlb(nothing, x0[:, k, None]).total for k in range(2)))


# ---- at the door ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "betas", [[], [0.0], [1.0], [0.1, -0.1], [float("nan")], [[0.1, 0.2]], ["a"], [0.1] * 9 + [2]]
)
def test_bad_betas_are_refused(betas):
    with pytest.raises(ValueError, match=r"expected one or more betas, each in \(0, 1\)"):
        DDPMChain(betas)


@pytest.mark.parametrize("sde", [SubVPSDE(), VESDE(), StraightPath()])
def test_other_processes_are_no_chain(sde):
    with pytest.raises(TypeError, match="expected a variance-preserving SDE, got"):
        DDPMChain.from_sde(sde, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDPMChain.from_sde(VPSDE(), 0), "expected N >= 1 steps, got 0"),
        (lambda: DDPMChain.from_sde(VPSDE(), 10, rule="song"), r"reaches 2 >= 1 at N = 10"),
        (lambda: DDPMChain.from_sde(CosineVPSDE(), 10, rule="song"), "reaches inf >= 1"),
        (lambda: DDPMChain.from_sde(VPSDE(), 10, rule="naive"), 'expected rule "exact" or "song"'),
        (
            lambda: RANDOM.posterior(torch.ones(1, 1), torch.ones(1, 1), 1, "small"),
            'expected variance "posterior", "beta" or "optimal", got \'small\'',
        ),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("step", ["forward_step", "q_sample", "posterior"])
def test_bad_indices_are_refused(step):
    chain, x = DDPMChain.linear(10), torch.ones(2, 1)
    first = 0 if step == "q_sample" else 1
    posterior = lambda x, i, z: chain.posterior(x, z, i)
    function = posterior if step == "posterior" else getattr(chain, step)
    for i in (first - 1, 11):
        with pytest.raises(IndexError, match=rf"expected an index {first}\.\.10, got {i}"):
            function(x, i, x)
        with pytest.raises(IndexError, match="out of range"):  # -1 is not the last
            function(x, torch.tensor([5, i]), x)
    for i in (3.0, torch.tensor(0.3), torch.tensor([0.1, 0.2])):
        with pytest.raises(TypeError, match=r"convert a time t with round\(t \* N\)"):
            function(x, i, x)
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        function(x, torch.tensor([1, 2, 3]), x)
