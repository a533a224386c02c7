"""Compiled steps, captured loops, 16-bit bodies: what the plain loop gives, or a clear word."""

import copy
import warnings

import pytest
import torch

from scoresde import (
    DDIM,
    VPSDE,
    Adams,
    Ancestral,
    DPMSolverPP,
    EpsDenoiser,
    GaussianMixture,
    Given,
    Guided,
    Langevin,
    PFHeun,
    PredictorCorrector,
    Recorder,
    UniPC,
    log_snr,
    moments,
    recommended,
    sample,
)
from scoresde.nets import MLP, Autocast
from scoresde.samplers import Captured, Compiled

SDE = VPSDE()
GM1 = GaussianMixture([0.6, 0.4], [[1.5], [-1.0]], [[[0.09]], [[0.25]]], SDE)
SAMPLERS = [DDIM(), Ancestral(), DPMSolverPP(2, 1.0), UniPC(3), PFHeun(), Adams()]


@pytest.fixture(autouse=True)
def fresh_cache():
    """Compile for each test anew: the compiler gives up after a few versions of one function."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_compiled_step_gives_the_same(sampler):
    """Traced as one graph (no break) and run; the code generator itself is tested below."""
    ts = log_snr(SDE, 6)
    plain, traced = Recorder(), Recorder()
    x = sample(GM1, sampler, (50, 1), ts, seed=0, callback=plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = Compiled(sampler, "eager")
        y = sample(GM1, fast, (50, 1), ts, seed=0, callback=traced)
    torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(traced.x, plain.x, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(traced.x0_hat, plain.x0_hat, rtol=1e-8, atol=1e-9)
    assert (fast.order, fast.noise, fast.stages) == (sampler.order, sampler.noise, sampler.stages)
    law = GM1.component(0)
    for mine, theirs in zip(moments(fast, law, ts), moments(sampler, law, ts), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor(float32):
    """One step through the code generator (needs a C++ compiler; else the plain loop runs)."""
    net = EpsDenoiser(MLP(2, width=32, depth=1), SDE)
    torch.nn.init.normal_(net.net.trunk.last.weight, std=0.1)
    sampler, ts = recommended(SDE, 12)
    x = sample(net, sampler, (300, 2), ts, seed=0)
    y = sample(net, sampler, (300, 2), ts, seed=0, compile=True)
    torch.testing.assert_close(y, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_a_step_that_does_not_compile_falls_back_with_its_reason():
    class Reads(torch.nn.Module):
        def forward(self, x, t):
            return x if x.sum() > 0 else -x  # waits for the device: no graph holds this

    net, ts = EpsDenoiser(Reads(), SDE), log_snr(SDE, 4)
    expected = sample(net, DDIM(), (8, 2), ts, seed=0)
    with pytest.warns(RuntimeWarning, match=r"did not compile .*: the plain loop runs instead"):
        out = sample(net, DDIM(), (8, 2), ts, seed=0, compile=True)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


def test_an_error_of_the_network_stays_its_own():
    class Broken(torch.nn.Module):
        def forward(self, x, t):
            raise KeyError("mine")

    with pytest.warns(RuntimeWarning), pytest.raises(KeyError, match="mine"):
        sample(EpsDenoiser(Broken(), SDE), DDIM(), (4, 2), log_snr(SDE, 3), compile=True)


def test_where_a_loop_cannot_be_made_faster_the_plain_one_runs():
    ts = log_snr(SDE, 4)
    walk = PredictorCorrector(Ancestral(), Langevin(rule="song"))
    expected = sample(GM1, walk, (8, 1), ts, seed=0)
    with pytest.warns(RuntimeWarning, match="step of its own"):
        assert torch.equal(sample(GM1, walk, (8, 1), ts, seed=0, compile=True), expected)
    if not torch.cuda.is_available():
        with pytest.warns(RuntimeWarning, match="needs a CUDA device"):
            assert torch.equal(sample(GM1, walk, (8, 1), ts, seed=0, graph=True), expected)
    with pytest.raises(TypeError, match="fixed table of rows"):
        Compiled("DDIM")


def on_gpu():
    return copy.deepcopy(GM1).cuda()


def conditional():
    net = MLP(2, width=32, depth=1, classes=3).cuda()
    torch.nn.init.normal_(net.trunk.last.weight, std=0.1)
    return Given(EpsDenoiser(net, SDE), y=torch.arange(9000).remainder(3).cuda())


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_captured_loop_gives_the_same(sampler, float32):
    ts = log_snr(SDE, 8)
    for denoiser, n in ((on_gpu(), 1), (conditional(), 2)):
        arguments = dict(shape=(9000, n), ts=ts, seed=0, device="cuda", chunk=4096)
        eager = sample(denoiser, sampler, **arguments)
        captured = sample(denoiser, sampler, **arguments, graph=True)
        torch.testing.assert_close(
            captured, eager, rtol=1e-5, atol=1e-5 * float(eager.abs().max())
        )
    both = sample(on_gpu(), sampler, (512, 1), ts, seed=0, device="cuda", graph=True, compile=True)
    expected = sample(on_gpu(), sampler, (512, 1), ts, seed=0, device="cuda")
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_one_graph_serves_all_chunks_and_leaves_the_labels_alone(float32, monkeypatch):
    captures, graph = [], torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda g: captures.append(g) or graph(g))
    denoiser = conditional().part(slice(8192))
    labels = denoiser.cond["y"].clone()
    denoiser = Guided(denoiser, Pull(torch.linspace(-1, 1, 8192).cuda()))
    arguments = dict(shape=(8192, 2), ts=log_snr(SDE, 4), seed=0, device="cuda", chunk=4096)
    captured = sample(denoiser, DDIM(), **arguments, graph=True)
    assert len(captures) == 1
    torch.testing.assert_close(captured, sample(denoiser, DDIM(), **arguments))
    assert torch.equal(denoiser.denoiser.cond["y"], labels)
    kept = Captured(DDIM())
    for seed in (0, 1):
        again = sample(denoiser, kept, **arguments | {"seed": seed})
    assert len(captures) == 2 and not torch.equal(again, captured)


class Pull:
    """A log h with a number for each sample."""

    def __init__(self, towards):
        self.towards = towards

    def __call__(self, x, t):
        return -((x[:, 0] - self.towards) ** 2)

    def part(self, index):
        return Pull(self.towards[index])


@pytest.mark.gpu
def test_a_callback_needs_the_plain_loop(float32):
    with pytest.warns(RuntimeWarning, match="callback"):
        sample(on_gpu(), DDIM(), (9, 1), log_snr(SDE, 3), callback=Recorder(), graph=True)


@pytest.fixture
def no_mkldnn():
    """Some virtual CPUs announce matrix instructions that they refuse to run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = torch.backends.mkldnn.flags(enabled=False)
        with flags:
            yield


