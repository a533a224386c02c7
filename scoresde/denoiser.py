r"""Denoisers: everything a sampler needs to know about the data.

A denoiser is the function  x0_hat(x, t) = E[x0 | x_t = x].  It stays bounded as t -> 0, and the
noise, v, the score and the velocity of the probability-flow ODE follow from it by the table of
``scoresde.prediction``. A network predicts one of them; which one is one word in a subclass.

A class answers by the method that it defines itself, and what it does not define follows:

    forward(x, t)              x0_hat alone: the least that makes a denoiser
    predict(quantity, x, t)    any quantity, where another than x0_hat is known or a wrapper passes
                               the question on
    along(ts, x, u, w)         the same on a grid, for what can be computed once for all of it

What samplers with particles and shifted steps ask besides has defaults too: ``tilt``, ``twist``,
``log_target`` and, of a ``Wrapper``, ``pull``.
"""

import copy
import math
from abc import ABC
from collections.abc import Callable, Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any, ClassVar, TypeGuard, final

import torch
from torch import Tensor, nn

from .prediction import Known, Quantity, convert, factors
from .sde import SDE, like
from .tilt import Tilt, alone

__all__ = [
    "Affine",
    "Along",
    "Condition",
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
Condition = Tensor | float | None
"""A condition that ``Given`` binds."""


class Affine(nn.Module):
    """The map between the user's units x and the model's z: x = mean + scale z.

    Args:
        mean: (*event), or () for one number for all coordinates.
        scale: positive standard deviations of the shape of mean, or an invertible matrix (d, d)
            for full whitening of the flattened event.

    Raises:
        ValueError: if the shapes do not fit each other, or the map has no inverse.
    """

    __call__: Callable[..., Tensor]
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        """Keep the map as buffers, so that it is saved and moved with a model."""
        super().__init__()
        _check_map(mean, scale)
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
        mean = wide.mean(0)
        std = _spread(wide - mean)
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
        """Raise an error unless samples have the shape of mean; a mean () fits every shape."""
        own, event = tuple(self.mean.shape), tuple(event)
        if own and event != own:
            raise ValueError(
                f"expected samples of shape {own}, as the units of this model are for, got "
                f"{event}: a mean () and a scale () hold for all coordinates of any event"
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

    def log_det(self, x: Tensor | None = None) -> Tensor:
        """log |dx/dz| in nats, (); log p(x) = log p(z) - log_det.

        Args:
            x: any batch (B, *event), for its shape; needed where one number scales all of them.
        """
        if self.whitens:
            log_det: Tensor = torch.linalg.slogdet(self.scale)[1]
            return log_det
        if self.scale.ndim:
            return self.scale.log().sum()
        if x is None:
            raise ValueError(
                "expected x (B, *event), got none: one number scales all coordinates, and the "
                "determinant counts them"
            )
        return x.shape[1:].numel() * self.scale.log()


class Denoiser(nn.Module, ABC):
    """A model of E[x0 | x_t = x] for one process; subclasses define ``forward`` or ``predict``.

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let what the class does not define follow from what it does, as the module says."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        for name in ("eps", "v", "score", "velocity"):
            if name in own:
                raise TypeError(
                    f"expected {cls.__name__} to leave {name} to predict, but it defines it: "
                    "override predict(quantity, x, t, **cond), from which all quantities follow, "
                    "or forward, if x0_hat is what changes"
                )
        if not own.keys() & {"forward", "predict"}:
            return
        if "along" not in own:
            cls.along = Denoiser.along  # type: ignore[method-assign]
        if "predict" not in own:
            cls.predict = _from_x0(cls)  # type: ignore[method-assign]
        elif "forward" not in own:
            cls.forward = _x0(cls)  # type: ignore[method-assign]

    def __init__(self, sde: SDE, affine: Affine | None = None) -> None:
        """Keep the process and the units."""
        super().__init__()
        if type(self).predict is Denoiser.predict and type(self).forward is Denoiser.forward:
            raise TypeError(
                f"expected {type(self).__name__} to define forward(x, t), x0_hat, or "
                "predict(quantity, x, t), but it defines neither"
            )
        self.sde = sde
        self.affine = affine

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat(x, t) = E[x0 | x_t = x]: what a call gives."""
        raise NotImplementedError(f"{type(self).__name__} defines neither forward nor predict")

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Any of x0, eps, v, score and velocity at (x, t), of the shape of x.

        By the table of ``prediction`` from x0_hat, unless overridden. At sigma = 0 what divides by
        it is not finite, and nothing is read back from the device to say so: samplers and
        likelihoods refuse a grid that touches t = 0 where it would matter.

        Args:
            quantity: which one.
            x: states (B, *).
            t: () or (B,).
            cond: conditions, by name.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither forward nor predict")

    @final
    def eps(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The noise in x: (x - alpha x0_hat)/sigma."""
        return self.predict("eps", x, t, **cond)

    @final
    def v(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """alpha eps - sigma x0_hat (a prediction; not ``velocity``)."""
        return self.predict("v", x, t, **cond)

    @final
    def score(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """grad_x log p_t(x) = (alpha x0_hat - x)/sigma^2 = -eps/sigma, in 1/units of x."""
        return self.predict("score", x, t, **cond)

    @final
    def velocity(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """dx/dt of the probability-flow ODE: f x - g^2/2 score (Song et al. 2021, eq. 13)."""
        return self.predict("velocity", x, t, **cond)

    def tilt(self, x: Tensor, t: Tensor, **cond: Any) -> Tilt:
        """The product of powers of densities whose score this is, for ``samplers.FeynmanKac``.

        One density to the power 1, unless overridden: nothing to correct.
        """
        return alone(self.score(x, t, **cond))

    def twist(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x0_hat unguided, the pull on the score, log h of which it is the gradient).

        What ``samplers.TwistedSMC`` steers by: (B, *), (B, *) and (B,). Nothing pulls, unless
        overridden.
        """
        return self(x, t), torch.zeros_like(x), x.new_zeros(len(x))

    def log_target(self, x: Tensor, t: Tensor) -> Tensor:
        """The logarithm of the factor that multiplies the unguided distribution, (B,).

        For ``samplers.TwistedSMC``; of x itself at t = 0. Zero, unless overridden with
        ``twist``.
        """
        return x.new_zeros(len(x))

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
        us, ws = numbers(ts, u, w)
        return lambda k, x: blend(x, us[k], self(x, times[k], **cond), ws[k])

    @property
    def samples(self) -> int | None:
        """Number of samples that its conditions belong to; None where they hold for any number."""
        return None

    def part(self, index: slice) -> "Denoiser":
        """The same denoiser for these samples of a batch: their conditions are cut out."""
        return self


# What follows calls the method of the class that defines it, so that super() never comes back.


def _x0(cls: type[Denoiser]) -> Callable[..., Tensor]:
    """``forward`` of a class that defines predict."""

    def forward(self: Denoiser, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """x0_hat(x, t) = E[x0 | x_t = x]: what a call gives."""
        return cls.predict(self, "x0", x, t, **cond)

    return forward


def _from_x0(cls: type[Denoiser]) -> Callable[..., Tensor]:
    """``predict`` of a class that defines forward."""

    def predict(self: Denoiser, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """Any of x0, eps, v, score and velocity, from x0_hat by the table of ``prediction``."""
        return convert(self.sde, "x0", quantity, x, t, cls.forward(self, x, t, **cond))

    return predict


class _Network(Denoiser):
    """A denoiser read off a network, F = net(scale x, time, **cond); a subclass says what F is."""

    predicts: ClassVar[Known]
    """The quantity that the network returns."""
    sigma_data: float = 1.0
    """d of the table, where F is EDM's."""

    def __init__(self, net: nn.Module, sde: SDE, affine: Affine | None = None) -> None:
        """Keep the network, the process and the units.

        Args:
            net: called with x (B, *), t () or (B,) in [0, 1] and the conditions by name.
            sde: the process whose noise it removes.
            affine: map to the user's units, if the network was trained on scaled data.
        """
        super().__init__(sde, affine)
        self.net = net

    def inputs(self, t: Tensor) -> tuple[Tensor | None, Tensor]:
        """(scale, time): what the network is called with; no scale is 1."""
        return None, t

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The quantity a x + b F by the table; F itself where that is asked."""
        like(t, x)  # refuses times of another shape, before the network does in its own words
        scale, time = self.inputs(t)
        own: Tensor = self.net(
            x if scale is None else like(scale, x) * x, time.to(x.dtype), **cond
        )
        return convert(self.sde, self.predicts, quantity, x, t, own, self.sigma_data)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """(u + w a) x + w b F: a network of eps gives its output where eps is asked."""
        us, ws = self._own_factors(ts, u, w)
        scale, time = self.inputs(ts)
        scales = None if scale is None else scale.tolist()
        times = onto(time, x)

        def evaluate(k: int, x: Tensor) -> Tensor:
            own = self.net(x if scales is None else x * scales[k], times[k], **cond)
            return blend(x, us[k], own, ws[k])

        return evaluate

    def _own_factors(
        self, ts: Tensor, u: Tensor | None, w: Tensor | None
    ) -> tuple[list[float], list[float]]:
        """Factors of x and F in u x + w x0_hat."""
        a, b = factors(self.sde, self.predicts, "x0", ts, self.sigma_data)
        if w is not None:
            a, b = None if a is None else w * a, w if b is None else w * b
        if u is not None:
            a = u if a is None else u + a
        return numbers(ts, a, b)


class EpsDenoiser(_Network):
    """A network that predicts eps: x0_hat = (x - sigma eps)/alpha (Ho et al. 2020, eq. 15)."""

    predicts = "eps"


class X0Denoiser(_Network):
    """A network that predicts x0 itself."""

    predicts = "x0"


class VDenoiser(_Network):
    """A network that predicts v: x0_hat = (alpha x - sigma v)/(alpha^2 + sigma^2)."""

    predicts = "v"


class ScoreDenoiser(_Network):
    """A network that predicts the score: x0_hat = (x + sigma^2 score)/alpha."""

    predicts = "score"


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

    predicts = "F"

    def __init__(
        self, net: nn.Module, sde: SDE, affine: Affine | None = None, sigma_data: float = 1.0
    ) -> None:
        """Keep the network, the process, the units and d."""
        super().__init__(net, sde, affine)
        if not sigma_data > 0:
            raise ValueError(f"expected sigma_data > 0, got {sigma_data}")
        self.sigma_data = sigma_data

    def inputs(self, t: Tensor) -> tuple[Tensor | None, Tensor]:
        """c_in/alpha = 1/sqrt(sigma^2 + alpha^2 d^2) and c_noise."""
        variance = self.sde.sigma2(t) + (self.sigma_data * self.sde.alpha(t)).square()
        return variance.rsqrt(), -0.25 * self.sde.lam(t)


class Wrapper(Denoiser):
    """A denoiser made from another: same process, same units, its answers unless overridden."""

    def __init__(self, denoiser: Denoiser) -> None:
        """Keep the denoiser within."""
        super().__init__(denoiser.sde, denoiser.affine)
        self.denoiser = denoiser
        self.regular = denoiser.regular
        self.inference = denoiser.inference

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The quantity as the denoiser within predicts it."""
        return self.denoiser.predict(quantity, x, t, **cond)

    def pull(self, x: Tensor, t: Tensor) -> Tensor:
        """The part it adds to the score of the denoiser within, (B, *), in 1/units of x.

        ``samplers.MeanShift`` shifts the steps of the denoiser within by it. Zero, unless
        overridden.
        """
        return torch.zeros_like(x)

    @property
    def samples(self) -> int | None:
        """Number of samples of the denoiser within; override it for a wrapper with conditions."""
        return self.denoiser.samples

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

    One rule: the first dimension of a tensor counts samples. (B, *) is one value for each sample,
    and is cut with the batch; (1, *), () or a plain number is one value for all. So one vector v
    for all samples is ``v[None]``.

    Args:
        denoiser: takes the conditions by name.
        cond: tensors or numbers; it gets tensors (B, *), a whole number as integers, another in
            the dtype of x. None is passed on.

    Raises:
        ValueError: if conditions belong to different numbers of samples, or a vector (C,) is bound
            where the network takes one for each sample.
    """

    def __init__(self, denoiser: Denoiser, **cond: Condition) -> None:
        """Keep the conditions."""
        super().__init__(denoiser)
        for name, value in cond.items():
            _check_condition(name, value, denoiser)
        self.cond = cond
        counts = {name: len(value) for name, value in cond.items() if _each(value)}
        if len({denoiser.samples or 1, *counts.values()} - {1}) > 1:
            raise ValueError(
                f"expected conditions of one number of samples, got {counts} around a denoiser "
                f"of {denoiser.samples or 'any number'}: bind one value for all, or one for each"
            )

    @property
    def samples(self) -> int | None:
        """Number of samples that the conditions belong to; None where they hold for all."""
        counts = [len(value) for value in self.cond.values() if _each(value)]
        return counts[0] if counts else self.denoiser.samples

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The quantity under the bound conditions; those of the call come first."""
        return self.denoiser.predict(quantity, x, t, **self._bound(x) | cond)

    def along(
        self, ts: Tensor, x: Tensor, u: Tensor | None = None, w: Tensor | None = None, **cond: Any
    ) -> Along:
        """Along the grid under the bound conditions."""
        return self.denoiser.along(ts, x, u, w, **self._bound(x) | cond)

    def part(self, index: slice) -> "Given":
        """Bind these samples' conditions."""
        cond = {name: v[index] if _each(v) else v for name, v in self.cond.items()}
        return Given(self.denoiser.part(index), **cond)

    def _bound(self, x: Tensor) -> dict[str, Tensor | None]:
        return {name: for_each(value, x) for name, value in self.cond.items()}


def for_each(value: Condition, x: Tensor) -> Tensor | None:
    """A condition as one value for each sample of x: (B, *)."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        number = int(value) if isinstance(value, Integral) else float(value)
        dtype = torch.long if isinstance(value, Integral) else x.dtype
        return torch.full((len(x),), number, dtype=dtype, device=x.device)
    if value.ndim == 0 or len(value) == 1:
        return value.expand(len(x), *value.shape[1:])
    if len(value) == len(x):
        return value
    raise ValueError(
        f"expected a condition for each of {len(x)} samples, got {len(value)}: "
        "bind a single value, or as many as there are samples; one vector v for all is v[None]"
    )


def _each(value: object) -> TypeGuard[Tensor]:
    """Whether a condition is one value for each sample, not one for all."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) > 1


def _check_condition(name: str, value: object, denoiser: Denoiser) -> None:
    """Raise an error unless the value is a condition and its shape is unambiguous."""
    if not (value is None or isinstance(value, Tensor | Real)):
        raise TypeError(
            f"expected {name} to be a tensor or a number, got {type(value).__name__}: "
            "torch.as_tensor(...) makes one of a list or an array"
        )
    size = getattr(getattr(denoiser, "net", None), "context", 0)
    if name == "c" and size > 1 and _each(value) and value.ndim == 1:
        raise ValueError(
            f"expected c (B, {size}), or (1, {size}) for all samples, got {tuple(value.shape)}: "
            "the first dimension counts samples, so one vector for all is c[None]"
        )


def numbers(ts: Tensor, u: Tensor | None, w: Tensor | None) -> tuple[list[float], list[float]]:
    """Factors of x and of what is asked as plain numbers, one for each time: 0 and 1 if None."""
    return _plain(ts, u, 0.0), _plain(ts, w, 1.0)


def _plain(ts: Tensor, values: Tensor | None, usual: float) -> list[float]:
    """Plain numbers, one for each time; one that differs from the usual by rounding becomes it."""
    if values is None:
        return [usual] * len(ts)
    plain = values.tolist()
    if not all(map(math.isfinite, plain)):
        t, value = next(p for p in zip(ts.tolist(), plain, strict=True) if not math.isfinite(p[1]))
        raise ValueError(
            f"expected finite factors of x and x0_hat at every time, got {value} at t = {t}: "
            "what is asked divides by sigma, so let the times end above 0"
        )
    return [usual if abs(v - usual) < 1e-14 else v for v in plain]


def blend(x: Tensor, u: float, y: Tensor, w: float) -> Tensor:
    """The combination u x + w y; y itself where u = 0 and w = 1."""
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


def _check_map(mean: Tensor, scale: Tensor) -> None:
    """Raise an error unless the parts of an affine map fit and it has an inverse."""
    d = mean.numel()
    if scale.shape != mean.shape and (not mean.ndim or scale.shape != (d, d)):
        raise ValueError(
            f"expected a scale of the shape of mean, {tuple(mean.shape)}, or a matrix ({d}, {d}), "
            f"got {tuple(scale.shape)}: expand it, so that every coordinate has its own"
        )
    if scale.shape == mean.shape:
        fine = (scale > 0) & scale.isfinite()
    else:
        fine = torch.linalg.slogdet(scale)[1].isfinite()
    if not bool(fine.all() & mean.isfinite().all()):
        raise ValueError(
            "expected a finite mean and positive finite scales, or an invertible matrix, got "
            "others: a coordinate of no width needs no model"
        )


def _spread(centred: Tensor) -> Tensor:
    """Standard deviations of the columns (n, *), of any size: the squares are of order 1."""
    size = centred.abs().amax(0)
    return size * (centred / size).square().mean(0).sqrt()


def check_data(x: Tensor) -> None:
    """Raise an error unless data (n, *) are finite and vary along every coordinate."""
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
