r"""Mixtures of Gaussians, which stay mixtures under every linear process.

With component k of weight w_k, mean m_k
and covariance C_k = U diag(l) U^T, at time t

    S_k = alpha^2 C_k + sigma^2 I = U diag(alpha^2 l + sigma^2) U^T,
    r_k(x) = softmax_k [ log w_k + log N(x; alpha m_k, S_k) ],
    score = -sum_k r_k S_k^{-1} (x - alpha m_k),
    x0_hat = sum_k r_k [ m_k + alpha C_k S_k^{-1} (x - alpha m_k) ].

Each C_k is diagonalised once, so that all times share one orthogonal basis: no factorisation is
repeated, batches of times cost no more than one, and nothing is inverted that is nearly singular.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..prediction import Quantity, convert
from ..sde import SDE, like
from .base import Distribution
from .quadrature import Rule, adaptive

__all__ = ["GaussianMixture"]


class GaussianMixture(Distribution):
    """A mixture of Gaussians in any dimension, exact at every time.

    Args:
        weights: (K,), positive; normalised to sum to one.
        means: (K, *event), in the units of x.
        covs: (K, d, d) with d the size of the event, symmetric, positive semi-definite. A
            singular one (a point mass) is allowed, but then the score at t = 0 is not finite.
        sde: the process.
    """

    weights: Tensor
    means: Tensor
    basis: Tensor
    spectrum: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, sde: SDE) -> None:
        """Diagonalise the covariances and keep everything as float64 buffers."""
        super().__init__(sde)
        weights, means, covs = (
            torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covs)
        )
        _check_mixture(weights, means, covs)
        spectrum, basis = torch.linalg.eigh(covs)
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("basis", basis)  # (K, d, e): column e is the direction of l_e
        rounding = 1e-14 * spectrum.amax(1, keepdim=True)  # a flat direction is exactly flat
        self.register_buffer("spectrum", spectrum.where(spectrum > rounding, 0.0))  # (K, e)
        self.regular = bool((self.spectrum > 0).all())

    @classmethod
    def isotropic(
        cls, weights: Tensor, means: Tensor, std: Tensor | float, sde: SDE
    ) -> "GaussianMixture":
        """Components with covariance std^2 I; std a number or (K,)."""
        means = torch.as_tensor(means).double()
        if not len(means) or bool((torch.as_tensor(std) < 0).any()):
            raise ValueError(f"expected one mean or more and std >= 0, got {len(means)} and {std}")
        d = means[0].numel()
        var = torch.as_tensor(std).double().square().expand(len(means))
        return cls(weights, means, var[:, None, None] * torch.eye(d, dtype=torch.float64), sde)

    @property
    def event(self) -> torch.Size:
        """Shape of one sample."""
        return self.means.shape[1:]

    @property
    def dim(self) -> int:
        """Number of coordinates d of one sample."""
        return self.spectrum.shape[1]

    @property
    def covs(self) -> Tensor:
        """Covariances of the components, (K, d, d)."""
        return (self.basis * self.spectrum[:, None]) @ self.basis.mT

    def component(self, k: int) -> "GaussianMixture":
        """The distribution given class k: a single Gaussian."""
        one = GaussianMixture(torch.ones(1), self.means[k, None], self.covs[k, None], self.sde)
        return one.to(self.means.device)

    def marginal(self, t: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of the whole mixture at time t (one time)."""
        alpha, sigma2 = self._path(t, self.means)
        w, m = self.weights, self.means.flatten(1)
        mean = w @ m
        centred = m - mean
        cov = torch.einsum("k,kij->ij", w, self.covs) + (w[:, None] * centred).T @ centred
        eye = torch.eye(self.dim, dtype=m.dtype, device=m.device)
        return alpha * mean, alpha**2 * cov + sigma2 * eye

    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """log p_t(x) in nats, (B, *event) -> (B,)."""
        log_joint, _, _, _ = self._resolve(x, t)
        return log_joint.logsumexp(1)

    def posterior(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Class probabilities r_k(x) = p(k | x_t = x), (B, K)."""
        log_joint, _, _, _ = self._resolve(x, t)
        return log_joint.softmax(1)

    def predict(self, quantity: Quantity, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """From components, so that both ends of time are regular: v = -sigma (x0 + alpha score).

        x0_hat is bounded at every time; the others are finite at t = 0 too, unless a covariance is
        singular.
        """
        log_joint, y, var, alpha = self._resolve(x, t)
        r, slope = log_joint.softmax(1), -y / var  # (B, K, e)
        if quantity not in ("x0", "v"):
            score = self._rotate_back(r, slope, x)
            return convert(self.sde, "score", quantity, x, t, score)
        means, basis, spectrum = self._cast(x)
        x0 = torch.einsum("kd,kde->ke", means, basis) - alpha * spectrum * slope
        if quantity == "x0":
            return self._rotate_back(r, x0, x)
        return -like(self.sde.sigma(t), x) * self._rotate_back(r, x0 + alpha * slope, x)

    def posterior_cov(self, x: Tensor, t: Tensor) -> Tensor:
        """Cov[x0 | x_t = x], (B, d, d), as the spread within and between components."""
        log_joint, y, var, alpha = self._resolve(x, t)
        r, (means, basis, spectrum) = log_joint.softmax(1), self._cast(x)
        within = like(self.sde.sigma2(t.to(x)), y) * spectrum / var
        local = means + torch.einsum("bke,kde->bkd", alpha * spectrum * y / var, basis)
        # From the likeliest component on: where the others are all but impossible the differences
        # keep their digits.
        local = local - torch.take_along_dim(local, r.argmax(1)[:, None, None], 1)
        centred = local - torch.einsum("bk,bkd->bd", r, local)[:, None]
        between = torch.einsum("bk,bki,bkj->bij", r, centred, centred)
        within = torch.einsum("bke,kie,kje->bkij", within.expand_as(y), basis, basis)
        return between + torch.einsum("bk,bkij->bij", r, within)

    def sample(
        self, n: int, t: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Exact samples of p_t, (n, *event), in the dtype and on the device of the means."""
        labels = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(
            (n, self.dim), generator=generator, device=self.means.device, dtype=self.means.dtype
        )
        alpha, sigma2 = (like(c, z) for c in self._path(t, z))
        spread = (alpha**2 * self.spectrum[labels] + sigma2).sqrt() * z
        centre = alpha * self.means.flatten(1)[labels]
        if len(self.weights) == 1:  # without n copies of one basis
            rotated = spread @ self.basis[0].T
        else:
            rotated = torch.einsum("be,bde->bd", spread, self.basis[labels])
        return (centre + rotated).reshape(n, *self.event)

    def mmse(self, t: Tensor) -> Tensor:
        r"""The least mean squared error per dimension, E|x0 - x0_hat|^2/d, at times (T,) or ().

        Exact for one Gaussian, sigma^2 l/(alpha^2 l + sigma^2) averaged over the spectrum; for a
        mixture in one or two dimensions by adaptive quadrature, to a relative error below 1e-10
        in float64, narrow, distant and singular components included.

        Raises:
            ValueError: for a mixture of several components in more than two dimensions.
        """
        if t.ndim:
            return torch.stack([self.mmse(one) for one in t])
        alpha, sigma2 = self._path(t, self.means)
        if len(self.weights) == 1:
            return (sigma2 * self.spectrum / (alpha**2 * self.spectrum + sigma2)).mean()
        if sigma2 == 0:
            return torch.zeros_like(sigma2)
        rule = self._quadrature(t)
        return rule.weights @ rule.values / self.dim

    def _quadrature(self, t: Tensor) -> Rule:
        """A rule for integrals over p_t, made for p_t tr Cov[x0 | x_t], whose values it holds."""
        if self.dim > 2:
            raise ValueError(
                f"expected at most two dimensions, got {self.dim}: no quadrature there; "
                "estimate with samplers.fit_variance(denoiser, ts, x0)"
            )
        alpha, sigma2 = self._path(t, self.means)
        width = (alpha**2 * self.spectrum + sigma2).sqrt()  # (K, d)
        means, narrow = alpha * self.means.flatten(1), width.amin(1)
        if not bool((narrow > 0).all()):
            raise ValueError("expected a time above 0, got 0: point masses have no density there")
        # the rounding error of Cov[x0 | x_t], all that is left near t = 0; point masses have none
        size = self.means.square().amax() + self.spectrum.amax()
        rounding = 1e4 * torch.finfo(size.dtype).eps ** 2 * size * (self.spectrum.amax() > 0)

        def coarse(centre: Tensor, half: Tensor) -> Tensor:
            """Where a cell is wider than a component and than a share of its distance from it."""
            y = torch.einsum("nkd,kde->nke", centre[:, None] - means, self.basis) / width
            away = y.norm(dim=2) - math.sqrt(self.dim) * half[:, None] / narrow  # of the corners
            wide: Tensor = half[:, None] > narrow * (away / 4).clamp(min=1.5)
            return wide.any(1)

        def spread(x: Tensor) -> Tensor:
            """p_t tr Cov[x0 | x_t]."""
            parts = [(self.log_prob(y, t).exp(), self.posterior_cov(y, t)) for y in x.split(4096)]
            return torch.cat([p * (c.diagonal(0, 1, 2).sum(1) + rounding) for p, c in parts])

        reach = 9 * width.amax(1, keepdim=True)  # beyond it lies less than 1e-18 of a component
        low, high = (means - reach).amin(0), (means + reach).amax(0)
        return adaptive(spread, 0.5 * (low + high), 0.5 * (high - low).amax(), coarse)

    def _path(self, t: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma^2 at t, the data themselves where no time is given."""
        if t is None:
            return x.new_ones(()), x.new_zeros(())
        t = t.to(x)
        return self.sde.alpha(t), self.sde.sigma2(t)

    def _resolve(self, x: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log [w_k N_k(x)] (B, K); x - alpha m_k and S_k in the basis of C_k (B, K, e); alpha."""
        if x.shape[1:] != self.event:
            raise ValueError(
                f"expected x of shape (B, {', '.join(map(str, self.event))}), got {tuple(x.shape)}"
            )
        means, basis, spectrum = self._cast(x)
        flat = x.flatten(1)[:, None]  # (B, 1, d)
        alpha, sigma2 = (like(c, flat) for c in self._path(t, x))
        # Centre before rotating: far from the origin the difference keeps its digits.
        centred = flat - alpha * means  # (B, K, d)
        y = torch.einsum("bkd,kde->bke", centred, basis)
        tiny = torch.finfo(x.dtype).tiny
        var = (alpha**2 * spectrum + sigma2).clamp(min=tiny)
        quadratic = (y.square() / var + var.log()).sum(2)
        log_weights = self.weights.to(x.dtype).log() - 0.5 * self.dim * math.log(2 * math.pi)
        return log_weights - 0.5 * quadratic, y, var, alpha

    def _rotate_back(self, r: Tensor, local: Tensor, x: Tensor) -> Tensor:
        _, basis, _ = self._cast(x)
        return torch.einsum("bk,bke,kde->bd", r, local, basis).reshape(x.shape)

    def _cast(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means (K, d), bases (K, d, e) and spectra (K, e) in the dtype of x."""
        return self.means.flatten(1).to(x.dtype), self.basis.to(x.dtype), self.spectrum.to(x.dtype)


def _check_mixture(weights: Tensor, means: Tensor, covs: Tensor) -> None:
    k, d = len(means), means[0].numel() if means.ndim else 0
    if weights.shape != (k,) or means.ndim < 2 or covs.shape != (k, d, d):
        raise ValueError(
            "expected weights (K,), means (K, *event) and covs (K, d, d), got "
            f"{tuple(weights.shape)}, {tuple(means.shape)} and {tuple(covs.shape)}: "
            "for one dimension use means (K, 1) and covs (K, 1, 1)"
        )
    if not bool((weights > 0).all() and torch.isfinite(weights).all()):
        raise ValueError(f"expected positive weights, got {weights.tolist()}")
    if not bool(torch.isfinite(means).all()) or not bool(torch.isfinite(covs).all()):
        raise ValueError("expected finite means and covs, got NaN or infinity")
    scale = covs.abs().amax() + torch.finfo(covs.dtype).tiny
    if not torch.allclose(covs, covs.mT, rtol=0, atol=1e-10 * float(scale)):
        raise ValueError("expected symmetric covs: pass (C + C.mT)/2")
    if float(torch.linalg.eigvalsh(covs).min()) < -1e-10 * float(scale):
        raise ValueError("expected positive semi-definite covs, got a negative eigenvalue")
