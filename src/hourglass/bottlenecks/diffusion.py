"""Diffusion in the latents of any waist that decodes: noise them, learn to clean them, and so draw new ones.

    diffusion = LatentDiffusion(DiffusionConfig(), denoiser, shape=(16, 384))
    diffusion.measure(latents)                 # statistics that latents [n, 16, 384] are normalised by
    diffusion.loss(latents).backward()
    waist.decode(diffusion.sample(8, seed=0))

The process is variance preserving: x_t = a(t) x_0 + s(t) noise, a^2 + s^2 = 1, t from 0 (clean) to 1 (noise). Schedules,
conversions and steps of the samplers are pure functions; time is continuous, so that any number of steps will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, MissingExtra, nearest

Prediction = Literal["x0", "v", "epsilon"]
"""What a network says of a noised latent: what it was, the noise in it, or a noise - s x0 (Salimans and Ho 2022)."""
Solver = Literal["euler", "ddim", "ddpm", "dpm++"]
"""Euler-Maruyama on the reverse equation, which draws noise; DDIM, which draws none; the ancestral DDPM, which does; and
DPM-Solver++ of second order, several steps at once (2M), which draws none and needs the fewest steps."""

_BETA_UNTIL = 0.95
_LEAST_ALPHA = 0.02
"""Below which x_t is taken for pure noise where a formula divides by a."""
_LEAST_VARIANCE = 1e-4
_EARLIEST = 1e-5


# Schedules ----------------------------------------------------------------------------------------------


class Schedule:
    """a(t), s(t) and the rate of noise beta(t) = -2 d log a / dt, of times as float64 tensors.

    name  "tan": a = 1 / sqrt(1 + d^2 tan^2(pi t / 2)), COSMOS's: the larger d, the earlier the noise; "cosine" (Nichol and
          Dhariwal 2021); or the name of a table of betas in diffusers ("linear", "scaled_linear", "squaredcos_cap_v2",
          "sigmoid"), between whose entries log a is interpolated

    In beta alone t ends at 0.95, beyond which it grows without bound.
    """

    def __init__(self, name: str = "tan", d: float = 5.0) -> None:
        self.name, self.d = name, d
        self._table = None if name in ("tan", "cosine") else _table(name)

    def alpha(self, t: Tensor) -> Tensor:
        t = t.double()
        if self.name == "tan":
            # Not by way of the tangent, which has no value at t = 1.
            cosine, sine = self._cosine(t), torch.sin(math.pi / 2 * t)
            return cosine / (cosine**2 + self.d**2 * sine**2).sqrt()
        if self.name == "cosine":
            return self._cosine((t + 0.008) / 1.008) / math.cos(math.pi / 2 * 0.008 / 1.008)
        return torch.from_numpy(np.asarray(np.exp(np.interp(t.cpu().numpy(), *self._known)))).to(t.device)

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self.alpha(t) ** 2).clamp(min=0).sqrt()

    def beta(self, t: Tensor) -> Tensor:
        t = t.double().clamp(max=_BETA_UNTIL)
        if self.name == "tan":
            u = torch.tan(math.pi / 2 * t)
            return math.pi * self.d**2 * u * (1 + u**2) / (1 + self.d**2 * u**2)
        if self.name == "cosine":
            return math.pi / 1.008 * torch.tan(math.pi / 2 * (t + 0.008) / 1.008)
        times, logs = self._known
        slopes = -2 * np.diff(logs) / np.diff(times)
        place = np.clip(np.searchsorted(times, t.cpu().numpy(), "right") - 1, 0, len(slopes) - 1)
        return torch.from_numpy(np.asarray(slopes[place])).to(t.device)

    def ratio(self, t: Tensor) -> Tensor:
        """log(a / s), which falls with t."""
        return self.alpha(t).log() - self.sigma(t).log()

    @property
    def _known(self) -> tuple[Any, Any]:
        assert self._table is not None
        return self._table

    @staticmethod
    def _cosine(t: Tensor) -> Tensor:
        return torch.cos(math.pi / 2 * t).clamp(min=0)


def _table(name: str) -> tuple[Any, Any]:
    """(times [T + 1], log a [T + 1]) of a table of betas in diffusers; a is 1 at time 0."""
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        raise MissingExtra(f"schedule {name!r}, neither 'tan' nor 'cosine',", "generation") from None
    try:
        products = DDPMScheduler(beta_schedule=name).alphas_cumprod.double().numpy()
    except (NotImplementedError, ValueError):
        known = ("tan", "cosine", "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
        raise ConfigError(f"no schedule {name!r}{nearest(name, known)}") from None
    return np.linspace(0, 1, len(products) + 1), np.concatenate([[0.0], np.log(products) / 2])


# What a network says ------------------------------------------------------------------------------------


def target(prediction: Prediction, x0: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """What a network is to say of a x0 + s noise."""
    return {"x0": x0, "epsilon": noise, "v": a * noise - s * x0}[prediction]


def as_x0(prediction: Prediction, said: Tensor, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The clean latent, from what a network says of x. Of "epsilon" where nearly all is noise a counts as 0.02."""
    if prediction == "x0":
        return said
    if prediction == "v":
        return a * x - s * said
    return (x - s * said) / a.clamp(min=_LEAST_ALPHA)