def test_a_16_bit_body_samples_the_same_law(float32, no_mkldnn):
    """The law, not the samples: mean and covariance within 5 standard errors of float32's."""
    torch.manual_seed(0)
    net = MLP(2, width=64, depth=2)
    torch.nn.init.normal_(net.trunk.last.weight, std=0.05)
    seen = []
    net.trunk.first.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    net.trunk.features.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    n, (sampler, ts) = 8000, recommended(SDE, 20)
    full = sample(EpsDenoiser(net, SDE), sampler, (n, 2), ts, seed=0)
    assert set(seen) == {torch.float32}
    seen.clear()
    half = sample(EpsDenoiser(Autocast(net, torch.bfloat16), SDE), sampler, (n, 2), ts, seed=1)
    assert set(seen) == {torch.float32, torch.bfloat16}  # the embedding of t, and the body
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    spread = full.var(0)
    assert bool(((half.mean(0) - full.mean(0)).abs() < 5 * (2 * spread / n).sqrt()).all())
    assert bool(((half.var(0) - spread).abs() < 5 * spread * (4 / n) ** 0.5).all())


def test_autocast_keeps_its_inputs_and_says_what_it_takes(float32):
    given = []

    class Net(torch.nn.Module):
        def forward(self, x, t, y=None):
            given.append((x.dtype, t.dtype, y))
            return (x @ torch.eye(2)).to(torch.bfloat16)

    out = Autocast(Net())(torch.ones(3, 2), torch.tensor(0.5), y=4)
    assert out.dtype == torch.float32 and given == [(torch.float32, torch.float32, 4)]
    with pytest.raises(ValueError, match="expected a 16-bit dtype"):
        Autocast(Net(), torch.float64)
