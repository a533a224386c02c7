"""What may be trained and what is refused at the door; data, seeds and weights of every kind."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from scoresde.cli.train import Train
from scoresde.data import load_points
from scoresde.denoiser import EDMDenoiser, EpsDenoiser, ScoreDenoiser, VDenoiser, X0Denoiser
from scoresde.distributions import GaussianMixture
from scoresde.guidance import Guided, classifier_log_prob
from scoresde.losses import (
    ChainTimes,
    LogNormalTimes,
    LogSNRTimes,
    UniformTimes,
    denoising_loss,
    edm,
    loss_by_time,
    min_snr,
    simple,
    v_weight,
    x0_weight,
)
from scoresde.nets import MLP, Autocast, Classifier, ConcatMLP, UNet1d, UNet1dConfig
from scoresde.sde import VPSDE, CosineVPSDE, StraightPath
from scoresde.training import (
    accuracy,
    fit,
    fit_classifier,
    fit_paths,
    load,
    load_classifier,
    load_weights,
    save,
    save_classifier,
)
from scoresde.training.loop import Average

CPU = torch.device("cpu")
SHORT = dict(steps=6, batch=8, every=3)
DATA = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (DATA[:, 0] > 0).long()


def small(kind=EpsDenoiser, sde=None, **kwargs):
    torch.manual_seed(1)
    return kind(MLP(2, width=8, depth=1, **kwargs), sde or VPSDE())


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def ones(n, generator, device, dtype):
    return torch.ones(n, device=device, dtype=dtype)


class TestN06TimesBeyondTheLast:
    @pytest.mark.parametrize("sde", [CosineVPSDE(), StraightPath()], ids=["cosine", "straight"])
    @pytest.mark.parametrize("times", [UniformTimes(), ChainTimes(1000), ones])
    def test_n06_are_for_v_alone(self, sde, times):
        for kind in (EpsDenoiser, X0Denoiser, ScoreDenoiser, EDMDenoiser):
            with pytest.raises(ValueError, match=r"up to t_max = 0\.999\d* of .* predict v"):
                fit(small(kind, sde), DATA, times=times, **SHORT)
        for weight in (simple, v_weight):
            result = fit(small(VDenoiser, sde), DATA, times=times, weight=weight, **SHORT)
            assert weights(result.denoiser).isfinite().all()
        with pytest.raises(ValueError, match=r"weight that is finite .* got (inf|nan) at t = 1:"):
            fit(small(VDenoiser, sde), DATA, times=ones, weight=x0_weight, **SHORT)

    @pytest.mark.parametrize("sde", [CosineVPSDE(), StraightPath()], ids=["cosine", "straight"])
    def test_n06_the_loss_of_v_where_alpha_is_nothing(self, sde):
        """There x_t = z and v = -x0; halfway it is the weighted error of eps that it is named."""
        net = MLP(2, width=8, depth=1)
        nn.init.normal_(net.trunk.last.weight)
        model, t, z = VDenoiser(net, sde), torch.tensor(1.0), torch.randn(50, 2)
        expected = (net(z, t) + DATA).square().mean()
        loss = denoising_loss(model, DATA, t, z, v_weight)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        half = torch.tensor(0.5)
        by_product = v_weight(sde, half) * denoising_loss(model, DATA, half, z)
        loss = denoising_loss(model, DATA, half, z, v_weight)
        torch.testing.assert_close(loss, by_product, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_n06_sixteen_bits_do_not_round_a_time_up(self, dtype):
        """The times of a 16-bit model are those of a float32 one."""
        sde = StraightPath()
        for times in (
            UniformTimes(1e-5, sde.t_max),
            LogSNRTimes(sde),
            LogNormalTimes(sde),
            ChainTimes(1000),
        ):
            draw = lambda d, f=times: f(4096, torch.Generator().manual_seed(0), CPU, d)
            assert torch.equal(draw(dtype), draw(torch.float32))
        assert draw(dtype).max() == 1
        assert UniformTimes(1e-5, sde.t_max)(4096, None, CPU, dtype).max() <= 0.999
        model = small(EpsDenoiser, sde).to(dtype)
        seen = []
        model.net.register_forward_pre_hook(lambda net, args: seen.append(args[1].dtype))
        fit(model, DATA, **SHORT)
        assert set(seen) == {dtype}
        with pytest.raises(ValueError, match=r"up to t_max = 0\.999 of .* got 1:"):  # one's own
            fit(model, DATA, times=lambda n, *_: torch.rand(n).to(torch.bfloat16), **SHORT)

    @pytest.mark.parametrize(
        ("times", "error", "message"),
        [
            (lambda n, *_: torch.rand(n, 1), ValueError, r"draw \(n,\).* got \(65536, 1\)"),
            (lambda n, *_: torch.rand(n) - 0.5, ValueError, r"times in \[0, 1\], got -0"),
            (lambda n, *_: 2 * torch.rand(n), ValueError, r"times in \[0, 1\], got .* to 1.9"),
            (lambda n, *_: torch.full((n,), torch.nan), ValueError, "got nan to nan"),
            (UniformTimes, TypeError, "the class UniformTimes: make one"),
            (0.5, TypeError, "expected times such as"),
        ],
    )
    def test_n06_times_that_are_none(self, times, error, message):
        with pytest.raises(error, match=message):
            fit(small(), DATA, times=times, **SHORT)
        with pytest.raises(error, match=message):
            fit_classifier(Classifier(2, 2), VPSDE(), DATA, Y, times=times, **SHORT)

    def test_n06_a_look_leaves_no_trace(self):
        model, state = small(), torch.get_rng_state()
        fit(model, DATA, times=lambda n, *_: torch.rand(n), **SHORT)
        assert torch.equal(torch.get_rng_state(), state)

    def test_n06_on_the_command_line_before_a_folder_is_made(self, tmp_path):
        for process in ("cosine", "straight"):
            train = Train("ring", process=process, discrete=1000, out=tmp_path / "run")
            with pytest.raises(ValueError, match="expected --predict v with --discrete 1000"):
                train.run()
        assert not list(tmp_path.iterdir())


class TestN09Data:
    def like(self, data, **kwargs):
        return weights(
            fit(small(**kwargs.pop("net", {})).float(), data, **SHORT, **kwargs).denoiser
        )

    def test_n09_of_any_dtype_into_a_float32_network(self, tmp_path):
        expected = self.like(DATA.float())
        np.savetxt(tmp_path / "points.csv", DATA.numpy(), delimiter=",", fmt="%.17g")
        points = load_points(tmp_path / "points.csv")
        assert points.dtype == torch.float64
        for data in (points, DATA.numpy(), DATA.float().numpy()):
            assert torch.equal(self.like(data), expected)

    def test_n09_arrays_from_a_function_or_a_loader(self):
        draw = lambda n, generator: DATA[torch.randint(50, (n,), generator=generator)]
        arrays = lambda n, generator: draw(n, generator).numpy()
        assert torch.equal(self.like(arrays), self.like(draw))
        pairs = [(row.numpy(), label.numpy()) for row, label in zip(DATA, Y, strict=True)]
        plain = list(zip(DATA, Y, strict=True))
        keep = lambda rows: tuple(np.stack(part) for part in zip(*rows, strict=True))
        loaders = DataLoader(pairs, 10, collate_fn=keep), DataLoader(plain, 10)
        first, second = (self.like(data, net={"classes": 2}) for data in loaders)
        assert torch.equal(first, second)

    def test_n09_labels_of_any_width(self):
        kwargs = dict(net={"classes": 2}, label_dropout=0.1)
        expected = self.like(DATA, labels=Y, **kwargs)
        for labels in (Y.int(), Y.to(torch.uint8), Y.numpy().astype("int16"), Y.tolist()):
            assert torch.equal(self.like(DATA, labels=labels, **kwargs), expected)

    def test_n09_into_a_loss(self):
        model, z, t = small().float(), torch.randn(50, 2), torch.rand(50).float()
        expected = denoising_loss(model, DATA.float(), t, z.float())
        assert expected.dtype == torch.float32
        assert denoising_loss(model, DATA, t, z) == expected
        assert denoising_loss(model, DATA, t.double(), z).dtype == torch.float32
        curves = [loss_by_time(model, x, t[:2]).value for x in (DATA, DATA.float())]
        assert {curve.dtype for curve in curves} == {torch.float32}
        with pytest.raises(ValueError, match="at least one sample"):
            denoising_loss(model, DATA[:0], t[:0], z[:0])

    def test_n09_paths_and_classifiers(self):
        paths = torch.randn(8, 6, 2)
        arrays = [fit_paths(p, UNet1dConfig(2, 8, 1), **SHORT) for p in (paths, paths.numpy())]
        assert torch.equal(*(weights(a.denoiser) for a in arrays))
        net, ts = Classifier(2, 2, width=8).float(), torch.tensor([0.1, 0.9])
        draw = lambda x: accuracy(net, VPSDE(), x, Y, ts, torch.Generator().manual_seed(0))
        assert torch.equal(draw(DATA), draw(DATA.float()))


class Masked(nn.Module):
    """A weight, and a mask with infinities such as attention has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


