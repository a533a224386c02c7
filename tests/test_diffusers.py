"""The chain's samplers step by step against those of Hugging Face diffusers, noise for noise.

Their index k is our t = (k + 1)/N; their clean data, index -1, is our t = 0. They keep float32
tables, whose products of 1000 factors are what remains of the difference.
"""

import pytest
import torch

from scoresde import (
    DDIM,
    Ancestral,
    DDPMChain,
    DPMSolverPP,
    EpsDenoiser,
    GaussianMixture,
    UniPC,
)

N = 1000
CHAIN = DDPMChain.linear(N)
ONE_STEP, FULL_RUN = 2e-5, 8e-5  # relative to the largest number of the state


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(autouse=True)
def in_float32(float32):
    """As they compute."""


class Net(torch.nn.Module):
    """The exact eps of a mixture, in the place of a trained network."""

    def __init__(self):
        super().__init__()
        means = torch.tensor([[2.0, 0.0], [-1.5, 1.5], [0.0, -2.0]])
        self.law = GaussianMixture.isotropic(torch.ones(3), means, 0.3, CHAIN.sde())

    def forward(self, x, t):
        return self.law.eps(x, t)


NET = Net()
CASES = {  # theirs, its options, an option of its step, ours
    "fixed_small": ("DDPMScheduler", {"variance_type": "fixed_small"}, {}, Ancestral("posterior")),
    "fixed_large": ("DDPMScheduler", {"variance_type": "fixed_large"}, {}, Ancestral("beta")),
    "eta = 0": ("DDIMScheduler", {}, {"eta": 0.0}, DDIM(0.0)),
    "eta = 0.5": ("DDIMScheduler", {}, {"eta": 0.5}, DDIM(0.5)),
    "eta = 1": ("DDIMScheduler", {}, {"eta": 1.0}, DDIM(1.0)),
}
each_case = pytest.mark.parametrize("case", CASES)


def scheduler(diffusers, case, n):
    name, options, step, _ = CASES[case]
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    made = getattr(diffusers, name)(N, **betas, clip_sample=False, **options)
    made.set_timesteps(n)
    return made, step


def noise(seed):
    """The same numbers in the same order; none in the last step, where they add none."""
    generator = torch.Generator().manual_seed(seed)

    def draw(k, t, s, shape, device, dtype):
        return torch.randn(shape, generator=generator, dtype=dtype) * (s > 0)

    return draw


def assert_close(ours, theirs, tolerance):
    assert ours.dtype == theirs.dtype == torch.float32
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < tolerance


@each_case
@pytest.mark.parametrize("n", [1000, 50, 10])
def test_each_step(diffusers, case, n):
    theirs, options = scheduler(diffusers, case, n)
    denoiser = EpsDenoiser(NET, CHAIN.sde())
    for k in [*theirs.timesteps[:: max(1, n // 10)].tolist(), 0]:
        t, s = (k + 1) / N, max(0, k + 1 - N // n) / N
        x = NET.law.sample(64, torch.tensor(t)).float()
        eps = NET(x, torch.tensor(t))
        generator = torch.Generator().manual_seed(k)
        expected = theirs.step(eps, k, x, generator=generator, **options).prev_sample
        found = CASES[case][-1](denoiser, x, torch.tensor([t, s]), noise=noise(k))
        assert_close(found, expected, ONE_STEP)


@each_case
@pytest.mark.parametrize("n", [1000, 50])
def test_a_whole_run(diffusers, case, n):
    theirs, options = scheduler(diffusers, case, n)
    grid = torch.cat([CHAIN.grid()[N // n - 1 : N : N // n], torch.zeros(1)])
    assert [round(N * t) - 1 for t in grid[:-1].tolist()] == theirs.timesteps.tolist()
    x = start = torch.randn(64, 2)
    generator = torch.Generator().manual_seed(7)
    for k in theirs.timesteps:
        eps = NET(x, ((k + 1) / N).to(x.dtype))
        x = theirs.step(eps, k, x, generator=generator, **options).prev_sample
    found = CASES[case][-1](EpsDenoiser(NET, CHAIN.sde()), start, grid, noise=noise(7))
    assert_close(found, x, FULL_RUN)


def test_tables(diffusers):
    """alphas_cumprod[k] = alpha(t)^2, add_noise = q_sample; and the cosine's betas."""
    theirs, _ = scheduler(diffusers, "fixed_small", N)
    k, sde = torch.arange(N), CHAIN.sde()
    torch.testing.assert_close(
        theirs.alphas_cumprod, sde.alpha((k + 1) / N) ** 2, rtol=2e-5, atol=0
    )
    x, z = torch.randn(2, N, 2)
    assert_close(CHAIN.q_sample(x, k + 1, z), theirs.add_noise(x, z, k), ONE_STEP)
    cosine = diffusers.DDPMScheduler(N, beta_schedule="squaredcos_cap_v2").betas
    ours = torch.tensor(DDPMChain.cosine(N).betas)
    torch.testing.assert_close(cosine, ours, rtol=1e-5, atol=1e-8)


MULTISTEP = {  # theirs, its options, ours
    "2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, DPMSolverPP(2)),
    "UniPC-2": ("UniPCMultistepScheduler", {"solver_order": 2}, UniPC(2)),
    "UniPC-3": ("UniPCMultistepScheduler", {"solver_order": 3}, UniPC(3)),
    "UniPC-2 bh1": (
        "UniPCMultistepScheduler",
        {"solver_order": 2, "solver_type": "bh1"},
        UniPC(2, "bh1"),
    ),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("case", MULTISTEP)
def test_a_whole_run_of_multistep(diffusers, case):
    """Memory and corrector, on the grid they choose, up to its last time above 0.

    (To 0 theirs is infinite, unless the last steps are of lower order.)
    """
    name, options, ours = MULTISTEP[case]
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    theirs = getattr(diffusers, name)(
        N, **betas, **options, timestep_spacing="leading", lower_order_final=False
    )
    theirs.set_timesteps(20)
    grid = (theirs.timesteps + 1).double() / N
    x = start = torch.randn(64, 2)
    for k in theirs.timesteps[:-1]:
        eps = NET(x, ((k + 1) / N).to(x.dtype))
        x = theirs.step(eps, k, x).prev_sample
    found = ours(EpsDenoiser(NET, CHAIN.sde()), start, grid)
    assert_close(found, x, FULL_RUN)
