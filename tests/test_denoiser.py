"""Denoisers: whatever a network predicts, the same x0_hat; conditions; the user's units."""

import copy

import pytest
import torch
from torch import nn

from scoresde import (
    VESDE,
    VPSDE,
    Affine,
    CosineVPSDE,
    DDPMChain,
    EDMDenoiser,
    EpsDenoiser,
    GaussianMixture,
    Given,
    KarrasSDE,
    ScoreDenoiser,
    StraightPath,
    SubVPSDE,
    VDenoiser,
    X0Denoiser,
)

SDES = [
    VPSDE(),
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear(100).sde(),
]
OWN = {  # the quantity that a network predicts, and who reads it
    EpsDenoiser: "eps",
    X0Denoiser: "forward",
    VDenoiser: "v",
    ScoreDenoiser: "score",
}
KINDS = [*OWN, EDMDenoiser]
QUANTITIES = ["__call__", "eps", "v", "score", "velocity"]
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_kind = pytest.mark.parametrize("kind", KINDS)


def close(actual, expected, rtol=1e-14, atol=0.0):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def mixture(sde):
    means = torch.tensor([[2.0, 0.0], [-1.5, 1.5], [0.0, -2.0]])
    covs = torch.tensor(
        [[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.08], [-0.08, 0.35]], [[0.4, 0.0], [0.0, 0.05]]]
    )
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, covs, sde)


class Exact(nn.Module):
    """The network that has learned a quantity of an exact law."""

    def __init__(self, law, kind):
        super().__init__()
        self.law, self.kind = law, kind

    def forward(self, x, t):
        if self.kind is not EDMDenoiser:
            return getattr(self.law, OWN[self.kind])(x, t)
        s = torch.exp(4 * t)  # Karras et al., table 1, column "Ours", sigma_data = 0.7
        t = self.law.sde.time_of_log_snr(-2 * s.log())
        y = x * (s**2 + 0.7**2).sqrt()
        x0_hat = self.law(self.law.sde.alpha(t) * y, t)
        skip = 0.7**2 / (s**2 + 0.7**2)
        return (x0_hat - skip * y) / (s * 0.7 / (s**2 + 0.7**2).sqrt())


def make(kind, net, sde):
    return kind(net, sde, sigma_data=0.7) if kind is EDMDenoiser else kind(net, sde)