class TestN17Average:
    @pytest.mark.parametrize("decay", [0.0, 0.9])
    def test_n17_what_is_infinite_is_kept(self, decay):
        module = Masked()
        average = Average(module, decay)
        for _ in range(3):
            average.update()
        assert torch.equal(average.settled().mask, module.mask)
        module.mask.zero_()  # what is not averaged is the module's present one
        assert not average.settled().mask.any()

    def test_n17_small_steps_do_not_round_away(self):
        """A weight that rises by 1/1000 a step: the recursion in float64, shown in bfloat16."""
        module, expected = Masked().bfloat16(), 0.0
        average = Average(module, 0.999)
        for k in range(3000):
            with torch.no_grad():
                module.weight.fill_(1 + 1e-3 * k)
            average.update()
            decay = min(0.999, (1 + k) / (10 + k))
            expected = decay * expected + (1 - decay) * float(module.weight.detach()[0])
        shown = average.settled().weight.detach()
        assert shown.dtype == torch.bfloat16
        torch.testing.assert_close(
            average.mine[0].double(), torch.full((3,), expected), rtol=1e-5, atol=0
        )
        torch.testing.assert_close(shown.double(), torch.full((3,), expected), rtol=2**-8, atol=0)

    def test_n17_a_run_in_16_bits_goes_on_exactly(self, tmp_path):
        """The average of a checkpoint is the wide one."""

        def stop(denoiser, calls=[]):  # noqa: B006
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return {}

        run = lambda path, **k: fit(
            small().bfloat16(), DATA, steps=40, batch=8, evaluate_every=20, checkpoint=path, **k
        )
        whole = run(tmp_path / "a.pt")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b.pt", evaluate=stop)
        stored = torch.load(tmp_path / "b.pt", weights_only=True)
        assert {a.dtype for a in stored["training"]["average"]} == {torch.float32}
        resumed = run(tmp_path / "b.pt", resume=True)
        assert torch.equal(weights(resumed.denoiser), weights(whole.denoiser))

    def test_n17_the_wide_average_costs_no_space_in_32_bits(self, tmp_path, float32):
        """It is the stored weights themselves; a file from before it was kept goes on too."""
        path = tmp_path / "c.pt"
        run = lambda **k: fit(
            small(), DATA, batch=8, every=3, evaluate_every=6, checkpoint=path, **k
        )
        run(steps=6)
        stored = torch.load(path, weights_only=True)
        weight, mine = stored["weights"]["net.trunk.time.weight"], stored["training"]["average"]
        assert weight.data_ptr() in [a.data_ptr() for a in mine]
        expected = run(steps=12, resume=True)
        del stored["training"]["average"]
        torch.save(stored, path)
        assert torch.equal(
            weights(run(steps=12, resume=True).denoiser), weights(expected.denoiser)
        )

    def test_n17_a_mean_loss_adds_up_in_16_bits(self):
        """300 losses near 1: in bfloat16 the sum stops growing at 256."""
        each = fit(small().bfloat16(), DATA, steps=300, batch=8, every=1).history
        whole = fit(small().bfloat16(), DATA, steps=300, batch=8, every=300).history
        mean = np.mean([row["loss"] for row in each])
        assert whole[0]["loss"] == pytest.approx(mean, rel=1e-5)

    def test_n17_and_in_64_bits_whatever_the_default_is(self, float32):
        each, whole = (
            fit(small().double(), DATA, steps=30, batch=8, every=n).history for n in (1, 30)
        )
        mean = np.mean([row["loss"] for row in each])
        assert whole[0]["loss"] == pytest.approx(mean, rel=1e-13)


