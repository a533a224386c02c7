"""The kinds of guidance: each against its equation, alone and composed."""

import pytest
import torch

from scoresde.denoiser import Given, VDenoiser
from scoresde.distributions import GaussianMixture
from scoresde.guidance import (
    ClassifierFree,
    Guided,
    Rescaled,
    Tempered,
    classifier_log_prob,
    on_denoised,
    tilt_of,
)
from scoresde.nets import MLP, Classifier
from scoresde.samplers import DDIM, Ancestral, Compiled, PFHeun
from scoresde.sde import VESDE, VPSDE

QUANTITIES = ["forward", "eps", "v", "score", "velocity"]
quantities = pytest.mark.parametrize("name", QUANTITIES)
SAME = dict(rtol=1e-11, atol=1e-11)
SDE = VPSDE()


@pytest.fixture
def law(reference):
    item = reference["P03"]["inputs"]
    return GaussianMixture(item["weights"], item["means"], item["covs"], SDE)


def gaussian(variance, mean=0.0):
    return GaussianMixture([1.0], [[mean]], [[[variance]]], SDE)


def conditional_net(sde=SDE):
    net = MLP(2, width=16, depth=1, classes=3)
    torch.nn.init.normal_(net.trunk.last.weight)
    return VDenoiser(net, sde)


def both(w=2.0, device="cpu", **kw):
    model, y = conditional_net().to(device), torch.arange(6, device=device) % 3
    return ClassifierFree(Given(model, y=y), Given(model, y=3), w, **kw)


def log_posterior(law, k):
    return lambda x, t: law.component(k).log_prob(x, t) - law.log_prob(x, t)


def points(n=6):
    return torch.randn(n, 2), 0.1 + 0.8 * torch.rand(n)


def counted(model):
    calls = []
    model.net.register_forward_hook(lambda net, args, out: calls.append(len(args[0])))
    return calls


class TestInterval:
    @quantities
    def test_guides_within_and_not_outside(self, name):
        free = both(interval=(0.3, 0.6))
        x, t = torch.randn(6, 2), torch.tensor([0.1, 0.3, 0.45, 0.6, 0.61, 0.9])
        ask = lambda d: getattr(d, name)(x, t)
        c, u = ask(free.denoiser), ask(free.unconditional)
        expected = torch.where(((t >= 0.3) & (t <= 0.6))[:, None], 2 * c - u, c)
        torch.testing.assert_close(ask(free), expected, **SAME)

    def test_no_evaluation_is_spent_outside(self):
        """Twenty steps of which six lie within: one batch of 2B there, of B elsewhere."""
        free, ts = both(interval=(0.305, 0.605)), torch.linspace(1, 0, 21)
        calls = counted(free.denoiser.denoiser)
        DDIM()(free, torch.randn(6, 2), ts)
        assert sorted(calls) == [6] * 14 + [12] * 6

    @pytest.mark.parametrize("sampler", [DDIM(), PFHeun(), Ancestral()])
    def test_along_a_grid_is_time_by_time(self, sampler):
        free, x, ts = both(interval=(0.3, 0.6)), torch.randn(6, 2), torch.linspace(0.9, 0.05, 9)
        plain = Tempered(free, 1.0)  # asks for the same, through the general path
        plain.along = lambda *a: super(Tempered, plain).along(*a)
        seed = lambda: torch.Generator().manual_seed(0)
        torch.testing.assert_close(
            sampler(free, x, ts, seed()), sampler(plain, x, ts, seed()), **SAME
        )

    def test_is_cut_with_the_batch(self):
        free, (x, t) = both(interval=(0.3, 0.6)), points()
        part = free.part(slice(1, 4))
        torch.testing.assert_close(part(x[1:4], t[1:4]), free(x, t)[1:4], **SAME)

    @pytest.mark.parametrize("interval", [(0.6, 0.3), (-0.1, 0.3), (0.1, 1.1)])
    def test_refused(self, interval):
        with pytest.raises(ValueError, match="expected an interval 0 <= low < high <= 1"):
            both(interval=interval)


class TestRescaled:
    def test_the_spread_is_that_of_the_conditional(self):
        free, (x, t) = both(w=4.0), points()
        c, mixed = free.denoiser(x, t), free(x, t)
        spread = lambda x: x.std(1, correction=0)
        torch.testing.assert_close(spread(Rescaled(free, 1.0)(x, t)), spread(c), **SAME)
        torch.testing.assert_close(Rescaled(free, 0.0)(x, t), mixed, **SAME)
        half = 0.5 * (Rescaled(free, 1.0)(x, t) + mixed)
        torch.testing.assert_close(Rescaled(free, 0.5)(x, t), half, **SAME)

    def test_every_quantity_is_that_of_its_x0_hat(self):
        free, (x, t) = Rescaled(both(w=4.0)), points()
        alpha, sigma = SDE.alpha(t)[:, None], SDE.sigma(t)[:, None]
        eps = (x - alpha * free(x, t)) / sigma
        torch.testing.assert_close(free.eps(x, t), eps, **SAME)
        torch.testing.assert_close(free.score(x, t), -eps / sigma, **SAME)
        out = DDIM()(free, x, torch.tensor([0.5, 0.0]))
        torch.testing.assert_close(out, free(x, torch.tensor(0.5)), **SAME)

    def test_is_cut_with_the_batch(self):
        free, (x, t) = Rescaled(both()), points()
        torch.testing.assert_close(free.part(slice(1, 4))(x[1:4], t[1:4]), free(x, t)[1:4], **SAME)

    def test_refused(self, law):
        with pytest.raises(ValueError, match="expected a ClassifierFree to rescale"):
            Rescaled(law)
        with pytest.raises(ValueError, match="0 <= phi <= 1"):
            Rescaled(both(), 1.2)


