"""A network whose body runs in 16 bits, while all around it stays in 32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Autocast"]


class Autocast(nn.Module):
    """Run a network under autocast and return its output in the dtype of x.

    Matrix products and convolutions run in 16 bits; time and its sines, normalisations, the
    arithmetic of the denoiser, the sampler's numbers and the state stay float32. Samples then
    agree with float32's in distribution, not one by one. To use it, set
    ``denoiser.net = Autocast(denoiser.net)``.

    Args:
        net: called with (x, t, **cond).
        dtype: torch.bfloat16, or torch.float16 on a GPU.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, net: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        if dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"expected a 16-bit dtype, bfloat16 or float16, got {dtype}")
        self.net, self.dtype = net, dtype

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """net(x, t, **cond), of the shape and dtype of x."""
        with torch.autocast(x.device.type, self.dtype):
            out: Tensor = self.net(x, t, **cond)
        return out.to(x.dtype)