@pytest.mark.parametrize("weight", [edm(0.5), min_snr(3.0)])
def test_n21_weights_are_pickled_compared_and_printed(weight):
    copy = pickle.loads(pickle.dumps(weight))
    assert copy == weight != type(weight)(7.0)
    assert eval(repr(weight)) == weight
    t = torch.rand(5)
    assert torch.equal(copy(VPSDE(), t), weight(VPSDE(), t))
    for bad in (0.0, -1.0, float("nan"), "a"):
        with pytest.raises(ValueError, match="> 0, got"):
            type(weight)(bad)


class TestN22Misuse:
    @pytest.mark.parametrize(
        ("denoiser", "message"),
        [
            (lambda: MLP(2), r"expected a denoiser, got MLP: .* EpsDenoiser\(net, VPSDE\(\)\)"),
            (lambda: EpsDenoiser, r"the class EpsDenoiser: make one, EpsDenoiser\(...\)"),
            (lambda: EpsDenoiser(MLP, VPSDE()), "of a network, got one of the class MLP"),
            (lambda: EpsDenoiser(MLP(2), VPSDE), r"a process, such as VPSDE\(\), got the class"),
        ],
    )
    def test_n22_no_denoiser(self, denoiser, message):
        with pytest.raises(TypeError, match=message):
            fit(denoiser(), DATA, **SHORT)

    def test_n22_no_weight_network_process_or_recipe(self):
        with pytest.raises(TypeError, match=r"such as edm.*the class edm: make one"):
            fit(small(), DATA, weight=edm, **SHORT)
        with pytest.raises(TypeError, match=r"an nn\.Module, got the class Classifier"):
            fit_classifier(Classifier, VPSDE(), DATA, Y, **SHORT)
        with pytest.raises(TypeError, match="a process"):
            fit_classifier(Classifier(2, 2), VPSDE, DATA, Y, **SHORT)
        for net in (UNet1dConfig, UNet1d(2)):
            with pytest.raises(TypeError, match=r"a recipe, such as UNet1dConfig\(2\), got"):
                fit_paths(torch.randn(8, 6, 2), net, **SHORT)
        with pytest.raises(TypeError, match="a process"):
            fit_paths(torch.randn(8, 6, 2), sde=VPSDE, **SHORT)

    @pytest.mark.parametrize("seed", ["a", "3", True, 1.5, None, 2**64, torch.tensor(3)])
    def test_n22_seeds(self, seed):
        for train in (
            lambda: fit(small(), DATA, seed=seed, **SHORT),
            lambda: fit_classifier(Classifier(2, 2), VPSDE(), DATA, Y, seed=seed, **SHORT),
            lambda: fit_paths(torch.randn(8, 6, 2), seed=seed, **SHORT),
        ):
            with pytest.raises(ValueError, match="expected seed to be an integer"):
                train()

    def test_n22_whole_numbers_of_numpy(self):
        whole = dict(steps=np.int64(6), batch=np.int32(8), every=np.int64(3), seed=np.int64(5))
        first, second = fit(small(), DATA, **whole), fit(small(), DATA, seed=5, **SHORT)
        assert torch.equal(weights(first.denoiser), weights(second.denoiser))
        with pytest.raises(ValueError, match="steps to be a positive integer, got True"):
            fit(small(), DATA, steps=True)

    def test_n22_data_that_run_out(self):
        sizes = iter([8, 8, 8, 0])
        with pytest.raises(ValueError, match="yield samples, 8 at a time, got none"):
            fit(small(), lambda n, generator: torch.randn(next(sizes), 2), **SHORT)

    @pytest.mark.parametrize("kind", [MLP, ConcatMLP, partial(Classifier, classes=2)])
    def test_n22_no_samples_and_a_column_of_times(self, kind):
        net = kind(2, width=8)
        for t in (torch.tensor(0.3), torch.zeros(0)):
            assert net(torch.zeros(0, 2), t).shape == (0, 2)
        with pytest.raises(ValueError, match=r"time \(\) or \(B,\), got \(5, 1\)"):
            net(torch.zeros(5, 2), torch.zeros(5, 1))

    @pytest.mark.parametrize(
        "y",
        [-1, 3, torch.tensor(-1), torch.tensor([0, 1, 3, 2]), True, 1.5, "a", torch.zeros(4)],
    )
    def test_n22_labels_that_a_classifier_does_not_know(self, y):
        with pytest.raises(ValueError, match=r"expected (labels 0\.\.2|a label 0, 1)"):
            classifier_log_prob(Classifier(2, 3), y)

    def test_n22_labels_of_any_kind_are_the_same_label(self):
        net, x, t = Classifier(2, 3), torch.randn(4, 2), torch.tensor(0.3)
        nn.init.normal_(net.trunk.last.weight)
        expected = net(x, t).log_softmax(1)[:, 1]
        same = (
            1,
            np.int64(1),
            torch.tensor(1),
            torch.ones(4).int(),
            [1, 1, 1, 1],
            np.ones(4, int),
        )
        for y in same:
            log_h = classifier_log_prob(net, y)
            torch.testing.assert_close(log_h(x, t), expected, rtol=0, atol=0)
        part = Guided(small(), classifier_log_prob(net, torch.tensor([0, 1, 1, 2]))).part(
            slice(1, 3)
        )
        torch.testing.assert_close(part.log_h(x[1:3], t), expected[1:3], rtol=0, atol=0)


