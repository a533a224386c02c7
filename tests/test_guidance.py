"""Guidance: exact on mixtures, in every quantity a sampler may ask for."""

import math

import pytest
import torch

from scoresde.denoiser import Given, VDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.guidance import ClassifierFree, Guided, classifier_log_prob
from scoresde.nets import MLP, Classifier
from scoresde.samplers import DDIM, sample
from scoresde.sde import VESDE, VPSDE

QUANTITIES = ["forward", "eps", "v", "score", "velocity"]
quantities = pytest.mark.parametrize("name", QUANTITIES)
SAME = dict(rtol=1e-12, atol=1e-12)


@pytest.fixture
def law(reference):
    item = reference["P03"]["inputs"]
    return GaussianMixture(item["weights"], item["means"], item["covs"], VPSDE())


def points(law, n=9):
    """Points and times at which every component has some weight."""
    t = 0.25 + 0.6 * torch.rand(n)
    return torch.randn(n, 2), t


def log_posterior(law, k):
    return lambda x, t: law.component(k).log_prob(x, t) - law.log_prob(x, t)


def conditional_net(sde):
    net = MLP(2, width=16, depth=1, classes=3)
    torch.nn.init.normal_(net.trunk.last.weight)
    return VDenoiser(net, sde)


class TestGuided:
    @quantities
    def test_bayes(self, law, name):
        """With scale 1 and the exact posterior: the exact conditional law."""
        x, t = points(law)
        for k in range(3):
            for guided in (
                Guided(law, log_posterior(law, k)),
                Guided(law, classifier_log_prob(lambda x, t: law.posterior(x, t).log(), k)),
            ):
                expected = getattr(law.component(k), name)(x, t)
                torch.testing.assert_close(getattr(guided, name)(x, t), expected, **SAME)

    @quantities
    @pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: type(sde).__name__)
    def test_all_quantities_agree(self, name, sde):
        """The overrides against what the base class derives from x0_hat."""
        inner = conditional_net(sde)
        guided = Guided(inner, lambda x, t: -(x**4).sum(1), scale=0.3)
        x, t = torch.randn(5, 2), 0.1 + 0.8 * torch.rand(5)
        derived = getattr(super(Guided, guided), name if name != "forward" else "eps")(x, t)
        own = guided.eps(x, t) if name == "forward" else getattr(guided, name)(x, t)
        torch.testing.assert_close(own, derived, rtol=1e-10, atol=1e-10)

    def test_scale(self, law):
        x, t = points(law)
        plain, pull = law.score(x, t), Guided(law, log_posterior(law, 1)).pull(x, t)
        for scale in (0.0, 1.0, 2.5):
            guided = Guided(law, log_posterior(law, 1), scale)
            torch.testing.assert_close(guided.score(x, t), plain + scale * pull, **SAME)

    def test_regular_at_the_origin_where_the_law_is(self, law):
        x, t = law.sample(5), torch.tensor(0.0)
        guided = Guided(law, lambda x, t: -x.square().sum(1))
        assert guided.regular
        torch.testing.assert_close(guided.score(x, t), law.score(x, t) - 2 * x, **SAME)
        for name in QUANTITIES:
            assert torch.isfinite(getattr(guided, name)(x, t)).all() or name == "v"
        assert not Guided(conditional_net(VPSDE()), lambda x, t: x.sum(1)).regular

    def test_samples_do_not_meet(self, law):
        x, t = points(law)
        y = torch.randint(3, (9,))
        classifier = Classifier(2, 3, width=8)
        torch.nn.init.normal_(classifier.trunk.last.weight)
        guided = Guided(law, classifier_log_prob(classifier, y))
        order = torch.randperm(9)
        moved = Guided(law, classifier_log_prob(classifier, y[order]))
        torch.testing.assert_close(moved(x[order], t[order]), guided(x, t)[order], **SAME)
        twice = Guided(law, classifier_log_prob(classifier, y.repeat(2)))
        torch.testing.assert_close(twice(x.repeat(2, 1), t.repeat(2))[:9], guided(x, t), **SAME)
        part = guided.part(slice(2, 5))
        torch.testing.assert_close(part(x[2:5], t[2:5]), guided(x, t)[2:5], **SAME)

    @pytest.mark.parametrize("y", [1, torch.tensor(1)])
    def test_one_label_for_all(self, law, y):
        x, t = points(law)
        log_h = classifier_log_prob(Classifier(2, 3, width=8), y)
        each = classifier_log_prob(log_h.classifier, torch.full((9,), 1))
        assert torch.equal(log_h(x, t), each(x, t))
        assert log_h.part(slice(0, 4)) is log_h

    def test_in_a_sampler_by_chunks(self, law):
        """Labels follow their samples: all of a label end in its mode."""
        y = torch.arange(3).repeat(3000)[:8500]
        classifier = lambda x, t: law.posterior(x, t).clamp(min=1e-300).log()
        guided = Guided(law, classifier_log_prob(classifier, y))
        ts = torch.linspace(1, 0, 21)
        x = sample(guided, DDIM(), (8500, 2), ts, seed=0, chunk=4096)
        found = law.posterior(x).argmax(1)
        assert (found == y).double().mean() > 0.97

    def test_a_number_for_each_sample(self, law):
        x, t = points(law)
        with pytest.raises(ValueError, match=r"expected log_h\(x, t\) of shape \(9,\)"):
            Guided(law, lambda x, t: x.square().sum())(x, t)
        with pytest.raises(ValueError, match="expected a label for each of 9"):
            Guided(law, classifier_log_prob(Classifier(2, 3), torch.zeros(4).long()))(x, t)


