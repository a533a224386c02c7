r"""A Gaussian mixture given linear measurements y = A x0 + s n, n ~ N(0, I): again a mixture.

With weights w_k, means m_k and covariances C_k, Kalman's update of each component is

    G_k = C_k A^T (A C_k A^T + s^2 I)^{-1},         m_k -> m_k + G_k (y - A m_k),
    C_k -> (I - G_k A) C_k,                         w_k -> w_k N(y; A m_k, A C_k A^T + s^2 I),

and the evidence p(y) is the sum of the new weights. ``inverse.posterior`` does this for the
operators of inverse problems.
"""

import math

import torch
from torch import Tensor

from .mixture import GaussianMixture

__all__ = ["condition", "log_evidence"]


def condition(mixture: GaussianMixture, matrix: Tensor, y: Tensor, std: float) -> GaussianMixture:
    """The distribution of x0 given y = A x0 + std n.

    Args:
        mixture: the prior.
        matrix: A, (m, d), acting on the flattened event.
        y: the measured numbers, (m,).
        std: standard deviation of its noise, >= 0, in the units of y.
    """
    residual, root = _innovations(mixture, matrix, y[None], std)
    a, covs, means = matrix.to(mixture.means.dtype), mixture.covs, mixture.means.flatten(1)
    gain = torch.cholesky_solve(a @ covs, root).mT  # (K, d, m)
    rest = torch.eye(mixture.dim).to(covs) - gain @ a
    # Joseph's form of (I - G A) C: it cannot lose its sign to rounding.
    covs = rest @ covs @ rest.mT + std**2 * gain @ gain.mT
    means = means + (gain @ residual[0, :, :, None])[..., 0]
    weights = _log_joint(mixture, residual, root)[0].softmax(0)
    weights = weights.clamp(min=torch.finfo(covs.dtype).tiny)
    return GaussianMixture(
        weights, means.reshape(mixture.means.shape), (covs + covs.mT) / 2, mixture.sde
    )


def log_evidence(mixture: GaussianMixture, matrix: Tensor, y: Tensor, std: float) -> Tensor:
    """log p(y) in nats of each row of y, (n, m) -> (n,); the rest as for ``condition``."""
    return _log_joint(mixture, *_innovations(mixture, matrix, y, std)).logsumexp(1)


def _innovations(
    mixture: GaussianMixture, matrix: Tensor, y: Tensor, std: float
) -> tuple[Tensor, Tensor]:
    """y - A m_k, (n, K, m), and the Cholesky root of its covariance, (K, m, m)."""
    if matrix.ndim != 2 or matrix.shape[1] != mixture.dim or y.shape[1:] != matrix.shape[:1]:
        raise ValueError(
            f"expected a matrix (m, {mixture.dim}) and m numbers for each measurement, got "
            f"{tuple(matrix.shape)} and y of shape {tuple(y.shape)}"
        )
    if not 0 <= std < math.inf:
        raise ValueError(f"expected std >= 0 of the noise of y, got {std}")
    a = matrix.to(mixture.means.dtype)
    noise = std**2 * torch.eye(len(a)).to(a)
    root, info = torch.linalg.cholesky_ex(a @ mixture.covs @ a.T + noise)
    if bool((info > 0).any()):
        raise ValueError("expected a regular A C A^T + std^2 I, got a singular one: use std > 0")
    return y.to(a.dtype)[:, None] - mixture.means.flatten(1) @ a.T, root


def _log_joint(mixture: GaussianMixture, residual: Tensor, root: Tensor) -> Tensor:
    """log w_k N(y; A m_k, A C_k A^T + s^2 I), (n, K)."""
    white = torch.linalg.solve_triangular(root, residual[..., None], upper=False)[..., 0]
    log_det = root.diagonal(0, 1, 2).log().sum(1)
    norm = log_det + 0.5 * residual.shape[2] * math.log(2 * math.pi)
    log_joint: Tensor = mixture.weights.log() - 0.5 * white.square().sum(2) - norm
    return log_joint