WRAPPED = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "parallel": nn.DataParallel,
    "autocast": Autocast,
    "both": lambda net: torch.compile(Autocast(net), backend="eager"),
}


class TestWrappedNetworks:
    """_orig_mod. and module. never reach a file, and a wrapper hides nothing."""

    @pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
    def test_stored_as_the_network_alone(self, wrap, tmp_path, float32):
        path, x, t, y = tmp_path / "d.pt", torch.randn(5, 2), torch.rand(5), torch.zeros(5).long()
        inner = small(classes=2)
        nn.init.normal_(inner.net.trunk.last.weight)
        model = EpsDenoiser(wrap(inner.net), VPSDE())
        save(path, model)
        stored = torch.load(path, weights_only=True)["weights"]
        assert stored.keys() == inner.state_dict().keys()
        assert torch.equal(load(path)(x, t, y=y), inner(x, t, y=y))
        other = EpsDenoiser(wrap(MLP(2, 8, 1, classes=2)), VPSDE())
        load_weights(other, path)
        assert torch.equal(weights(other), weights(inner))

    @pytest.mark.parametrize("name", ["compiled", "autocast"])
    def test_trained(self, name, tmp_path, float32):
        """The steps of a compiled network are its own; in 16 bits classes are still known."""
        plain, wrapped = small(classes=2), small(classes=2)
        wrapped.net = WRAPPED[name](wrapped.net)
        kwargs = dict(labels=Y, label_dropout=0.1, checkpoint=tmp_path / "c.pt", **SHORT)
        expected, result = fit(plain, DATA, **kwargs), fit(wrapped, DATA, **kwargs)
        error = {"compiled": 1e-6, "autocast": 2e-2}[name]
        assert (weights(result.denoiser) - weights(expected.denoiser)).abs().max() < error
        assert weights(load(tmp_path / "c.pt")).equal(weights(result.denoiser))
        again = fit(small(classes=2), DATA, **kwargs, resume=True)  # into one that is not wrapped
        assert torch.equal(weights(again.denoiser), weights(result.denoiser))


