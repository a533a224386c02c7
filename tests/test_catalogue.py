"""The catalogue: what classes declare is what tables, figures and the command line show."""

import json
from dataclasses import dataclass

import pytest
import torch

from scoresde import (
    DDIM,
    PFRK4,
    VESDE,
    VPSDE,
    Ancestral,
    Counted,
    DPMSolverPP,
    EulerMaruyama,
    PFEuler,
    PFHeun,
    PredictorCorrector,
    ReverseDiffusion,
    UniPC,
    log_snr,
    recommended,
)
from scoresde.cli import main
from scoresde.cli.sampling import choices, plan_of
from scoresde.comparison import view_entries
from scoresde.data import gauss
from scoresde.diagnosis import bias_entries
from scoresde.plots import VIEWS, view_of
from scoresde.samplers import VIEW_NAMES, Compiled, Listing, TableSampler, listing, listings

WORDS = {  # what a command line of an earlier version may say
    "ancestral": Ancestral(),
    "ancestral-beta": Ancestral("beta"),
    "euler-maruyama": EulerMaruyama(),
    "reverse-diffusion": ReverseDiffusion(),
    "predictor-corrector": PredictorCorrector(ReverseDiffusion()),
    "ddim": DDIM(),
    "ddim-half": DDIM(0.5),
    "pf-euler": PFEuler(),
    "pf-heun": PFHeun(),
    "pf-rk4": PFRK4(),
    "dpm++2m": DPMSolverPP(2),
    "dpm++2m-sde": DPMSolverPP(2, 1.0),
    "unipc": UniPC(3),
}
COMMON = [
    "Euler-Maruyama",
    "reverse diffusion",
    "reverse diffusion + Langevin",
    "DDIM, η = 1",
    "DDIM, η = 0.5",
    "DDIM, η = 0",
    "Euler",
    "Heun",
    "Runge-Kutta 4",
    "SDE-DPM++ 2M",
    "DPM++ 2M",
    "UniPC 3",
    "Adams (recommended)",
]


def names(entries):
    return list(dict.fromkeys(entry.label for entry in entries))


class TestOurs:
    @pytest.mark.parametrize("word", WORDS)
    def test_words_stay(self, word):
        assert listing(word).sampler == WORDS[word]
        sampler, ts = plan_of(word, VPSDE(), 7)
        assert sampler == WORDS[word] and torch.equal(ts, log_snr(VPSDE(), 7))

    def test_the_recommended_sampler_brings_its_grid(self):
        (sampler, ts), expected = plan_of("recommended", VPSDE(), 9), recommended(VPSDE(), 9)
        assert sampler == expected.sampler and torch.equal(ts, expected.ts)
        assert next(iter(choices())) == "recommended"

    def test_cost(self):
        """Evaluations of each step, counted."""
        law, x = gauss(VPSDE()), torch.randn(3, 2)
        for entry in listings(law):
            for n in (3, 5):
                counted = Counted(law)
                entry.sampler(counted, x, log_snr(VPSDE(), n))
                assert counted.calls == n * entry.cost, entry.name

    def test_rows(self):
        """Of both tables, in their order; more of them where they cost nothing."""
        chains = ["DDPM chain, β̃", "DDPM chain, β"]
        assert names(view_entries(VPSDE(), (20, 40), (10,))) == chains + COMMON
        assert names(view_entries(VESDE(0.01, 5.0), (20,), (10,)))[2:] == COMMON
        found = bias_entries(gauss(VPSDE()), (20, 40))
        views = [entry.view for entry in found[:25]]
        assert len(found) == 2 * 25 and views == sorted(views, key=list(VIEWS).index)
        optimal = next(entry for entry in found if "optimal" in entry.label).sampler
        assert optimal.variance == "optimal" and "ddpm-chain-optimal" not in choices()

    def test_views_are_named_once(self):
        assert list(VIEWS) == list(VIEW_NAMES)
        for view, named in VIEW_NAMES.items():
            assert (VIEWS[view].label, VIEWS[view].short) == named
        assert view_of(Compiled(Ancestral())) == "chain"


@pytest.fixture
def mine():
    """A user's sampler: DDPM's step, written anew. It is forgotten when the test is over."""

    @dataclass(frozen=True)
    class Mine(TableSampler):
        share: float = 1.0
        order = 1
        noise = True

        @classmethod
        def catalogue(cls):
            return (Listing("Mine, all of it", cls(), "sde"),)

        def row(self, sde, t, s):
            fresh = self.share * -torch.expm1(2 * (sde.lam(t) - sde.lam(s)))
            a = sde.sigma(s) / sde.sigma(t) * (1 - fresh).sqrt()
            return a, sde.alpha(s) - a * sde.alpha(t), sde.sigma(s) * fresh.sqrt()

    yield Mine
    del Mine.catalogue


@pytest.fixture
def declared(mine):
    """Let the user's class declare something else."""

    def declare(*entries):
        mine.catalogue = classmethod(lambda cls: entries)

    return declare


