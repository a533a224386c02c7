"""Denoisers on disk: what goes in comes out, and nothing is ever half there."""

import dataclasses
import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from scoresde.chain import DDPMChain
from scoresde.denoiser import (
    Affine,
    EDMDenoiser,
    EpsDenoiser,
    Given,
    ScoreDenoiser,
    VDenoiser,
    X0Denoiser,
)
from scoresde.nets import MLP, ConcatMLP, MLPConfig
from scoresde.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, StraightPath, SubVPSDE
from scoresde.training import (
    DenoiserConfig,
    describe,
    from_json,
    load,
    load_weights,
    save,
    to_json,
)

SDES = [
    VPSDE(0.2, 15.0),
    CosineVPSDE(),
    SubVPSDE(),
    VESDE(),
    KarrasSDE(),
    StraightPath(),
    DDPMChain.linear(7).sde(),
]
KINDS = [EpsDenoiser, X0Denoiser, VDenoiser, ScoreDenoiser, EDMDenoiser]


def stirred(kind=EpsDenoiser, sde=SDES[0], net=None, affine=None):
    denoiser = kind(net or MLP(2, width=8, depth=1, classes=2), sde, affine)
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(torch.randn_like(p))
    return denoiser


def same(a, b):
    x, t = torch.randn(5, 2), 0.1 + 0.8 * torch.rand(5)
    return torch.equal(a(x, t), b(x, t))


class TestRoundTrip:
    @pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
    def test_of_every_process(self, tmp_path, sde):
        denoiser = stirred(sde=sde)
        save(tmp_path / "d.pt", denoiser)
        other = load(tmp_path / "d.pt")
        assert other.sde == sde
        assert same(denoiser, other)
        assert not other.training

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_of_every_parametrization(self, tmp_path, kind):
        denoiser = stirred(kind)
        save(tmp_path / "d.pt", denoiser)
        other = load(tmp_path / "d.pt")
        assert type(other) is kind
        assert same(denoiser, other)

    def test_of_the_scale_of_edm(self, tmp_path):
        denoiser = EDMDenoiser(MLP(2, width=8), KarrasSDE(), sigma_data=0.3)
        save(tmp_path / "d.pt", denoiser)
        assert load(tmp_path / "d.pt").sigma_data == 0.3

    @pytest.mark.parametrize("whiten", [False, True])
    def test_of_the_units(self, tmp_path, whiten):
        affine = Affine.fit(1000 + 300 * torch.randn(50, 2), whiten)
        denoiser = stirred(affine=affine)
        save(tmp_path / "d.pt", denoiser)
        other = load(tmp_path / "d.pt")
        assert torch.equal(other.affine.mean, affine.mean)
        assert torch.equal(other.affine.scale, affine.scale)
        assert other.affine.whitens == whiten

    def test_of_a_dtype(self, tmp_path):
        denoiser = stirred().float()
        save(tmp_path / "d.pt", denoiser)
        assert {p.dtype for p in load(tmp_path / "d.pt").parameters()} == {torch.float32}

    def test_of_another_net(self, tmp_path):
        denoiser = stirred(net=ConcatMLP(2, 8))
        save(tmp_path / "d.pt", denoiser)
        assert same(denoiser, load(tmp_path / "d.pt"))

    def test_into_a_denoiser_built_the_same_way(self, tmp_path):
        denoiser, other = stirred(), stirred()
        save(tmp_path / "d.pt", denoiser)
        load_weights(other, tmp_path / "d.pt")
        assert same(denoiser, other)

    def test_of_a_network_of_one_s_own(self, tmp_path):
        class Net(nn.Linear):
            def forward(self, x, t):
                return super().forward(x)

        denoiser, other = (EpsDenoiser(Net(2, 2), VPSDE()) for _ in range(2))
        save(tmp_path / "d.pt", denoiser)
        load_weights(other, tmp_path / "d.pt")
        assert same(denoiser, other)
        with pytest.raises(ValueError, match="load_weights"):
            load(tmp_path / "d.pt")
        with pytest.raises(TypeError, match="can be stored"):
            describe(denoiser)

    def test_nothing_is_pickled(self, tmp_path):
        save(tmp_path / "d.pt", stirred())
        content = torch.load(tmp_path / "d.pt", weights_only=True)
        assert content.keys() == {"format", "config", "weights"}
        assert json.loads(content["config"])["net"]["width"] == 8


