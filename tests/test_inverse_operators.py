"""Operators: each is what it says, and its singular value decomposition is one."""

import pytest
import torch
import torch.nn.functional as F

from scoresde.inverse import BlockAverage, Blur, Fourier, Grey, Mask, Matrix, random_projection

SAME = dict(rtol=1e-12, atol=1e-12)


def some(*event, share=0.4):
    return torch.rand(*event, generator=torch.Generator().manual_seed(1)) < share


def mirrored(mask):
    """The mask that holds -k with every k."""
    axes = tuple(range(mask.ndim))
    return mask | mask.flip(axes).roll([1] * mask.ndim, axes)


def lopsided(*sides):
    """A kernel without symmetry, so that its transform has a phase."""
    return torch.rand(*sides, generator=torch.Generator().manual_seed(2))


CASES = {
    "mask": (lambda: Mask(some(3, 4)), (3, 4)),
    "mask of points": (lambda: Mask(torch.tensor([True, False])), (2,)),
    "blocks": (lambda: BlockAverage(2), (3, 4, 6)),
    "blocks of a signal": (lambda: BlockAverage(3, dims=1), (2, 6)),
    "grey": (lambda: Grey(), (3, 4, 4)),
    "blur": (lambda: Blur(lopsided(3, 5), (4, 5)), (2, 4, 5)),
    "blur of a signal": (lambda: Blur(lopsided(3), (8,)), (8,)),
    "blur with zeros": (lambda: Blur(torch.tensor([0.5, 0.0, 0.5]), (8,)), (8,)),
    "fourier": (lambda: Fourier(mirrored(some(4, 5, share=0.2))), (2, 4, 5)),
    "matrix": (lambda: Matrix(torch.randn(3, 6), (2, 3)), (2, 3)),
    "tall matrix": (lambda: Matrix(torch.randn(6, 4)), (4,)),
    "singular matrix": (lambda: Matrix(torch.ones(3, 4)), (4,)),
    "projection": (lambda: random_projection((3, 4), 5), (3, 4)),
}


@pytest.fixture(params=CASES)
def case(request):
    build, event = CASES[request.param]
    return build(), event


def test_adjoint(case):
    """<A x, y> = <x, A^T y>."""
    operator, event = case
    x = torch.randn(7, *event)
    y = torch.randn_like(operator(x))
    left = (operator(x) * y).flatten(1).sum(1)
    torch.testing.assert_close(left, (x * operator.adjoint(y)).flatten(1).sum(1), **SAME)


def test_singular_values(case):
    """Those of the dense matrix; and where A sees, V^T V = I."""
    operator, event = case
    x = torch.randn(1, *event)
    coordinates = operator.right(x)
    values = operator.singular.expand(coordinates.shape).flatten().sort(descending=True).values
    dense = torch.linalg.svdvals(operator.matrix(event))
    torch.testing.assert_close(values[: len(dense)], dense, rtol=1e-12, atol=1e-13)
    assert not values[len(dense) :].any()
    again = operator.right(operator.back(coordinates))
    seen = (operator.singular > 0).expand(coordinates.shape)
    torch.testing.assert_close(again[seen], coordinates[seen], **SAME)
    y = operator(x)
    torch.testing.assert_close(operator.unleft(operator.left(y)), y, **SAME)


def test_solve(case):
    """(v A A^T + var I)^{-1} y by the dense matrix, one v for each sample."""
    operator, event = case
    a = operator.matrix(event)
    v = torch.tensor([0.5, 2.0])
    y = torch.randn_like(operator(torch.randn(2, *event)))
    dense = v[:, None, None] * (a @ a.T) + 0.3 * torch.eye(len(a))
    expected = torch.linalg.solve(dense, y.flatten(1)[..., None])[..., 0].reshape(y.shape)
    torch.testing.assert_close(operator.solve(y, v, 0.3), expected, rtol=1e-11, atol=1e-11)
    each = operator.solve(y[:1], v[0], 0.3)
    torch.testing.assert_close(each, expected[:1], rtol=1e-11, atol=1e-11)


