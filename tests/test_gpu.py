"""Every room on a CUDA device: the numbers of the CPU, on the device, and where the host waits."""

import pytest
import torch

from exercises import EXERCISES

REAL = torch.cuda.is_available()


def compare(found, expected, room):
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].cpu(),
            value,
            rtol=1e-6,
            atol=1e-8,
            check_dtype=True,
            msg=lambda text, name=name: f"{room}: {name}: {text}",
        )


@pytest.mark.gpu
@pytest.mark.parametrize("room", EXERCISES)
def test_the_numbers_of_the_cpu(room):
    same, drawn = EXERCISES[room]("cpu")
    found, own = EXERCISES[room]("cuda")
    compare(found, same, room)
    assert own.keys() == drawn.keys() and all(bool(v.isfinite().all()) for v in own.values())
    if not REAL:  # the generators of real devices have streams of their own
        compare(own, drawn, room)
