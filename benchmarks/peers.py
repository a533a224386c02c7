"""Other libraries' samplers on our laws and networks, each as its own documentation runs it.

A peer is made for a number of evaluations, ``make(nfe)``, and then walks: ``loop(eps, x)`` with
``eps(x, t)`` a function of the state and a time (). All the work that can be done once (tables,
times) is done by ``make`` and not timed. Noise levels are mapped to our t in float64, so that a
library sees the exact score *at the level it believes in*: rounding to integer timesteps does no
harm. A library that is not installed is left out, with one line that says so.

diffusers is given betas that reproduce the continuous VP-SDE at t = i/1000. Where a grid is named,
its nodes replace the scheduler's own (float32, as it keeps them). "zero": nodes from t = 1 to 1e-3
and a last step to sigma = 0; "stop": one more node and no last step, where the library cannot
reach sigma = 0 (the flag of diffusers' DEIS for log-SNR repeats the last node instead: its last
evaluation changes nothing). Their default grids keep their default ending.
"""

import copy
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from common import CACHE, SDE
from torch import Tensor, nn

from scoresde import DDPMChain, karras, log_snr, uniform
from scoresde.denoiser import like

sys.path.append(str(CACHE.parent / "peers"))  # where peers.sh puts two of them; last, shadows none

Net = Callable[[Tensor, Tensor], Tensor]
"""eps(x, t): x (B, *), t () -> (B, *)."""
Loop = Callable[[Net, Tensor], Tensor]
"""From x_T to samples."""
Grid = Callable[[int], Tensor]
GRIDS: dict[str, Grid] = {
    "log-SNR": lambda n: log_snr(SDE, n),
    "uniform t": uniform,
    "Karras": lambda n: karras(SDE, n),
}


@dataclass(frozen=True)
class Peer:
    """One sampler of another library.

    Args:
        library: its import name.
        name: of the sampler and its grid.
        make: evaluations -> loop.
        noise: whether it draws fresh noise.
    """

    library: str
    name: str
    make: Callable[[int], Loop]
    noise: bool = False

    @property
    def label(self) -> str:
        """Library and sampler."""
        return f"{self.library} {self.name}"


def peers(noise: bool | None = None, exact: bool = True) -> list[Peer]:
    """All that can be imported here, and one line on stderr for each library that cannot.

    Args:
        noise: only those with, or only those without, fresh noise.
        exact: whether a network is asked at our t. For timings it is not: it gets the library's
            own noise level, and nothing is spent on conversions that no user of it would make.
    """
    families: dict[str, Callable[..., Iterator[Peer]]] = {
        "diffusers": _diffusers,
        "azula": _azula,
        "torchdiffeq": _torchdiffeq,
        "torchsde": _torchsde,
        "k_diffusion": _k_diffusion,
        "smalldiffusion": _smalldiffusion,
    }
    found = []
    for library, family in families.items():
        if available(library):
            found += list(family(exact) if library in CONVERTED else family())
    return [peer for peer in found if noise is None or peer.noise == noise]


@cache
def available(library: str) -> bool:
    """Whether a library can be imported; says so once if it cannot."""
    try:
        if find_spec(library) is None:
            raise ImportError(f"not installed ({HINTS[library]})")
        if library in PARTS:
            _import_part(library, *PARTS[library])
        else:
            importlib.import_module(library)
    except Exception as error:  # a peer that breaks on import is absent, whatever it raises
        print(f"without {library}: {error}", file=sys.stderr)
        return False
    return True


CONVERTED = "azula", "k_diffusion", "smalldiffusion"
HINTS = {
    "diffusers": "pip install diffusers",
    "azula": "pip install --no-deps azula==0.11.1 einops",
    "torchdiffeq": "pip install torchdiffeq",
    "torchsde": "pip install torchsde",
    "k_diffusion": "see benchmarks/peers.sh",
    "smalldiffusion": "see benchmarks/peers.sh",
}


# Noise levels


def levels(ts: Tensor) -> Tensor:
    """sigma/alpha at our times; 0 at t = 0."""
    return (-SDE.lam(ts)).exp().where(ts > 0, 0.0)


def _time(sigmas: Tensor) -> Tensor:
    """Our times of noise levels sigma/alpha."""
    return SDE.time_of_log_snr(-2 * sigmas.log()).clamp(max=1)


