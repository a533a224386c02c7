"""Trajectories from the user's files, what is wrong with them, and signals as sound."""

import wave

import numpy as np
import pytest
import torch

from scoresde.data import Kepler, RingDown, load_trajectories, save_wav


def table(x, times, names=None):
    """Rows (trajectory, time, x, y) of paths (n, L, C)."""
    names = range(len(x)) if names is None else names
    return np.concatenate(
        [np.column_stack((np.full(len(p), i), times, p)) for i, p in zip(names, x, strict=True)]
    )


def write(path, rows, header=""):
    np.savetxt(path, rows, delimiter=",", header=header, comments="")
    return path


@pytest.fixture
def orbits():
    return Kepler(length=12)(4, torch.Generator().manual_seed(0))


class TestLoading:
    @pytest.mark.parametrize("header", ["", "id,time,x,y"])
    def test_csv_in_any_order(self, tmp_path, orbits, header):
        rows = table(orbits.numpy(), Kepler(length=12).times.numpy(), names=[7, 2, 3, 10])
        np.random.shuffle(rows)
        x = load_trajectories(write(tmp_path / "orbits.csv", rows, header))
        assert x.dtype == torch.float64
        torch.testing.assert_close(x, orbits[[1, 2, 0, 3]], rtol=0, atol=1e-15)  # by number

    def test_csv_may_start_at_any_time(self, tmp_path, orbits):
        times = np.arange(12.0)
        parts = [table(x[None].numpy(), times + 5 * i, [i]) for i, x in enumerate(orbits)]
        x = load_trajectories(write(tmp_path / "orbits.csv", np.concatenate(parts)))
        torch.testing.assert_close(x, orbits, rtol=0, atol=1e-15)

    def test_npy_and_npz(self, tmp_path, orbits):
        np.save(tmp_path / "a.npy", orbits.float().numpy())
        np.savez(tmp_path / "a.npz", orbits=orbits.numpy(), other=np.zeros(3))
        assert (load_trajectories(tmp_path / "a.npy") == orbits.float().double()).all()
        assert (load_trajectories(tmp_path / "a.npz", key="orbits") == orbits).all()
        with pytest.raises(ValueError, match="name the one to read"):
            load_trajectories(tmp_path / "a.npz")

    def test_resampling_keeps_straight_lines(self, tmp_path):
        # unequal lengths and uneven times, on lines of constant velocity
        velocity = np.array([[1.0, -2.0], [0.5, 3.0]])
        ladders = [np.array([0.0, 0.1, 0.7, 1.0]), np.array([2.0, 2.5, 4.0])]
        paths = zip(ladders, velocity, strict=True)
        rows = [table(np.outer(t, v)[None], t, [i]) for i, (t, v) in enumerate(paths)]
        x = load_trajectories(write(tmp_path / "a.csv", np.concatenate(rows)), resample=6)
        ends = [(0, 1), (2, 4)]
        lines = zip(ends, velocity, strict=True)
        truth = np.stack([np.outer(np.linspace(*e, 6), v) for e, v in lines])
        torch.testing.assert_close(x, torch.from_numpy(truth), rtol=1e-12, atol=1e-12)

    def test_resampling_arrays(self, tmp_path, orbits):
        np.save(tmp_path / "a.npy", orbits.numpy())
        x = load_trajectories(tmp_path / "a.npy", resample=23)
        torch.testing.assert_close(x[:, ::2], orbits, rtol=0, atol=1e-12)
        middles = 0.5 * (orbits[:, 1:] + orbits[:, :-1])
        torch.testing.assert_close(x[:, 1::2], middles, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 1], [0, 1, 2], [0, 2, 1], [1, 0, 1], [1, 1, 1]],
         r"3 times in trajectory 0 and 2 in 1: pass resample=2"),
        ([[0, 0, 1], [0, 1, 2], [0, 3, 4]], r"equally spaced .* trajectory 0: pass resample=3"),
        ([[0, 0, 1], [0, 1, 2], [5, 0, 1], [5, 2, 2]], r"others in trajectory 5: pass resample=2"),
        ([[0, 0, 1], [0, 0, 2]], "one twice in trajectory 0"),
        ([[0, 0, 1], [1, 0, 2]], "at least two times in each trajectory, got 1 in 0"),
        ([[0, 0], [0, 1]], r"columns trajectory, time, x, y in csv, got shape \(2, 2\)"),
        ([[0, 0, 1], [0, 1, np.nan]], r"1 that are NaN .* \(2, 3\), counted from 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message) as error:
        load_trajectories(write(tmp_path / "bad.csv", rows))
    assert "bad.csv" in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), r"array \(n, L, C\) in npy or npz, .* got shape \(3, 4\)"),
        (np.zeros((0, 4, 2)), r"shape \(0, 4, 2\)"),
        (np.zeros((3, 4, 2), complex), "real numbers, got an array of complex128"),
        (np.array([[["a"]]]), "real numbers"),
    ],
)
def test_what_is_wrong_with_an_array(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=message):
        load_trajectories(tmp_path / "bad.npy")


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing at .*none\.csv"):
        load_trajectories(tmp_path / "none.csv")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match="resample >= 2 times, got 1"):
        load_trajectories(tmp_path / "a.npy", resample=1)
    (tmp_path / "a.mat").write_text("")
    with pytest.raises(ValueError, match=r"got '\.mat'"):
        load_trajectories(tmp_path / "a.mat")


class TestSound:
    @pytest.mark.parametrize("flat", [False, True])
    def test_reads_back(self, tmp_path, flat):
        family = RingDown()
        signal = family(1)[0]
        path = save_wav(tmp_path / "bell.wav", signal[:, 0] if flat else signal, 4000)
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 4000)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        truth = signal[:, 0]
        torch.testing.assert_close(torch.tensor(samples), truth, rtol=0, atol=0.5001 / 32767)

    def test_full_scale_and_silence(self, tmp_path):
        path = save_wav(tmp_path / "a.wav", torch.tensor([1.0, -1.0, 0.0]), 8000)
        with wave.open(str(path)) as file:
            assert np.frombuffer(file.readframes(3), "<i2").tolist() == [32767, -32767, 0]

    @pytest.mark.parametrize(
        ("signal", "rate", "message"),
        [
            (torch.tensor([0.0, 1.1]), 8000, "divide by"),
            (torch.tensor([0.0, float("nan")]), 8000, "finite values"),
            (torch.zeros(4, 2), 8000, r"\(L,\) or \(L, 1\)"),
            (torch.zeros(0), 8000, r"got shape \(0,\)"),
            (torch.zeros(4), 44.1, "whole number of samples per second, got 44.1"),
        ],
    )
    def test_clear_errors(self, tmp_path, signal, rate, message):
        with pytest.raises(ValueError, match=message):
            save_wav(tmp_path / "a.wav", signal, rate)
        assert not list(tmp_path.iterdir())
