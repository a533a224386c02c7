"""Families of trajectories against equations of motion, closed forms and quadrature."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import torch

from scoresde.data import (
    TRAJECTORIES,
    Brownian,
    Chirp,
    DampedOscillator,
    DoublePendulum,
    DoubleWell,
    DrivenOscillator,
    GaussianFamily,
    Kepler,
    Labelled,
    Larmor,
    Lissajous,
    OrnsteinUhlenbeck,
    RingDown,
    RunAndTumble,
    Splines,
    ThermalOscillator,
)
from scoresde.data.trajectories.mechanics import eccentric_anomaly, velocity
from scoresde.metrics import mean_squared_displacement, spread, velocity_autocorrelation
from scoresde.sde import VPSDE

SDE = VPSDE()
GAUSSIAN = [f() for f in TRAJECTORIES.values() if issubclass(f, GaussianFamily)]


def derivatives(x, step):
    """First and second derivatives at inner times, by splines of degree 9."""
    t = step * np.arange(x.shape[1])
    spline = scipy.interpolate.make_interp_spline(t, x.numpy(), k=9, axis=1)
    inner = slice(x.shape[1] // 4, -(x.shape[1] // 4))
    return [torch.from_numpy(spline.derivative(k)(t)[:, inner]) for k in (1, 2)] + [x[:, inner]]


def assert_covariance(x, truth):
    """Every entry of a sample covariance to 6 standard errors (10^4 entries are looked at)."""
    n = len(x)
    flat = (x - x.mean(0)).flatten(1)
    var = truth.diagonal()
    error = ((var[:, None] * var + truth.square()) / n).sqrt()
    assert ((flat.T @ flat / n - truth).abs() < 6 * error + 1e-12).all()


@pytest.mark.parametrize("name", TRAJECTORIES)
class TestEveryFamily:
    def test_draws_depend_on_the_generator_alone(self, name):
        family = TRAJECTORIES[name]()
        draw = lambda: family(5, torch.Generator().manual_seed(3))
        first = draw()
        torch.manual_seed(8)
        assert (draw() == first).all()
        assert first.shape == (5, family.length, family.channels)
        assert first.dtype == family.times.dtype == torch.float64
        assert family.times[0] == 0 and family.times[-1] == family.duration

    def test_paths_are_as_wanted_in_any_length(self, name):
        # the same law on a finer ladder of times: every second one of 2 L - 1 times
        coarse = TRAJECTORIES[name](length=65)
        fine = TRAJECTORIES[name](length=129)
        torch.testing.assert_close(fine.times[::2], coarse.times)
        n = 4000
        x, y = coarse(n), fine(n)[:, ::2]
        error = ((x.var(0) + y.var(0)) / n).sqrt()
        assert ((x.mean(0) - y.mean(0)).abs() < 5.5 * error).all()
        spread_of = lambda z: (z - z.mean(0)).square()
        error = ((spread_of(x).var(0) + spread_of(y).var(0)) / n).sqrt()
        assert ((x.var(0) - y.var(0)).abs() < 5.5 * error + 1e-12).all()

    def test_each_coordinate_varies_at_each_time(self, name):
        assert (TRAJECTORIES[name]()(200).var(0) > 0).all()  # what whitening asks for


class TestGaussian:
    @pytest.mark.parametrize("family", GAUSSIAN, ids=lambda f: type(f).__name__)
    def test_samples_have_the_covariance_of_the_law(self, family):
        n, size = 20_000, 2 * family.length
        x, cov = family(n), family.covariance.reshape(size, size)
        assert_covariance(x, cov)
        law = family.law(SDE)
        torch.testing.assert_close(law.covs[0], cov, rtol=0, atol=1e-12 * float(cov.max()))
        error = cov.diagonal().sqrt().reshape(-1, 2) / math.sqrt(n)
        assert ((x.mean(0) - family.mean).abs() < 5 * error).all()

    def test_brownian(self):
        family = Brownian(length=9, duration=2.0, diffusion=0.7, start=0.3)
        cov = 0.3**2 + 1.4 * torch.minimum(family.times[:, None], family.times)
        for a in range(2):
            torch.testing.assert_close(family.covariance[:, a, :, a], cov, rtol=1e-12, atol=0)
        assert (family.covariance[:, 0, :, 1] == 0).all()

    def test_ornstein_uhlenbeck(self):
        family = OrnsteinUhlenbeck(length=9, duration=2.0, tau=0.7, std=1.3)
        lag = (family.times[:, None] - family.times).abs()
        cov = 1.69 * (-lag / 0.7).exp()
        torch.testing.assert_close(family.covariance[:, 1, :, 1], cov, rtol=1e-12, atol=0)

    def test_thermal_oscillator_obeys_langevin(self):
        # the covariance of (x, v) by the matrix exponential of the Langevin equation
        family = ThermalOscillator(length=12, duration=1.5, omega=5.0, gamma=1.2, std=0.8)
        drift = np.array([[0.0, 1.0], [-25.0, -1.2]])
        stationary = 0.64 * np.diag([1.0, 25.0])
        diffusion = np.diag([0.0, 2 * 1.2 * 0.64 * 25])  # fluctuation and dissipation
        lyapunov = drift @ stationary + stationary @ drift.T + diffusion
        assert np.abs(lyapunov).max() < 1e-12
        times = family.times.numpy()
        truth = [(scipy.linalg.expm(drift * t) @ stationary)[0, 0] for t in times]
        cov = family.covariance[0, 0, :, 0]
        torch.testing.assert_close(cov, torch.tensor(truth), rtol=1e-10, atol=1e-12)

    def test_lissajous_oscillates_and_closes(self):
        family = Lissajous(length=200, duration=3.0, ratio=(2, 3), amplitude=0.7)
        x = family(20)
        _, acceleration, inner = derivatives(x, family.step)
        torch.testing.assert_close(acceleration, -(family.omega**2) * inner, rtol=0, atol=1e-5)
        torch.testing.assert_close(x[:, 0], x[:, -1], rtol=0, atol=1e-12)

    def test_lissajous_energy(self):
        family = Lissajous(length=200, ratio=(2, 3))
        x = family(50)
        velocities, _, inner = derivatives(x, family.step)
        truth = 0.5 * (velocities.square() + (family.omega * inner).square()).sum(2)
        torch.testing.assert_close(family.energy(x)[:, : truth.shape[1]], truth, rtol=1e-6, atol=0)
        n = 20_000  # two quadratic degrees of freedom each: <E> = sum_a w_a^2 amplitude^2
        energies = family.energy(family(n)).mean(1)
        error = energies.std() / math.sqrt(n)
        assert (energies.mean() - family.omega.square().sum()).abs() < 5 * error

    def test_damped_oscillator(self):
        family = DampedOscillator(length=200, omega=9.0, gamma=3.0)
        x = family(20)
        v, acceleration, inner = derivatives(x, family.step)
        residual = acceleration + 3 * v + 81 * inner
        assert residual.abs().max() < 1e-5
        start = family.covariance[0, 0, 0, 0]
        torch.testing.assert_close(start, torch.tensor(1.0), rtol=1e-12, atol=0)

    def test_driven_oscillator(self):
        # with a force of one known phase, against an integrator
        family = DrivenOscillator(length=40, omega=9.0, gamma=3.0, drive=7.0, force=20.0)
        root = family.root
        for column, wave in ((2, np.cos), (3, np.sin)):
            sol = scipy.integrate.solve_ivp(
                lambda t, y, w=wave: [y[1], 20 * w(7 * t) - 3 * y[1] - 81 * y[0]],
                (0, 1), [0, 0], t_eval=family.times.numpy(), rtol=1e-11, atol=1e-13,
            )  # fmt: skip
            truth = torch.from_numpy(sol.y[0])
            torch.testing.assert_close(root[:, column], truth, rtol=0, atol=1e-9)

    def test_splines(self):
        family = Splines(length=50, knots=5, size=2.0)
        knots = 2 * np.vstack([np.eye(5), np.eye(5)[:1]])
        truth = scipy.interpolate.CubicSpline(np.arange(6), knots, bc_type="periodic")
        at = np.linspace(0, 5, 50)
        torch.testing.assert_close(family.root, torch.from_numpy(truth(at)), rtol=0, atol=1e-12)

    def test_the_bridge(self):
        # OU pinned at both ends: known in closed form by hyperbolic functions
        family = OrnsteinUhlenbeck(length=21, duration=3.0, tau=0.8, std=1.2)
        ends = torch.tensor([[0.5, -1.0], [2.0, 0.3]])
        bridge = family.posterior(SDE, (0, 20), ends, std=0.0)
        t = family.times
        sinh = lambda s: (s / 0.8).sinh()
        mean = (sinh(3 - t)[:, None] * ends[0] + sinh(t)[:, None] * ends[1]) / math.sinh(3 / 0.8)
        torch.testing.assert_close(bridge.means[0], mean, rtol=0, atol=1e-10)
        early, late = torch.minimum(t[:, None], t), torch.maximum(t[:, None], t)
        cov = 2 * 1.2**2 * sinh(early) * sinh(3 - late) / math.sinh(3 / 0.8)
        own = bridge.covs[0].reshape(21, 2, 21, 2)[:, 1, :, 1]
        torch.testing.assert_close(own, cov, rtol=0, atol=1e-10)

    def test_the_brownian_bridge_with_noise(self):
        # one noisy position at the end of a path from a cloud: a line and a parabola
        family = Brownian(length=11, duration=1.0, diffusion=0.5, start=0.2)
        y = torch.tensor([[1.5, -0.5]])
        law = family.posterior(SDE, (10,), y, std=0.3)
        prior = 0.04 + family.times
        gain = prior / (1.04 + 0.09)
        torch.testing.assert_close(law.means[0], gain[:, None] * y, rtol=1e-10, atol=0)
        var = law.covs[0].diagonal().reshape(11, 2)[:, 0]
        torch.testing.assert_close(var, prior - gain * prior, rtol=1e-10, atol=0)

    def test_observations_in_order(self):
        family = OrnsteinUhlenbeck(length=8)
        with pytest.raises(ValueError, match="increasing indices"):
            family.posterior(SDE, (5, 2), torch.zeros(2, 2), 0.1)


class TestMechanics:
    def test_kepler_obeys_newton(self):
        family = Kepler(length=2000)
        x = family(20)
        _, acceleration, inner = derivatives(x, family.step)
        force = -family.gm * inner / inner.norm(dim=2, keepdim=True) ** 3
        torch.testing.assert_close(acceleration, force, rtol=1e-6, atol=1e-4)

    def test_kepler_conserves(self):
        family = Kepler(axis=(0.9, 0.9), eccentricity=(0.3, 0.3), length=400)
        x = family(200)
        energy, momentum = family.energy(x), family.angular_momentum(x)
        exact = -family.gm / 1.8
        torch.testing.assert_close(energy, torch.full_like(energy, exact), rtol=1e-9, atol=0)
        exact = math.sqrt(family.gm * 0.9 * (1 - 0.09))
        torch.testing.assert_close(
            momentum.abs(), torch.full_like(momentum, exact), rtol=1e-9, atol=0
        )
        share = (momentum[:, 0] > 0).double().mean()
        assert abs(float(share) - 0.5) < 5 * 0.5 / math.sqrt(200)

    def test_the_stated_floor_of_the_differences(self):
        # at the default the differences see exact orbits as conserving to 1e-5, median
        family = Kepler()
        x = family(4000)
        for quantity in family.conserved.values():
            assert spread(quantity(x)).median() < 1e-5

    def test_differences_have_order_eight(self):
        wave = lambda n: torch.linspace(0, 1, n + 1).mul(5).sin()[None, :, None]
        errors = []
        for n in (32, 64):
            t = torch.linspace(0, 1, n + 1)[4:-4]
            error = velocity(wave(n), 1 / n)[0, :, 0] - 5 * (5 * t).cos()
            errors.append(error.abs().max())
            assert errors[-1] < 1.01 * 5**9 / 630 / n**8  # the leading term, as it is stated
        assert abs(math.log2(errors[0] / errors[1]) - 8) < 0.1
        with pytest.raises(ValueError, match="at least 9 times"):
            velocity(wave(7), 0.1)

    def test_keplers_equation(self):
        e = torch.tensor([0.0, 0.5, 0.9, 0.99])[:, None]
        anomaly = torch.linspace(-7, 40, 5001)
        u = eccentric_anomaly(anomaly, e)
        torch.testing.assert_close(u - e * u.sin(), anomaly.expand(4, -1), rtol=0, atol=1e-12)

    def test_larmor_obeys_lorentz(self):
        family = Larmor(length=200)
        x = family(20)
        v, acceleration, inner = derivatives(x, family.step)
        force = family.cyclotron * torch.stack((v[..., 1], -v[..., 0]), 2)
        torch.testing.assert_close(acceleration, force, rtol=0, atol=1e-4)
        energy = 0.5 * v.square().sum(2).mean(1)
        torch.testing.assert_close(family.energy(x)[:, 0], energy, rtol=1e-6, atol=0)
        turning = inner[..., 0] * v[..., 1] - inner[..., 1] * v[..., 0]
        momentum = turning + 0.5 * family.cyclotron * inner.square().sum(2)
        torch.testing.assert_close(
            family.angular_momentum(x)[:, 0], momentum.mean(1), rtol=1e-6, atol=1e-6
        )

    def test_larmor_is_thermal(self):
        n, family = 20_000, Larmor()
        energy = family.energy(family(n))
        torch.testing.assert_close(energy, energy[:, :1].expand_as(energy), rtol=1e-9, atol=1e-9)
        # exponential with mean thermal^2, as two components share it
        mean, error = energy[:, 0].mean(), family.thermal**2 / math.sqrt(n)
        assert (mean - family.thermal**2).abs() < 5 * error


class TestDoublePendulum:
    def test_equations_follow_from_the_lagrangian(self):
        family = DoublePendulum(rods=(0.4, 0.7), masses=(1.3, 0.6), gravity=9.0)
        state = torch.randn(4)
        position = lambda q: torch.stack(
            (0.4 * q[0].sin(), -0.4 * q[0].cos(),
             0.4 * q[0].sin() + 0.7 * q[1].sin(), -0.4 * q[0].cos() - 0.7 * q[1].cos())
        )  # fmt: skip
        mass = torch.tensor([1.3, 1.3, 0.6, 0.6])

        def lagrangian(q, v):
            speed = torch.func.jvp(position, (q,), (v,))[1]
            height = position(q)[1::2]
            return 0.5 * (mass * speed.square()).sum() - 9.0 * (mass[::2] * height).sum()

        q, v = state[:2], state[2:]
        pull = torch.func.grad(lagrangian)(q, v)
        inertia = torch.func.hessian(lagrangian, 1)(q, v)
        mixed = torch.func.jacfwd(torch.func.grad(lagrangian, 1), 0)(q, v)
        truth = torch.linalg.solve(inertia, pull - mixed @ v)
        torch.testing.assert_close(family.rates(state), torch.cat((v, truth)), rtol=1e-9, atol=0)
        energy = v @ inertia @ v - lagrangian(q, v)
        torch.testing.assert_close(family.energy(state), energy, rtol=1e-9, atol=0)
        torch.testing.assert_close(family.tip(state), position(q)[2:], rtol=1e-12, atol=0)

    @pytest.mark.parametrize(
        "family",
        [
            DoublePendulum(),
            DoublePendulum(length=4),  # it drifted by 1.5 m g l
            DoublePendulum(duration=5.0, length=8, release=3.1),
            DoublePendulum(masses=(0.1, 1.0)),  # a light elbow is thrown about
            DoublePendulum(rods=(0.5, 0.1), masses=(1.0, 0.3)),
        ],
        ids=["default", "few-times", "long", "light-elbow", "short-end"],
    )
    def test_n14_energy_drift(self, family):
        states = family.states(500)
        energy, (l1, l2), (m1, m2) = family.energy(states), family.rods, family.masses
        scale = family.gravity * (m1 * l1 + m2 * (l1 + l2))
        assert (energy - energy[:, :1]).abs().max() < 1e-5 * scale

    def test_against_an_integrator(self):
        family = DoublePendulum()
        states = family.states(2)
        for path in states:
            sol = scipy.integrate.solve_ivp(
                lambda t, y: family.rates(torch.from_numpy(y)).numpy(),
                (0, 2), path[0].numpy(), t_eval=family.times.numpy(), rtol=1e-11, atol=1e-12,
            )  # fmt: skip
            torch.testing.assert_close(path, torch.from_numpy(sol.y.T), rtol=0, atol=1e-4)


class TestDoubleWell:
    family = DoubleWell()

    def nodes(self, size=601, reach=2.1):
        return np.linspace(-reach, reach, size)

    def generator(self, z):
        """The Fokker-Planck generator in x on a grid, by rates that obey detailed balance."""
        h = z[1] - z[0]
        u = self.family.barrier * (z**2 / self.family.half**2 - 1) ** 2
        up = self.family.diffusion / h**2 * np.exp(-np.diff(u) / 2)
        down = self.family.diffusion / h**2 * np.exp(np.diff(u) / 2)
        rates = np.diag(up, 1) + np.diag(down, -1)
        return rates - np.diag(rates.sum(1)), np.exp(-u) / np.exp(-u).sum()

    def test_force_is_the_gradient(self):
        x = torch.randn(10, 2).requires_grad_()
        (gradient,) = torch.autograd.grad(self.family.potential(x).sum(), x)
        torch.testing.assert_close(self.family.force(x), -gradient, rtol=1e-10, atol=1e-10)

    def test_stationary_law(self):
        n, z = 200_000, self.nodes(4001)
        _, p = self.generator(z[::10])
        x = self.family.stationary(n)
        assert len(x[:, 0].unique()) == n  # a density, not a comb of nodes
        for power in (1, 2, 4):
            values = x[:, 0] ** power
            truth = (p * z[::10] ** power).sum()
            assert abs(float(values.mean()) - truth) < 5 * float(values.std()) / math.sqrt(n)
        assert abs(float(x[:, 1].var()) - 1 / 8) < 5 / 8 * math.sqrt(2 / n)

    def test_two_time_law(self):
        # hops and relaxation against the propagator exp(Q t), at 5 standard errors
        n, z = 20_000, self.nodes()
        rates, p = self.generator(z)
        x = self.family(n)[..., 0].numpy()
        for k in (1, 4, 16, 63):
            carried = scipy.linalg.expm(rates * self.family.times[k].item())
            for f in (lambda z: z, lambda z: z**2, lambda z: np.sign(z)):
                values = f(x[:, 0]) * f(x[:, k])
                truth = p @ (f(z) * (carried @ f(z)))
                error = values.std() / math.sqrt(n)
                assert abs(values.mean() - truth) < 5 * error + 2e-4  # of the grid, step 0.007

    def test_heun_in_a_harmonic_well(self):
        # across the wells the motion is OU: variance short by (h D k)^2/4, as stated, and its
        # decay is (1 - z + z^2/2) a step
        n = 50_000
        x = DoubleWell(length=6, duration=0.4)(n)[..., 1]
        truth = 0.125 * (-8 * 0.08 * torch.arange(6.0)).exp()
        products = x[:, :1] * x
        error = products.std(0) / math.sqrt(n)
        z = 8 * 0.08 / DoubleWell(length=6, duration=0.4).substeps
        assert ((products.mean(0) - truth).abs() < 5 * error + z**2 * 0.125).all()

    @pytest.mark.parametrize(
        "family",
        [
            DoubleWell(length=2),  # 3851 of 4000 paths were not finite
            DoubleWell(length=3, duration=1.0, barrier=10.0),
            DoubleWell(length=3, barrier=0.01, stiffness=0.01),
        ],
        ids=["few-times", "high", "low"],
    )
    def test_n14_stays_at_rest_in_its_stationary_law(self, family):
        n = 8000
        x = family(n)[:, -1]
        z = np.linspace(-family.reach, family.reach, 4001)
        p = np.exp(-family.barrier * (z**2 / family.half**2 - 1) ** 2)
        for power in (2, 4):
            values, truth = x[:, 0] ** power, p @ z**power / p.sum()
            short = 2e-3 * power * truth  # of the method: (h D U'')^2/4 of a variance
            assert abs(values.mean() - truth) < 5 * values.std() / math.sqrt(n) + short
        var = family.stiffness * x[:, 1].var()
        assert abs(var - 1) < 5 * math.sqrt(2 / n) + 1.1e-3

    def test_n14_the_stated_share_of_the_variance(self):
        # Heun on x' = -k x: x <- (1 - z + z^2/2) x + (1 - z/2) sqrt(2 D h) n, so at rest the
        # variance is (1 - z/2)^2 2 z/(1 - (1 - z + z^2/2)^2) times 1/k
        for family in (DoubleWell(), DoubleWell(length=2), DoubleWell(length=300, stiffness=90)):
            stiff = max(8 * family.barrier / family.half**2, family.stiffness)
            z = family.step / family.substeps * family.diffusion * stiff
            share = (1 - z / 2) ** 2 * 2 * z / (1 - (1 - z + z**2 / 2) ** 2)
            assert 1 - share == pytest.approx(z**2 / 4, rel=0.05)
            assert 0 < 1 - share < 1.1e-3


class TestRunAndTumble:
    def test_displacement_and_velocity(self):
        family, n = RunAndTumble(rate=1.7, length=33), 40_000
        x = family(n)
        t = family.times
        truth = 2 * (family.speed / 1.7) ** 2 * (1.7 * t + torch.expm1(-1.7 * t))
        squares = (x - x[:, :1]).square().sum(2)
        error = squares.std(0) / math.sqrt(n)
        assert ((squares.mean(0) - truth).abs() < 5 * error + 1e-9).all()
        # <u(t) . u(t + k)> of increments: second difference of the MSD
        lags = torch.arange(32.0) * family.step
        msd = lambda t: 2 * (family.speed / 1.7) ** 2 * (1.7 * t + torch.expm1(-1.7 * t))
        h = family.step
        truth = 0.5 * (msd(lags + h) + msd((lags - h).abs()) - 2 * msd(lags))
        parts = torch.stack([velocity_autocorrelation(part) for part in x.split(1000)])
        error = parts.std(0) / math.sqrt(len(parts))
        assert ((parts.mean(0) - truth).abs() < 5 * error).all()

    def test_speed_is_never_exceeded_and_mostly_kept(self):
        family = RunAndTumble()
        steps = RunAndTumble()(2000).diff(dim=1).norm(dim=2) / family.step
        assert steps.max() < family.speed * (1 + 1e-9)
        straight = (steps > family.speed * (1 - 1e-9)).double().mean()
        truth = math.exp(-family.rate * family.step)  # no tumble within the step
        assert abs(float(straight) - truth) < 5 * math.sqrt(truth * (1 - truth) / steps.numel())


class TestSignals:
    def test_ring_down(self):
        family = RingDown(frequency=(300, 300), decay=(0.005, 0.005), loudness=(1, 1))
        x = family(20)[..., 0]
        # x(t + h) + e^{-2h/tau} x(t - h) = 2 e^{-h/tau} cos(2 pi f h) x(t)
        r = math.exp(-family.step / 0.005)
        middle = 2 * r * math.cos(2 * math.pi * 300 * family.step) * x[:, 1:-1]
        torch.testing.assert_close(x[:, 2:] + r**2 * x[:, :-2], middle, rtol=0, atol=1e-12)
        assert x.abs().max() <= 1

    def test_chirp_frequency_is_the_rate_of_its_phase(self):
        tau = torch.tensor(0.1, requires_grad=True)
        m = 4.925490947e-6 * 30
        phase = -2 * (tau / (5 * m)) ** 0.625
        (rate,) = torch.autograd.grad(phase, tau)
        assert float(-rate / (2 * math.pi)) == pytest.approx(Chirp.frequency(0.1, 30), rel=1e-9)
        # Maggiore eq. 4.20: 134 Hz for 1.21 suns one second before the merger
        assert Chirp.frequency(1.0, 1.21) == pytest.approx(134, rel=5e-3)

    def test_chirp_crosses_zero_as_often_as_its_phase_says(self):
        family = Chirp(length=4096, mass=(30, 30))
        m = 4.925490947e-6 * 30
        ends = [(tau / (5 * m)) ** 0.625 for tau in (0.26, 0.01)]
        crossings = (family(50)[..., 0].sign().diff(dim=1) != 0).sum(1).double()
        assert ((crossings - 2 * (ends[0] - ends[1]) / math.pi).abs() <= 1).all()

    @pytest.mark.parametrize("make", [lambda: RingDown(duration=0.1), lambda: Chirp(length=32)])
    def test_too_few_samples(self, make):
        with pytest.raises(ValueError, match=r"below half the rate .* raise length"):
            make()


class TestLabelled:
    def test_labels_tell_the_family(self):
        both = Labelled((Brownian(start=100.0), OrnsteinUhlenbeck(), Kepler()))
        x, y = both(3001, torch.Generator().manual_seed(1))
        assert y.bincount().tolist() == [1001, 1000, 1000] and y.dtype == torch.long
        assert x[y == 0][:, 0].std() > 50 and x[y == 2].norm(dim=2).max() < 1.5
        assert (y[:100].bincount(minlength=3) > 10).all()  # shuffled

    def test_fit_takes_it(self):
        from scoresde.training.batches import source

        draw = source(Labelled((Kepler(), Larmor())), None, 16, None, torch.zeros(()).float())
        x, y = draw(16, torch.Generator().manual_seed(0))
        assert x.dtype == torch.float32 and x.shape == (16, 64, 2) and y.shape == (16,)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match=r"one shape .* length="):
            Labelled((Kepler(), Larmor(length=32)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Kepler(length=1), "length >= 2"),
        (lambda: Kepler(duration=0.0), "duration > 0"),
        (lambda: Kepler(eccentricity=(0.2, 1.0)), "high <= 0.99"),
        (lambda: ThermalOscillator(gamma=100.0), "overdamped"),
        (lambda: DampedOscillator(gamma=100.0), "does not oscillate"),
        (lambda: Splines(knots=2), "at least 3 knots"),
        (lambda: Chirp(before=0.0), "before > 0"),
        (lambda: Kepler(gm=-1.0), "finite gm > 0, got -1.0"),
        (lambda: Kepler(axis=(2.0, 1.0)), r"axis = \(low, high\), 0 < low <= high"),
        (lambda: Kepler(eccentricity=(0.2, math.nan)), "high <= 0.99"),
        (lambda: Larmor(cyclotron=0.0), r"\|cyclotron\| > 0"),
        (lambda: Larmor(thermal=-1.0), "thermal > 0"),
        (lambda: Larmor(length=2, cyclotron=2 * math.pi).energy(torch.zeros(1, 2, 2)), "whole"),
        (lambda: OrnsteinUhlenbeck(tau=0.0), "tau > 0, got 0.0"),
        (lambda: OrnsteinUhlenbeck(std=math.inf), "finite std > 0"),
        (lambda: Brownian(diffusion=-0.5), "diffusion > 0"),
        (lambda: Brownian(start=-0.1), "start >= 0"),
        (lambda: ThermalOscillator(std=0.0), "std > 0"),
        (lambda: DampedOscillator(amplitude=0.0), "amplitude > 0"),
        (lambda: DrivenOscillator(omega=3.0, drive=3.0, gamma=0.0), "without damping"),
        (lambda: Lissajous(ratio=(0, 1)), "whole numbers > 0"),
        (lambda: Lissajous(length=5).energy(torch.zeros(1, 5, 2)), "more than two times"),
        (lambda: Splines(size=-1.0), "size > 0"),
        (lambda: RunAndTumble(rate=0.0), "rate > 0"),
        (lambda: RingDown(decay=(0.0, 0.1)), r"decay = \(low, high\)"),
        (lambda: Chirp(mass=(35.0, 25.0)), r"mass = \(low, high\)"),
        (lambda: DoubleWell(barrier=0.0), "barrier > 0, got 0.0"),
        (lambda: DoubleWell(diffusion=1e9), "at most 1000000 steps"),
        (lambda: DoublePendulum(rods=(0.5, 0.0)), r"rods\[1\] > 0"),
        (lambda: DoublePendulum(masses=(1e-9, 1.0)), "at most 1000000 steps"),
    ],
)
def test_n14_clear_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_displacement_of_brownian_motion():
    """4 D t, through the statistic that judges it."""
    family, n = Brownian(), 5000
    parts = torch.stack([mean_squared_displacement(family(n // 20)) for _ in range(20)])
    truth = 4 * family.diffusion * family.times
    assert ((parts.mean(0) - truth).abs() <= 5 * parts.std(0) / math.sqrt(20) + 1e-12).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_drawn_on_the_device_of_the_generator(name):
    family = TRAJECTORIES[name]()
    n = 100
    x = family(n, torch.Generator("cuda").manual_seed(0))
    assert x.device.type == "cuda" and x.isfinite().all()
    y = family(n)
    error = ((x.cpu().var(0) + y.var(0)) / n).sqrt()
    assert ((x.cpu().mean(0) - y.mean(0)).abs() < 5.5 * error).all()
