"""Training: exact where it is arithmetic, at the floor where it is learning."""

import csv
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from scoresde.denoiser import Affine, EpsDenoiser, VDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.losses import (
    ChainTimes,
    LogNormalTimes,
    LogSNRTimes,
    denoising_loss,
    excess_loss,
    likelihood,
    min_snr,
    simple,
)
from scoresde.nets import MLP, Classifier
from scoresde.sde import VPSDE, CosineVPSDE
from scoresde.training import fit, fit_classifier, load
from scoresde.training import loop as loops
from scoresde.training.batches import source
from scoresde.training.loop import Average, rate


def small(**kwargs):
    torch.manual_seed(1)
    return EpsDenoiser(MLP(2, width=8, depth=1, **kwargs), VPSDE())


def gauss():
    cov = torch.tensor([[[0.5, 0.2], [0.2, 0.3]]])
    return GaussianMixture([1.0], torch.tensor([[0.3, -0.2]]), cov, VPSDE())


def two(std=0.5):
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    return GaussianMixture.isotropic([0.5, 0.5], means, std, VPSDE())


def weights(denoiser):
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


SHORT = dict(steps=12, batch=16, every=5)
DATA = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestAverage:
    def test_is_the_recursion(self):
        """The decay is (1 + k)/(10 + k) until it reaches its largest."""
        module = nn.BatchNorm1d(3)
        average = Average(module, decay=0.3)
        expected = {name: value.clone() for name, value in module.state_dict().items()}
        for k in range(6):
            with torch.no_grad():
                module.weight.normal_()
            module(torch.randn(5, 3))  # moves the buffers
            average.update()
            decay = min(0.3, (1 + k) / (10 + k))
            for name, value in module.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * value
        state = average.settled().state_dict()
        for name in ("weight", "bias", "running_mean", "running_var"):
            torch.testing.assert_close(state[name], expected[name], rtol=1e-13, atol=1e-13)
        assert int(state["num_batches_tracked"]) == 6
        assert not average.module.training

    def test_is_what_fit_returns(self, monkeypatch):
        """With decay 0 the average is the last weight."""
        denoiser = small()
        result = fit(denoiser, DATA, ema=0.0, **SHORT)
        torch.testing.assert_close(weights(result.denoiser), weights(denoiser), rtol=0, atol=1e-15)
        assert not torch.equal(weights(fit(small(), DATA, **SHORT).denoiser), weights(denoiser))


def test_rate():
    assert rate(0, 1000) == pytest.approx(0.01)
    assert rate(99, 1000) == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.099)))
    assert rate(500, 1000) == pytest.approx(0.5)
    assert 0 < rate(999, 1000) < 1e-5
    assert rate(0, 1) == 1


class TestRepeats:
    def test_by_seed(self):
        first, second, other = (
            fit(small(dropout=0.2), DATA, seed=seed, **SHORT) for seed in (3, 3, 4)
        )
        assert torch.equal(weights(first.denoiser), weights(second.denoiser))
        assert not torch.equal(weights(first.denoiser), weights(other.denoiser))
        assert [row["loss"] for row in first.history] == [row["loss"] for row in second.history]

    def test_and_leaves_the_world_as_it_was(self):
        denoiser, state = small(dropout=0.2), torch.get_rng_state()
        denoiser.net.trunk.blocks[0].eval()
        modes = [part.training for part in denoiser.modules()]
        fit(denoiser, DATA, evaluate=lambda d: {"noise": float(torch.randn(()))}, **SHORT)
        assert torch.equal(torch.get_rng_state(), state)
        assert [part.training for part in denoiser.modules()] == modes
        denoiser.net.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(denoiser, DATA, **SHORT)
        assert [part.training for part in denoiser.modules()] == modes

    def test_whether_evaluated_or_not(self):
        plain = fit(small(dropout=0.2), DATA, **SHORT)
        watched = fit(
            small(dropout=0.2),
            DATA,
            evaluate=lambda d: {"noise": float(torch.randn(()))},
            evaluate_every=3,
            **SHORT,
        )
        assert torch.equal(weights(plain.denoiser), weights(watched.denoiser))

    def test_fused_or_not(self, monkeypatch):
        fused = fit(small(), DATA, **SHORT)
        monkeypatch.setattr(loops, "_adam", lambda p, lr: torch.optim.Adam(p, lr=lr))
        plain = fit(small(), DATA, **SHORT)
        torch.testing.assert_close(
            weights(fused.denoiser), weights(plain.denoiser), rtol=1e-10, atol=1e-12
        )