def test_float32(case, float32):
    """In the precision of x, however the module was cast."""
    operator, event = case
    x = torch.randn(2, *event)
    wide = operator(x.double())
    for module in (operator, operator.float()):
        y = module(x)
        assert y.dtype == module.adjoint(y).dtype == torch.float32
        torch.testing.assert_close(y.double(), wide, rtol=1e-4, atol=1e-5)


class TestDefinitions:
    def test_mask(self):
        known, x = some(3, 4), torch.randn(5, 3, 4)
        assert torch.equal(Mask(known)(x), x[:, known])
        assert torch.equal(Mask(known).adjoint(x[:, known]), x * known)

    def test_blocks(self):
        x = torch.randn(5, 3, 4, 6)
        torch.testing.assert_close(BlockAverage(2)(x), F.avg_pool2d(x, 2), **SAME)
        signal = torch.randn(5, 2, 6)
        torch.testing.assert_close(BlockAverage(3, 1)(signal), F.avg_pool1d(signal, 3), **SAME)

    def test_grey(self):
        x = torch.randn(5, 3, 4, 4)
        r, g, b = x.unbind(1)
        expected = (0.299 * r + 0.587 * g + 0.114 * b)[:, None]
        torch.testing.assert_close(Grey()(x), expected, **SAME)

    def test_blur(self):
        kernel, x = lopsided(3, 5), torch.randn(2, 1, 6, 7)
        wrapped = F.pad(x, (2, 2, 1, 1), mode="circular")
        expected = F.conv2d(wrapped, kernel.flip(0, 1)[None, None])  # torch's is a correlation
        torch.testing.assert_close(Blur(kernel, (6, 7))(x), expected, **SAME)

    def test_gaussian_blur(self):
        blur, x = Blur.gaussian(1.0, (16, 16)), torch.zeros(1, 16, 16)
        x[0, 8, 8] = 1
        spot = blur(x)[0]
        assert float(spot.sum()) == pytest.approx(1, abs=1e-12)
        assert float(spot[8, 9] / spot[8, 8]) == pytest.approx(torch.exp(torch.tensor(-0.5)))

    def test_fourier(self):
        """As much as the complex coefficients of the same wave vectors."""
        known, x = mirrored(some(6, 8, share=0.2)), torch.randn(3, 6, 8)
        kept = Fourier(known).adjoint(Fourier(known)(x))
        expected = torch.fft.ifft2(torch.fft.fft2(x) * known).real
        torch.testing.assert_close(kept, expected, **SAME)

    def test_projection(self):
        a = random_projection((3, 4), 5, seed=3).matrix((3, 4))
        torch.testing.assert_close(a @ a.T, torch.eye(5), **SAME)
        assert not torch.allclose(a, random_projection((3, 4), 5, seed=4).matrix((3, 4)))
        with pytest.raises(ValueError, match="1 <= m <= 12"):
            random_projection((3, 4), 13)


REFUSED = {
    "expected a bool mask": lambda: Mask(torch.ones(3)),
    "known entry": lambda: Mask(torch.zeros(3, dtype=torch.bool)),
    r"expected x of shape \(B, 3, 4\)": lambda: Mask(some(3, 4))(torch.randn(2, 4, 3)),
    "divisible by 2": lambda: BlockAverage(2)(torch.randn(1, 1, 5, 4)),
    "size >= 1": lambda: BlockAverage(0),
    r"expected x of shape \(B, 3, \*\)": lambda: Grey()(torch.randn(2, 1, 4, 4)),
    "odd sides": lambda: Blur(torch.ones(2, 3), (8, 8)),
    "trailing sides": lambda: Blur(torch.ones(3), (8,))(torch.randn(2, 9)),
    "k and -k": lambda: Fourier(torch.arange(5) == 1),
    r"expected a matrix \(m, 6\)": lambda: Matrix(torch.ones(2, 5), (2, 3)),
    r"expected x \(B, \(2, 3\)\)": lambda: Matrix(torch.ones(2, 6), (2, 3))(torch.ones(1, 6)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
