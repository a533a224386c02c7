"""What only a real card can show: memory, streams, threads, long graphs, precision, compiler."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from scoresde import (
    DDIM,
    VPSDE,
    Ancestral,
    DPMSolverPP,
    EpsDenoiser,
    UniPC,
    fit,
    log_snr,
    sample,
)
from scoresde.data import ring
from scoresde.nets import MLP, Autocast
from scoresde.samplers import Captured

pytestmark = [pytest.mark.real_gpu, pytest.mark.usefixtures("float32")]
SDE = VPSDE()
MILLION, MIB = 1_000_000, 2**20
TS = log_snr(SDE, 20)


@pytest.fixture
def model():
    """A network with weights of its own, on the card."""
    net = MLP(2).to("cuda").eval().requires_grad_(False)
    torch.nn.init.normal_(net.trunk.last.weight, std=0.05)
    return EpsDenoiser(net, SDE)


def drawn(model, sampler=None, n=4096, ts=TS, **settings):
    settings = {"seed": 0, "device": "cuda"} | settings
    return sample(model, sampler or DDIM(), (n, 2), ts, **settings)


def close(a, b, tolerance=1e-4):
    """Within a tolerance of the largest number."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def used():
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


class TestMemory:
    def test_a_thousand_calls_leave_nothing(self, model):
        drawn(model, n=256)
        before = used()
        for _ in range(1000):
            drawn(model, n=256)
        assert used() == before

    def test_a_hundred_grids_leave_nothing_there(self, model):
        """Tables are cached on the host."""
        drawn(model, n=256)
        before = used()
        for steps in range(5, 105):
            drawn(model, n=256, ts=log_snr(SDE, steps))
        assert used() == before

    def test_a_dropped_graph_gives_its_memory_back(self, model):
        x = torch.randn(65536, 2, device="cuda")
        before, captured = used(), Captured(Ancestral())
        captured(model, x, TS)
        assert used() > before + 20 * x.nbytes  # the noise of every row
        del captured
        assert used() == before

    @pytest.mark.parametrize("chunk", [None, MILLION])
    def test_a_million_points(self, model, chunk):
        """At most a dozen activations of a chunk live at once."""
        torch.cuda.reset_peak_memory_stats()
        before = used()
        out = drawn(model, n=MILLION, chunk=chunk)
        assert out.isfinite().all()
        at_once = chunk or 16 * 4096
        most = 2 * out.nbytes + 12 * at_once * 128 * 4
        assert torch.cuda.max_memory_allocated() - before < most