class Stop(Exception):
    pass


def stopping(after):
    """An evaluation that is interrupted the second time, when a checkpoint has been written."""
    calls = []

    def evaluate(denoiser):
        calls.append(1)
        if len(calls) > after:
            raise Stop
        return {"size": float(weights(denoiser).norm())}

    return evaluate


class TestResume:
    def run(self, path, evaluate, **kwargs):
        labels = (DATA[:, 0] > 0).long()
        return fit(
            small(classes=2, dropout=0.1),
            DATA,
            labels=labels,
            label_dropout=0.3,
            steps=23,
            batch=16,
            every=4,
            evaluate=evaluate,
            evaluate_every=6,
            checkpoint=path / "run.pt",
            log=path / "log.csv",
            **kwargs,
        )

    def test_is_exact(self, tmp_path):
        (tmp_path / "a").mkdir()
        whole = self.run(tmp_path / "a", stopping(99))
        with pytest.raises(Stop):
            self.run(tmp_path, stopping(2))
        stored = load(tmp_path / "run.pt")  # a checkpoint is a file like any other
        assert isinstance(stored, EpsDenoiser)
        resumed = self.run(tmp_path, stopping(99), resume=True)
        assert (weights(resumed.denoiser) - weights(whole.denoiser)).abs().max() < 1e-12
        for mine, theirs in zip(resumed.history, whole.history, strict=True):
            for key in ("step", "loss", "lr", "size"):
                assert mine.get(key) == pytest.approx(theirs.get(key), abs=1e-12)
        mine, theirs = (rows(p / "log.csv") for p in (tmp_path, tmp_path / "a"))
        assert [row["loss"] for row in mine] == [row["loss"] for row in theirs]
        again = self.run(tmp_path, stopping(99), resume=True)  # nothing left to do
        assert torch.equal(weights(again.denoiser), weights(resumed.denoiser))

    def test_without_a_file_it_starts(self, tmp_path):
        assert self.run(tmp_path, None, resume=True).history[-1]["step"] == 23

    def test_of_something_else(self, tmp_path):
        kwargs = dict(checkpoint=tmp_path / "run.pt", resume=True, **SHORT)
        with pytest.raises(ValueError, match="checkpoint=path"):
            fit(small(), DATA, resume=True, **SHORT)
        fit(small(), DATA, **kwargs)
        other = EpsDenoiser(MLP(2, width=9), VPSDE())
        with pytest.raises(ValueError, match="does not fit"):
            fit(other, DATA, **kwargs)


