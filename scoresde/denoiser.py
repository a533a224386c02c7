r"""Denoisers: everything a sampler needs to know about the data.

A denoiser is the function  x0_hat(x, t) = E[x0 | x_t = x].  It stays bounded as t -> 0, and all
other quantities follow from it and the two functions of the process:

    eps      = (x - alpha x0_hat)/sigma              the noise in x
    v        = alpha eps - sigma x0_hat              a prediction (not the velocity)
    score    = (alpha x0_hat - x)/sigma^2            grad_x log p_t(x), Tweedie
    velocity = f x - g^2/2 score                     the probability-flow ODE dx/dt

A network predicts one of them; which one is the choice of a subclass of four lines.

References:
    Song et al. 2021 (arXiv:2011.13456), eq. 13; Salimans and Ho 2022 (arXiv:2202.00512), app. D
    (v); Karras et al. 2022 (arXiv:2206.00364), eq. 7 (EDM); Efron 2011 (Tweedie's formula).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .sde import SDE, like

__all__ = [
    "Affine",
    "Along",
    "Denoiser",
    "EDMDenoiser",
    "EpsDenoiser",
    "Given",
    "ScoreDenoiser",
    "VDenoiser",
    "Wrapper",
    "X0Denoiser",
    "anchor",
    "like",
    "onto",
]


Along = Callable[[int, Tensor], Tensor]
"""The answer of a denoiser at the k-th of some times: (k, x) -> u_k x + w_k x0_hat."""


class Affine(nn.Module):
    """The map between the user's units x and the model's z: x = mean + scale z.

    Args:
        mean: (*event).
        scale: positive standard deviations (*event), or an invertible matrix (d, d) for full
            whitening of the flattened event.
    """

    __call__: Callable[..., Tensor]
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        """Keep the map as buffers, so that it is saved and moved with a model."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @classmethod
    def fit(cls, x: Tensor, whiten: float = 0.0) -> "Affine":
        r"""Mean and standard deviation of each coordinate of x (n, *); whitened to a power.

        With C = D P D the covariance, D the standard deviations and P the correlations,

            scale = D P^{whiten/2},        so white noise in z is noise of covariance D P^whiten D.

        0 keeps the standard deviations alone; 1 (or True) removes the full covariance, by the
        whitening that keeps each z_i as near as can be to its x_i. Smooth paths fill few of their
        directions: noise that is white in x is far rougher than they are, and in fully whitened
        units the directions that hardly occur count as much as all others. In between, at 1/2,
        the noise has the geometric mean of both spectra, and so have the data in z. Eigenvalues
        below 1e-9 of the largest are taken for that.

        Args:
            x: data, (n, *).
            whiten: power of the correlations that is removed, 0 to 1; True is 1.

        Raises:
            ValueError: if x is empty, not finite, or constant along a coordinate, or, for full
                whitening, if its covariance is singular.

        References:
            Kessy, Lewin and Strimmer 2018 (arXiv:1512.00809), eq. 13 (whiten = 1: "ZCA-cor").
        """
        check_data(x)
        if not 0 <= whiten <= 1:
            raise ValueError(
                f"expected 0 <= whiten <= 1, a power of the correlations, got {whiten}"
            )
        wide = x.double()
        mean, std = wide.mean(0), wide.std(0, correction=0)
        if whiten == 0:
            return cls(mean.to(x.dtype), std.to(x.dtype))
        unit = ((wide - mean) / std).flatten(1)
        values, basis = torch.linalg.eigh(unit.T @ unit / len(unit))
        if whiten == 1 and float(values[0]) < 1e-12 * float(values[-1]):
            raise ValueError(
                "expected coordinates that are linearly independent, got a singular covariance: "
                f"{len(x)} samples in {len(values)} dimensions; use whiten=False, or for smooth "
                "paths whiten=0.5"
            )
        if whiten < 1:
            values = values.clamp(min=1e-9 * float(values[-1]))
        root = (basis * values ** (0.5 * whiten)) @ basis.T
        return cls(mean.to(x.dtype), (std.flatten()[:, None] * root).to(x.dtype))

    @property
    def whitens(self) -> bool:
        """Whether ``scale`` is a matrix acting on the flattened event."""
        return self.scale.shape != self.mean.shape

    def check(self, event: Sequence[int]) -> None:
        """Refuse samples of another shape; a scale for all entries, or a channel, fits many."""
        own, event = tuple(self.mean.shape), tuple(event)
        pairs = zip(own[::-1], event[::-1], strict=False)
        spread = len(own) <= len(event) and all(a in (1, b) for a, b in pairs)
        if event != own and (self.whitens or not spread):
            raise ValueError(
                f"expected samples of shape {own}, as the units of this model are for, got {event}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """From the user's units to the model's: z = (x - mean)/scale, (B, *) -> (B, *)."""
        self.check(x.shape[1:])
        centred = x - self.mean
        if not self.whitens:
            return centred / self.scale
        z: Tensor = torch.linalg.solve(self.scale, centred.flatten(1).T)
        return z.mT.reshape(x.shape)

    def inverse(self, z: Tensor) -> Tensor:
        """From the model's units to the user's: x = mean + scale z, (B, *) -> (B, *)."""
        self.check(z.shape[1:])
        if not self.whitens:
            return self.mean + self.scale * z
        return self.mean + (z.flatten(1) @ self.scale.T).reshape(z.shape)

    def log_det(self) -> Tensor:
        """log |dx/dz| in nats; log p(x) = log p(z) - log_det."""
        if not self.whitens:
            return self.scale.log().sum()
        log_det: Tensor = torch.linalg.slogdet(self.scale)[1]
        return log_det


class Denoiser(nn.Module, ABC):
    """A model of E[x0 | x_t = x] for one process; subclasses define ``forward``.

    Shapes: x (B, *), t () or (B,) in [0, 1]; every function returns a tensor of the shape of x.
    Conditions (a label y, say) are passed by name; bind them with ``Given``.
    """

    __call__: Callable[..., Tensor]
    sde: SDE
    regular: bool = False
    """Whether score and velocity are finite at t = 0 (those of a network are not)."""
    inference: bool = True
    """Whether samplers may call it in inference mode; not where it calls torch.autograd inside."""
    affine: Affine | None
    """The map to the user's units; ``sample`` applies it to what it returns."""

    def __init__(self, sde: SDE, affine: Affine | None = None) -> None:
        """Keep the process and the units."""
        super().__init__()
        self.sde = sde
        self.affine = affine

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat(x, t) = E[x0 | x_t = x]."""

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The noise in x: (x - alpha x0_hat)/sigma."""
        return (x - self._alpha(x, t) * self(x, t, **cond)) / self._sigma(x, t)

    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """alpha eps - sigma x0_hat (a prediction; not ``velocity``)."""
        alpha, sigma, x0_hat = self._alpha(x, t), self._sigma(x, t), self(x, t, **cond)
        return alpha / sigma * (x - alpha * x0_hat) - sigma * x0_hat

    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """grad_x log p_t(x) = (alpha x0_hat - x)/sigma^2 = -eps/sigma, in 1/units of x."""
        return -self.eps(x, t, **cond) / self._sigma(x, t)

    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """dx/dt of the probability-flow ODE: f x - g^2/2 score (Song et al. 2021, eq. 13)."""
        f, g2 = (like(rate, x) for rate in self.sde.rates(t))
        return f * x - 0.5 * g2 * self.score(x, t, **cond)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """The denoiser on a grid of times: (k, x) -> u_k x + w_k x0_hat(x, t_k).

        What depends on time alone is computed here, once and in float64, where a subclass knows
        how: a loop over the grid then costs what the network costs.

        Args:
            ts: times (R,), float64 on the CPU.
            x: any state of the batch, for its shape, dtype and device.
            u: factors of x, (R,) like ts; 0 if not given.
            w: factors of x0_hat, (R,); 1 if not given.
            cond: conditions, for all of the grid.
        """
        times = onto(ts, x)
        us, ws = _factors(ts, u, 0.0), _factors(ts, w, 1.0)
        return lambda k, x: _mix(x, us[k], self(x, times[k], **cond), ws[k])

    def part(self, index: slice) -> "Denoiser":
        """The same denoiser for these samples of a batch: their conditions are cut out."""
        return self

    def _alpha(self, x: Tensor, t: Tensor) -> Tensor:
        return like(self.sde.alpha(t), x)

    def _sigma(self, x: Tensor, t: Tensor) -> Tensor:
        return like(self.sde.sigma(t), x)


class _Network(Denoiser):
    """A denoiser read off a network: x0_hat = skip x + out F, F = net(scale x, time, **cond).

    A subclass is the pair (skip, out); F is what the network predicts, and where that is eps, say,
    ``eps`` is F itself.
    """

    def __init__(self, net: nn.Module, sde: SDE, affine: Affine | None = None) -> None:
        """Keep the network, the process and the units.

        Args:
            net: called with x (B, *), t () or (B,) in [0, 1] and the conditions by name.
            sde: the process whose noise it removes.
            affine: map to the user's units, if the network was trained on scaled data.
        """
        super().__init__(sde, affine)
        self.net = net

    @abstractmethod
    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, out) at times of any shape."""

    def inputs(self, t: Tensor) -> tuple[Tensor | None, Tensor]:
        """(scale, time): what the network is called with; no scale is 1."""
        return None, t

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Skip x + out F."""
        skip, out = (like(c, x) for c in self.mix(t))
        return skip * x + out * self._own(x, t, **cond)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """(u + w skip) x + w out F: a network of eps gives its output where eps is asked."""
        if type(self).forward is not _Network.forward:
            return super().along(ts, x, u, w, **cond)  # a subclass with an answer of its own
        skip, out = self.mix(ts)
        if w is not None:
            skip, out = w * skip, w * out
        us, ws = _factors(ts, skip if u is None else u + skip, 0.0), _factors(ts, out, 1.0)
        scale, time = self.inputs(ts)
        scales = None if scale is None else scale.tolist()
        times = onto(time, x)

        def evaluate(k: int, x: Tensor) -> Tensor:
            own = self.net(x if scales is None else x * scales[k], times[k], **cond)
            return _mix(x, us[k], own, ws[k])

        return evaluate

    def _own(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        scale, time = self.inputs(t)
        x = x if scale is None else like(scale, x) * x
        out: Tensor = self.net(x, time.to(x.dtype), **cond)
        return out


class EpsDenoiser(_Network):
    """A network that predicts eps: x0_hat = (x - sigma eps)/alpha (Ho et al. 2020, eq. 15)."""

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1/alpha and -sigma/alpha."""
        alpha = self.sde.alpha(t)
        return 1 / alpha, -self.sde.sigma(t) / alpha

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The network's own output."""
        return self._own(x, t, **cond)


class X0Denoiser(_Network):
    """A network that predicts x0 itself."""

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """0 and 1."""
        return torch.zeros_like(t), torch.ones_like(t)


class VDenoiser(_Network):
    """A network that predicts v: x0_hat = (alpha x - sigma v)/(alpha^2 + sigma^2)."""

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and -sigma over alpha^2 + sigma^2, for any process."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        total = alpha**2 + self.sde.sigma2(t)
        return alpha / total, -sigma / total

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """(sigma x + alpha v)/(alpha^2 + sigma^2): regular at t = 0."""
        alpha, sigma = self._alpha(x, t), self._sigma(x, t)
        return (sigma * x + alpha * self._own(x, t, **cond)) / (alpha**2 + sigma**2)

    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The network's own output."""
        return self._own(x, t, **cond)


class ScoreDenoiser(_Network):
    """A network that predicts the score: x0_hat = (x + sigma^2 score)/alpha."""

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1/alpha and sigma^2/alpha."""
        alpha = self.sde.alpha(t)
        return 1 / alpha, self.sde.sigma2(t) / alpha

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """-sigma score."""
        return -self._sigma(x, t) * self.score(x, t, **cond)

    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The network's own output."""
        return self._own(x, t, **cond)


class EDMDenoiser(_Network):
    r"""A network F preconditioned as in EDM, in the coordinates y = x/alpha, s = sigma/alpha.

        x0_hat = c_skip y + c_out F(c_in y, c_noise),      c_noise = log(s)/4,
        c_skip = d^2/(s^2 + d^2),   c_out = s d/sqrt(s^2 + d^2),   c_in = 1/sqrt(s^2 + d^2).

    The network's time input is c_noise, not t.

    Args:
        net: F.
        sde: the process.
        affine: map to the user's units.
        sigma_data: d, the standard deviation of the data in the model's units.

    References:
        Karras et al. 2022, eq. 7 and table 1.
    """

    def __init__(
        self, net: nn.Module, sde: SDE, affine: Affine | None = None, sigma_data: float = 1.0
    ) -> None:
        """Keep the network, the process, the units and d."""
        super().__init__(net, sde, affine)
        if not sigma_data > 0:
            raise ValueError(f"expected sigma_data > 0, got {sigma_data}")
        self.sigma_data = sigma_data

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip/alpha and c_out."""
        d, s = self.sigma_data, (-self.sde.lam(t)).exp()
        total = s**2 + d**2
        return d**2 / total / self.sde.alpha(t), s * d / total.sqrt()

    def inputs(self, t: Tensor) -> tuple[Tensor | None, Tensor]:
        """c_in/alpha and c_noise."""
        lam = self.sde.lam(t)
        c_in = ((-2 * lam).exp() + self.sigma_data**2).rsqrt()
        return c_in / self.sde.alpha(t), -0.25 * lam


class Wrapper(Denoiser):
    """A denoiser made from another: same process, same units."""

    def __init__(self, denoiser: Denoiser) -> None:
        """Keep the denoiser within."""
        super().__init__(denoiser.sde, denoiser.affine)
        self.denoiser = denoiser
        self.regular = denoiser.regular
        self.inference = denoiser.inference

    def part(self, index: slice) -> Denoiser:
        """The same wrapper around that part; override it if the wrapper holds conditions too."""
        inner = self.denoiser.part(index)
        if inner is self.denoiser:
            return self
        twin = copy.copy(self)
        twin._modules = {**self._modules, "denoiser": inner}
        return twin


class Given(Wrapper):
    """A conditional denoiser with its conditions bound: Given(denoiser, y=labels).

    Args:
        denoiser: takes the conditions by name.
        cond: values; a tensor whose first dimension counts samples is cut with the batch, a
            tensor () or a plain number holds for all samples.
    """

    def __init__(self, denoiser: Denoiser, **cond: Any) -> None:
        """Keep the conditions."""
        super().__init__(denoiser)
        self.cond = cond

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat under the bound conditions."""
        return self._ask(self.denoiser, x, t, cond)

    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Eps under the bound conditions."""
        return self._ask(self.denoiser.eps, x, t, cond)

    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """V under the bound conditions."""
        return self._ask(self.denoiser.v, x, t, cond)

    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Score under the bound conditions."""
        return self._ask(self.denoiser.score, x, t, cond)

    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Velocity under the bound conditions."""
        return self._ask(self.denoiser.velocity, x, t, cond)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """Along the grid under the bound conditions."""
        bound = {name: _spread(value, x) for name, value in self.cond.items()}
        return self.denoiser.along(ts, x, u, w, **bound | cond)

    def part(self, index: slice) -> "Given":
        """Bind these samples' conditions."""
        cond = {name: _cut(value, index) for name, value in self.cond.items()}
        return Given(self.denoiser.part(index), **cond)

    def _ask(
        self, function: Callable[..., Tensor], x: Tensor, t: Tensor, cond: dict[str, Any]
    ) -> Tensor:
        bound = {name: _spread(value, x) for name, value in self.cond.items()}
        return function(x, t, **bound | cond)  # as functools.partial does


def _factors(ts: Tensor, values: Tensor | None, usual: float) -> list[float]:
    """Plain numbers, one for each time; what is the usual one but for rounding, is that."""
    if values is None:
        return [usual] * len(ts)
    return [usual if abs(v - usual) < 1e-14 else v for v in values.tolist()]


def _mix(x: Tensor, u: float, y: Tensor, w: float) -> Tensor:
    """U x + w y; y itself where that is meant."""
    if u == 0 and w == 1:
        return y
    return torch.mul(x, u).add_(y, alpha=w)


def anchor(module: nn.Module, otherwise: Tensor | None = None) -> Tensor:
    """A tensor of a module: what is made for it goes to its device, in its dtype.

    A parameter, else a buffer (an exact distribution has no parameters), else what is given, or
    a number of torch's default dtype on the host.
    """
    tensors = (a for a in chain(module.parameters(), module.buffers()) if a.is_floating_point())
    return next(tensors, torch.empty(0) if otherwise is None else otherwise).detach()


def onto(ts: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Times (R,) as R tensors () of the dtype and on the device of x: one copy, no waiting."""
    return ts.to(x.dtype).to(x.device, non_blocking=True).unbind()


def _cut(value: object, index: slice) -> object:
    return value[index] if isinstance(value, Tensor) and value.ndim else value


def _spread(value: object, x: Tensor) -> object:
    """A number or a () tensor becomes one entry for each sample."""
    if isinstance(value, int):
        return torch.full((len(x),), value, device=x.device)
    if isinstance(value, Tensor) and value.ndim == 0:
        return value.expand(len(x))
    if isinstance(value, Tensor) and len(value) != len(x):
        raise ValueError(
            f"expected a condition for each of {len(x)} samples, got {len(value)}: "
            "bind a single value, or as many as there are samples"
        )
    return value


def check_data(x: Tensor) -> None:
    """Refuse data that are empty, not numbers, or constant along a coordinate: (n, *)."""
    if x.ndim < 2 or len(x) < 2 or x[0].numel() == 0:
        raise ValueError(
            f"expected data of shape (n, *) with n >= 2 samples, got {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"expected floating-point data, got {x.dtype}: convert with .float()")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise ValueError(f"expected finite data, got NaN or infinity in {bad} of {len(x)} samples")
    constant = (x == x[:1]).all(0).flatten().nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"expected every coordinate to vary, but {len(constant)} are constant "
            f"(first: {constant[0]}): remove them, they need no model"
        )