class TestRefusals:
    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "d.pt")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"x" * 99, b"\x80\x04."])
    def test_a_foreign_file(self, tmp_path, content):
        path = tmp_path / "d.pt"
        path.write_bytes(content)
        for read in (load, lambda p: load_weights(stirred(), p)):
            with pytest.raises(ValueError, match="foreign or damaged"):
                read(path)

    def test_a_damaged_file(self, tmp_path):
        path = tmp_path / "d.pt"
        save(path, stirred())
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(ValueError, match="foreign or damaged"):
            load(path)

    def test_an_object(self, tmp_path):
        """Code in a file is not run."""
        path = tmp_path / "d.pt"
        torch.save(stirred(), path)
        with pytest.raises(ValueError, match="foreign or damaged"):
            load(path)

    def test_weights_of_a_plain_network(self, tmp_path):
        path = tmp_path / "d.pt"
        torch.save(stirred().state_dict(), path)
        with pytest.raises(ValueError, match="holds something else"):
            load(path)

    def test_another_version(self, tmp_path):
        path = tmp_path / "d.pt"
        save(path, stirred())
        content = torch.load(path, weights_only=True)
        torch.save(content | {"format": 2}, path)
        with pytest.raises(ValueError, match="another version"):
            load(path)
        torch.save(content | {"config": content["config"].replace("VPSDE", "VQSDE")}, path)
        with pytest.raises(ValueError, match=r"process to be one of VPSDE.*got 'VQSDE'"):
            load(path)

    @pytest.mark.parametrize(
        "other",
        [
            lambda: stirred(net=MLP(2, width=9)),
            lambda: stirred(affine=Affine(torch.zeros(2), torch.ones(2))),
        ],
    )
    def test_weights_that_do_not_fit(self, tmp_path, other):
        save(tmp_path / "d.pt", stirred())
        with pytest.raises(ValueError, match="do not fit"):
            load_weights(other(), tmp_path / "d.pt")


class TestWholeOrNotAtAll:
    @pytest.fixture
    def full_disk(self, monkeypatch):
        """Half of the bytes, then no space."""
        write = Path.write_bytes

        def failing(self, data):
            write(self, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", failing)

    def test_a_full_disk(self, tmp_path, monkeypatch, request):
        path = tmp_path / "d.pt"
        denoiser = stirred()
        save(path, denoiser)
        request.getfixturevalue("full_disk")
        with pytest.raises(OSError, match=r"could not write .*No space left.*unharmed") as caught:
            save(path, stirred())
        assert caught.value.errno == errno.ENOSPC
        assert [p.name for p in tmp_path.iterdir()] == ["d.pt"]
        assert same(load(path), denoiser)

    def test_nothing_before(self, tmp_path, full_disk):
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path / "d.pt", stirred())
        assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Leaf:
    size: int
    name: str = "a"
    on: bool = True
    share: float | None = None


@dataclass(frozen=True)
class Tree:
    first: Leaf | MLPConfig
    kind: Literal["x", "y"] = "x"
    values: tuple[float, ...] = ()
    leaves: tuple[Leaf, ...] = dataclasses.field(default_factory=tuple)
    format: int = 1


class TestJson:
    @pytest.mark.parametrize(
        "tree",
        [
            Tree(Leaf(3)),
            Tree(MLPConfig(2), "y", (0.1, 1 / 3, 1e-300), (Leaf(1), Leaf(2, "b", False, 0.5))),
            DenoiserConfig(VPSDE(), MLPConfig(2), "edm", 0.5, True),
        ],
    )
    def test_round_trip(self, tree):
        assert from_json(type(tree), to_json(tree)) == tree

    def test_a_sketch_is_enough(self):
        text = '{"type": "Tree", "first": {"type": "Leaf", "size": 2, "share": 1}, "format": 1}'
        tree = from_json(Tree, text)
        assert tree == Tree(Leaf(2, share=1.0))
        assert isinstance(tree.first.share, float)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("Leaf", "Leek"), r"Tree.first to be one of Leaf, MLPConfig, got 'Leek'"),
            (("Tree", "Bush"), "expected Tree to be a Tree, got 'Bush'"),
            (('"size": 3', '"size": "3"'), "Tree.first.size to be int, got '3'"),
            (('"size": 3', '"size": true'), "Tree.first.size to be int, got True"),
            (('"size": 3', '"sizes": 3'), r"missing \['size'\], not known \['sizes'\]"),
            (('"x"', '"z"'), "Tree.kind to be"),
            (('"values": []', '"values": ["a"]'), r"Tree.values\[0\] to be float, got 'a'"),
            (('"share": null', '"share": "a"'), "Tree.first.share to be one of float, NoneType"),
            (('"format": 1', '"format": 2'), "format 1, got 2: .* another version"),
            (("{", "("), "expected JSON"),
        ],
    )
    def test_errors_name_the_entry(self, change, message):
        text = to_json(Tree(Leaf(3)))
        assert change[0] in text
        with pytest.raises(ValueError, match=message):
            from_json(Tree, text.replace(*change))

    def test_a_wrapper_has_no_recipe(self):
        with pytest.raises(TypeError, match="got Given of VPSDE"):
            describe(Given(stirred(), y=1))