class TestLearns:
    def test_a_gaussian_to_its_floor(self):
        torch.manual_seed(0)
        denoiser = VDenoiser(MLP(2, width=48, depth=2).float(), VPSDE())
        result = fit(denoiser, gauss(), steps=1200, batch=256, law=gauss())
        by_time = result.by_time
        assert by_time.excess.mean() < 0.002
        assert by_time.loss.mean() < 1.01 * by_time.floor.mean()
        assert (by_time.t.diff() > 0).all()
        assert by_time.stderr.max() < by_time.excess.mean()

    def test_discrete_times_and_a_weight(self):
        result = fit(
            small(), gauss(), steps=300, batch=128, times=ChainTimes(20), weight=likelihood
        )
        ts = torch.arange(1, 21) / 20
        assert excess_loss(result.denoiser, gauss(), ts).value[1:].mean() < 0.1

    def test_a_process_that_ends_before_one(self):
        """The default times stop at t_max, where alpha is still above zero."""
        net, seen = MLP(2, width=8), []
        net.register_forward_pre_hook(lambda module, args: seen.append(args[1].max()))
        fit(EpsDenoiser(net, CosineVPSDE()), DATA, **SHORT)
        assert 0.9 < max(seen) <= CosineVPSDE().t_max

    def test_the_user_s_units(self):
        """Data of mean 1000 and spread 300, mapped by the affine, train as their image does."""
        wild = 1000 + 300 * DATA
        affine = Affine.fit(wild)
        mapped = small()
        mapped.affine = affine
        direct = fit(small(), affine(wild), **SHORT)
        for data in (wild, lambda n, g: wild[torch.randint(50, (n,), generator=g)]):
            result = fit(mapped, data, **SHORT)
            torch.testing.assert_close(
                weights(result.denoiser), weights(direct.denoiser), rtol=1e-9, atol=1e-12
            )
            mapped = small()
            mapped.affine = affine

    def test_units_in_another_precision(self):
        """Subtracting 1e6 in float64 keeps what float32 would round away."""
        far = 1e6 + DATA
        model = EpsDenoiser(MLP(2, width=8).float(), VPSDE(), Affine.fit(far))
        assert torch.isfinite(weights(fit(model, far, **SHORT).denoiser)).all()
        batches = source(far, None, 16, model.affine, torch.zeros(1).float())
        torch.testing.assert_close(batches.x, model.affine(far).float(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("weight", [simple, likelihood, min_snr()])
    @pytest.mark.parametrize(
        "times", [None, ChainTimes(), LogSNRTimes(VPSDE()), LogNormalTimes(VPSDE())]
    )
    def test_no_step_waits_for_the_device(self, no_sync, monkeypatch, times, weight):
        """Between two rows nothing is read: every step runs where reading is refused."""
        denoiser = small(classes=3, dropout=0.1)
        allowed = []
        step = loops.Loop.step

        def guarded(self, loss):
            with no_sync():
                value = step(self, loss)
            allowed.append(value)
            return value

        monkeypatch.setattr(loops.Loop, "step", guarded)
        labels = torch.randint(3, (50,))
        kwargs = dict(labels=labels, label_dropout=0.1, times=times, weight=weight)
        fit(denoiser, DATA, **kwargs, **SHORT)
        assert len(allowed) == 12
        assert all(p.grad is None for p in denoiser.parameters())


class TestLabels:
    def test_are_dropped_at_their_rate(self):
        seen = []
        denoiser = small(classes=5)
        hook = lambda net, args, kwargs: seen.append(kwargs["y"])
        denoiser.net.register_forward_pre_hook(hook, with_kwargs=True)
        labels = torch.randint(5, (50,))
        fit(denoiser, DATA, labels=labels, label_dropout=0.2, steps=40, batch=500)
        y = torch.cat(seen)
        share = (y == 5).double().mean()
        assert abs(share - 0.2) < 5 * (0.2 * 0.8 / len(y)) ** 0.5
        assert y.min() == 0

    def test_are_those_of_their_samples(self):
        seen = []
        denoiser = small(classes=2)
        data = torch.where(torch.arange(50)[:, None] < 25, -1e3, 1e3) + DATA
        hook = lambda net, args, kwargs: seen.append((args[0], kwargs["y"]))
        denoiser.net.register_forward_pre_hook(hook, with_kwargs=True)
        pairs = TensorDataset(data, (torch.arange(50) >= 25).long())
        fit(denoiser, pairs, times=ChainTimes(50), **SHORT)
        for x, y in seen:
            clear = x.abs() > 10
            assert torch.equal((x > 0)[clear], (y == 1)[:, None].expand_as(x)[clear])


class TestData:
    @pytest.mark.parametrize(
        "data",
        [
            DATA.numpy(),
            np.broadcast_to(DATA.numpy(), (50, 2)),  # read-only
            DATA.float(),
            TensorDataset(DATA),
            DataLoader(TensorDataset(DATA), batch_size=16),
            gauss(),
            lambda n, generator: torch.randn(n, 2, generator=generator),
            DATA.reshape(50, 2, 1),
        ],
    )
    def test_of_every_kind(self, data):
        result = fit(small(), data, **SHORT)
        assert result.history[-1]["step"] == 12
        assert torch.isfinite(weights(result.denoiser)).all()

    def test_a_dataset_is_its_tensor(self):
        direct, read = (fit(small(), data, **SHORT) for data in (DATA, TensorDataset(DATA)))
        assert torch.equal(weights(direct.denoiser), weights(read.denoiser))

    def test_a_function_is_looked_at_without_a_trace(self):
        draw = lambda n, generator: DATA[torch.randint(50, (n,), generator=generator)]
        direct, drawn = (fit(small(), data, **SHORT) for data in (DATA, draw))
        assert torch.equal(weights(direct.denoiser), weights(drawn.denoiser))

    def test_images_may_have_constant_pixels(self):
        images = torch.rand(20, 1, 3, 3)
        images[..., 0] = 0
        denoiser = EpsDenoiser(MLP(9, width=8), VPSDE())
        fit(denoiser, images, **SHORT)
        with pytest.raises(ValueError, match="constant"):
            fit(denoiser, torch.zeros(20, 1, 3, 3), **SHORT)

    constant = torch.stack([DATA[:, 0], torch.ones(50)], 1)

    @pytest.mark.parametrize(
        ("data", "kwargs", "message"),
        [
            (torch.zeros(0, 2), {}, "n >= 2 samples, got"),
            (torch.randn(50), {}, "expected data of shape"),
            (DATA.round().long(), {}, "floating-point"),
            (torch.where(DATA > 2, torch.nan, DATA), {}, "NaN or infinity"),
            (constant, {}, "constant"),
            (lambda n, g: torch.full((n, 2), torch.nan), {}, "NaN or infinity"),
            (torch.randn(50, 3), {}, "with 2 numbers a sample"),
            ("points.csv", {}, "expected data as a tensor"),
            (TensorDataset(torch.zeros(0, 2)), {}, "empty"),
            (DATA, {"labels": torch.zeros(49).long()}, r"expected labels \(50,\)"),
            (DATA, {"labels": torch.zeros(50)}, "whole numbers"),
            (DATA, {"labels": torch.full((50,), -1)}, r"0, 1, ..., got -1"),
            (DATA, {"labels": torch.zeros(50).long()}, "classes=K"),
            (gauss(), {"labels": torch.zeros(50).long()}, "data in memory"),
            (DATA, {"label_dropout": 0.1}, "a network with classes"),
            (DATA, {"steps": 0}, "steps"),
            (DATA, {"batch": 2.5}, "batch"),
            (DATA, {"every": 0}, "every"),
            (DATA, {"lr": -1.0}, "lr > 0"),
            (DATA, {"ema": 1.0}, "ema < 1"),
            (DATA, {"clip": 0.0}, "clip > 0"),
        ],
    )
    def test_that_cannot_be(self, data, kwargs, message):
        with pytest.raises((ValueError, TypeError), match=message):
            fit(small(), data, **(SHORT | kwargs))

    def test_labels_beyond_the_classes(self):
        labels = torch.arange(50) % 4
        with pytest.raises(ValueError, match=r"labels 0..2"):
            fit(small(classes=3), DATA, labels=labels, **SHORT)

    def test_nothing_to_train(self):
        with pytest.raises(ValueError, match="weights to train"):
            fit(gauss(), DATA, **SHORT)


class TestReports:
    def test_history_and_log(self, tmp_path):
        path = tmp_path / "log.csv"
        evaluate = lambda denoiser: {"w2": 1.0}
        result = fit(
            small(),
            DATA,
            steps=12,
            batch=16,
            every=5,
            evaluate=evaluate,
            evaluate_every=4,
            log=path,
        )
        assert [row["step"] for row in result.history] == [4, 5, 8, 10, 12]
        assert result.curve("w2") == ([4, 8, 12], [1, 1, 1])
        logged = rows(path)
        assert [float(row["loss"]) for row in logged] == [row["loss"] for row in result.history]
        assert [row["w2"] for row in logged] == ["1.0", "", "1.0", "", "1.0"]

    def test_loss_is_the_mean_since_the_row_before(self):
        every = fit(small(), DATA, steps=12, batch=16, every=1).history
        some = fit(small(), DATA, steps=12, batch=16, every=6).history
        mean = np.mean([row["loss"] for row in every[6:]])
        assert some[1]["loss"] == pytest.approx(mean, rel=1e-12)

    def test_time_to_a_level(self):
        values = iter([3.0, 2.0, 1.0])

        def evaluate(denoiser):
            time.sleep(0.2)
            return {"w2": next(values)}

        result = fit(small(), DATA, steps=12, batch=16, evaluate=evaluate, evaluate_every=4)
        assert result.seconds_to("w2", 2.5) == result.history[1]["seconds"]
        assert result.seconds_to("w2", 0.5) is None
        assert result.seconds < 0.5  # evaluations are not counted

    def test_a_bar(self, capsys):
        fit(small(), DATA, progress="spiral", **SHORT)
        shown = capsys.readouterr().err
        assert "spiral: 100%" in shown
        assert "12/12" in shown
        assert "loss=" in shown

    def test_silent_by_default(self, capsys):
        fit(small(), DATA, **SHORT)
        assert capsys.readouterr() == ("", "")

    def test_a_loss_that_diverges(self, tmp_path):
        denoiser = small()
        denoiser.net.register_forward_hook(lambda net, args, out: out * torch.inf)
        with pytest.raises(FloatingPointError, match="between steps 0 and 5"):
            fit(denoiser, DATA, checkpoint=tmp_path / "run.pt", **SHORT)
        assert not list(tmp_path.iterdir())


class TestClassifier:
    def labelled(self, n, generator):
        y = torch.randint(2, (n,), generator=generator)
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return two().means[y] + 0.5 * z, y

    def test_knows_its_uncertainty_only_if_it_saw_noise(self):
        """Exact log-odds: 2 alpha x_1/(alpha^2 std^2 + sigma^2)."""
        law, sde, t = two(), VPSDE(), torch.tensor(0.4)
        x = law.sample(2000, t)
        v = sde.alpha(t) ** 2 * 0.25 + sde.sigma2(t)
        exact = torch.sigmoid(2 * sde.alpha(t) * x[:, 0] / v)
        error = {}
        for clean in (False, True):
            torch.manual_seed(0)
            net = Classifier(2, 2, width=32, depth=1)
            result = fit_classifier(net, sde, self.labelled, steps=300, batch=256, clean=clean)
            p = result.classifier(x, t).detach().softmax(1)[:, 1]
            error[clean] = float((p - exact).abs().mean())
            assert result.times[0] == 0
            bayes = torch.special.ndtr(torch.tensor(2.0))  # means 2 standard deviations away
            assert abs(result.accuracy[0] - bayes) < 5 * (bayes * (1 - bayes) / 4096) ** 0.5
        assert error[False] < 0.03 < error[True]

    def test_accuracy_falls_to_chance(self):
        x, y = self.labelled(1000, None)
        result = fit_classifier(Classifier(2, 2, width=8), VPSDE(), x, y, steps=50, batch=64)
        assert result.accuracy[0] > 0.9
        assert result.accuracy[-1] < 0.7
        assert result.accuracy.shape == result.times.shape
        assert result.history[-1]["loss"] > 0

    def test_needs_labels(self):
        with pytest.raises(ValueError, match="expected labels"):
            fit_classifier(Classifier(2, 2), VPSDE(), DATA)


@pytest.mark.gpu
class TestGpu:
    def test_agrees_with_the_cpu(self, float32):
        """The same batches, times and noise: float32 weights within 1e-4 after 30 steps."""
        x0, z, t = torch.randn(30, 64, 2), torch.randn(30, 64, 2), torch.rand(30, 64)
        found = []
        for device in ("cpu", "cuda"):
            denoiser = small().to(device)
            loop = loops.Loop(denoiser, 30, 1e-3, 0.9, 1.0, 0)
            batches = zip(*(a.to(device) for a in (x0, t, z)), strict=True)
            for _ in loop.run(lambda g, d=denoiser, b=batches: denoising_loss(d, *next(b)), 10):
                pass
            found.append(weights(loop.average.module).cpu())
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)

    def test_a_hundred_steps_without_a_sync(self, float32, no_waiting):
        denoiser = small(classes=2, dropout=0.1).to("cuda")
        labels = (DATA[:, 0] > 0).long()
        step = loops.Loop.step

        def guarded(self, loss):
            with no_waiting() if self.done else nullcontext():
                return step(self, loss)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loops.Loop, "step", guarded)
            fit(denoiser, DATA, labels=labels, label_dropout=0.1, steps=100, batch=64)
