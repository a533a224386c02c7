"""The part of the page on guidance: what it does, what it costs, which classifier it needs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ... import plots
from ...distributions import GaussianMixture
from ...report import Report
from ...training import ClassifierFit

if TYPE_CHECKING:
    from . import Results

__all__ = ["guidance", "show"]


def guidance(report: Report, results: "Results") -> None:
    """Samples with and without guidance, their quality and cost, and the classifiers behind."""
    folder, g, law = results.options.out / "figures", results.guidance, results.law
    pair = plots.save_themes(
        folder / "guidance", lambda theme: plots.guidance(g.samples, law, g.target, theme=theme)
    )
    report.section("Guidance to one mode")
    show(
        report,
        pair,
        f"The gradient of a noise-trained classifier, added to the score, draws the samples to "
        f"mode {g.target}.",
    )
    _quality(report, results)
    _classifiers(report, results)


def _quality(report: Report, results: "Results") -> None:
    g = results.guidance
    plain = next(iter(g.seconds.values()))
    report.table(
        [
            "",
            "share in the mode",
            f"sliced W2 to its exact law (floor {g.floor[0]:.4f} ± {g.floor[1]:.4f})",
            "time",
        ],
        [
            [
                name,
                f"{100 * g.share[name]:.1f} %",
                f"{g.sliced_w2[name]:.4f}",
                f"{g.seconds[name] / plain:.2f} x",
            ]
            for name in g.samples
        ],
    )
    report.text(
        "At weight 1 guidance is Bayes' rule, and exact for an exact classifier; above it the "
        "samples crowd in the mode and no longer follow its law."
    )


def _classifiers(report: Report, results: "Results") -> None:
    folder, law = results.options.out / "figures", results.law
    times = next(iter(results.classifiers.values())).times
    accuracy = {name: fit.accuracy for name, fit in results.classifiers.items()}
    loss, least = _log_loss(law, results.classifiers, 0.5)
    best = torch.tensor([_best_accuracy(law, float(t)) for t in times])
    pair = plots.save_themes(
        folder / "classifier",
        lambda theme: plots.accuracy_by_time(
            times, accuracy, best, classes=len(law.weights), theme=theme
        ),
    )
    show(
        report,
        pair,
        "Why the classifier must see noise. On this law one trained on clean points alone can be "
        "right nearly as often, but it is sure of itself where nobody can be: at t = 0.5 its log "
        f"loss is {loss['trained on clean points']:.2f} nats, that of the other "
        f"{loss['trained on noisy points']:.2f}, the least possible {least:.2f}. Guidance follows "
        "the gradient of that log-probability, hence the panel \u201cclean classifier\u201d.",
    )


def _log_loss(
    law: GaussianMixture, fits: Mapping[str, ClassifierFit], t: float
) -> tuple[dict[str, float], float]:
    """Cross entropy of each classifier at t, and that of the exact class posterior, in nats."""
    time = torch.tensor(t, dtype=torch.float64)
    x = law.sample(20_000, time, torch.Generator().manual_seed(0))
    exact = law.posterior(x, time)
    losses = {}
    for name, fitted in fits.items():
        weight = next(fitted.classifier.parameters())
        with torch.no_grad():
            logits = fitted.classifier(x.to(weight), time.to(weight)).cpu().double()
        losses[name] = -float((exact * logits.log_softmax(1)).sum(1).mean())
    return losses, -float((exact * exact.clamp(min=1e-300).log()).sum(1).mean())


def _best_accuracy(law: GaussianMixture, t: float) -> float:
    """Of the exact class posterior: E max_k p(k | x_t)."""
    time = torch.tensor(t, dtype=torch.float64)
    x = law.sample(20_000, time, torch.Generator().manual_seed(0))
    return float(law.posterior(x, time).amax(1).mean())


def show(report: Report, pair: plots.Pair, caption: str) -> None:
    """A figure in both themes, with what it shows."""
    report.figure(pair[0], caption, dark=pair[1])
