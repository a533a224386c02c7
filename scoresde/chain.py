r"""The discrete view: DDPM's Markov chain, and its exact conversion to and from an SDE.

    x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z,        i = 1..N,   t_i = i/N,
    x_i = sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps,          abar_i = prod_{j<=i} (1 - beta_j).

With B_i = -log abar_i the product is a sum, B_i = -sum log(1 - beta_j), and a chain is the
restriction of a variance-preserving SDE to the times t_i as soon as B(t_i) = B_i:

    SDE -> chain:  beta_i = 1 - e^{-(B(t_i) - B(t_{i-1}))}     chain -> SDE:  B(t) through the B_i.

Index i is an integer 1..N throughout; index 0 is clean data. alpha(t_i) = sqrt(abar_i).

References:
    Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models" (arXiv:2006.11239).
    Song et al. 2021 (arXiv:2011.13456), appendix B.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .autodiff import ordinary_tensors
from .sde import SDE, CosineVPSDE, VariancePreserving, like

__all__ = ["VLB", "ChainSDE", "DDPMChain", "Variance"]

Variance = Literal["posterior", "beta", "optimal"]
"""Variance of the reverse step: beta~_i, beta_i, or the optimal one of Analytic-DPM."""
LAST_COSINE_BETA = 0.999


@dataclass(frozen=True)
class VLB:
    """The terms of the variational bound -log p(x0) <= total, in nats, each (B,) or ().

    Attributes:
        prior: L_N = KL(q(x_N | x0) || N(0, I)).
        steps: L_{i-1} = KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)) for i = 2..N, (N-1, ...).
        data: L_0 = -log p(x0 | x_1).

    References:
        Ho et al. 2020, eq. 5.
    """

    prior: Tensor
    steps: Tensor
    data: Tensor

    @property
    def total(self) -> Tensor:
        """L_N + sum_i L_{i-1} + L_0."""
        return self.prior + self.steps.sum(0) + self.data


@dataclass(frozen=True)
class DDPMChain:
    """A variance-preserving Markov chain given by its betas.

    Args:
        betas: beta_1..beta_N, each in (0, 1): the variance added by each step. Any sequence of
            numbers, or a one-dimensional tensor or array.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        """Store plain floats; raise an error unless each is a variance in (0, 1)."""
        values = self.betas.tolist() if hasattr(self.betas, "tolist") else list(self.betas)
        if not values or not all(isinstance(b, float | int) and 0 < b < 1 for b in values):
            raise ValueError(
                "expected one or more betas, each in (0, 1) (the variance that a step adds), "
                f"got {_outline(values)}"
            )
        object.__setattr__(self, "betas", tuple(float(b) for b in values))

    def __repr__(self) -> str:
        """Name the length and the ends, not a thousand numbers."""
        return f"DDPMChain(N={self.N}, betas {self.betas[0]:.3g}..{self.betas[-1]:.3g})"

    @classmethod
    def linear(
        cls, N: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "DDPMChain":
        """Equally spaced betas, Ho et al. 2020, sec. 4 (their 1000 steps are *not* on VPSDE())."""
        return cls(tuple(torch.linspace(beta_start, beta_end, N, dtype=torch.float64).tolist()))

    @classmethod
    def cosine(cls, N: int = 1000, s: float = 0.008) -> "DDPMChain":
        """abar_i ~ cos^2((i/N + s)/(1 + s) pi/2), the last beta 0.999 (Nichol, Dhariwal 2021)."""
        return cls.from_sde(CosineVPSDE(s), N)

    @classmethod
    def from_sde(cls, sde: SDE, N: int, rule: Literal["exact", "song"] = "exact") -> "DDPMChain":
        r"""The chain of N steps of a variance-preserving SDE.

            exact:  beta_i = 1 - alpha(t_i)^2/alpha(t_{i-1})^2   marginals at t_i equal the SDE's
            song:   beta_i = beta(t_i)/N                         equal to O(1/N) only

        A beta of 1 is set to 0.999 (the last one of the cosine, where alpha(1) = 0).

        Args:
            sde: a variance-preserving process.
            N: number of steps.
            rule: the exact conversion, or the rate times the step of Song et al. 2021, eq. 10.
        """
        if not isinstance(sde, VariancePreserving):
            raise TypeError(
                f"expected a variance-preserving SDE, got {type(sde).__name__}: a DDPM chain "
                "keeps alpha^2 + sigma^2 = 1; use VPSDE, CosineVPSDE or another VariancePreserving"
            )
        if N < 1:
            raise ValueError(f"expected N >= 1 steps, got {N}")
        t = torch.arange(N + 1, dtype=torch.float64) / N
        if rule == "exact":
            betas = -torch.expm1(2 * sde.log_alpha(t).diff())
        elif rule == "song":
            betas = sde.beta(t[1:]) / N
            if bool((betas >= 1).any()):
                raise ValueError(
                    f"beta(i/N)/N reaches {float(betas.max()):.3g} >= 1 at N = {N}: "
                    'take more steps, or rule="exact", which allows any N'
                )
        else:
            raise ValueError(f'expected rule "exact" or "song", got {rule!r}')
        return cls(tuple(betas.where(betas < 1, LAST_COSINE_BETA).tolist()))

    @property
    def N(self) -> int:
        """Number of steps."""
        return len(self.betas)

    @property
    def B(self) -> Tensor:
        """B_0 = 0, B_1, ..., B_N with B_i = -log abar_i, float64 (N + 1,)."""
        steps = -torch.log1p(-torch.tensor(self.betas, dtype=torch.float64))
        return torch.cat([steps.new_zeros(1), steps.cumsum(0)])

    @property
    def alpha_bar(self) -> Tensor:
        """abar_0 = 1, abar_1, ..., abar_N = alpha(t_i)^2, float64 (N + 1,)."""
        return (-self.B).exp()

    def grid(self) -> Tensor:
        """The chain's own times t_N = 1, ..., t_1, t_0 = 0, float64 (N + 1,)."""
        return torch.arange(self.N, -1, -1, dtype=torch.float64) / self.N

    def sde(self) -> "ChainSDE":
        """A continuous SDE that passes exactly through every (t_i, abar_i)."""
        return ChainSDE(self.betas)

    def forward_step(self, x: Tensor, i: int | Tensor, z: Tensor) -> Tensor:
        """x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z, x = x_{i-1} of shape (B, *)."""
        beta = self._at(torch.tensor(self.betas, dtype=torch.float64), i, x)
        return (1 - beta).sqrt() * x + beta.sqrt() * z

    def q_sample(self, x0: Tensor, i: int | Tensor, z: Tensor) -> Tensor:
        """The direct jump x_i = sqrt(abar_i) x0 + sqrt(1 - abar_i) z; i in 0..N, int or (B,)."""
        signal, noise = (-0.5 * self.B).exp(), (-torch.expm1(-self.B)).sqrt()
        return self._at(signal, i, x0) * x0 + self._at(noise, i, x0) * z

    def posterior(
        self,
        x: Tensor,
        x0: Tensor,
        i: int | Tensor,
        variance: Variance = "posterior",
        mmse: Tensor | float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of the step from x_i to x_{i-1}.

            mean = sqrt(1-beta_i) (1-abar_{i-1})/(1-abar_i) x_i
                   + sqrt(abar_{i-1}) beta_i/(1-abar_i) x0
            variance: beta~_i = beta_i (1-abar_{i-1})/(1-abar_i)  ("posterior": q(x_{i-1}|x_i,x0)),
                      beta_i  ("beta"), or beta~_i + (sqrt(abar_{i-1}) beta_i/(1-abar_i))^2 mmse
                      ("optimal"; mmse = E|x0 - E[x0|x_i]|^2 per dimension).

        Args:
            x: x_i, (B, *).
            x0: clean data, or its estimate, (B, *).
            i: index 1..N, an int or (B,) integers.
            variance: the kind of reverse variance, one of the three.
            mmse: needed by "optimal", in squared units of x; () or (N,) for i = 1..N.

        References:
            Ho et al. 2020, eq. 6-7; Bao et al. 2022 (arXiv:2201.06503), eq. 7.
        """
        of_x, of_x0, var = self._posterior_table(variance, mmse)
        of_x, of_x0, var = (self._at(v, i, x) for v in (of_x, of_x0, var))
        return of_x * x + of_x0 * x0, var

    def vlb(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        x0: Tensor,
        variance: Variance = "beta",
        mmse: Tensor | float = 0.0,
        generator: torch.Generator | None = None,
    ) -> VLB:
        """The bound of every x0 (B, *) in nats, one draw of x_i for each term (N evaluations).

        Unbiased, without gradients. With "posterior", beta~_1 = 0 is replaced by beta~_2 in L_0
        (as improved DDPM).

        Args:
            denoiser: x0_hat(x, t), for a process with this chain's marginals.
            x0: clean data.
            variance: the reverse variance of the model.
            mmse: see ``posterior``.
            generator: random generator, on the device of x0.
        """
        errors = []
        for i in range(1, self.N + 1):
            z = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            t = torch.full((), i / self.N, device=x0.device, dtype=x0.dtype)
            with torch.no_grad():
                x0_hat = denoiser(self.q_sample(x0, i, z), t)
            errors.append((x0 - x0_hat).square().flatten(1).sum(1))
        flat = x0.flatten(1)
        return self.vlb_terms(
            torch.stack(errors), flat.square().sum(1), flat.shape[1], variance, mmse
        )

    def vlb_terms(
        self,
        errors: Tensor,
        x0_squared: Tensor,
        dim: int,
        variance: Variance = "beta",
        mmse: Tensor | float = 0.0,
    ) -> VLB:
        r"""The bound as a linear function of the denoising errors |x0 - x0_hat(x_i, t_i)|^2.

            L_{i-1} = 1/2 [d (log(S/beta~) + beta~/S - 1) + of_x0^2 error_i/S],   S the variance,
            L_0     = 1/2 [d log(2 pi S_1) + error_1/S_1],
            L_N     = 1/2 [abar_N |x0|^2 + d (sigma_N^2 - 1 - log sigma_N^2)].

        Being linear it may be given expectations (the mmse) in place of single errors.

        Args:
            errors: (N, ...) for i = 1..N, summed over dimensions.
            x0_squared: |x0|^2, (...).
            dim: number of dimensions d.
            variance: the reverse variance of the model.
            mmse: see ``posterior``.

        References:
            Ho et al. 2020, eq. 5-8.
        """
        _, of_x0, var = self._posterior_table(variance, mmse)
        _, _, tilde = self._posterior_table("posterior")
        if variance == "posterior":
            if self.N == 1:
                raise ValueError('expected N > 1: beta~_1 = 0 has no density; use variance="beta"')
            var[0] = var[1]  # the decoder needs a density: beta~_2, as improved DDPM
        s, tilde, of_x0 = (like(v.to(errors), errors) for v in (var, tilde, of_x0))
        ratio = tilde[1:] / s[1:]
        steps = dim * (ratio - 1 - ratio.log()) + of_x0[1:].square() * errors[1:] / s[1:]
        data = dim * (2 * math.pi * s[0]).log() + errors[0] / s[0]
        sigma2 = float(-torch.expm1(-self.B[-1]))
        prior = (1 - sigma2) * x0_squared + dim * (sigma2 - 1 - math.log(sigma2))
        return VLB(0.5 * prior, 0.5 * steps, 0.5 * data)

    def _posterior_table(
        self, variance: Variance, mmse: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients of x_i and x0, and the variance, float64 (N,) each for i = 1..N."""
        beta, b = torch.tensor(self.betas, dtype=torch.float64), self.B
        sigma2 = -torch.expm1(-b)
        of_x = (1 - beta).sqrt() * sigma2[:-1] / sigma2[1:]
        of_x0 = (-0.5 * b[:-1]).exp() * beta / sigma2[1:]
        tilde = beta * sigma2[:-1] / sigma2[1:]
        if variance == "posterior":
            return of_x, of_x0, tilde
        if variance == "beta":
            return of_x, of_x0, beta
        if variance == "optimal":
            return of_x, of_x0, tilde + of_x0.square() * torch.as_tensor(mmse).to(tilde)
        raise ValueError(f'expected variance "posterior", "beta" or "optimal", got {variance!r}')

    def _at(self, table: Tensor, i: int | Tensor, x: Tensor) -> Tensor:
        """Entries for index i of a table that ends at N, shaped to multiply x."""
        first = self.N + 1 - len(table)
        if isinstance(i, Tensor) and not i.is_floating_point():
            moved = table.to(x.dtype).to(x.device, non_blocking=True)
            # index_select refuses what is out of range; brackets would count -1 from the end.
            return like(moved.index_select(0, i.flatten() - first).reshape(i.shape), x)
        if not isinstance(i, int):
            raise TypeError(
                f"expected an integer index, got {i!r}: convert a time t with round(t * N)"
            )
        if not first <= i <= self.N:
            raise IndexError(f"expected an index {first}..{self.N}, got {i}")
        return table[i - first].to(x.dtype)


@dataclass(frozen=True)
class ChainSDE(VariancePreserving):
    """The variance-preserving SDE through a chain: B(t) interpolated, exact at every t_i = i/N.

    B is a monotone piecewise cubic (Fritsch and Carlson 1980), so beta = dB/dt is continuous and
    not negative. (log-SNR against t has a logarithm at 0, where interpolation does not converge.)

    Args:
        betas: beta_1..beta_N of the chain.
    """

    betas: tuple[float, ...]
    _tables: dict[tuple[torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __repr__(self) -> str:
        """Name the chain that it passes through."""
        return f"{self.chain()!r}.sde()"

    def __reduce__(self) -> tuple[type["ChainSDE"], tuple[tuple[float, ...]]]:
        """Copies start with empty tables: a tensor made under torch.func cannot be copied."""
        return ChainSDE, (self.betas,)

    def chain(self) -> DDPMChain:
        """The chain that this process came from."""
        return DDPMChain(self.betas)

    def log_alpha(self, t: Tensor) -> Tensor:
        """-B(t)/2 by the cubic of the interval that t lies in."""
        coefficients = self._coefficients(t.device, t.dtype)
        n = len(self.betas)
        # Either neighbour would do at a node, where both cubics agree: no index is inferred here.
        i = (t.detach() * n).floor().clamp(0, n - 1).long()
        u = t * n - i
        c = torch.nn.functional.embedding(i, coefficients)  # brackets would read i where t is ()
        return -0.5 * (c[..., 0] + u * (c[..., 1] + u * (c[..., 2] + u * c[..., 3])))

    def _coefficients(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Cubic coefficients (N, 4) in u = t N - i, made once for each device and dtype."""
        key = (device, dtype)
        if key not in self._tables:
            with ordinary_tensors():
                c = _cubics(self.chain().B)
                self._tables[key] = c.to(dtype).to(device, non_blocking=True)
        return self._tables[key]


def _cubics(y: Tensor) -> Tensor:
    """Coefficients (N, 4) of the monotone cubics through y (N + 1,) at unit spacing."""
    step, slope = y.diff(), _monotone_slopes(y)
    left, right = slope[:-1], slope[1:]
    return torch.stack([y[:-1], left, 3 * step - 2 * left - right, left + right - 2 * step], -1)


def _monotone_slopes(y: Tensor) -> Tensor:
    """Slopes at the nodes of a monotone cubic through y at unit spacing: those of a parabola.

    So a linear rate, whose B is a parabola, is recovered to rounding. Limited to twice the smaller
    step beside the node: three times is where monotonicity ends and slopes of zero appear.
    """
    d = y.diff()
    if len(d) == 1:
        return d.expand(2)
    inner = torch.minimum(0.5 * (d[:-1] + d[1:]), 2 * torch.minimum(d[:-1], d[1:]))
    ends = torch.stack([1.5 * d[0] - 0.5 * d[1], 1.5 * d[-1] - 0.5 * d[-2]])
    first, last = torch.maximum(ends, 1e-9 * d[[0, -1]])  # zero could round below itself
    return torch.cat([first[None], inner, last[None]])


def _outline(values: Sequence[float]) -> str:
    if len(values) <= 6:
        return str(values)
    return f"{len(values)} values from {min(values)} to {max(values)}"