class TestGraphs:
    @pytest.mark.parametrize("sampler", [DDIM(), Ancestral(), DPMSolverPP(2, 1.0), UniPC(3)])
    def test_two_hundred_rows(self, model, sampler):
        ts = log_snr(SDE, 200)
        close(drawn(model, sampler, ts=ts, graph=True), drawn(model, sampler, ts=ts))

    def test_a_thousand_noisy_rows(self, model):
        ts = log_snr(SDE, 1000)
        plain = drawn(model, Ancestral(), 65536, ts)
        close(drawn(model, Ancestral(), 65536, ts, graph=True), plain)

    def test_the_next_graph_of_the_process_can_be_captured(self, model):
        Captured(DDIM())(model, torch.randn(64, 2, device="cuda"), TS)
        x, side = torch.randn(64, 2, device="cuda"), torch.cuda.Stream()
        linear = torch.nn.Linear(2, 2, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            linear(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = linear(x) + 0 * torch.rand_like(x)
        graph.replay()
        close(out.detach(), linear(x).detach())

    def test_compiled(self, model):
        """By inductor: other kernels, so to 1e-3."""
        close(drawn(model, compile=True), drawn(model), 1e-3)
        close(drawn(model, compile=True, graph=True), drawn(model), 1e-3)


def test_two_streams(model):
    want, streams, found = drawn(model), [torch.cuda.Stream(), torch.cuda.Stream()], []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found.append(drawn(model))
    torch.cuda.synchronize()
    for out in found:
        close(out, want)


def test_two_threads(model):
    want = drawn(model)
    with ThreadPoolExecutor(2) as pool:
        for out in pool.map(lambda _: drawn(model), range(2)):
            close(out, want)


class TestPrecision:
    def test_the_numbers_of_the_cpu(self, model):
        x = torch.randn(4096, 2)
        z = torch.randn(20, 4096, 2)
        for sampler in (DDIM(), Ancestral(), UniPC(3)):
            there = sampler(model, x.cuda(), TS, noise=lambda k, *_: z[k].cuda())
            here = sampler(model.cpu(), x, TS, noise=lambda k, *_: z[k])
            model.cuda()
            close(there.cpu(), here)

    def test_tf32_moves_samples_by_little(self, model):
        """Ten bits of mantissa in the products of the network: at most 2^-10 of it, 20 times."""
        want = drawn(model)
        torch.set_float32_matmul_precision("high")
        try:
            shift = (drawn(model) - want).abs().max()
        finally:
            torch.set_float32_matmul_precision("highest")
        assert 0 < float(shift) < 20 * 2**-10 * float(want.abs().max())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_body_in_16_bits_samples_the_same_distribution(self, model, dtype):
        n = 65536
        full = drawn(model, n=n)
        half = drawn(EpsDenoiser(Autocast(model.net, dtype), SDE), n=n, seed=1)
        spread = full.var(0)
        assert half.dtype == torch.float32
        assert bool(((half.mean(0) - full.mean(0)).abs() < 5 * (2 * spread / n).sqrt()).all())
        assert bool(((half.var(0) - spread).abs() < 5 * spread * (4 / n) ** 0.5).all())

    def test_deterministic_algorithms(self, model, monkeypatch):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        data = ring(SDE).sample(2000).float()
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.equal(drawn(model), drawn(model))
            weights = [
                next(fit(EpsDenoiser(net, SDE), data, steps=20, batch=64).denoiser.parameters())
                for net in (seeded(), seeded())
            ]
        finally:
            torch.use_deterministic_algorithms(False)
        assert torch.equal(*weights)


def seeded():
    torch.manual_seed(0)
    return MLP(2, width=32).to("cuda")


def loss(net, data, seed=0):
    """The mean loss of the last hundred of 400 steps."""
    settings = {"steps": 400, "batch": 512, "every": 100, "seed": seed}
    return fit(EpsDenoiser(net, SDE), data, **settings).history[-1]["loss"]


@pytest.fixture(scope="module")
def usual():
    """Data, and the loss on them: mean and scatter over six seeds."""
    torch.set_default_dtype(torch.float32)
    data = ring(SDE).sample(20_000, generator=torch.Generator().manual_seed(0)).float()
    found = torch.tensor([loss(seeded(), data, seed) for seed in range(6)])
    return data, float(found.mean()), float(found.std())


class TestTraining:
    def test_bf16_learns_as_float32(self, usual):
        data, mean, sd = usual
        assert abs(loss(Autocast(seeded(), torch.bfloat16), data, 7) - mean) < 5 * sd

    def test_a_pinned_loader(self, usual):
        """The batches of one that is not pinned, in the same order."""
        batches = TensorDataset(usual[0])
        found = [
            loss(seeded(), DataLoader(batches, batch_size=512, pin_memory=pinned))
            for pinned in (False, True)
        ]
        assert found[1] == pytest.approx(found[0], rel=1e-4)

    def test_a_checkpoint_of_the_cpu_says_where_it_comes_from(self, tmp_path):
        data, path = ring(SDE).sample(2000).float(), tmp_path / "checkpoint.pt"
        settings = {"steps": 4, "batch": 64, "checkpoint": path, "evaluate_every": 2}
        fit(EpsDenoiser(MLP(2), SDE), data, **settings)
        with pytest.raises(ValueError, match="this kind of device"):
            fit(EpsDenoiser(MLP(2).to("cuda"), SDE), data, resume=True, **settings)