class TestClassifierFree:
    @quantities
    def test_one_convention(self, law, name):
        """w = 1 the conditional model, w = 0 the unconditional, linear between and beyond."""
        x, t = points(law)
        ask = lambda d: getattr(d, name)(x, t)
        c, u = law.component(0), law
        for w, expected in ((1.0, ask(c)), (0.0, ask(u)), (3.0, 3 * ask(c) - 2 * ask(u))):
            torch.testing.assert_close(ask(ClassifierFree(c, u, w)), expected, rtol=0, atol=1e-11)

    @quantities
    @pytest.mark.parametrize("single", [True, False])
    def test_one_batch_is_two_calls(self, name, single):
        model = conditional_net(VPSDE())
        x, t = torch.randn(6, 2), torch.tensor(0.4) if single else torch.rand(6)
        c = Given(model, y=torch.randint(3, (6,)))
        u = Given(model, y=3)
        calls = []
        model.net.register_forward_hook(lambda net, args, out: calls.append(len(args[0])))
        mixed = getattr(ClassifierFree(c, u, 2.0), name)(x, t)
        assert calls == [12]
        expected = 2 * getattr(c, name)(x, t) - getattr(u, name)(x, t)
        torch.testing.assert_close(mixed, expected, rtol=1e-10, atol=1e-10)

    def test_no_label_at_all_is_two_calls(self):
        model = conditional_net(VPSDE())
        x, t = torch.randn(6, 2), torch.rand(6)
        c = Given(model, y=1)
        by_none, by_index = (
            ClassifierFree(c, model, 2.0),
            ClassifierFree(c, Given(model, y=3), 2.0),
        )
        torch.testing.assert_close(by_none(x, t), by_index(x, t), **SAME)

    def test_is_cut_with_the_batch(self):
        model = conditional_net(VPSDE())
        x, t = torch.randn(6, 2), torch.rand(6)
        free = ClassifierFree(Given(model, y=torch.arange(6) % 3), Given(model, y=3), 1.5)
        part = free.part(slice(1, 4))
        torch.testing.assert_close(part(x[1:4], t[1:4]), free(x, t)[1:4], **SAME)

    def test_guidance_within_guidance(self, law):
        """A denoiser that holds labels of B samples is asked twice, never for 2B."""
        model = Guided(
            conditional_net(VPSDE()), classifier_log_prob(Classifier(2, 3), torch.arange(6) % 3)
        )
        free = ClassifierFree(Given(model, y=1), Given(model, y=3), 1.5)
        assert free(torch.randn(6, 2), torch.rand(6)).shape == (6, 2)

    def test_without_reading_the_device(self, no_sync):
        model = conditional_net(VPSDE())
        x, t, y = torch.randn(6, 2), torch.rand(6), torch.randint(3, (6,))
        free = ClassifierFree(Given(model, y=y), Given(model, y=3), 1.5)
        guided = Guided(free, classifier_log_prob(Classifier(2, 3), y))
        with no_sync():
            guided.velocity(x, t)


def variance(denoiser):
    """Of the probability-flow ODE from N(0, 1) at t = 1, where velocity = k(t) x."""
    nodes, weights = gauss_legendre(200)
    k = denoiser.velocity(torch.ones(len(nodes), 1), nodes)[:, 0]
    return math.exp(-2 * float(weights @ k))


def gauss_legendre(n):
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(n)
    return torch.tensor((x + 1) / 2), torch.tensor(w / 2)


def test_guided_gaussians(reference):
    """P09: p = N(0, 2), p(.|y) = N(0, 1), guided by either means at every strength."""
    item = reference["P09"]
    c, u = (
        GaussianMixture([1.0], [[0.0]], [[[v]]], VPSDE(item["inputs"]["b0"], item["inputs"]["b1"]))
        for v in (1.0, 2.0)
    )
    for row in item["expected"]:
        w, expected = row["w"], row["PF_ODE_variance"]
        log_h = lambda x, t: c.log_prob(x, t) - u.log_prob(x, t)
        for guided in (ClassifierFree(c, u, w), Guided(u, log_h, w)):
            assert variance(guided) == pytest.approx(expected, rel=item["rtol"], abs=item["atol"])