def noise_in(x: Tensor, x0: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The noise, from the clean latent."""
    return (x - a * x0) / s


# Samplers -----------------------------------------------------------------------------------------------

Clean = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [n, ...], t [n], the last guess [n, ...]) -> x0 [n, ...]: what x was before it was noised."""


def grid(solver: Solver, steps: int, schedule: Schedule, t_min: float, start: float = 1.0) -> Tensor:
    """[steps + 1] float64 times from `start` down.

    "euler" ends at t_min, as its steps divide by s; the others look at t_min last and end at 0, where what is left of the noise
    is taken away. Times are evenly spaced; those of "dpm++" in log(a / s), from where a is 0.02.
    """
    if solver not in get_args(Solver):
        raise ConfigError(f"no solver {solver!r}{nearest(str(solver), get_args(Solver))}")
    if steps < 1:
        raise ConfigError(f"steps {steps}: expected 1 or more")
    if not t_min < start <= 1:
        raise ConfigError(f"t {start:g}: expected a time above {t_min:g}, where sampling ends, and up to 1")
    if solver == "euler":
        return torch.linspace(start, t_min, steps + 1, dtype=torch.float64)
    if solver == "dpm++":
        fine = torch.linspace(min(start, latest(schedule)), t_min, 8192, dtype=torch.float64)
        ratios = schedule.ratio(fine).numpy()
        wanted = np.linspace(ratios[0], ratios[-1], steps)
        looked_at = torch.from_numpy(np.interp(wanted, ratios, fine.numpy()))
    else:
        looked_at = torch.linspace(start, t_min, steps, dtype=torch.float64)
    return torch.cat([looked_at, torch.zeros(1, dtype=torch.float64)])


def latest(schedule: Schedule) -> float:
    """The last time at which a is not below 0.02."""
    times = torch.linspace(0, 1, 8193, dtype=torch.float64)
    return float(times[schedule.alpha(times) >= _LEAST_ALPHA][-1])


def sample(
    clean: Clean,
    x: Tensor,
    schedule: Schedule,
    *,
    solver: Solver = "euler",
    times: Tensor,
    noise: Callable[[], Tensor],
    guess: Tensor | None = None,
    moved: Callable[[float, Tensor], Tensor] | None = None,
) -> Tensor:
    """From x [n, ...] at times[0] to times[-1], a step for each pair of neighbours. No noise is added by the last step.

    noise  draws what a step adds, of the shape of x
    guess  what the network knows of x0 before the first step; zeros by default, later what it said last
    moved  may change x before a step, as `moved(t, x)`
    """
    alphas, sigmas, betas = (
        [float(v) for v in values] for values in (schedule.alpha(times), schedule.sigma(times), schedule.beta(times))
    )
    guess = torch.zeros_like(x) if guess is None else guess
    before: tuple[Tensor, float] | None = None  # x0 of the step before, and its length in log(a / s)
    for i in range(len(times) - 1):
        t, to = float(times[i]), float(times[i + 1])
        if moved is not None:
            x = moved(t, x)
        a, s, a_to, s_to = alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1]
        guess = x0 = clean(x, torch.full((len(x),), t, dtype=torch.float32, device=x.device), guess)
        spread = 0.0
        match solver:
            case "euler":
                rate = betas[i] * (t - to)
                x = x + rate / 2 * x - rate * (x - a * x0) / s**2
                spread = math.sqrt(rate)
            case "ddim":
                x = a_to * x0 + s_to * (x - a * x0) / s
            case "ddpm":
                a_step = a / a_to
                variance = s**2 - (a_step * s_to) ** 2
                x = a_step * (s_to / s) ** 2 * x + a_to * variance / s**2 * x0
                spread = math.sqrt(max(0.0, variance)) * s_to / s
            case "dpm++":
                length = _log_ratio(a_to, s_to) - _log_ratio(a, s)
                if before is not None and math.isfinite(length):
                    longer = before[1] / length  # infinite after a step from pure noise
                    x0 = x0 + (x0 - before[0]) / (2 * longer)
                x = s_to / s * x - a_to * math.expm1(-length) * x0
                before = guess, length
        if spread and i < len(times) - 2:
            x = x + spread * noise()
    return x


