"""What guidance needs of training: conditional networks, labels dropped, classifiers on disk."""

import math

import numpy as np
import pytest
import torch

from scoresde.cli import main
from scoresde.data import two_gaussians
from scoresde.denoiser import EpsDenoiser, Given
from scoresde.distributions import GaussianMixture
from scoresde.grids import log_snr
from scoresde.guidance import ClassifierFree, Guided, classifier_log_prob
from scoresde.nets import MLP, Classifier, MLPConfig
from scoresde.runs import FileData, Run, RunConfig, TrainingConfig
from scoresde.samplers import DPMSolverPP, recommended, sample
from scoresde.sde import VESDE, VPSDE
from scoresde.training import (
    DenoiserConfig,
    fit,
    fit_classifier,
    load,
    load_classifier,
    save,
    save_classifier,
)

SDE = VPSDE()
NAN = torch.tensor(math.nan)


def filled(net):
    torch.nn.init.normal_(net.trunk.last.weight)
    return net


class TestVectors:
    def net(self):
        return filled(MLP(2, width=16, depth=1, context=3))

    def test_the_answer_depends_on_what_is_known(self):
        """A vector of zeros is not "nothing known"; one unknown entry is neither."""
        net, x, t, c = self.net(), torch.randn(6, 2), torch.rand(6), torch.randn(6, 3)
        some = c.clone()
        some[:, 1] = math.nan
        answers = [net(x, t, c=c) for c in (c, some, 0 * c, None)]
        for i, one in enumerate(answers):
            assert torch.isfinite(one).all()
            assert all(not torch.allclose(one, other) for other in answers[:i])
        assert torch.equal(net(x, t, c=torch.full((6, 3), math.nan)), answers[-1])
        assert torch.equal(net(x, t, c=NAN.expand(6)), answers[-1])

    def test_two_branches_in_one_batch(self):
        """Bound by Given, cut with the batch; "nothing" is one number."""
        model, c = EpsDenoiser(self.net(), SDE), torch.randn(6, 3)
        free = ClassifierFree(Given(model, c=c), Given(model, c=NAN), 2.0)
        x, t, calls = torch.randn(6, 2), torch.rand(6), []
        model.net.register_forward_hook(lambda net, args, out: calls.append(len(args[0])))
        mixed = free(x, t)
        assert calls == [12]
        expected = 2 * model(x, t, c=c) - model(x, t)
        torch.testing.assert_close(mixed, expected, rtol=1e-10, atol=1e-10)
        part = free.part(slice(1, 4))
        torch.testing.assert_close(part(x[1:4], t[1:4]), mixed[1:4], rtol=1e-10, atol=1e-10)

    def test_saved_and_loaded(self, tmp_path):
        model, x, c = EpsDenoiser(self.net(), SDE), torch.randn(6, 2), torch.randn(6, 3)
        save(tmp_path / "m.pt", model)
        again = load(tmp_path / "m.pt")
        assert torch.equal(again(x, torch.tensor(0.5), c=c), model(x, torch.tensor(0.5), c=c))

    @pytest.mark.parametrize("c", [torch.zeros(6, 2), torch.zeros(6, 3, 1)])
    def test_refused(self, c):
        with pytest.raises(ValueError, match=r"expected c \(B, 3\)"):
            self.net()(torch.randn(6, 2), torch.rand(6), c=c)
        with pytest.raises(ValueError, match="or no c if that is 0"):
            MLP(2)(torch.randn(6, 2), torch.rand(6), c=torch.zeros(6, 3))
        with pytest.raises(ValueError, match="context >= 0"):
            MLP(2, context=-1)

    def test_learned(self):
        """x0 = N(c, 0.3^2) with c = N(0, 1): given c its law; with c dropped, N(0, 1.09)."""
        generator = torch.Generator().manual_seed(0)
        c = torch.randn(20_000, 1, generator=generator)
        x0 = c + 0.3 * torch.randn(20_000, 1, generator=generator)
        torch.manual_seed(0)
        model = EpsDenoiser(MLP(1, width=32, depth=2, context=1).float(), SDE)
        fitted = fit(
            model, x0.float(), labels=c.float(), label_dropout=0.2, steps=1500, batch=256
        ).denoiser
        run = lambda model: sample(
            model, DPMSolverPP(2), (4000, 1), log_snr(SDE, 20), seed=0, dtype=torch.float32
        )
        for value in (-1.0, 0.5):
            x = run(Given(fitted, c=torch.full((4000, 1), value)))
            assert abs(float(x.mean()) - value) < 0.08 and abs(float(x.std()) - 0.3) < 0.08
        x = run(Given(fitted, c=NAN))
        assert abs(float(x.mean())) < 0.1 and abs(float(x.std()) - 1.09**0.5) < 0.1