class Recording(nn.Module):
    """An arbitrary smooth network that remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t, **cond):
        self.calls.append((x, t, cond))
        time = t.reshape(-1, *[1] * (x.ndim - 1))
        out = torch.tanh(self.layer(x)) + torch.sin(3 * time)
        return out + sum(c.reshape(-1, *[1] * (x.ndim - 1)) for c in cond.values())


# ---- parametrizations -------------------------------------------------------------------------
@each_kind
@each_sde
def test_all_parametrizations_agree(kind, sde):
    law = mixture(sde)
    denoiser = make(kind, Exact(law, kind), sde)
    for time in torch.linspace(0.05, sde.t_max, 5):
        x = law.sample(50, time)
        # What a network did not learn is a difference, divided by alpha (1e-3) or sigma^2 (1e-4);
        # v holds sigma (80) times x0.
        atol = (
            2e-15 * float(x.abs().max()) / float(torch.minimum(sde.alpha(time), sde.sigma2(time)))
        )
        for name in QUANTITIES:
            slack = atol * max(1.0, float(sde.sigma(time))) if name == "v" else atol
            close(getattr(denoiser, name)(x, time), getattr(law, name)(x, time), 1e-11, slack)


@each_sde
def test_definitions(sde):
    """The five quantities from x0_hat, as their definitions read."""
    denoiser, x = X0Denoiser(Recording(), sde), torch.randn(4, 2)
    t = torch.tensor([0.05, 0.2, 0.5, 0.9])
    a, s, f, g2 = (v(t)[:, None] for v in (sde.alpha, sde.sigma, sde.f, sde.g2))
    x0_hat = denoiser(x, t)
    eps = (x - a * x0_hat) / s
    close(denoiser.eps(x, t), eps, 1e-13)
    close(a * x0_hat + s * denoiser.eps(x, t), x, 1e-13)
    close(denoiser.v(x, t), a * eps - s * x0_hat, 1e-12)
    close(denoiser.score(x, t), -eps / s, 1e-13)
    close(denoiser.velocity(x, t), f * x + 0.5 * g2 * eps / s, 1e-12)


@pytest.mark.parametrize("kind", OWN)
@each_sde
def test_a_network_speaks_for_itself(kind, sde):
    """Its own quantity is its own output, to the bit and at t = 0 as well; one evaluation each."""
    net = Recording()
    denoiser, x = make(kind, net, sde), torch.randn(4, 2)
    for t in (torch.tensor(0.0), torch.tensor(0.3)):
        assert torch.equal(getattr(denoiser, OWN[kind])(x, t), net(x, t))
    for name in QUANTITIES:
        net.calls.clear()
        getattr(denoiser, name)(x, torch.tensor(0.3))
        assert len(net.calls) == 1
        assert torch.equal(net.calls[0][0], x)


@pytest.mark.parametrize("event", [(2,), (5, 2), (3, 4, 2)])
@each_kind
def test_one_time_for_all_or_one_each(kind, event):
    denoiser, x = make(kind, Recording(), SubVPSDE()), torch.randn(4, *event)
    t = torch.tensor([0.05, 0.2, 0.5, 0.9])
    for name in QUANTITIES:
        function = getattr(denoiser, name)
        together = function(x, t)
        assert together.shape == x.shape
        for i in range(4):
            one = slice(i, i + 1)
            close(together[one], function(x[one], t[i]), 1e-13, 1e-14)
            close(together[one], function(x[one], t[one]), 1e-13, 1e-14)
    with pytest.raises(ValueError, match=r"expected a time \(\) or \(4,\)"):
        denoiser.velocity(x, t[:3])


@each_kind
def test_float32_stays(kind, float32):
    denoiser, x = make(kind, Recording(), VPSDE()), torch.randn(3, 2)
    for t in (torch.tensor(0.3), torch.full((3,), 0.3)):
        assert {getattr(denoiser, name)(x, t).dtype for name in QUANTITIES} == {torch.float32}


@pytest.mark.parametrize("shape", [(), (4,)])
@each_kind
@each_sde
def test_no_evaluation_waits_for_the_device(kind, sde, shape, no_sync):
    denoiser, x, t = make(kind, Recording(), sde), torch.randn(4, 2), torch.full(shape, 0.3)
    with no_sync(x, t):
        for name in QUANTITIES:
            getattr(denoiser, name)(x, t)


def test_edm_preconditioning():
    """Table 1 on EDM's own process: inputs of unit variance, and what is made of the output."""
    sde, net, d = KarrasSDE(), Recording(), 0.5
    denoiser = EDMDenoiser(net, sde, sigma_data=d)
    t, x = torch.tensor([1e-4, 0.00625, 0.1, 1.0]), torch.randn(4, 2)
    x0_hat = denoiser(x, t)
    seen, c_noise, _ = net.calls[0]
    s = 80 * t
    close(c_noise, s.log() / 4, 1e-13)
    close(seen, x / (s**2 + d**2).sqrt()[:, None])
    skip, out = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt()
    close(x0_hat, skip[:, None] * x + out[:, None] * net(seen, c_noise), 1e-13)
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="expected sigma_data > 0, got"):
            EDMDenoiser(net, sde, sigma_data=bad)


@pytest.mark.parametrize("sde", [VPSDE(), StraightPath()])
def test_edm_sees_one_problem_in_every_process(sde):
    """The same y = x/alpha and sigma/alpha give the same answer."""
    net, x = Recording(), torch.randn(5, 2)
    there, here = EDMDenoiser(net, KarrasSDE()), EDMDenoiser(net, sde)
    t = torch.tensor([0.01, 0.1, 0.3, 0.6, 0.9])
    s = (-sde.lam(t)).exp()
    close(here(sde.alpha(t)[:, None] * x, t), there(x, s / 80), 1e-12)


# ---- conditions -------------------------------------------------------------------------------
LABELS = torch.tensor([3.0, 1.0, 4.0, 1.0])


@pytest.mark.parametrize(
    ("bound", "seen"),
    [
        (LABELS, LABELS),
        (torch.tensor(2.0), torch.full((4,), 2.0)),
        (7, torch.full((4,), 7)),
        (0.5, torch.full((4,), 0.5)),
    ],
)
@each_kind
def test_given_binds(kind, bound, seen):
    class Net(Recording):
        def forward(self, x, t, **cond):
            self.calls.append(cond["y"])
            return x * 0

    net = Net()
    given, x, t = Given(make(kind, net, VPSDE()), y=bound), torch.randn(4, 2), torch.tensor(0.3)
    for name in QUANTITIES:
        getattr(given, name)(x, t)
    assert len(net.calls) == len(QUANTITIES)
    for y in net.calls:
        assert type(y) is type(seen)
        assert torch.equal(torch.as_tensor(y), torch.as_tensor(seen))


@each_kind
def test_given_is_the_denoiser_with_its_conditions(kind):
    denoiser, x, t = make(kind, Recording(), VPSDE()), torch.randn(4, 2), torch.tensor(0.3)
    given = Given(denoiser, y=LABELS)
    for name in QUANTITIES:
        function = getattr(given, name)
        assert torch.equal(function(x, t), getattr(denoiser, name)(x, t, y=LABELS))
        # Two bindings add up, and what is passed in a call comes before what is bound.
        assert torch.equal(
            getattr(Given(given, z=LABELS**2), name)(x, t),
            getattr(denoiser, name)(x, t, y=LABELS, z=LABELS**2),
        )
        assert torch.equal(function(x, t, y=-LABELS), getattr(denoiser, name)(x, t, y=-LABELS))