def _log_ratio(a: float, s: float) -> float:
    if a <= 0:
        return -math.inf
    return math.inf if s <= 0 else math.log(a / s)


# A diffusion of latents ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """How latents are noised and cleaned.

    schedule, d         as in `Schedule`
    prediction          what the network says: "x0", "v" or "epsilon"
    self_conditioning   share of the training steps with a first guess of the network's own
    drop_source         share of the examples that are learned without their source, which guidance needs
    t_min               time at which sampling ends
    """

    schedule: str = "tan"
    d: float = 5.0
    prediction: Prediction = "x0"
    self_conditioning: float = 0.5
    drop_source: float = 0.1
    t_min: float = 0.05

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ConfigError(f"no prediction {self.prediction!r}{nearest(self.prediction, get_args(Prediction))}")
        for name in ("self_conditioning", "drop_source"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if not 0 < self.t_min < 1:
            raise ConfigError(f"t_min {self.t_min}: expected a time above 0 and below 1")
        if not self.d > 0:
            raise ConfigError(f"d {self.d}: expected a number above 0")


class CleaningNetwork(Protocol):
    """As `nn.denoiser.Denoiser`. `seen` is what it has read of a source, None for none."""

    def __call__(self, x: Tensor, t: Tensor, guess: Tensor, seen: Any = None) -> Tensor: ...


class LatentDiffusion(nn.Module):
    """A diffusion over latents [n, *shape], which are given and come out as they are: normalising is done inside.

    mean, std  [*shape] of each number over the latents that were measured
    measured   how many these were; 0: none yet
    """

    mean: Tensor
    std: Tensor
    measured: Tensor

    def __init__(self, config: DiffusionConfig, network: CleaningNetwork, shape: Sequence[int]) -> None:
        super().__init__()
        self.config, self.network, self.shape = config, network, tuple(shape)
        self.schedule = Schedule(config.schedule, config.d)
        self.register_buffer("mean", torch.zeros(self.shape))
        self.register_buffer("std", torch.ones(self.shape))
        self.register_buffer("measured", torch.zeros((), dtype=torch.int64))

    # Statistics -----------------------------------------------------------------------------------

    def measure(self, latents: Iterable[Tensor]) -> None:
        """Mean and spread of each number, from batches [n, *shape], in one pass."""
        mean, std, count = moments(latents)
        self.measured.fill_(count)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalised(self, latents: Tensor) -> Tensor:
        return (latents - self.mean) / self.std

    def restored(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean

    # Learning -------------------------------------------------------------------------------------

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """a(t) x0 + s(t) noise, for t [n] one time for each row."""
        a, s = self._rates(t, x0)
        return a * x0 + s * noise

    def loss(self, latents: Tensor, seen: Any = None) -> Tensor:
        """Mean squared error of what the network says of noised latents [n, *shape], at random times; unweighted."""
        x0 = self.normalised(latents)
        t = torch.rand(len(x0), device=x0.device).clamp(min=_EARLIEST)
        noise = torch.randn_like(x0)
        a, s = self._rates(t, x0)
        x = a * x0 + s * noise
        guess = torch.zeros_like(x)
        if float(torch.rand(())) < self.config.self_conditioning:
            with torch.no_grad():
                guess = as_x0(self.config.prediction, self.network(x, t, guess, seen), x, a, s)
        said = self.network(x, t, guess, seen)
        return (said - target(self.config.prediction, x0, noise, a, s)).square().mean()

    def _rates(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        wide = t.view(-1, *(1,) * (like.ndim - 1))
        return self.schedule.alpha(wide).to(like), self.schedule.sigma(wide).to(like)

    # Sampling -------------------------------------------------------------------------------------

    def cleaned(self, x: Tensor, t: Tensor, guess: Tensor, seen: Any = None, guidance: float = 1.0) -> Tensor:
        """x0 of noised, normalised latents x [n, *shape] at times t [n].

        guidance  how far to go from what the network says without a source towards, and beyond, what it says with it
        """
        a, s = self._rates(t, x)

        def asked(source: Any) -> Tensor:
            return as_x0(self.config.prediction, self.network(x, t, guess, source), x, a, s)

        if seen is None or guidance == 1:
            return asked(seen)
        without = asked(None)
        return without + guidance * (asked(seen) - without)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int = 200,
        solver: Solver = "euler",
        seen: Any = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """[n, *shape] new latents; the same seed gives the same ones. Raises ConfigError where nothing was measured yet."""
        self.require_statistics()
        draw = _drawing((n, *self.shape), seed, self.mean.device)
        # What was noise in pure noise says nothing of what was not.
        start = latest(self.schedule) if self.config.prediction == "epsilon" else 1.0
        times = grid(solver, steps, self.schedule, self.config.t_min, start)
        return self._sampled(draw(), times, solver, draw, seen, guidance)

    @torch.no_grad()
    def denoise_from(
        self,
        latents: Tensor,
        t: float,
        *,
        seed: int = 0,
        steps: int = 100,
        solver: Solver = "ddim",
        seen: Any = None,
        guidance: float = 1.0,
        spike: tuple[float, float] | None = None,
    ) -> Tensor:
        """Latents [n, *shape] noised up to time t and cleaned again: variations, the farther off the larger t.

        spike  (size, at): once, at the first step from time `at` on, noise of that size is added
        """
        self.require_statistics()
        x0 = self.normalised(latents)
        draw = _drawing(tuple(x0.shape), seed, x0.device)
        x = self.noised(x0, torch.full((len(x0),), t, device=x0.device), draw())
        times = grid(solver, steps, self.schedule, self.config.t_min, t)
        extra = None if spike is None else spike[0] * draw()
        spiked = False

        def moved(now: float, x: Tensor) -> Tensor:
            nonlocal spiked
            if extra is None or spike is None or spiked or now > spike[1]:
                return x
            spiked = True
            return x + extra

        return self._sampled(x, times, solver, draw, seen, guidance, moved)

    def _sampled(
        self,
        x: Tensor,
        times: Tensor,
        solver: Solver,
        draw: Callable[[], Tensor],
        seen: Any,
        guidance: float,
        moved: Callable[[float, Tensor], Tensor] | None = None,
    ) -> Tensor:
        def clean(x: Tensor, t: Tensor, guess: Tensor) -> Tensor:
            return self.cleaned(x, t, guess, seen, guidance)

        made = sample(clean, x, self.schedule, solver=solver, times=times, noise=draw, moved=moved)
        return self.restored(made)

    def require_statistics(self) -> None:
        if not int(self.measured):
            raise ConfigError(
                "the diffusion has no statistics of latents: it has not been trained; train it (hourglass fit), or open a "
                "folder of a finished run"
            )


def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor, int]:
    """(mean, spread, number of rows) of rows [n, ...] that come in batches, in float64; variances count as 0.0001 at least."""
    mean, squares, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        if not len(batch):
            continue
        rows = batch.double().cpu()
        here, n = rows.mean(0), len(rows)
        away = here - mean
        squares = squares + (rows - here).square().sum(0) + away.square() * (count * n / (count + n))
        mean = mean + away * (n / (count + n))
        count += n
    return mean, (squares / max(1, count)).clamp(min=_LEAST_VARIANCE).sqrt(), count


def _drawing(shape: tuple[int, ...], seed: int, device: torch.device) -> Callable[[], Tensor]:
    """Draws of normal numbers that follow from the seed, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator).to(device)
