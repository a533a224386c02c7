"""The emulated device catches what a real one would refuse, and lets pass what it would not."""

import copy
import warnings

import pytest
import torch

import emulated
from emulated.operations import no_cuda_kernel

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def device():
    if torch.cuda.is_available():
        pytest.skip("a real device is here")
    with emulated.device() as state:
        yield state


def there(*shape):
    return torch.ones(*shape, device="cuda")


@pytest.fixture
def no_waiting():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


PLANTED = {
    "host and device": (lambda: there(3) + torch.ones(3), "same device"),
    "matrix on the host": (lambda: there(3, 3) @ torch.ones(3, 3), "same device"),
    "written into the host": (lambda: torch.ones(()).add_(there(1).sum()), "same device"),
    "concatenated": (lambda: torch.cat([there(2), torch.ones(2)]), "same device"),
    "a network left behind": (lambda: torch.nn.Linear(2, 2)(there(1, 2)), "same device"),
    "in a transform": (
        lambda: torch.func.grad(lambda x: (x * torch.ones(3)).sum())(there(3)),
        "same device",
    ),
    "in vmap": (lambda: torch.func.vmap(lambda x: x + torch.ones(2))(there(3, 2)), "same device"),
    "numpy": (lambda: there(3).numpy(), "can't convert cuda"),
    "numpy by its protocol": (lambda: __import__("numpy").asarray(there(3)), "can't convert cuda"),
    "generator of the host": (
        lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
        "device type for generator",
    ),
    "generator of the device": (
        lambda: torch.randn(3, generator=torch.Generator("cuda")),
        "device type for generator",
    ),
    "in place": (lambda: there(3).normal_(generator=torch.Generator()), "type for generator"),
    "no kernel": (lambda: torch.histogram(there(3), 2), "no CUDA kernel"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_raise(name):
    fault, message = PLANTED[name]
    with pytest.raises((RuntimeError, TypeError, NotImplementedError), match=message):
        fault()


WAITS = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "if": lambda x: bool(x[0] > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "cpu without blocking": lambda x: x.to("cpu", non_blocking=True),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x.repeat_interleave(x.long()),
    "numbers of the host": lambda x: torch.tensor([1.0, 2.0], device="cuda"),
    "tensor of the host": lambda x: torch.ones(3).cuda(),
    "copied from the host": lambda x: x.copy_(torch.ones(3)),
    "indices of the host": lambda x: x[torch.tensor([0, 1])],
    "eigenvalues": lambda x: torch.linalg.eigh(x.diag()),
    "stream": lambda x: torch.cuda.current_stream().synchronize(),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("name", WAITS)
def test_planted_waits_are_counted_and_refused(name, device, no_waiting):
    x = there(3)
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        WAITS[name](x)
    torch.cuda.set_sync_debug_mode("default")
    device.log.clear()
    WAITS[name](x)
    assert sum(emulated.counts("wait").values()) == 1
    (at,) = emulated.counts("wait")
    assert "test_emulated.py" in at


def test_what_does_not_wait(no_waiting):
    x, host = there(3), torch.ones(3)
    results = [
        x * 2.0 + torch.tensor(2.0),  # a () of the host is a number to a kernel
        torch.where(x > 0, x, 0.0),
        x[torch.tensor([0, 2]).cuda(non_blocking=True)],
        host.to("cuda", non_blocking=True),
        x.clone().masked_fill_(x > 0, 2.0),
        torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1)),
        x.repeat_interleave(2),
    ]
    assert all(out.device == emulated.CUDA and out.is_cuda for out in results)
    assert not host.is_cuda and host.device.type == "cpu"


def test_numbers_are_those_of_the_host():
    generators = torch.Generator("cuda").manual_seed(3), 3
    on_device = torch.randn(5, 2, device="cuda", generator=generators[0])
    emulated.uninstall()
    on_host = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(on_device.clone(), on_host)
    emulated.install()


def test_modules_optimisers_and_copies_stay_there():
    net = torch.nn.Linear(2, 2).to(device="cuda", dtype=torch.float32).double()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    net(there(3, 2).double()).square().sum().backward()
    optimizer.step()
    twin = copy.deepcopy(net)
    found = [*net.parameters(), *twin.parameters(), net.weight.grad, *net.state_dict().values()]
    assert all(tensor.is_cuda for tensor in found)
    with pytest.raises(RuntimeError, match="same device"):
        twin(torch.ones(3, 2))


def test_graphs_are_replayed_into_the_same_memory():
    x, g = there(2), torch.Generator("cuda").manual_seed(0)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(g)
    with torch.cuda.graph(graph):
        out = 2 * x + 1
        noise = torch.randn(2, device="cuda", generator=g)
    before = noise.clone()
    x.fill_(5.0)
    graph.replay()
    assert out.tolist() == [11.0, 11.0]
    assert not torch.equal(noise, before)


CAPTURING = {
    "a wait": lambda x: x.sum().item(),
    "from the host": lambda x: torch.ones(2).to("cuda", non_blocking=True),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "a generator that the graph does not know": lambda x: x.normal_(
        generator=torch.Generator("cuda")
    ),
}


@pytest.mark.parametrize("name", CAPTURING)
def test_planted_faults_while_capturing(name):
    x = there(2)
    with (
        pytest.raises(RuntimeError, match="captur"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        CAPTURING[name](x)


def test_a_capture_in_inference_mode_would_spoil_the_next():
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match="inference"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        pass


def test_the_first_sync_debug_mode_warns():
    emulated.STATE.warned = False
    with pytest.warns(UserWarning, match="prototype"):
        torch.cuda.set_sync_debug_mode("warn")
    with pytest.warns(UserWarning, match="synchronizing"):
        there(1).item()


def test_kernels_are_looked_up_in_torch():
    assert not no_cuda_kernel(aten.add.Tensor)
    assert not no_cuda_kernel(aten._linalg_eigh.default)
    assert no_cuda_kernel(aten.mkldnn_rnn_layer.default)


def test_it_goes_as_it_came():
    emulated.uninstall()
    names = "is_available", "Stream", "CUDAGraph", "get_rng_state"
    before = [torch.Generator, torch.load, *(getattr(torch.cuda, name) for name in names)]
    emulated.install()
    assert torch.cuda.is_available()
    emulated.uninstall()
    assert before == [torch.Generator, torch.load, *(getattr(torch.cuda, name) for name in names)]
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2, device="cuda")
    assert (torch.ones(2) + 1).device.type == "cpu"
