"""Noise: that of sample i depends on the seed and on i alone; its law, to 5 standard errors."""

import pytest
import torch

from scoresde.noise import BlockNoise, GeneratorNoise, _hash, block_size

CPU = torch.device("cpu")


def stream(seed, n, event=(2,), first=0, draws=2, dtype=torch.float64):
    """x_T, and the z of steps 0, 1, ..., as ``sample`` takes them: (draws, n, *event)."""
    noise = BlockNoise(seed, n, event, first=first)
    start = noise.draw(CPU, dtype)
    steps = [noise(k, 1.0, 0.5, (n, *event), CPU, dtype).clone() for k in range(draws - 1)]
    return torch.stack([start, *steps])


@pytest.mark.parametrize(
    ("event", "size"),
    [((), 4096), ((2,), 4096), ((1, 28, 28), 334), ((3, 64, 64), 21), ((3, 512, 512), 1)],
)
def test_block_size_is_a_rule_of_the_shape(event, size):
    assert block_size(event) == size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("event", [(), (2,), (3, 8, 8)])
def test_a_sample_has_its_own_noise(event, dtype):
    size = block_size(event)
    whole = stream(7, 3 * size + 5, event, dtype=dtype)
    assert whole.shape == (2, 3 * size + 5, *event)
    assert whole.dtype == dtype
    for first, n in [(0, 1), (0, size), (size, size + 3), (2 * size, size + 5), (3 * size, 5)]:
        part = stream(7, n, event, first, dtype=dtype)
        assert torch.equal(part, whole[:, first : first + n])  # bit for bit


def test_draws_blocks_and_seeds_are_independent():
    """All pairs of 24 streams: draws 0..3 of 3 blocks, under 2 seeds that follow each other."""
    size = block_size((2,))
    streams = torch.cat([stream(seed, 3 * size, draws=4).reshape(4 * 3, -1) for seed in (0, 1)])
    n = streams.shape[1]
    moments = {"mean": (streams, 0, 1), "var": (streams**2, 1, 2), "fourth": (streams**4, 3, 96)}
    for power, truth, variance in moments.values():
        assert ((power.mean(1) - truth).abs() < 5 * (variance / n) ** 0.5).all()
    products = streams @ streams.T / n
    assert (products.fill_diagonal_(0).abs() < 5 / n**0.5).all()


def test_no_two_blocks_share_a_seed():
    """The CPU's generator reads 32 bits of its seed: of 10^5 random ones two would be equal."""
    one, other = (torch.Generator().manual_seed(5 + k * 2**32) for k in (0, 1))
    assert torch.equal(torch.randn(3, generator=one), torch.randn(3, generator=other))
    for seed in (0, 2):
        assert len({_hash(seed, block) % 2**32 for block in range(100_000)}) == 100_000
    assert len({_hash(seed, 0) for seed in range(1000)}) == 1000


def test_a_chunk_starts_at_a_block():
    with pytest.raises(ValueError, match="expected first to be a multiple of the block of 4096"):
        BlockNoise(0, 10, (2,), first=100)


def test_generator_noise_is_the_generator():
    def generator():
        return torch.Generator().manual_seed(3)

    noise, expected = GeneratorNoise(generator()), generator()
    for k in range(2):
        z = noise(k, 1.0, 0.5, (4, 2), CPU, torch.float32)
        assert torch.equal(z, torch.randn(4, 2, generator=expected, dtype=torch.float32))
    torch.manual_seed(3)
    ours = GeneratorNoise()(0, 1.0, 0.5, (4,), CPU, torch.float64)
    torch.manual_seed(3)
    assert torch.equal(ours, torch.randn(4))
