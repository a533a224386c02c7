r"""The Fokker-Planck equation: what the density of a diffusion must obey, and by how much it does.

For dX = f X dt + g dW in d dimensions, with l = log p and s = grad l,

    d_t p = -div(f x p) + g^2/2 lap p,
    d_t l = -f (d + x.s) + g^2/2 (div s + |s|^2),
    d_t s = grad [ -f x.s + g^2/2 (div s + |s|^2) ],

three forms of one equation: divide by p, then take the gradient. A residual is the left side minus
the right; an exact density has none. A learned score that has one is the score of no process
with these f and g, whatever it was trained on.

References:
    Song et al. 2021 (arXiv:2011.13456), app. D.1 (the density); Lai et al. 2023
    (arXiv:2210.04296), which names the third form the score Fokker-Planck equation.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ..autodiff import differentiating
from ..denoiser import Denoiser
from ..likelihood.density import Terminal
from ..sde import SDE, like
from .fields import Scalar, Vector, check_field, dot, gradient, jacobian

__all__ = ["density_residual", "flow_log_prob", "log_density_residual", "score_residual"]


def log_density_residual(log_p: Scalar, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """d_t l + f (d + x.s) - g^2/2 (div s + |s|^2) at x, (B,), in 1/time; 0 for an exact one.

    It is the residual of p divided by p: a relative rate of creation of probability, whose mean
    under p is the rate at which the total would change.

    Args:
        log_p: log density in nats, (x (B, *), t) -> (B,), twice differentiable in x and once in
            t by ``torch.func``: ``mixture.log_prob``, or for a network
            ``flow_log_prob(denoiser)``.
        sde: the process that the density should follow.
        x: points (B, *), in the model's units.
        t: time, () or (B,).
    """
    check_field(x, t)
    (f, g2), d = _rates(sde, x, t), x[0].numel()
    s, jac = jacobian(lambda x: gradient(lambda x: log_p(x, t), x), x)
    spread = jac.diagonal(0, 1, 2).sum(1) + dot(s, s)
    return _time_derivative(log_p, x, t) + f * (d + dot(x, s)) - 0.5 * g2 * spread


def density_residual(log_p: Scalar, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """d_t p + div(f x p) - g^2/2 lap p at x, (B,), in units of p per time.

    Args:
        log_p: see ``log_density_residual``, as are the rest.
        sde: the process.
        x: points (B, *).
        t: time, () or (B,).
    """
    return log_p(x, t).exp() * log_density_residual(log_p, sde, x, t)


def score_residual(score: Vector, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """d_t s - grad[ -f x.s + g^2/2 (div s + |s|^2) ] at x, (B, *); 0 for an exact score.

    It needs the score alone, no density: a network is asked directly, ``denoiser.score``.

    Args:
        score: (x (B, *), t) -> (B, *), twice differentiable in x and once in t.
        sde: the process.
        x: points (B, *), in the model's units.
        t: time, () or (B,); positive for a network, whose score is not defined at 0.
    """
    check_field(x, t)
    f, g2 = _rates(sde, x, t)

    def gain(x: Tensor) -> Tensor:
        s, jac = jacobian(lambda x: score(x, t), x)
        return -f * dot(x, s) + 0.5 * g2 * (jac.diagonal(0, 1, 2).sum(1) + dot(s, s))

    return _time_derivative(score, x, t) - gradient(gain, x)


def flow_log_prob(denoiser: Denoiser, prior: Terminal | None = None, steps: int = 64) -> Scalar:
    r"""log p_t of the probability-flow ODE's model, as a function that can be differentiated.

        log p_t(x) = log p_T(x_T) + int_t^T div velocity dt      along dx/dt = velocity(x, t),

    by ``steps`` of the classical Runge-Kutta method with an exact trace. ``likelihood`` integrates
    better but without gradients; this is for derivatives in x and t, at t well above 0. Times
    between t and T = t_max are t + (T - t) (k/steps)^2, finest near the data.

    Args:
        denoiser: the model, in its own units.
        prior: a distribution whose ``log_prob(x, t)`` is exact at t_max; the process's prior if
            not given.
        steps: number of steps; take more for a smaller t.

    Returns:
        (x (B, *), t () or (B,)) -> (B,) in nats.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}: the default is 64")
    sde = denoiser.sde
    nodes = [(k / steps) ** 2 for k in range(steps + 1)]

    def log_p(x: Tensor, t: Tensor) -> Tensor:
        span, growth = sde.t_max - t, x.new_zeros(len(x))
        for a, b in pairwise(nodes):
            x, gain = _rk4(denoiser, x, t + a * span, (b - a) * span)
            growth = growth + gain
        end = torch.full_like(t, sde.t_max)
        last = sde.prior(sde.t_max).log_prob(x) if prior is None else prior.log_prob(x, end)
        return last + growth

    return log_p


def _rk4(denoiser: Denoiser, x: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step h from t: the new x, and the integral of the divergence over the step."""

    def slope(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        velocity, jac = jacobian(lambda x: denoiser.velocity(x, t), x)
        return velocity, jac.diagonal(0, 1, 2).sum(1)

    step = like(h, x)
    k1, d1 = slope(x, t)
    k2, d2 = slope(x + 0.5 * step * k1, t + 0.5 * h)
    k3, d3 = slope(x + 0.5 * step * k2, t + 0.5 * h)
    k4, d4 = slope(x + step * k3, t + h)
    return x + step / 6 * (k1 + 2 * (k2 + k3) + k4), h / 6 * (d1 + 2 * (d2 + d3) + d4)


def _rates(sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The rates f and g^2 in the dtype of x, () or (B,)."""
    f, g2 = sde.rates(t)
    return f.to(x.dtype), g2.to(x.dtype)


def _time_derivative(field: Scalar | Vector, x: Tensor, t: Tensor) -> Tensor:
    """d field/dt at fixed x: each value depends on its own time alone."""
    with differentiating():
        slope: Tensor = torch.func.jvp(lambda t: field(x, t), (t,), (torch.ones_like(t),))[1]
    return slope