class TestTempered:
    @quantities
    @pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: type(sde).__name__)
    def test_all_quantities_are_those_of_the_score(self, name, sde):
        inner = conditional_net(sde)
        warm, (x, t) = Tempered(inner, 1.7), points()
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        f, g2 = (rate[:, None] for rate in sde.rates(t))
        score = inner.score(x, t) / 1.7
        x0_hat = (x + sigma**2 * score) / alpha
        expected = {
            "forward": x0_hat,
            "eps": -sigma * score,
            "v": -alpha * sigma * score - sigma * x0_hat,
            "score": score,
            "velocity": f * x - 0.5 * g2 * score,
        }
        torch.testing.assert_close(getattr(warm, name)(x, t), expected[name], **SAME)

    @pytest.mark.parametrize("sampler", [DDIM(), PFHeun(), Ancestral()])
    def test_along_a_grid(self, sampler):
        """The same as guidance by (1/T - 1) log p."""
        law, x, ts = gaussian(0.5), torch.randn(6, 1), torch.linspace(0.9, 0.05, 9)
        other = Guided(law, law.log_prob, 1 / 0.6 - 1)
        seed = lambda: torch.Generator().manual_seed(0)
        torch.testing.assert_close(
            sampler(Tempered(law, 0.6), x, ts, seed()), sampler(other, x, ts, seed()), **SAME
        )

    @pytest.mark.parametrize("temperature", [0.8, 1.5])
    def test_the_variance_of_the_ode(self, temperature):
        """e^B (c/(e^B + c - 1))^{1/T} from N(0, 1): a factor of x, so one point shows it."""
        c, growth = 0.5, float(SDE.alpha(torch.tensor(1.0))) ** -2
        expected = growth * (c / (growth + c - 1)) ** (1 / temperature)
        x = PFHeun()(
            Tempered(gaussian(c), temperature), torch.ones(1, 1), torch.linspace(1, 0, 4001)
        )
        assert float(x) ** 2 == pytest.approx(expected, rel=3e-5)

    def test_refused(self, law):
        with pytest.raises(ValueError, match="expected temperature > 0"):
            Tempered(law, 0.0)


class TestOnDenoised:
    def test_gradient_through_the_denoiser(self):
        """Of r(x0) = -(x0 - y)^2/(2 R) on N(0, c): x0_hat = k x, so grad = k (y - k x)/R."""
        law, (x, t) = gaussian(0.5), (torch.randn(6, 1), 0.1 + 0.8 * torch.rand(6))
        alpha = SDE.alpha(t)[:, None]
        k = alpha * 0.5 / (alpha**2 * 0.5 + SDE.sigma2(t)[:, None])
        y, r = 0.7, 0.3
        log_h = on_denoised(law, lambda x0: -(x0 - y).square().sum(1) / (2 * r))
        pull = Guided(law, log_h, 1.5).pull(x, t)
        torch.testing.assert_close(pull, 1.5 * k * (y - k * x) / r, **SAME)

    def test_is_cut_with_the_batch(self):
        model, (x, t) = Given(conditional_net(), y=torch.arange(6) % 3), points()
        target = torch.randn(6, 2)
        log_h = on_denoised(model, Near(target))
        whole = Guided(model, log_h)
        part = whole.part(slice(1, 4))
        torch.testing.assert_close(part(x[1:4], t[1:4]), whole(x, t)[1:4], **SAME)


class Near:
    """A reward that holds a target for each sample."""

    def __init__(self, target):
        self.target = target

    def __call__(self, x0):
        return -(x0 - self.target).square().sum(1)

    def part(self, index):
        return Near(self.target[index])