def test_given_is_cut_with_the_batch():
    denoiser = EpsDenoiser(Recording(), VPSDE())
    given, x, t = Given(denoiser, y=LABELS, z=2), torch.randn(4, 2), torch.tensor(0.3)
    nested = Given(Given(denoiser, y=LABELS), z=torch.tensor(2))
    for whole in (given, nested):
        for part in (slice(0, 1), slice(1, 4)):
            close(whole.part(part)(x[part], t), given(x, t)[part])
    assert given.sde == denoiser.sde and given.denoiser is denoiser
    with pytest.raises(ValueError, match="expected a condition for each of 3 samples, got 4"):
        given(x[:3], t)


# ---- units ------------------------------------------------------------------------------------
def data(n=500, event=(3,)):
    d = torch.Size(event).numel()
    return (torch.randn(n, d) @ torch.randn(d, d) * 300 + 1000).reshape(n, *event)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("event", [(1,), (3,), (4, 2), (2, 2, 2)])
def test_affine(event, whiten):
    x = data(event=event)
    affine = Affine.fit(x, whiten=whiten)
    z = affine(x)
    assert z.shape == x.shape
    close(affine.inverse(z), x, 1e-12)
    flat = z.flatten(1)
    cov = torch.atleast_2d(flat.T.cov(correction=0))
    close(flat.mean(0), torch.zeros_like(flat[0]), 0.0, 1e-12)
    identity = torch.eye(len(cov))
    close(cov if whiten else cov * identity, identity, 0.0, 1e-11)
    jacobian = torch.func.jacrev(lambda one: affine.inverse(one[None])[0].flatten())(z[0])
    close(affine.log_det(), torch.linalg.slogdet(jacobian.reshape(cov.shape))[1], 1e-12)


def test_affine_fits_float32_in_float64():
    """At 10^4 standard deviations from zero: the mean of the squares would keep no digits."""
    x = 1e4 + torch.randn(1000, 2)
    for whiten in (False, True):
        affine = Affine.fit(x.float(), whiten=whiten)
        assert affine.scale.dtype == affine.mean.dtype == torch.float32
        exact = Affine.fit(x.float().double(), whiten=whiten)
        close(affine.scale.double(), exact.scale, 1e-7)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 2), ValueError, r"with n >= 2 samples, got \(0, 2\)"),
        (torch.zeros(1, 2), ValueError, r"with n >= 2 samples, got \(1, 2\)"),
        (torch.zeros(5), ValueError, r"expected data of shape \(n, \*\)"),
        (torch.zeros(5, 0), ValueError, r"got \(5, 0\)"),
        (torch.zeros(5, 2, dtype=torch.long), TypeError, "expected floating-point data"),
        (torch.tensor([[1.0, 2], [float("nan"), 0]]), ValueError, "NaN or infinity in 1 of 2"),
        (torch.tensor([[1.0, 2], [float("inf"), 0]]), ValueError, "expected finite data"),
        (torch.tensor([[1.0, 2], [1.0, 0]]), ValueError, r"1 are constant \(first: 0\)"),
    ],
)
def test_bad_data_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        Affine.fit(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_coordinates_cannot_be_whitened(dtype):
    """Rounding hides a singular covariance from Cholesky about every other time."""
    for _ in range(10):
        x = torch.randn(100, 2, dtype=dtype)
        x = torch.cat([x, 2 * x[:, :1] + 0.3 * x[:, 1:]], 1)
        with pytest.raises(ValueError, match="expected coordinates that are linearly independent"):
            Affine.fit(x, whiten=True)
        Affine.fit(x)
    with pytest.raises(ValueError, match="3 samples in 5 dimensions; use whiten=False"):
        Affine.fit(torch.randn(3, 5, dtype=dtype), whiten=True)


@pytest.mark.parametrize("whiten", [False, True])
@each_kind
def test_state_dict_carries_the_network_and_the_units(kind, whiten):
    x, t = data(event=(2,)), torch.tensor(0.4)
    saved = kind(Recording(), VPSDE(), Affine.fit(x, whiten=whiten))
    other = kind(Recording(), VPSDE(), Affine.fit(torch.randn(9, 2), whiten=whiten))
    other.load_state_dict(copy.deepcopy(saved.state_dict()))
    z = saved.affine(x)
    assert torch.equal(other.affine(x), z)
    assert torch.equal(other(z, t), saved(z, t))
    given = Given(saved, y=0)
    assert given.affine is saved.affine and not given.regular
