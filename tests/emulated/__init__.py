"""An emulated CUDA device for machines without one: real numbers, CUDA's rules.

    with emulated.device() as state: ...          # cuda:0 is there, within
    emulated.install()                            # or from now on, in a script

Tensors stay on the CPU and hold true values; a *storage* that is to live on cuda:0 carries a mark
(``marks``). Two modes of torch enforce what a device would:

 * tensors of two devices in one operation raise, except where CUDA's kernels take a () tensor of
   the host or host indices; so do a generator of the other device and numpy() (``operations``);
 * an operation that has no CUDA kernel raises (looked up in torch's own native_functions.yaml,
   or in the dispatcher where the build has CUDA);
 * what makes the host wait is logged with the innermost line of the package under test, and
   raises under torch.cuda.set_sync_debug_mode("error"), which warns on its first call, as CUDA's;
 * ``to``, ``cuda``, factories with ``device=`` and getters answer as if it were there (``moves``);
 * CUDA graphs are recorded and replayed, operation by operation, into the same memory; while one
   is captured, waiting, copies from the host and unregistered generators raise (``runtime``).

What it does not see: the kernels' numerics (TF32, atomics, other algorithms, the ranges of
float16), memory and its allocator, races between streams (non-blocking copies to the host are
logged, not refused), torch.compile (which runs eagerly), threads other than the one that
installed it, more than one GPU. Tests of those are marked ``real_gpu``.
"""

from .marks import CUDA, STATE, counts
from .runtime import device, install, uninstall

__all__ = ["CUDA", "STATE", "counts", "device", "install", "uninstall"]