def cast(times: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Times in the dtype and on the device of x, all in one copy."""
    return list(torch.stack(list(times)).to(x).unbind())


def to_zero(grid: Grid) -> Grid:
    """n evaluations: n nodes of the grid, and a last step to sigma = 0."""
    return lambda n: torch.cat([grid(n - 1) if n > 1 else grid(1)[:1], torch.zeros(1)])


# diffusers


@cache
def betas() -> list[float]:
    """Of the chain of 1000 steps that has the marginals of the SDE at t = i/1000."""
    return list(DDPMChain.from_sde(SDE, 1000).betas)


def _scheduler(name: str, **options: Any) -> Any:
    import diffusers

    made = getattr(diffusers, f"{name}Scheduler")
    return made(1000, trained_betas=betas(), **options)


def _diffusers_loop(name: str, grid: Grid | None, **options: Any) -> Callable[[int], Loop]:
    """A scheduler that keeps ``sigmas``."""

    def make(nfe: int) -> Loop:
        scheduler = _scheduler(name, **options)
        scheduler.set_timesteps(nfe)
        if grid is not None:
            scheduler.sigmas = levels(grid(nfe)).float()
        times = list(_time(scheduler.sigmas[:nfe].double()).unbind())
        ks = (1000 * torch.stack(times) - 1).round().long()
        scheduler.timesteps = ks.clamp(min=0)  # SASolver's tau depends on them, no other sampler
        return _diffusers_walk(scheduler, times)

    return make


def _diffusers_chain(name: str, spacing: str, **options: Any) -> Callable[[int], Loop]:
    """A scheduler that keeps ``alphas_cumprod``: its index k is our t = (k + 1)/1000."""

    def make(nfe: int) -> Loop:
        scheduler = _scheduler(name, timestep_spacing=spacing, clip_sample=False, **options)
        scheduler.set_timesteps(nfe)
        times = list((scheduler.timesteps.double() + 1).div(1000).unbind())
        return _diffusers_walk(scheduler, times)

    return make


def _diffusers_walk(scheduler: Any, times: Sequence[Tensor]) -> Loop:
    def loop(eps: Net, x: Tensor) -> Tensor:
        state = copy.copy(scheduler)  # as set_timesteps would leave it
        if hasattr(state, "model_outputs"):
            state.model_outputs = [None] * len(state.model_outputs)
            state.set_begin_index(0)
        if hasattr(state, "timestep_list"):
            state.timestep_list = [None] * len(state.timestep_list)
        for k, t in zip(state.timesteps, cast(times, x), strict=True):
            x = state.step(eps(x, t), k, x, return_dict=False)[0]
        return x

    return loop


def _diffusers() -> Iterator[Peer]:
    peer = lambda name, make, noise=False: Peer("diffusers", name, make, noise)
    yield peer("DDIM, leading (default)", _diffusers_chain("DDIM", "leading"))
    yield peer("DDIM, trailing", _diffusers_chain("DDIM", "trailing"))
    yield peer("DDPM, trailing", _diffusers_chain("DDPM", "trailing"), True)
    log_grid, stop = to_zero(GRIDS["log-SNR"]), GRIDS["log-SNR"]
    multistep = {
        "DPM++2M": ("DPMSolverMultistep", {"solver_order": 2}),
        "DPM++3M": ("DPMSolverMultistep", {"solver_order": 3}),
        "UniPC2": ("UniPCMultistep", {"solver_order": 2}),
        "UniPC3": ("UniPCMultistep", {"solver_order": 3}),
    }
    for name, (kind, options) in multistep.items():
        yield peer(f"{name}, linspace (default)", _diffusers_loop(kind, None, **options))
        yield peer(f"{name}, log-SNR", _diffusers_loop(kind, log_grid, **options))
    for order in (2, 3):
        deis = lambda grid, order=order, **options: _diffusers_loop(
            "DEISMultistep", grid, solver_order=order, **options
        )
        yield peer(f"DEIS{order}, linspace (default)", deis(None))
        yield peer(f"DEIS{order}, log-SNR", deis(None, use_exponential_sigmas=True))
        yield peer(f"DEIS{order}, log-SNR, stop", deis(stop))
    karras_grid = to_zero(GRIDS["Karras"])
    yield peer("DPM++2M, Karras", _diffusers_loop("DPMSolverMultistep", karras_grid))
    sde = {"algorithm_type": "sde-dpmsolver++"}
    for name, grid in {"linspace (default)": None, "log-SNR": log_grid}.items():
        made = _diffusers_loop("DPMSolverMultistep", grid, **sde)
        yield peer(f"DPM++2M-SDE, {name}", made, True)
    yield peer("SASolver, linspace (default)", _diffusers_loop("SASolver", None), True)
    yield peer("SASolver, log-SNR", _diffusers_loop("SASolver", stop), True)


# azula


def _azula_loop(
    exact: bool, name: str, grid: Grid, per_step: int = 1, **options: Any
) -> Callable[[int], Loop]:
    import azula.denoise
    import azula.noise
    import azula.sample

    class Ours(azula.noise.Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return SDE.alpha(t), SDE.sigma(t)

    schedule = Ours() if exact else azula.noise.VPSchedule()

    class Eps(azula.denoise.Denoiser):
        """Their denoiser for a network that predicts eps."""

        def __init__(self, eps: Net) -> None:
            super().__init__()
            self.eps, self.schedule = eps, schedule

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            alpha, sigma = self.schedule(t)
            return azula.denoise.DiracPosterior((x_t - sigma * self.eps(x_t, t)) / alpha)

    kind = getattr(azula.sample, f"{name}Sampler")

    def make(nfe: int) -> Loop:
        ts = grid(max(1, nfe // per_step))

        class OnGrid(kind):
            timesteps = property(lambda self: self.nodes)

        def loop(eps: Net, x: Tensor) -> Tensor:
            sampler = OnGrid(Eps(eps), silent=True, **options)
            sampler.nodes = ts.to(x.dtype)
            end: Tensor = sampler(x)
            return end

        return loop

    return make


def _azula(exact: bool) -> Iterator[Peer]:
    peer = lambda name, make, noise=False: Peer("azula", name, make, noise)
    stop = GRIDS["log-SNR"]
    yield peer("DDIM, uniform t (default)", _azula_loop(exact, "DDIM", GRIDS["uniform t"]))
    yield peer("DDIM, log-SNR", _azula_loop(exact, "DDIM", stop))
    yield peer("Heun, log-SNR", _azula_loop(exact, "Heun", stop, 2))
    for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (2, 3):
            yield peer(f"{kind}{order}, log-SNR", _azula_loop(exact, kind, stop, order=order))
    yield peer("xEAB2, uniform t (default)", _azula_loop(exact, "xEAB", GRIDS["uniform t"]))
    yield peer("DDPM, log-SNR", _azula_loop(exact, "DDPM", stop), True)
    yield peer("Ito, log-SNR", _azula_loop(exact, "Ito", stop), True)


# torchdiffeq and torchsde: general solvers on the ODE and the reverse SDE


def _velocity(eps: Net, x: Tensor, t: Tensor, scale: float = 0.5) -> Tensor:
    """-beta/2 x + scale beta/sigma eps: scale 1/2 for the ODE, 1 for the reverse SDE."""
    beta = _beta(t)
    sigma = (-torch.expm1(-t * (SDE.beta_min + 0.5 * t * (SDE.beta_max - SDE.beta_min)))).sqrt()
    return -0.5 * beta * x + scale * beta / sigma * eps(x, t)


def _beta(t: Tensor) -> Tensor:
    return SDE.beta_min + t * (SDE.beta_max - SDE.beta_min)


def _torchdiffeq_loop(method: str, per_step: int) -> Callable[[int], Loop]:
    from torchdiffeq import odeint

    def make(nfe: int) -> Loop:
        ts = log_snr(SDE, max(1, nfe // per_step))

        def loop(eps: Net, x: Tensor) -> Tensor:
            path = odeint(lambda t, x: _velocity(eps, x, t), x, ts.to(x), method=method)
            end: Tensor = path[-1]
            return end

        return loop

    return make


def _torchdiffeq() -> Iterator[Peer]:
    for method, per_step in {"euler": 1, "rk4": 4}.items():
        made = _torchdiffeq_loop(method, per_step)
        yield Peer("torchdiffeq", f"{method}, log-SNR", made)


def _torchsde() -> Iterator[Peer]:
    import torchsde

    class Reverse(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self, eps: Net) -> None:
            super().__init__()
            self.eps = eps

        def f(self, r: Tensor, y: Tensor) -> Tensor:
            return -_velocity(self.eps, y, 1 - r, 1.0)

        def g(self, r: Tensor, y: Tensor) -> Tensor:
            return _beta(1 - r).sqrt().expand_as(y)

    def make(nfe: int) -> Loop:
        dt = (1 - 1e-3) / nfe * (1 + 1e-6)  # or rounding adds a step

        def loop(eps: Net, x: Tensor) -> Tensor:
            ends = torch.tensor([0, 1 - 1e-3]).to(x)
            flat: Net = lambda y, t: eps(y.reshape(x.shape), t).flatten(1)  # its state has no more
            path = torchsde.sdeint(Reverse(flat), x.flatten(1), ends, method="euler", dt=dt)
            end: Tensor = path[-1]
            return end.reshape(x.shape)

        return loop

    yield Peer("torchsde", "euler, uniform t", make, True)


# k-diffusion and smalldiffusion, which ask for torchvision: from the folder of peers.sh


def _import_part(library: str, part: str, stand_ins: Mapping[str, Sequence[str]]) -> ModuleType:
    """One module of a package whose ``__init__`` asks for what is not there.

    What that module takes from missing packages is never called here (conversions of pictures,
    a training loop), so that empty modules stand in for them while it is imported.

    Args:
        library: the package.
        part: the module in it that holds the samplers.
        stand_ins: missing module -> the names that are imported from it.
    """
    if f"{library}.{part}" in sys.modules:
        return sys.modules[f"{library}.{part}"]
    spec = find_spec(library)
    package = ModuleType(library)
    package.__path__ = list((spec and spec.submodule_search_locations) or ())
    empty = {name: ModuleType(name) for name in stand_ins if name not in sys.modules}
    for name, module in empty.items():
        vars(module).update(dict.fromkeys(stand_ins[name]))
    sys.modules.update({library: package} | empty)
    try:
        return importlib.import_module(f"{library}.{part}")
    finally:
        for name in (library, *empty):
            del sys.modules[name]


PARTS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "k_diffusion": (
        "sampling",
        {"torchvision": ["transforms"], "torchvision.transforms": ["functional"]},
    ),
    "smalldiffusion": ("diffusion", {"accelerate": ["Accelerator"]}),
}


def _k_loop(exact: bool, name: str, grid: Grid) -> Callable[[int], Loop]:
    """In the coordinates x/alpha, sigma/alpha, as their wrapper of a VP network does it."""
    run = getattr(_import_part("k_diffusion", *PARTS["k_diffusion"]), f"sample_{name}")

    def make(nfe: int) -> Loop:
        sigmas = levels(grid(nfe))

        def loop(eps: Net, x: Tensor) -> Tensor:
            def model(y: Tensor, sigma: Tensor) -> Tensor:
                t = _time(sigma) if exact else sigma
                wide = like(sigma, y)
                return y - wide * eps(y * (1 + wide**2).rsqrt(), t)

            nodes = sigmas.to(x)
            first = x * (1 + nodes[0] ** 2).sqrt()
            end: Tensor = run(model, first, nodes, disable=True)
            return end

        return loop

    return make


def _k_diffusion(exact: bool) -> Iterator[Peer]:
    zero, zero_karras = to_zero(GRIDS["log-SNR"]), to_zero(GRIDS["Karras"])
    halves: Grid = lambda n: zero((n + 1) // 2)  # Heun: two a step, one in the last
    for name in ("euler", "dpmpp_2m", "lms"):
        yield Peer("k_diffusion", f"{name}, log-SNR", _k_loop(exact, name, zero))
    yield Peer("k_diffusion", "heun, log-SNR", _k_loop(exact, "heun", halves))
    yield Peer("k_diffusion", "dpmpp_2m, Karras", _k_loop(exact, "dpmpp_2m", zero_karras))
    for name in ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        yield Peer("k_diffusion", f"{name}, log-SNR", _k_loop(exact, name, zero), True)


def _smalldiffusion_loop(exact: bool, grid: Grid, **options: Any) -> Callable[[int], Loop]:
    part = _import_part("smalldiffusion", *PARTS["smalldiffusion"])

    class Model(nn.Module):
        """What its loop asks of a network."""

        def __init__(self, eps: Net, like_x: Tensor) -> None:
            super().__init__()
            self.eps, self.like_x = eps, like_x

        def predict_eps_cfg(self, x: Tensor, sigma: Tensor, *_: Any) -> Tensor:
            t = _time(sigma) if exact else sigma
            return self.eps(x * (1 + sigma**2).rsqrt(), t)

        def rand_input(self, batchsize: int) -> Tensor:
            return torch.randn_like(self.like_x)

    def make(nfe: int) -> Loop:
        sigmas = levels(grid(nfe))

        def loop(eps: Net, x: Tensor) -> Tensor:
            nodes = sigmas.to(x)
            first = x * (1 + nodes[0] ** 2).sqrt()
            here = SimpleNamespace(device=x.device)
            *_, end = part.samples(Model(eps, x), nodes, xt=first, accelerator=here, **options)
            last: Tensor = end
            return last

        return loop

    return make


def _smalldiffusion(exact: bool) -> Iterator[Peer]:
    made = partial(_smalldiffusion_loop, exact, to_zero(GRIDS["log-SNR"]))
    yield Peer("smalldiffusion", "DDIM, log-SNR", made())
    yield Peer("smalldiffusion", "accelerated (gam 2), log-SNR", made(gam=2))
    yield Peer("smalldiffusion", "DDPM, log-SNR", made(gam=1, mu=0.5), True)
