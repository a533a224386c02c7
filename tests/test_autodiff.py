"""torch.func in inference mode: torch 2.11 answers with zeros there. The defect is simulated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scoresde import (
    DDIM,
    VESDE,
    Ancestral,
    CosineVPSDE,
    EpsDenoiser,
    GaussianMixture,
    Guided,
    KarrasSDE,
    PFHeun,
    StraightPath,
    SubVPSDE,
    autodiff,
    log_likelihood,
    log_snr,
    sample,
)
from scoresde.inverse import Mask, Measurement, MomentMatching

ROOT = Path(__file__).parents[1]
PROCESSES = [KarrasSDE(), VESDE(), StraightPath(), SubVPSDE(), CosineVPSDE()]
FUNCTIONS = "grad", "jacrev", "jvp", "vjp"


def zeros(tree):
    return torch.utils._pytree.tree_map(torch.zeros_like, tree)


@pytest.fixture
def defect(monkeypatch):
    """What torch.func gives in inference mode becomes zero, as on torch 2.11, and is noticed."""

    def spoilt(name):
        right = getattr(torch.func, name)

        def transform(*args, **kwargs):
            if not torch.is_inference_mode_enabled():
                return right(*args, **kwargs)
            if name == "jvp":
                values, slopes, *aux = right(*args, **kwargs)
                return (values, zeros(slopes), *aux)
            if name == "vjp":
                value, pull, *aux = right(*args, **kwargs)
                return (value, lambda u: zeros(pull(u)), *aux)

            def derivative(*inputs):
                found = right(*args, **kwargs)(*inputs)
                return (zeros(found[0]), found[1]) if kwargs.get("has_aux") else zeros(found)

            return derivative

        return transform

    for name in FUNCTIONS:
        monkeypatch.setattr(torch.func, name, spoilt(name))
    monkeypatch.setattr(autodiff, "RIGHT_IN_INFERENCE", autodiff.right_in_inference())
    assert not autodiff.RIGHT_IN_INFERENCE


def law(sde):
    return GaussianMixture([0.4, 0.6], [[-1.0], [0.8]], [[[0.04]], [[0.09]]], sde)


def drawn(sde, sampler):
    return sample(law(sde), sampler, (64, 1), log_snr(sde, 12), seed=0, last="stop")


SAMPLERS = [DDIM(), Ancestral(), PFHeun()]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_samplers_do_not_return_their_noise(sde, sampler, request):
    right = drawn(sde, sampler)
    request.getfixturevalue("defect")
    torch.testing.assert_close(drawn(sde, sampler), right, rtol=1e-12, atol=1e-12)


def test_guidance_still_guides(request):
    sde = KarrasSDE()
    guided = Guided(law(sde), lambda x, t: -2 * (x[:, 0] - 0.5) ** 2)
    ask = lambda: sample(guided, DDIM(), (64, 1), log_snr(sde, 12), seed=0)
    right = ask()
    assert (right - drawn(sde, DDIM())).abs().max() > 0.1  # it does something
    request.getfixturevalue("defect")
    torch.testing.assert_close(ask(), right, rtol=1e-12, atol=1e-12)


def test_a_network_that_differentiates_by_itself(request):
    class Energy(torch.nn.Module):
        def forward(self, x, t):
            return torch.func.grad(lambda x: (x**4).sum() / 4)(x)

    sde = VESDE()
    ask = lambda: sample(EpsDenoiser(Energy(), sde), DDIM(), (8, 1), log_snr(sde, 3), seed=0)
    right = ask()
    request.getfixturevalue("defect")
    torch.testing.assert_close(ask(), right, rtol=1e-12, atol=0)


@pytest.mark.parametrize("spoilt", [False, True])
def test_without_inference_mode_no_gradients_are_kept(spoilt, request):
    """Leaving inference mode switches gradients on: a thousand steps would keep their graphs."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def forward(self, x, t):
            seen.append(torch.is_grad_enabled())
            return self.linear(x)

    seen, model = [], EpsDenoiser(Net(), VESDE())
    if spoilt:
        request.getfixturevalue("defect")
    else:
        model.inference = False
    out = DDIM()(model, torch.randn(3, 1), log_snr(VESDE(), 3))
    assert not out.requires_grad and not any(seen)


def test_inference_mode_of_the_user(defect):
    """Outside the samplers too: rates, guidance, inverse methods, likelihoods."""
    sde, x, t = SubVPSDE(), torch.tensor([[0.3], [-0.4]]), torch.tensor(0.4)
    y = Measurement(Mask(torch.tensor([True])), torch.tensor([[0.5]]), 0.1)
    given = MomentMatching(law(sde), y)
    asked = [
        lambda: torch.stack(sde.rates(t)),
        lambda: law(sde).velocity(x, t),
        lambda: Guided(law(sde), lambda x, t: -(x[:, 0] ** 2))(x, t),
        lambda: given(x, t),
        lambda: log_likelihood(law(sde), x),
    ]
    for ask in asked:
        right = ask()
        with torch.inference_mode():
            torch.testing.assert_close(ask(), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("library", ["torchdiffeq", "torchsde"])
def test_a_library_first_imported_by_a_sampler_can_be_differentiated(library):
    """In a process of its own: its constants must not be inference tensors."""
    script = """
import gc, sys, torch
from scoresde import PFAdaptive, TorchSDE, VPSDE, sample
from scoresde.data import two_modes
sampler = {"torchdiffeq": PFAdaptive(method="dopri8"), "torchsde": TorchSDE("euler")}["%s"]
with torch.inference_mode():
    sample(two_modes(VPSDE()), sampler, (2, 1), torch.tensor([1.0, 0.5]), seed=0)
assert "%s" in sys.modules
gc.collect()
print(sum(isinstance(x, torch.Tensor) and x.is_inference() for x in gc.get_objects()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script % (library, library)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "0", done.stdout + done.stderr
