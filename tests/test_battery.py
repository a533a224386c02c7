"""The public battery over every process, exact law and sampler that we ship."""

import pytest
import torch

from scoresde import (
    DDIM,
    DEIS,
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
    EulerMaruyama,
    GaussianMixture,
    KarrasSDE,
    Langevin,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    SASolver,
    StraightPath,
    SubVPSDE,
    UniPC,
)
from scoresde.data import LAWS
from scoresde.testing import check_denoiser, check_sampler, check_sde, fitted_order

SDES = [
    VPSDE(),
    VPSDE(1.0, 5.0),
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear().sde(),
    DDPMChain.cosine(500).sde(),
    DDPMChain([0.1, 0.5, 0.9]).sde(),
]
SAMPLERS = [
    EulerMaruyama(),
    ReverseDiffusion(),
    Ancestral(),
    Ancestral("beta"),
    DDIM(),
    DDIM(0.5),
    DDIM(1.0),
    PFEuler(),
    PFHeun(),
    PFRK4(),
    DPMSolverPP(1),
    DPMSolverPP(2),
    DPMSolverPP(3),
    DPMSolverPP(2, 1.0),
    DPMSolverPP(3, 0.5),
    UniPC(1),
    UniPC(2),
    DEIS(2),
    DEIS(3),
    SASolver(3, 3, 1.0),
    SASolver(1, 2, lambda t: t),
    DPMSolver(2),
    DPMSolver(3),
    ERSDE(1),
    ERSDE(2),
    EDMStochastic(),
    EDMStochastic(5.0),
    Adams(2, 3),
    Adams(1, 2),
    PredictorCorrector(EulerMaruyama()),
    PredictorCorrector(ReverseDiffusion(), Langevin(r=0.1, steps=2)),
    PredictorCorrector(Ancestral(), sequence="cp"),
    PredictorCorrector(Ancestral(), Langevin(rule="song")),
]


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_every_process(sde):
    check_sde(sde)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_every_law(name):
    law = LAWS[name](VPSDE())
    check_denoiser(law, 1.5 * torch.randn(16, *law.event), rtol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize("sde", [KarrasSDE(), VESDE(), SubVPSDE(), StraightPath()])
@pytest.mark.parametrize("sampler", [DDIM(), DDIM(1.0), Ancestral("beta"), PFHeun()])
def test_samplers_on_other_processes(sampler, sde):
    check_sampler(sampler, sde, slack=0.25)


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 4, 2), (8, 3, 4, 4)])
@pytest.mark.parametrize("sampler", [Ancestral(), PFHeun(), PredictorCorrector(DDIM())])
def test_any_event_shape(sampler, shape):
    """A sampler acts on each coordinate alike: reshaping the event changes nothing."""
    event = shape[1:] or (1,)
    x = torch.randn(8, *event)
    d = x[0].numel()
    means, covs = torch.randn(2, d), torch.eye(d).expand(2, d, d) * 0.1
    law = GaussianMixture([0.5, 0.5], means.reshape(2, *event), covs, VPSDE())
    flat = GaussianMixture([0.5, 0.5], means, covs, VPSDE())
    ts = torch.linspace(1, 0.01, 6)
    run = lambda p, v: sampler(p, v, ts, torch.Generator().manual_seed(0))
    out = run(law, x)
    torch.testing.assert_close(
        out.reshape(8, d), run(flat, x.reshape(8, d)), rtol=1e-12, atol=1e-12
    )


def test_the_battery_sees_a_wrong_process():
    class Wrong(VPSDE):
        def sigma2(self, t):
            return -torch.expm1(2.1 * self.log_alpha(t))

    with pytest.raises(AssertionError):
        check_sde(Wrong())

    class Leaky(VPSDE):
        def g2(self, t):
            return 1.01 * super().g2(t)

    with pytest.raises(AssertionError, match="g\\^2"):
        check_sde(Leaky())


def test_the_battery_sees_a_wrong_sampler():
    class Biased(DDIM):
        def row(self, sde, t, s):
            a, b, c = super().row(sde, t, s)
            return a, 1.001 * b, c

    with pytest.raises(AssertionError, match="order"):
        check_sampler(Biased())


def test_the_battery_sees_a_wrong_denoiser():
    class Wrong(GaussianMixture):
        def predict(self, quantity, x, t):
            return (1.001 if quantity == "eps" else 1) * super().predict(quantity, x, t)

    law = Wrong([1.0], [[0.0]], [[[1.0]]], VPSDE())
    with pytest.raises(AssertionError, match="eps"):
        check_denoiser(law, torch.randn(4, 1))


def test_fitted_order_of_a_power_law():
    assert fitted_order([10, 20, 40], [1e-1, 2.5e-2, 6.25e-3]) == pytest.approx(2, abs=1e-12)