class TestComposition:
    def test_two_energies_are_their_sum(self, law):
        x, t = points()
        first, second = (lambda x, t: -x.square().sum(1)), (lambda x, t: x[:, 0])
        twice = Guided(Guided(law, first, 0.5), second, 2.0)
        once = Guided(law, lambda x, t: 0.5 * first(x, t) + 2 * second(x, t))
        for name in QUANTITIES:
            torch.testing.assert_close(
                getattr(twice, name)(x, t), getattr(once, name)(x, t), **SAME
            )

    def test_autoguidance(self, law):
        """A weak model in the place of the unconditional one: s + (w - 1)(s - s_weak)."""
        weak, (x, t) = Tempered(law, 1.3), points()
        score = law.score(x, t) + 1.5 * (law.score(x, t) - weak.score(x, t))
        torch.testing.assert_close(ClassifierFree(law, weak, 2.5).score(x, t), score, **SAME)

    def test_excess(self, law):
        """|sum a s|^2 - sum a |s|^2 of a likelihood, two models, a power, and all of them."""
        x, t = points()
        s, s0, s1 = (d.score(x, t) for d in (law, law.component(0), law.component(1)))
        square = lambda v: v.square().sum(1)
        of = lambda powers: (
            square(sum(a * s for a, s in powers)) - sum(a * square(s) for a, s in powers)
        )
        guided = Guided(law, log_posterior(law, 0), 2.0)
        free = ClassifierFree(law.component(0), law, 2.0)
        for denoiser, expected in (
            (law, 0 * s[:, 0]),
            (guided, 2 * square(s0 - s)),
            (free, 2 * square(s0 - s)),
            (Tempered(law, 0.5), 2 * square(s)),
            (Guided(guided, log_posterior(law, 1), 0.5), of([(-1.5, s), (2, s0), (0.5, s1)])),
            (Guided(free, log_posterior(law, 1), 0.5), of([(-1.5, s), (2, s0), (0.5, s1)])),
            (ClassifierFree(guided, law.component(1), 1.5), of([(-1.5, s), (3, s0), (-0.5, s1)])),
            (Tempered(free, 0.5), of([(-2, s), (4, s0)])),
        ):
            torch.testing.assert_close(tilt_of(denoiser, x, t).excess, expected, **SAME)
            torch.testing.assert_close(tilt_of(denoiser, x, t).score, denoiser.score(x, t), **SAME)

    def test_excess_in_one_batch_and_on_an_interval(self):
        free, (x, t) = both(interval=(0.3, 0.6)), points()
        c, u = free.denoiser.score(x, t), free.unconditional.score(x, t)
        calls = counted(free.denoiser.denoiser)
        excess = free.tilt(x, t).excess
        assert calls == [12]
        inside = (t >= 0.3) & (t <= 0.6)
        expected = torch.where(inside, 2 * (c - u).square().sum(1), 0.0)
        torch.testing.assert_close(excess, expected, rtol=1e-9, atol=1e-9)


class TestModes:
    """Inference mode, autograd inside, compiled steps, no waiting."""

    def kinds(self, law, device="cpu"):
        torch.manual_seed(0)
        law, y = law.to(device), torch.arange(6, device=device) % 3
        classifier = Classifier(2, 3, width=8)
        torch.nn.init.normal_(classifier.trunk.last.weight)
        classifier.to(device)
        return [
            Guided(law, classifier_log_prob(classifier, y)),
            Guided(law, on_denoised(law, Near(torch.zeros(6, 2, device=device))), 0.1),
            both(interval=(0.3, 0.6), device=device),
            Rescaled(both(device=device)),
            Tempered(law, 0.8),
        ]

    def test_an_energy_that_calls_autograd_says_so(self, law):
        class Energy:
            inference = False

            def __call__(self, x, t):
                assert not torch.is_inference_mode_enabled()
                return -x.square().sum(1)

        x, ts = torch.randn(6, 2), torch.linspace(0.9, 0.1, 3)
        for guided in (
            Guided(law, Energy()),
            Tempered(Guided(law, Energy()), 0.9),
            ClassifierFree(law, Guided(law, Energy()), 2.0),
            Guided(law, on_denoised(Guided(law, Energy()), lambda x0: x0[:, 0])),
        ):
            assert not guided.inference
            DDIM()(guided, x, ts)
        assert Guided(law, lambda x, t: x[:, 0]).inference

    @pytest.mark.parametrize("k", range(5))
    def test_a_guided_step_compiles(self, law, k):
        """As one graph; a step that falls back warns, and a warning is an error here."""
        torch._dynamo.reset()
        kind, x, ts = self.kinds(law)[k], torch.randn(6, 2), torch.linspace(0.9, 0.05, 4)
        compiled = Compiled(DDIM(), "eager")(kind, x, ts)
        torch.testing.assert_close(compiled, DDIM()(kind, x, ts), rtol=1e-9, atol=1e-10)
        torch._dynamo.reset()

    @pytest.mark.parametrize("k", range(5))
    def test_without_waiting(self, law, no_sync, k):
        kind, x, ts = self.kinds(law)[k], torch.randn(6, 2), torch.linspace(0.9, 0.05, 4)
        with no_sync(x):
            DDIM()(kind, x, ts)

    @pytest.mark.gpu
    @pytest.mark.parametrize("k", range(5))
    def test_on_a_gpu(self, law, k, no_waiting):
        kind, x, ts = self.kinds(law)[k], torch.randn(6, 2), torch.linspace(0.9, 0.05, 4)
        expected = DDIM()(kind, x, ts)
        there, x = self.kinds(law, "cuda")[k], x.cuda()
        with no_waiting():
            out = DDIM()(there, x, ts)
        torch.testing.assert_close(out.cpu(), expected, rtol=1e-10, atol=1e-10)
