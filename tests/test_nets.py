"""Networks: what they promise about shapes, times, labels and the far field."""

import pytest
import torch

from scoresde.autodiff import differentiating
from scoresde.nets import MLP, Classifier, ConcatMLP, TimeFeatures


def stirred(net):
    """A net whose output layer is not zero."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net


NETS = {
    "mlp": lambda: MLP(6, width=16, depth=2),
    "labels": lambda: MLP(6, width=16, depth=2, classes=3),
    "concat": lambda: ConcatMLP(6, width=16),
    "classifier": lambda: Classifier(6, 4, width=16),
}


@pytest.mark.parametrize("name", NETS)
class TestEvery:
    def test_one_time_for_all_is_the_same_as_one_for_each(self, name):
        net, x = stirred(NETS[name]()), torch.randn(5, 6)
        t = torch.tensor(0.3)
        torch.testing.assert_close(net(x, t), net(x, t.expand(5)), rtol=1e-12, atol=1e-12)

    def test_samples_do_not_meet(self, name):
        net, x, t = stirred(NETS[name]()), torch.randn(5, 6), torch.rand(5)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(net(x, t)[order], net(x[order], t[order]), rtol=0, atol=1e-14)

    def test_time_matters(self, name):
        net, x = stirred(NETS[name]()), torch.randn(5, 6)
        gap = (net(x, torch.tensor(0.3)) - net(x, torch.tensor(0.31))).abs()
        assert gap.min() > 0

    def test_an_event_of_any_shape_is_flattened(self, name):
        net, x, t = stirred(NETS[name]()), torch.randn(5, 3, 2), torch.rand(5)
        flat = net(x.flatten(1), t)
        assert torch.equal(net(x, t).flatten(1), flat)
        assert name == "classifier" or net(x, t).shape == x.shape

    def test_differentiable_by_func(self, name):
        net, x = stirred(NETS[name]()), torch.randn(5, 6)
        with torch.inference_mode(), differentiating():
            slope = torch.func.grad(lambda x: net(x, torch.tensor(0.3)).sum())(x)
        shift = 1e-6 * torch.randn_like(x)
        change = (net(x + shift, torch.tensor(0.3)) - net(x - shift, torch.tensor(0.3))).sum() / 2
        torch.testing.assert_close(change, (slope * shift).sum(), rtol=1e-6, atol=1e-12)

    def test_float32(self, name):
        net = NETS[name]().float()
        assert net(torch.randn(5, 6).float(), torch.rand(5).double()).dtype == torch.float32


def test_a_fresh_net_predicts_nothing():
    x, t = torch.randn(5, 6), torch.rand(5)
    assert not MLP(6)(x, t).any()
    assert not Classifier(6, 4)(x, t).any()  # every class alike


def test_one_time_is_embedded_once():
    features = TimeFeatures(n=7)
    assert features(torch.tensor(0.3)).shape == (1, 14)
    t = torch.rand(4)
    turns = torch.logspace(-2, 4, 7, base=2)  # 1/4 to 16
    angle = 2 * torch.pi * t[:, None] * turns
    torch.testing.assert_close(features(t), torch.cat([angle.sin(), angle.cos()], 1))


def test_far_from_the_data_it_is_linear():
    net, x, t = stirred(MLP(2, width=16)), torch.randn(5, 2), torch.tensor(0.3)
    far = net(1e8 * x, t).detach()
    off = net(2e8 * x, t) - 2 * far
    assert off.abs().max() < 1e-6 * far.abs().max()


class TestLabels:
    net = staticmethod(lambda: stirred(MLP(2, width=16, classes=3)))

    def test_none_is_the_last_row(self):
        net, x, t = self.net(), torch.randn(5, 2), torch.rand(5)
        no_label = torch.full((5,), 3)
        for time in (t, t[0]):
            torch.testing.assert_close(
                net(x, time), net(x, time, y=no_label), rtol=1e-13, atol=1e-13
            )

    def test_each_sample_has_its_own(self):
        net, x, t = self.net(), torch.randn(1, 2).expand(4, 2), torch.tensor(0.5)
        out = net(x, t, y=torch.arange(4))
        for k in range(4):
            single = net(x[:1], t, y=torch.tensor([k]))
            torch.testing.assert_close(out[k : k + 1], single, rtol=0, atol=1e-14)
        assert len(out.unique(dim=0)) == 4

    def test_a_net_without_refuses_them(self):
        with pytest.raises(ValueError, match="classes=K"):
            MLP(2)(torch.randn(5, 2), torch.rand(5), y=torch.zeros(5).long())


def test_dropout_only_in_training():
    net, x, t = stirred(MLP(2, width=64, dropout=0.5)), torch.randn(5, 2), torch.rand(5)
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_the_simplest_model():
    net, x, t = ConcatMLP(2, width=5), torch.randn(4, 2), torch.rand(4)
    first, act, second = net.layers
    expected = second(act(first(torch.cat([x, t[:, None]], 1))))
    assert torch.equal(net(x, t), expected)
    assert sum(p.numel() for p in net.parameters()) == 3 * 5 + 5 + 5 * 2 + 2


@pytest.mark.parametrize("net", [MLP(3, 20, 2, 4, 0.1), ConcatMLP(3, 20)])
def test_the_recipe_rebuilds_it(net):
    other = net.config.build()
    assert type(other) is type(net)
    assert other.config == net.config
    other.load_state_dict(net.state_dict())
    assert str(other) == str(net)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MLP(0),
        lambda: MLP(2, width=0),
        lambda: MLP(2, depth=1.5),
        lambda: MLP(2, classes=-1),
        lambda: MLP(2, dropout=1.0),
        lambda: Classifier(2, 1),
        lambda: ConcatMLP(2, width=-3),
        lambda: MLP(3)(torch.randn(5, 2), torch.rand(5)),
        lambda: Classifier(3, 2)(torch.randn(5, 2), torch.rand(5)),
    ],
)
def test_bad_sizes(build):
    with pytest.raises(ValueError, match="expected"):
        build()
