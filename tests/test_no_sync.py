"""The fixture that proves the absence of host-device syncs must itself see them."""

import pytest
import torch

READS = [
    lambda x: x.sum().item(),
    lambda x: float(x[0]),
    lambda x: 1 if (x > 0).all() else 0,
    lambda x: torch.equal(x, x),
    lambda x: torch.allclose(x, x),
    lambda x: x[x > 0],
    lambda x: x.nonzero(),
    lambda x: torch.func.grad(lambda y: (y * y.sum().item()).sum())(x),
]


@pytest.mark.parametrize("read", READS)
def test_reads_are_refused(no_sync, read):
    x = torch.randn(5)
    with pytest.raises(AssertionError, match="wait"), no_sync():
        read(x)
    with pytest.raises(AssertionError, match="wait"), no_sync(x):
        read(2 * x + 1)


def test_the_host_may_read_its_own(no_sync):
    x, ts = torch.randn(5), torch.linspace(1, 0, 6)
    with no_sync(x):
        for t, s in zip(ts[:-1].tolist(), ts[1:], strict=True):
            x = x + t * float(s)
    with pytest.raises(AssertionError, match="wait"), no_sync(x):
        ts[0].mul_(x[0]).item()  # written to by what lives on the device


def test_a_training_step_is_free(no_sync):
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with no_sync():
        net(torch.randn(8, 2)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