def test_a_compiled_classifier_is_stored_as_itself(tmp_path, float32):
    """And trained as one that is not compiled."""
    nets = [Classifier(2, 2, width=8), Classifier(2, 2, width=8)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1] = WRAPPED["compiled"](nets[1])
    first, second = (fit_classifier(net, VPSDE(), DATA, Y, **SHORT).classifier for net in nets)
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=1e-6)
    save_classifier(tmp_path / "c.pt", nets[1], VPSDE())
    stored = load_classifier(tmp_path / "c.pt", VPSDE())
    assert torch.equal(weights(stored), weights(nets[1]))


def test_a_checkpoint_of_another_kind_of_device(tmp_path):
    """The random state of a GPU has 16 bytes, that of the CPU 5056."""
    kwargs = dict(checkpoint=tmp_path / "c.pt", **SHORT)
    fit(small(), DATA, **kwargs)
    stored = torch.load(tmp_path / "c.pt", weights_only=True)
    stored["training"]["generator"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(stored, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"made on this kind of device, cpu, but .* of another"):
        fit(small(), DATA, resume=True, **kwargs)


def test_a_law_into_a_float32_network():
    """A float64 mixture trains and judges a float32 network."""
    law = GaussianMixture([1.0], torch.zeros(1, 2), torch.eye(2)[None], VPSDE())
    result = fit(small().float(), law, law=law, **SHORT)
    assert result.by_time.excess.dtype == torch.float64
    assert (result.by_time.excess > 0).all()