class TestDropout:
    """What the network is shown."""

    def shown(self, labels, net, rate):
        seen = []
        name = "c" if labels.is_floating_point() else "y"
        net.register_forward_pre_hook(
            lambda net, args, kw: seen.append(kw[name]), with_kwargs=True
        )
        fit(
            EpsDenoiser(net, SDE),
            torch.randn(len(labels), 2),
            labels=labels,
            label_dropout=rate,
            steps=40,
            batch=500,
        )
        return torch.cat(seen)

    @pytest.mark.parametrize("rate", [0.0, 0.25])
    def test_the_share_that_is_dropped(self, rate):
        n, bound = 20_000, 5 * (rate * (1 - rate) / 20_000) ** 0.5
        y = self.shown(torch.arange(900) % 3, MLP(2, 8, 1, classes=3), rate)
        assert abs(float((y == 3).double().mean()) - rate) <= bound
        c = self.shown(torch.randn(900, 2), MLP(2, 8, 1, context=2), rate)
        assert len(c) == n and torch.equal(c[:, 0].isnan(), c[:, 1].isnan())
        assert abs(float(c.isnan().double().mean()) - rate) <= bound

    def test_refused(self):
        x, c = torch.randn(50, 2), torch.randn(50, 2)
        with pytest.raises(ValueError, match="a network with classes or with a context"):
            fit(EpsDenoiser(MLP(2), SDE), x, labels=c, label_dropout=0.1, steps=1)
        with pytest.raises(ValueError, match=r"or vectors \(50, C\)"):
            fit(EpsDenoiser(MLP(2, context=2), SDE), x, labels=c[:40], steps=1)
        with pytest.raises(ValueError, match=r"expected labels 0, 1, \.\.\."):
            fit_classifier(Classifier(2, 3), SDE, x, c, steps=1)


class TestClassifierOnDisk:
    def test_the_same_answers(self, tmp_path):
        classifier, path = filled(Classifier(2, 3, width=8, depth=1)), tmp_path / "c.pt"
        save_classifier(path, classifier, SDE)
        again, x, t = load_classifier(path, SDE), torch.randn(5, 2), torch.rand(5)
        assert torch.equal(again(x, t), classifier(x, t)) and not again.training

    def test_refused(self, tmp_path):
        path, model = tmp_path / "c.pt", tmp_path / "m.pt"
        save_classifier(path, Classifier(2, 3), SDE)
        save(model, EpsDenoiser(MLP(2), SDE))
        with pytest.raises(ValueError, match="trained with the noise of VES"):
            load_classifier(path, VESDE())
        with pytest.raises(ValueError, match=r"cannot read the classifier in .*m\.pt"):
            load_classifier(model, SDE)
        with pytest.raises(ValueError, match="cannot read the denoiser"):
            load(path)


@pytest.mark.usefixtures("float32")
class TestOnTheCommandLine:
    """`scoresde sample RUN --guide LABEL --scale W`."""

    def words(self, run, *more):
        return ["sample", str(run), "--n", "400", "--device", "cpu", *more]

    def points(self, run, *more):
        assert main(self.words(run, *more)) == 0
        return torch.from_numpy(np.load(run / "samples.npy", allow_pickle=False)).double()

    def labelled(self, folder, classes=2):
        """A run on three parts of N(-2, 0.1) and one of N(2, 0.1), in the user's units."""
        torch.manual_seed(0)
        net = MLPConfig(1, width=32, depth=1, classes=classes)
        recipe = DenoiserConfig(SDE, net)
        y = (torch.arange(4000) % 4 == 0).long()
        x = (4.0 * y - 2 + 0.1**0.5 * torch.randn(4000))[:, None]
        labels = {"labels": y, "label_dropout": 0.2} if classes else {}
        fitted = fit(recipe.build(), x, steps=700, batch=256, **labels)
        asked = TrainingConfig(700, 256, 3e-3, 0, 0)
        folder.mkdir()
        Run(folder, RunConfig(FileData("", 4000), recipe, asked), fitted.denoiser).write()
        return folder, x, y

    def test_by_the_network(self, tmp_path, capsys):
        run, _, _ = self.labelled(tmp_path / "run")
        for label in (0, 1):
            x = self.points(run, "--guide", str(label), "--scale", "1.5")
            assert float(((x > 0) == bool(label)).double().mean()) > 0.99
        opened, plan = Run.open(run), recommended(SDE, 50)
        free = ClassifierFree(Given(opened.denoiser, y=1), Given(opened.denoiser, y=2), 1.5)
        expected = sample(free, plan.sampler, (400, 1), plan.ts, seed=0)
        torch.testing.assert_close(x, expected.double(), rtol=1e-5, atol=1e-5)
        assert main(self.words(run, "--guide", "2")) == 1
        assert "expected --guide 0..1, got 2" in capsys.readouterr().err

    def test_by_a_classifier(self, tmp_path, capsys):
        run, x0, y = self.labelled(tmp_path / "run", classes=0)
        assert main(self.words(run, "--guide", "1")) == 1
        assert "expected labels to guide to" in capsys.readouterr().err
        fitted = fit_classifier(Classifier(1, 2, width=16), SDE, x0, y, steps=300)
        save_classifier(run / "classifier.pt", fitted.classifier, SDE)
        x = self.points(run, "--guide", "1")
        assert float((x > 0).double().mean()) > 0.97
        opened, plan = Run.open(run), recommended(SDE, 50)
        guided = Guided(opened.denoiser, classifier_log_prob(fitted.classifier, 1))
        expected = sample(guided, plan.sampler, (400, 1), plan.ts, seed=0)
        torch.testing.assert_close(x, expected.double(), rtol=1e-3, atol=1e-3)

    def test_by_the_exact_posterior(self, tmp_path):
        out = tmp_path / "r"
        words = ["train", "--law", "two_gaussians", "--out", str(out), "--steps", "300"]
        assert main([*words, "--width", "32", "--device", "cpu"]) == 0
        law = two_gaussians(SDE)
        assert isinstance(law, GaussianMixture)
        for label in (0, 1):
            x = self.points(out, "--guide", str(label), "--scale", "2")
            assert float((law.posterior(x).argmax(1) == label).double().mean()) > 0.95