class TestYours:
    def test_compare_exact(self, mine, tmp_path):
        """Without a change to the package, and with the numbers of the same step of ours."""
        words = ["compare", "--exact", "--law", "gauss", "--out", str(tmp_path)]
        assert main([*words, "--steps", "8", "16", "32"]) == 0
        rows = json.loads((tmp_path / "exact.json").read_text())["rows"]
        of = lambda name: [row for row in rows if row["sampler"] == name]
        assert len(of("Mine, all of it")) == 3 and len(rows) == 3 * 26
        for own, ddim in zip(of("Mine, all of it"), of("DDIM, η = 1"), strict=True):
            assert own["evaluations"] == ddim["evaluations"] and own["view"] == "sde"
            assert own["W2"] == pytest.approx(ddim["W2"], rel=1e-9)
        assert "Mine, all of it" in (tmp_path / "exact.html").read_text()

    @pytest.mark.usefixtures("float32")
    def test_compare_and_sample(self, mine, tmp_path, capsys):
        run = tmp_path / "run"
        words = ["train", "--law", "gauss", "--out", str(run), "--width", "16", "--device", "cpu"]
        assert main([*words, "--steps", "20"]) == 0
        words = ["compare", str(run), "--n", "200", "--device", "cpu"]
        assert main([*words, "--steps", "8", "--chain", "5"]) == 0
        rows = {row["sampler"]: row for row in json.loads((run / "compare.json").read_text())}
        own, ddim = rows["Mine, all of it"], rows["DDIM, η = 1"]
        assert list(rows)[-1] == "Mine, all of it" and own["evaluations"] == 8
        assert own["sliced_w2"] == pytest.approx(ddim["sliced_w2"], rel=1e-3)
        assert "Mine, all of it" in capsys.readouterr().out
        assert main(["sample", str(run), "--n", "5", "--sampler", "mine-all-of-it"]) == 0
        assert main(["sample", str(run), "--n", "5", "--sampler", "his"]) == 1
        assert "mine-all-of-it, got 'his'" in capsys.readouterr().err

    def test_what_is_not_affine_has_no_exact_bias(self, mine):
        mine.linear = property(lambda self: False)
        assert "Mine, all of it" in names(view_entries(VPSDE(), (8,), ()))
        assert "Mine, all of it" not in names(bias_entries(gauss(VPSDE()), (8,)))

    def test_a_chain_of_ones_own(self, mine, declared):
        """It walks i/n down to 0, beside DDPM's."""
        declared(Listing("Mine", mine(), "chain"))
        entries = view_entries(VPSDE(), (8,), (4, 5))
        own = [entry.ts.tolist() for entry in entries if entry.label == "Mine"]
        assert len(own) == 2 and own[0] == [1.0, 0.75, 0.5, 0.25, 0.0]
        assert "Mine" not in names(view_entries(VPSDE(), (8,), ()))

    def test_a_place(self, mine, declared):
        declared(Listing("Mine", mine(), "sde", place=4.5))
        found = [entry.name for entry in listings()]
        assert found[found.index("Euler-Maruyama") + 1] == "Mine"

    def test_a_class_defined_again(self, mine):
        """As when a cell of a notebook is run twice."""
        body = {name: vars(mine)[name] for name in ("row", "order", "noise")}
        body |= {"__module__": mine.__module__, "__qualname__": mine.__qualname__, "share": 0.5}
        body["catalogue"] = classmethod(lambda cls: (Listing("Mine, again", cls(), "sde"),))
        again = type("Mine", (TableSampler,), body)
        found = [entry.name for entry in listings()]
        assert "Mine, again" in found and "Mine, all of it" not in found
        del again.catalogue

    def test_nothing_is_inherited(self, mine):
        class Other(mine):
            """The same under another name."""

        assert sum(entry.name == "Mine, all of it" for entry in listings()) == 1

    def test_two_of_one_name(self, mine, declared, tmp_path, capsys):
        declared(Listing("Heun", mine(), "sde"))
        with pytest.raises(ValueError, match=r"got 2 called 'Heun': give the Listing"):
            listings()
        declared(Listing("Mine", mine(), "sde", word="pf-heun"))
        assert main(["compare", "--exact", "--out", str(tmp_path)]) == 1
        assert "got 2 called 'pf-heun'" in capsys.readouterr().err

    def test_what_is_no_listing(self, mine, declared):
        declared("Mine")
        with pytest.raises(TypeError, match=r"catalogue\(\) of Mine to give a tuple of Listings"):
            listings()
        with pytest.raises(ValueError, match="expected a view among chain, sde, ode, got 'walk'"):
            Listing("Mine", mine(), "walk")
        with pytest.raises(ValueError, match="a cost of 1 evaluation a step or more, got 0"):
            Listing("Mine", mine(), "sde", cost=0)
        with pytest.raises(ValueError, match="a name with letters or digits, got 'β'"):
            Listing("β", mine(), "sde")

    def test_an_unknown_word(self):
        with pytest.raises(ValueError, match=r"among ancestral, .*, got 'leapfrog'"):
            listing("leapfrog")
