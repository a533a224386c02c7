"""Samplers: reference numbers, identities among them, noise, chunks, endings, errors."""

import math

import pytest
import torch

from scoresde import (
    DDIM,
    ERSDE,
    PFRK4,
    VESDE,
    VPSDE,
    Adams,
    Ancestral,
    CosineVPSDE,
    DDPMChain,
    DPMSolver,
    DPMSolverPP,
    EDMStochastic,
    EpsDenoiser,
    EulerMaruyama,
    GaussianMixture,
    Given,
    KarrasSDE,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    Recorder,
    ReverseDiffusion,
    SASolver,
    UniPC,
    fit_variance,
    log_snr,
    moments,
    sample,
    uniform,
)
from scoresde.denoiser import Affine, Denoiser
from scoresde.guidance import Guided
from scoresde.noise import BlockNoise, block_size

SDE = VPSDE()
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
FIXED = [
    EulerMaruyama(),
    ReverseDiffusion(),
    Ancestral(),
    Ancestral("beta"),
    Ancestral("optimal", lambda t: 0.1 * t),
    DDIM(),
    DDIM(0.5),
    PFEuler(),
    PFHeun(),
    PFRK4(),
    DPMSolverPP(2, 1.0),
    UniPC(3),
    SASolver(2, 2, 0.5),
    DPMSolver(3),
    EDMStochastic(3.0),
    ERSDE(),
    Adams(),
    PredictorCorrector(EulerMaruyama()),
    PredictorCorrector(Ancestral(), Langevin(rule="song"), "cp"),
]
seeded = lambda seed=0: torch.Generator().manual_seed(seed)


def guided(law):
    """Drawn to the first mode by the exact class posterior."""
    return Guided(law, lambda x, t: law.posterior(x, t)[:, 0].log(), 1.5)


def gaussian(mean, var, sde=SDE):
    return GaussianMixture([1.0], [[mean]], [[[var]]], sde)


P05 = {
    "EM": EulerMaruyama(),
    "beta": Ancestral("beta"),
    "beta_tilde": Ancestral(),
    "EulerODE": PFEuler(),
    "Heun": PFHeun(),
    "DDIM_eta=0": DDIM(0.0),
    "DDIM_eta=0.5": DDIM(0.5),
    "DDIM_eta=1": DDIM(1.0),
}


@pytest.mark.parametrize("n", ["10", "50", "100", "1000"])
@pytest.mark.parametrize("name", P05)
def test_p05_moments(reference, name, n):
    expected = reference["P05"]["expected"][n][name]
    ts = uniform(int(n), 1.0, 0.0)
    means, covs = moments(P05[name], gaussian(0.8, 0.25), ts, (torch.zeros(1), torch.eye(1)))
    mean, var = float(means[-1]), float(covs[-1])
    assert mean == pytest.approx(expected["mean"], rel=1e-9, abs=1e-10)
    assert var == pytest.approx(expected["var"], rel=1e-9, abs=1e-10)
    w2 = math.hypot(mean - 0.8, math.sqrt(var) - 0.5)
    assert w2 == pytest.approx(expected["W2"], rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 100])
def test_p06_anchors(reference, n):
    expected, unit = reference["P06"]["expected"], gaussian(0.0, 1.0)
    start = (torch.zeros(1), torch.eye(1))
    ts = uniform(n, 1.0, 0.0)
    assert float(moments(Ancestral("beta"), unit, ts, start)[1][-1]) == pytest.approx(1, rel=1e-12)
    # Equal angles arccos(alpha): a point of the grid has log alpha = log cos(theta).
    angles = torch.linspace(math.pi / 2, 0, n + 1)
    angles[0] = math.acos(1e-8)  # alpha = 0 lies at infinite B: the limit
    a, s = angles.cos(), angles.sin()
    v = 1.0
    for k in range(n):
        kappa = s[k + 1] - a[k + 1] / a[k] * s[k]
        v *= float(a[k + 1] / a[k] + kappa * s[k]) ** 2
    assert v == pytest.approx(expected["DDIM_V"][str(n)], rel=1e-5, abs=1e-14)
    point = GaussianMixture([1.0], [[0.7]], [[[0.0]]], SDE)
    for sampler in (DDIM(), Ancestral(), DDIM(1.0), DDIM(0.3)):
        out = sampler(point, torch.randn(5, 1), ts, seeded())
        torch.testing.assert_close(out, torch.full((5, 1), 0.7), rtol=0, atol=1e-12)


