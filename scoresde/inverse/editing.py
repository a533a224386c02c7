r"""Image to image: a guide in the place of a measurement.

A guide noised to time t is a state of the forward process from which the reverse one may start:

    x_t = alpha g + sigma z,        x0 ~ p(x0 | x_t)        (by the reverse SDE).
"""

from torch import Tensor

from ..denoiser import Denoiser
from ..noise import BlockNoise
from ..samplers import Sampler
from ..samplers.base import Callback, check_grid, quiet

__all__ = ["sdedit"]


def sdedit(
    denoiser: Denoiser,
    sampler: Sampler,
    guide: Tensor,
    ts: Tensor,
    seed: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """Image to image: noise a guide to an intermediate time, and sample from there.

    The later ts[0], the more of the guide is replaced by what the model knows.

    Args:
        denoiser: the model.
        sampler: the method that takes the steps.
        guide: (B, *event), in the user's units.
        ts: the grid (n + 1,), decreasing from the time up to which to noise.
        seed: random seed; the noise of sample i depends on it and on i alone.
        callback: see ``Callback``.

    Returns:
        The state at ts[-1], (B, *event), in the user's units.

    References:
        Meng et al. 2022 (arXiv:2108.01073), algorithm 1.
    """
    ts, affine = check_grid(ts, denoiser.sde), denoiser.affine
    noise = BlockNoise(seed, len(guide), guide.shape[1:], guide.device)
    with quiet(denoiser):
        start = guide if affine is None else affine(guide)
        t = ts[0].to(guide.dtype).to(guide.device, non_blocking=True)
        x = denoiser.sde.perturb(start, t, noise.draw(guide.device, guide.dtype))
        x = sampler(denoiser, x, ts, noise=noise, callback=callback)
        return x if affine is None else affine.inverse(x)
