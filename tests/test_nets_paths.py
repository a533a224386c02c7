"""Networks of paths: any length, conditions, and nothing leaks from one sample into another."""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad

from scoresde import VPSDE, EpsDenoiser
from scoresde.autodiff import differentiating
from scoresde.likelihood import Adaptive, log_likelihood
from scoresde.nets import Transformer, UNet1d
from scoresde.nets.unet1d import _doubled, _halved
from scoresde.training import DenoiserConfig, describe, from_json, load, save, to_json

NETS = {
    "unet": lambda **k: UNet1d(**{"channels": 2, "width": 16, "piece": 4, "kernel": 3} | k),
    "whole": lambda **k: UNet1d(**{"channels": 2, "width": 16, "piece": 1, "kernel": 5} | k),
    "transformer": lambda **k: Transformer(**{"channels": 2, "width": 16, "depth": 2} | k),
}
LENGTHS = (1, 2, 7, 13, 64)


def stirred(net):
    """A net none of whose layers is zero."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return net


@pytest.mark.parametrize("name", NETS)
class TestEvery:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_any_length_comes_out_as_it_went_in(self, name, length):
        net, x = stirred(NETS[name]()), torch.randn(3, length, 2, requires_grad=True)
        out = net(x, torch.tensor(0.3))
        assert out.shape == x.shape
        # every number of the answer depends on the path, and every point matters
        for entry in (out[0, 0, 0], out[0, -1, 1]):
            (slope,) = torch.autograd.grad(entry, x, retain_graph=True)
            assert slope[0].abs().sum(1).min() > 0
            assert not slope[1:].any()

    def test_one_time_for_all_is_the_same_as_one_for_each(self, name):
        net, x, t = stirred(NETS[name]()), torch.randn(5, 13, 2), torch.tensor(0.3)
        torch.testing.assert_close(net(x, t), net(x, t.expand(5)), rtol=1e-12, atol=1e-12)

    def test_samples_do_not_meet(self, name):
        net, x, t = stirred(NETS[name]()), torch.randn(5, 13, 2), torch.rand(5)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(net(x, t)[order], net(x[order], t[order]), rtol=0, atol=1e-13)

    def test_time_and_place_matter(self, name):
        net, x = stirred(NETS[name]()), torch.ones(1, 64, 2)
        now, later = net(x, torch.tensor(0.3)), net(x, torch.tensor(0.31))
        assert (now - later).abs().min() > 0
        assert (now[:, 16:32] - now[:, 32:48]).abs().min() > 0  # of a path that stands still

    def test_a_fresh_net_predicts_nothing_and_learns(self, name):
        net, x, t = NETS[name](), torch.randn(4, 10, 2), torch.rand(4)
        assert not net(x, t).any()
        net(x, t).sum().backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())

    def test_far_from_the_data_it_is_not_bounded(self, name):
        net, x = stirred(NETS[name]()), torch.randn(3, 8, 2)
        far, further = (net(scale * x, torch.tensor(0.3)) for scale in (1e7, 2e7))
        assert (further - 2 * far).abs().max() < 1e-4 * far.abs().max()

    def test_differentiable_by_func(self, name):
        net, x = stirred(NETS[name]()), torch.randn(3, 9, 2)
        with torch.inference_mode(), differentiating():
            slope = torch.func.grad(lambda x: net(x, torch.tensor(0.3)).sum())(x)
        shift = 1e-6 * torch.randn_like(x)
        change = (net(x + shift, torch.tensor(0.3)) - net(x - shift, torch.tensor(0.3))).sum() / 2
        torch.testing.assert_close(change, (slope * shift).sum(), rtol=1e-5, atol=1e-11)

    @pytest.mark.parametrize("of", ["x", "t"])
    def test_n23_forward_derivative_is_the_backward_one(self, name, of):
        """<w, J d> = <J^T w, d>, in x and in t, with one thread; and of a velocity."""
        model = EpsDenoiser(stirred(NETS[name]()), VPSDE())
        x, t = torch.randn(3, 9, 2), torch.tensor(0.3)
        for field in (model.net, model.velocity):
            function = partial(field, t=t) if of == "x" else partial(field, x)
            at = x if of == "x" else t
            d, w = torch.randn_like(at), torch.randn_like(x)
            forward = torch.func.jvp(function, (at,), (d,))[1]
            (back,) = torch.func.vjp(function, at)[1](w)
            torch.testing.assert_close((w * forward).sum(), (back * d).sum(), rtol=1e-12, atol=0)
        with forward_ad.dual_level():  # without torch.func
            dual = forward_ad.unpack_dual(function(forward_ad.make_dual(at, d))).tangent
        torch.testing.assert_close(dual, forward, rtol=1e-12, atol=1e-12)

    def test_n23_derivatives_of_derivatives(self, name):
        """The slope of |slope|^2 against differences of it, and many pulls at once as in turn."""
        net, x, d = stirred(NETS[name]()), torch.randn(2, 9, 2), torch.randn(2, 9, 2)
        field = partial(net, t=torch.tensor(0.3))
        slope = torch.func.grad(lambda x: field(x).square().sum())
        second = torch.func.grad(lambda x: slope(x).square().sum())(x)
        up, down = (slope(x + h * d).square().sum() for h in (1e-5, -1e-5))
        torch.testing.assert_close((second * d).sum(), (up - down) / 2e-5, rtol=1e-6, atol=0)
        pull, rows = torch.func.vjp(field, x)[1], torch.randn(3, 2, 9, 2)
        (at_once,) = torch.func.vmap(pull)(rows)
        in_turn = torch.stack([pull(row)[0] for row in rows])
        torch.testing.assert_close(at_once, in_turn, rtol=1e-12, atol=1e-12)

    def test_n22_no_samples_and_times_of_a_wrong_shape(self, name):
        net = NETS[name]()
        for t in (torch.tensor(0.3), torch.zeros(0)):
            assert net(torch.zeros(0, 9, 2), t).shape == (0, 9, 2)
        with pytest.raises(ValueError, match=r"time \(\) or \(B,\), got \(3, 1\)"):
            net(torch.zeros(3, 9, 2), torch.zeros(3, 1))

    def test_label_none_is_the_last_row(self, name):
        net, x, t = stirred(NETS[name](classes=3)), torch.randn(4, 9, 2), torch.rand(4)
        torch.testing.assert_close(net(x, t), net(x, t, y=torch.full((4,), 3)))
        one = x[:1].expand(4, -1, -1)
        assert len(net(one, t[0], y=torch.arange(4)).flatten(1).unique(dim=0)) == 4

    def test_a_number_not_known_is_not_read(self, name):
        net, x, t = stirred(NETS[name](context=2)), torch.randn(2, 9, 2), torch.tensor(0.4)
        c = torch.tensor([[0.5, torch.nan], [0.5, 0.0]])
        out = net(x[:1].expand(2, -1, -1), t, c=c)
        assert out.isfinite().all() and (out[0] - out[1]).abs().max() > 0  # zero is not "unknown"
        nothing = torch.full((2, 2), torch.nan)
        torch.testing.assert_close(net(x, t), net(x, t, c=nothing))
        assert (net(x, t) - net(x, t, c=c)).abs().max() > 0

    def test_refusals(self, name):
        net, x, t = NETS[name](), torch.randn(2, 9, 2), torch.tensor(0.4)
        with pytest.raises(ValueError, match="classes=K"):
            net(x, t, y=torch.zeros(2).long())
        with pytest.raises(ValueError, match="context"):
            net(x, t, c=torch.zeros(2, 1))
        for wrong in (x[..., :1], x[0], x[:, :0]):
            with pytest.raises(ValueError, match=r"paths \(B, L, 2\)"):
                net(wrong, t)
        for bad in ({"width": 0}, {"classes": -1}, {"piece": 1.5}, {"channels": 0}):
            with pytest.raises(ValueError, match="expected"):
                NETS[name](**bad)

    def test_stored_and_rebuilt(self, name, tmp_path):
        model = EpsDenoiser(stirred(NETS[name](classes=2, context=1)), VPSDE())
        recipe = describe(model)
        assert from_json(DenoiserConfig, to_json(recipe)) == recipe
        save(tmp_path / "net.pt", model)
        x, t, y = torch.randn(2, 9, 2), torch.rand(2), torch.tensor([0, 2])
        torch.testing.assert_close(load(tmp_path / "net.pt")(x, t, y=y), model.eval()(x, t, y=y))

    @pytest.mark.gpu
    def test_on_a_gpu(self, name):
        net = stirred(NETS[name](classes=3))
        x, t, y = torch.randn(4, 13, 2), torch.rand(4), torch.arange(4)
        expected = net(x, t, y=y)
        on = net.cuda()(x.cuda(), t.cuda(), y=y.cuda())
        torch.testing.assert_close(on.cpu(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_n23_likelihood_of_a_fresh_net(name):
    """It predicts eps = 0, so dx/dt = f x and log p(x) = log N(r x; 0, I) + d log r, r = alpha."""
    sde, x, end = VPSDE(), torch.randn(3, 5, 2), torch.tensor([1e-6, 1.0])
    early, late = sde.log_alpha(end)
    r = late - early
    expected = sde.prior_log_prob(r.exp() * x) + 10 * r
    found = log_likelihood(EpsDenoiser(NETS[name](), sde), x, Adaptive(1e-7, 1e-7))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("piece", [1, 4, 5])
def test_what_fills_the_last_piece_is_not_read_back(piece):
    """A path of any length gives what the path prolonged by its last point gives."""
    net = stirred(Transformer(2, 16, 2, piece=piece))
    x, t = torch.randn(3, 13, 2), torch.rand(3)
    longer = torch.cat([x, x[:, -1:].expand(-1, -13 % piece, -1)], 1)
    torch.testing.assert_close(net(x, t), net(longer, t)[:, :13], rtol=0, atol=0)


def test_odd_kernels_and_heads_that_divide():
    with pytest.raises(ValueError, match="odd"):
        UNet1d(2, kernel=4)
    with pytest.raises(ValueError, match="multiple"):
        Transformer(2, width=30, heads=4)


def test_attention_is_the_formula():
    """One head by hand: softmax(q k^T/sqrt(d)) v."""
    block = stirred(Transformer(2, 8, 1, heads=2)).blocks[0]
    h = torch.randn(2, 5, 8)
    q, k, v = (part.unflatten(-1, (2, 4)) for part in block.qkv(h).chunk(3, -1))
    mixed = [(q[:, :, i] @ k[:, :, i].mT / 2).softmax(-1) @ v[:, :, i] for i in range(2)]
    torch.testing.assert_close(block._attend(h), block.out(torch.cat(mixed, -1)))


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_halving_undoes_doubling(n):
    """Neighbours stay neighbours: a ramp that is halved and doubled is a staircase."""
    ramp = torch.arange(float(n)).expand(2, 3, n)
    stairs = _doubled(_halved(ramp), n)
    assert (stairs - ramp).abs().max() <= 0.5
    torch.testing.assert_close(_halved(stairs), _halved(ramp))