def test_p06_ddim_on_equal_angles_of_a_chain(reference):
    """The same closed form from the library's own rows: N(0,1), V = prod cos^2 of the steps."""
    n = 100
    chain = DDPMChain.cosine(n)
    sde, ts = chain.sde(), chain.grid()
    angle = chain.alpha_bar.flip(0).sqrt().clamp(max=1).acos()
    v = moments(DDIM(), gaussian(0.0, 1.0, sde), ts, (torch.zeros(1), torch.eye(1)))[1]
    expected = (-angle.diff()).cos().square().prod()
    assert float(v[-1]) == pytest.approx(float(expected), rel=1e-10)


def test_p06_euler_maruyama(reference):
    for n in (100, 1000):
        start = (torch.zeros(1), torch.eye(1))
        v = moments(EulerMaruyama(), gaussian(0.0, 1.0), uniform(n, 1.0, 0.0), start)[1][-1]
        assert float(v) == pytest.approx(reference["P06"]["expected"][f"EM_V_N{n}"], rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_optimal_variance_is_exact_for_gaussian_data(n):
    law = gaussian(0.8, 0.25)
    means, covs = moments(Ancestral("optimal", law.mmse), law, log_snr(SDE, n))
    mean, cov = law.marginal(torch.tensor(SDE.t_eps))
    torch.testing.assert_close(means[-1], mean, rtol=0, atol=1e-13)
    torch.testing.assert_close(covs[-1], cov, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sde", [SDE, CosineVPSDE(), VESDE(), KarrasSDE()])
def test_ddim_is_ddpm_is_exponential_euler(sde):
    ts = log_snr(sde, 9)
    t, s = ts[:-1], ts[1:]
    same = lambda p, q: torch.testing.assert_close(
        torch.stack(p.row(sde, t, s)), torch.stack(q.row(sde, t, s)), rtol=1e-10, atol=1e-12
    )
    same(Ancestral(), DDIM(1.0))
    h = sde.lam(s) - sde.lam(t)
    a, b, c = DDIM(0.0).row(sde, t, s)
    torch.testing.assert_close(a, sde.sigma(s) / sde.sigma(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(b, -sde.alpha(s) * torch.expm1(-h), rtol=1e-10, atol=0)
    assert not c.any()
    # tau = 1 of the exact solution of the reverse SDE with x0_hat frozen (SDE-DPM-Solver++(1))
    a, b, c = Ancestral().row(sde, t, s)
    torch.testing.assert_close(a, sde.sigma(s) / sde.sigma(t) * (-h).exp(), rtol=1e-10, atol=0)
    torch.testing.assert_close(b, -sde.alpha(s) * torch.expm1(-2 * h), rtol=1e-10, atol=0)
    noise = sde.sigma(s) * (-torch.expm1(-2 * h)).sqrt()
    torch.testing.assert_close(c, noise, rtol=1e-10, atol=0)


@pytest.mark.parametrize("variance", ["posterior", "beta", "optimal"])
def test_ancestral_step_is_the_chain_posterior(variance):
    chain = DDPMChain.linear(50, 1e-3, 0.2)
    law = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], chain.sde())
    ts = chain.grid()
    mmse = law.mmse(ts[:-1].flip(0)) if variance == "optimal" else 0.0
    sampler = Ancestral(variance, law.mmse if variance == "optimal" else None)
    table = sampler.table(chain.sde(), ts)
    x = torch.linspace(-3, 3, 7)[:, None]
    for i in (1, 2, 25, 50):
        row, t = table.rows()[chain.N - i], table.t[chain.N - i]
        x0_hat = law(x, t)
        mean, var = chain.posterior(x, x0_hat, i, variance, mmse)
        torch.testing.assert_close(row.a * x + row.b[0] * x0_hat, mean, rtol=1e-10, atol=1e-12)
        assert row.c**2 == pytest.approx(float(var), rel=1e-10, abs=1e-14)


def test_continuous_limit_of_ddim_eta():
    """(x_s - x_t)/h tends to the drift f x - (1 + eta^2)/2 g^2 score, the noise to eta g."""
    t, eta = torch.tensor([0.4]), 0.7
    x = torch.tensor([[0.3]])
    score = GM1.score(x, t)
    drift = -(SDE.f(t) * x - 0.5 * (1 + eta**2) * SDE.g2(t) * score)
    errors = []
    for h in (1e-3, 5e-4):
        a, b, c = DDIM(eta).row(SDE, t, t - h)
        errors.append(float(((a * x + b * GM1(x, t) - x) / h - drift).abs()))
        assert float(c / math.sqrt(h)) == pytest.approx(
            eta * float(SDE.g2(t)) ** 0.5, rel=2 * h * 20
        )
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("predictor", [EulerMaruyama(), Ancestral(), DDIM(0.3)])
def test_no_corrector_steps_is_the_predictor(predictor):
    x, ts = torch.randn(6, 1), log_snr(SDE, 7)
    walk = lambda s: s(GM1, x, ts, seeded())
    for sequence in ("pc", "cp"):
        idle = PredictorCorrector(predictor, Langevin(steps=0), sequence)
        assert torch.equal(walk(idle), walk(predictor))


def test_corrector_rows_are_langevin_steps():
    x, t = torch.randn(5, 1), torch.tensor(0.4)
    corrector = Langevin(r=0.2)
    a, b, c = corrector.row(SDE, t)
    delta = 2 * 0.2**2 * SDE.sigma2(t)
    expected = x + delta * GM1.score(x, t)
    torch.testing.assert_close(a * x + b * GM1(x, t), expected, rtol=1e-12, atol=1e-14)
    assert float(c) == pytest.approx(float((2 * delta).sqrt()), rel=1e-14)


@pytest.mark.parametrize("sequence", ["pc", "cp"])
def test_order_of_predictor_and_corrector(sequence):
    ts = torch.tensor([1.0, 0.5, 0.0])
    sampler = PredictorCorrector(DDIM(), Langevin(steps=2), sequence)
    rows = [(r.t, r.s) for r in sampler.table(SDE, ts).rows()]
    p1, p2, c1, ch = (1.0, 0.5), (0.5, 0.0), (1.0, 1.0), (0.5, 0.5)
    assert rows == ([p1, ch, ch, p2] if sequence == "pc" else [c1, c1, p1, ch, ch, p2])


def test_song_rule_of_step_is_the_papers():
    """Song et al. 2021, algorithm 4: delta = 2 (r |z|/|score|)^2 with means over the batch."""
    z, r = torch.randn(6, 3), 0.16
    law = GaussianMixture([0.5, 0.5], torch.randn(2, 3), torch.eye(3).expand(2, 3, 3), SDE)
    x, ts = torch.randn(6, 3), torch.tensor([0.5, 0.4])
    sampler = PredictorCorrector(DDIM(), Langevin(r, rule="song"))
    out = sampler(law, x, ts, noise=lambda *a: z)
    y = DDIM()(law, x, ts)
    score = law.score(y, ts[1])
    delta = 2 * (r * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
    torch.testing.assert_close(out, y + delta * score + (2 * delta).sqrt() * z)
    with pytest.raises(TypeError, match="not affine"):
        moments(sampler, gaussian(0.0, 1.0), ts)


@pytest.mark.parametrize("sampler", [DDIM(), PFHeun(), PFRK4(), PFEuler()])
def test_encoding_inverts_sampling(sampler):
    """From data to noise and back: the error falls with the order."""
    x = torch.tensor([-1.5, -1.0, -0.5, 1.2, 1.5, 1.8])[:, None]
    back = []
    for n in (100, 200):
        ts = log_snr(SDE, n)
        there = sampler(GM1, x, ts.flip(0))
        back.append(float((sampler(GM1, there, ts) - x).abs().max()))
    assert back[1] < back[0] / 1.7 and back[1] < 0.05


def test_exact_law_at_the_clean_end():
    """A mixture's velocity is finite at t = 0: Heun and RK4 start and end there."""
    x = torch.linspace(-1.5, 2, 9)[:, None]
    ts = uniform(200, 1.0, 0.0)
    noise = PFRK4()(GM1, x, ts.flip(0))
    torch.testing.assert_close(PFRK4()(GM1, noise, ts), x, rtol=0, atol=1e-5)


class Net(torch.nn.Module):
    """eps of GM1, but only finite above t = 0, like any network."""

    def forward(self, x, t, y=None):
        shift = 0.0 if y is None else y[:, None].to(x)
        return GM1.eps(x - shift, t) / (t > 0)


def test_last_step_of_a_network_to_zero_is_eulers():
    net = EpsDenoiser(Net(), SDE)
    ts = torch.tensor([0.2, 0.1, 0.0])
    x = torch.randn(4, 1)
    middle = PFHeun()(net, x, ts[:2])
    expected = middle - 0.1 * net.velocity(middle, ts[1])
    torch.testing.assert_close(PFHeun()(net, x, ts), expected, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="cannot start at t = 0"):
        PFHeun()(net, x, ts.flip(0))
    with pytest.raises(ValueError, match="no finite row"):
        DDIM()(net, x, ts.flip(0))
    for sampler in (DDIM(), Ancestral(), DDIM(0.5)):
        at_zero = sampler.table(SDE, ts).rows()[-1]
        assert (at_zero.a, at_zero.b, at_zero.c) == (0.0, (1.0,), 0.0)


@pytest.mark.parametrize("sampler", FIXED)
def test_no_host_device_sync_in_the_loop(sampler, no_sync):
    x = torch.randn(5, 1)
    for denoiser in (GM1, guided(GM1)):
        with no_sync(x):
            sampler(denoiser, x, log_snr(SDE, 4))


def test_no_random_numbers_where_none_are_used():
    state = torch.get_rng_state()
    for sampler in (DDIM(0.0), PFHeun(), PFEuler()):
        sampler(GM1, torch.zeros(3, 1), log_snr(SDE, 4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sampler", [Ancestral(), PredictorCorrector(DDIM(0.5))])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_samples_do_not_depend_on_the_chunks(sampler, dtype, tol):
    n = 2 * block_size((1,)) + 100
    run = lambda n, chunk: sample(
        GM1, sampler, (n, 1), log_snr(SDE, 5), seed=3, dtype=dtype, chunk=chunk
    )
    whole = run(n, n)
    torch.testing.assert_close(run(n, 1), whole, rtol=tol, atol=tol)
    torch.testing.assert_close(run(n // 2, None), whole[: n // 2], rtol=tol, atol=tol)
    assert not torch.equal(
        sample(GM1, sampler, (9, 1), log_snr(SDE, 5), seed=4).to(dtype), whole[:9]
    )


def test_labels_are_cut_with_the_chunks():
    n = block_size((1,)) + 50
    labels = torch.arange(n) % 3
    net = EpsDenoiser(Net(), SDE)
    draw = lambda d, n: sample(d, DDIM(), (n, 1), log_snr(SDE, 20), seed=0, last="stop")
    out = draw(Given(net, y=labels), n)
    for k in range(3):
        alone = draw(Given(net, y=k), n)
        torch.testing.assert_close(out[labels == k], alone[labels == k], rtol=1e-9, atol=1e-9)


def test_affine_returns_the_users_units():
    net, plain = EpsDenoiser(Net(), SDE), EpsDenoiser(Net(), SDE)
    net.affine = Affine(torch.tensor([1000.0]), torch.tensor([300.0]))
    draw = lambda d: sample(d, DDIM(), (50, 1), log_snr(SDE, 10), seed=0)
    torch.testing.assert_close(draw(net), 1000 + 300 * draw(plain))


@pytest.mark.parametrize("sde", [SDE, KarrasSDE(), VESDE()])
def test_a_run_starts_from_the_prior(sde):
    """x_T is the seeded block noise times the prior's width, for the first time of the grid."""
    law, recorder = gaussian(0.0, 1.0, sde), Recorder([sde.t_max])
    sample(law, DDIM(), (50, 1), log_snr(sde, 3), seed=7, callback=recorder)
    z = BlockNoise(7, 50, (1,)).draw(torch.device("cpu"), torch.float64)
    width = {SDE: 1.0, KarrasSDE(): 80.0, VESDE(): (50.0**2 - 0.01**2) ** 0.5}[sde]
    torch.testing.assert_close(recorder.x[0], width * z, rtol=1e-12, atol=0)


def test_endings():
    ts = log_snr(SDE, 10)
    draw = lambda last: sample(GM1, PFHeun(), (40, 1), ts, seed=0, last=last)
    x, t = draw("stop"), ts[-1]
    torch.testing.assert_close(draw("denoise"), GM1(x, t))
    torch.testing.assert_close(draw("half"), 0.5 * (x / SDE.alpha(t) + GM1(x, t)))
    to_zero = uniform(5, 1.0, 0.0)
    same = [sample(GM1, PFHeun(), (9, 1), to_zero, seed=0, last=e) for e in ("stop", "denoise")]
    assert torch.equal(*same)


@pytest.mark.parametrize("sampler", FIXED)
def test_float32_follows_float64(sampler):
    x, z = torch.randn(50, 1), torch.randn(60, 50, 1)
    source = lambda k, t, s, shape, device, dtype: z[k].to(dtype)
    wide = sampler(GM1, x, log_snr(SDE, 20), noise=source)
    out = sampler(GM1, x.float(), log_snr(SDE, 20), noise=source)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), wide, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", [PFHeun(), Ancestral()])
def test_recorder(sampler):
    ts, recorder = log_snr(SDE, 30), Recorder([1.0, 0.3, 0.0])
    n = block_size((1,)) + 7
    draw = lambda **kw: sample(GM1, sampler, (n, 1), ts, seed=1, last="stop", **kw)
    out = draw(callback=recorder)
    assert recorder.x.shape == recorder.x0_hat.shape == (3, n, 1)
    assert torch.equal(recorder.x[-1], out)
    nearest = ts[(ts - 0.3).abs().argmin()]
    torch.testing.assert_close(recorder.times, torch.stack([ts[0], nearest, ts[-1]]))
    x0_hat = GM1(recorder.x[1], nearest)
    torch.testing.assert_close(recorder.x0_hat[1], x0_hat, rtol=1e-8, atol=1e-8)
    everything = Recorder()
    draw(callback=everything)
    torch.testing.assert_close(everything.times, ts)
    with pytest.raises(RuntimeError, match="nothing recorded"):
        _ = Recorder().x


def test_fitted_variance_is_the_mmse():
    ts, law = log_snr(SDE, 6), gaussian(0.8, 0.25)
    n = 40_000
    fitted = fit_variance(law, ts, law.sample(n, generator=seeded()), seeded(1))
    exact = law.mmse(ts)
    # squares of Gaussian errors: standard error sqrt(2/n) of the mean
    torch.testing.assert_close(fitted(ts), exact, rtol=5 * (2 / n) ** 0.5, atol=0)


def test_samples_of_the_sde_and_the_ode_follow_the_law():
    law = GaussianMixture(
        [0.5, 0.5], [[-1.0, 0], [1, 0.5]], torch.eye(2).expand(2, 2, 2) * 0.1, SDE
    )
    n = 16_000
    mean, cov = law.marginal()
    for sampler in (Ancestral("optimal", law.mmse), PFHeun()):
        x = sample(law, sampler, (n, 2), log_snr(SDE, 100), seed=0, last="half")
        error = (x.mean(0) - mean).abs() / (cov.diagonal() / n).sqrt()
        assert float(error.max()) < 5.5, sampler
        share = (x[:, 0] > 0).double().mean()
        exact = law.sample(400_000, generator=seeded())[:, 0] > 0
        assert abs(float(share - exact.double().mean())) < 5 * 0.5 / n**0.5, sampler


def test_no_nan_at_few_steps():
    for sampler in FIXED:
        for n in (1, 2, 5):
            out = sample(GM1, sampler, (16, 1), log_snr(SDE, n), seed=0)
            assert bool(torch.isfinite(out).all()), (sampler, n)


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        (torch.tensor([0.5]), "grid of times"),
        (torch.tensor([[1.0, 0.5]]), "grid of times"),
        (torch.tensor([1.0, 0.2, 0.4]), "monotone"),
        (torch.tensor([1.0, 1.0, 0.4]), "got 1 twice in a row"),
        (torch.tensor([1.0, float("nan"), 0.4]), "monotone"),
        (torch.tensor([0.1, 0.5]), "decreasing"),
        (torch.tensor([1.2, 0.5]), r"within \[0, 1\]"),
        (torch.tensor([0.5, -0.1]), r"within \[0, 1\]"),
    ],
)
def test_bad_grids(ts, message):
    with pytest.raises(ValueError, match=message):
        Ancestral()(GM1, torch.zeros(2, 1), ts)


def test_grid_beyond_t_max_names_the_remedy():
    law = gaussian(0.0, 1.0, CosineVPSDE())
    with pytest.raises(ValueError, match=r"t_max=0\.999358"):
        DDIM()(law, torch.zeros(2, 1), uniform(5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DDIM(-0.1), ValueError, "eta >= 0"),
        (lambda: Ancestral("tilde"), ValueError, "posterior"),
        (lambda: Ancestral("optimal"), ValueError, "fit_variance"),
        (lambda: Langevin(r=1.5), ValueError, "unstable"),
        (lambda: Langevin(rule="snr"), ValueError, "song"),
        (lambda: PredictorCorrector(DDIM(), sequence="both"), ValueError, "cp"),
        (lambda: sample(GM1, DDIM(), (0, 1), uniform(3)), ValueError, "positive integers"),
        (lambda: sample(GM1, DDIM(), (3, 2), uniform(3)), ValueError, "shape"),
        (lambda: sample(GM1, DDIM(), (3, 1), uniform(3), last="end"), ValueError, "half"),
        (lambda: sample(GM1, DDIM(), (3, 1), uniform(3), chunk=0), ValueError, "chunk"),
        (lambda: DDIM()(GM1, torch.zeros(2, 1).long(), uniform(3)), TypeError, "floating"),
        (lambda: DDIM(2.0)(GM1, torch.zeros(2, 1), uniform(3)), ValueError, "smaller steps"),
        (lambda: moments(DDIM(), GM1, uniform(3)), ValueError, "component"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", FIXED)
def test_gpu_agrees_with_cpu_and_never_waits(sampler, no_waiting):
    law = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
    x, z = torch.randn(256, 1).float(), torch.randn(60, 256, 1).float()
    ts = log_snr(SDE, 20)
    moved = z.cuda()
    for wrap in (lambda d: d, guided):
        on_cpu = sampler(wrap(law.cpu()), x, ts, noise=lambda k, *a: z[k])
        denoiser, start = wrap(law.to("cuda")), x.cuda()
        with no_waiting():
            out = sampler(denoiser, start, ts, noise=lambda k, *a: moved[k])
        torch.testing.assert_close(out.cpu(), on_cpu, rtol=1e-4, atol=1e-4)


def test_an_abstract_denoiser_needs_only_forward():
    class Shrink(Denoiser):
        def forward(self, x, t, **cond):
            return 0.5 * x

    ts = torch.tensor([0.5, 0.25])
    x = torch.randn(3, 2)
    a, b, _ = DDIM().row(SDE, ts[:1], ts[1:])
    torch.testing.assert_close(DDIM()(Shrink(SDE), x, ts), (a + 0.5 * b) * x)
