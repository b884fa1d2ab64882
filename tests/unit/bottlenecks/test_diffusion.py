"""Diffusion against what is known in closed form: schedules, conversions, and samplers with the best denoiser there is."""

import math

import numpy as np
import pytest
import torch

from hourglass.bottlenecks.diffusion import (
    DiffusionConfig,
    LatentDiffusion,
    Schedule,
    as_x0,
    grid,
    moments,
    noise_in,
    sample,
    target,
)
from hourglass.errors import ConfigError
from hourglass.nn.denoiser import Denoiser

SOLVERS = ("euler", "ddim", "ddpm", "dpm++")
TIMES = torch.linspace(0.01, 0.94, 60, dtype=torch.float64)


@pytest.fixture(params=["tan-5", "tan-1", "cosine", "scaled_linear"])
def schedule(request):
    name, _, d = request.param.partition("-")
    if name not in ("tan", "cosine"):
        pytest.importorskip("diffusers")
    return Schedule(name, float(d or 5))


def test_noise_grows_and_the_variance_is_kept(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    a, s = schedule.alpha(t), schedule.sigma(t)
    assert torch.allclose(a**2 + s**2, torch.ones_like(t))
    assert float(a[0]) == pytest.approx(1, abs=1e-6)
    assert float(a[-1]) < 0.1
    assert bool((a.diff() < 0).all())


def test_the_rate_of_noise_is_the_slope_of_alpha(schedule):
    step = 1e-6 if schedule.name in ("tan", "cosine") else 1e-3
    t = TIMES if step < 1e-4 else torch.arange(20, 900, 37).double() / 1000 + 0.0005
    slope = -2 * (schedule.alpha(t + step / 2).log() - schedule.alpha(t - step / 2).log()) / step
    assert torch.allclose(schedule.beta(t), slope, rtol=1e-4 if step < 1e-4 else 2e-2)


def test_the_tangent_is_as_the_paper_has_it():
    expected = 1 / (1 + 25 * torch.tan(math.pi / 2 * TIMES) ** 2).sqrt()
    assert torch.allclose(Schedule("tan", 5).alpha(TIMES), expected)
    last, end = Schedule().beta(torch.tensor([0.95, 1.0], dtype=torch.float64))
    assert last == end


@pytest.mark.parametrize("prediction", ["x0", "v", "epsilon"])
def test_what_a_network_says_can_be_turned_back(prediction):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, 40).view(-1, 1)
    a, s = Schedule("tan", 1.5).alpha(t), Schedule("tan", 1.5).sigma(t)
    x = a * x0 + s * noise
    found = as_x0(prediction, target(prediction, x0, noise, a, s), x, a, s)
    assert torch.allclose(found, x0)
    assert torch.allclose(noise_in(x, found, a, s), noise)


def drawn(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, 1, generator=generator, dtype=torch.float64)


def sampled(clean, solver, steps=600, n=10_000, t_min=1e-3, schedule=None, noise=None):
    draw, schedule = drawn(), schedule or Schedule("tan", 2)
    return sample(
        clean,
        draw(n),
        schedule,
        solver=solver,
        times=grid(solver, steps, schedule, t_min),
        noise=noise or (lambda: draw(n)),
    )


def gaussian(mean, variance, schedule):
    def clean(x, t, guess):
        a, s = schedule.alpha(t[0]), schedule.sigma(t[0])
        return mean + a * variance / (a**2 * variance + s**2) * (x - a * mean)

    return clean


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_normal_distribution_is_drawn_from(solver, schedule):
    found = sampled(gaussian(0.7, 0.25, schedule), solver, schedule=schedule)
    assert float(found.mean()) == pytest.approx(0.7, abs=0.03)
    assert float(found.var()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_points_are_drawn_with_their_shares(solver):
    schedule = Schedule("tan", 2)

    def clean(x, t, guess):
        """The mean of what x can have been: -1 with 0.3, 1 with 0.7."""
        a, s = schedule.alpha(t[0]), schedule.sigma(t[0])
        return torch.tanh(a * x / s**2 + math.log(0.7 / 0.3) / 2)

    found = sampled(clean, solver)
    assert float((found > 0).double().mean()) == pytest.approx(0.7, abs=0.02)
    assert float((found.abs() - 1).abs().mean()) < 0.02


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_these_draw_no_noise(solver):
    def noise():
        raise AssertionError

    first, second = (sampled(gaussian(0, 1, Schedule("tan", 2)), solver, 20, noise=noise) for _ in range(2))
    assert torch.equal(first, second)


def test_the_second_order_needs_fewer_steps():
    schedule = Schedule("tan", 2)
    clean = gaussian(0.7, 0.25, schedule)
    exact = sampled(clean, "ddim", 4000, n=500)
    few = {solver: float((sampled(clean, solver, 16, n=500) - exact).abs().mean()) for solver in ("ddim", "dpm++")}
    assert few["dpm++"] < few["ddim"] / 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_steps_are_those_of_diffusers(solver):
    diffusers = pytest.importorskip("diffusers")
    kind = diffusers.DDIMScheduler if solver == "ddim" else diffusers.DPMSolverMultistepScheduler
    more = {"clip_sample": False} if solver == "ddim" else {"solver_order": 2, "lower_order_final": False}
    spacing = "trailing" if solver == "ddim" else "linspace"
    theirs = kind(beta_schedule="scaled_linear", prediction_type="sample", timestep_spacing=spacing, **more)
    theirs.set_timesteps(10)
    schedule = Schedule("scaled_linear")
    times = (theirs.timesteps.double() + 1) / 1000
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = gaussian(0.3, 0.5, schedule)
    ours = sample(clean, x, schedule, solver=solver, times=times, noise=lambda: x)
    for at, t in zip(theirs.timesteps[:-1], times):
        x = theirs.step(clean(x, t[None], None), at, x).prev_sample
    assert torch.allclose(ours, x, atol=1e-4)


def made(source=None, **settings):
    torch.manual_seed(0)
    network = Denoiser(8, 2, 4, source=source, source_places=5)
    return LatentDiffusion(DiffusionConfig(**settings), network, (3, 8))


LATENTS = 2 + 3 * torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(3))


def test_statistics_in_batches_are_those_of_all():
    diffusion = made()
    diffusion.measure(LATENTS.split([10, 0, 53, 1]))
    assert torch.allclose(diffusion.mean, LATENTS.mean(0), atol=1e-5)
    assert torch.allclose(diffusion.std, LATENTS.std(0, correction=0), atol=1e-5)
    normal = diffusion.normalised(LATENTS)
    assert torch.allclose(diffusion.restored(normal), LATENTS, atol=1e-4)
    mean, std, count = moments([torch.full((4, 2), 5.0)])
    assert (mean.tolist(), std.tolist(), count) == ([5.0, 5.0], [0.01, 0.01], 4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_seed_gives_the_same_sample(solver):
    diffusion = made()
    diffusion.measure([LATENTS])
    first, again, other = (diffusion.sample(3, seed=seed, steps=4, solver=solver) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert bool(torch.isfinite(first).all())


@pytest.mark.parametrize("prediction", ["x0", "v", "epsilon"])
def test_latents_are_learned(prediction):
    diffusion = made(prediction=prediction, d=2.0)
    diffusion.measure([LATENTS])
    optimizer = torch.optim.Adam(diffusion.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = diffusion.loss(LATENTS)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    found = diffusion.sample(200, steps=20, solver="dpm++")
    if prediction != "epsilon":  # off where nearly all is noise, until it is learned well
        assert float((found.mean() - 2).abs()) < 1.5


def test_guidance_goes_from_no_source_through_it_and_beyond():
    diffusion = made(source=6)
    x, states = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 4 + [False], [False] * 5])
    seen = diffusion.network.read(states, mask)
    t = torch.full((2,), 0.4)

    def cleaned(seen, guidance=1.0):
        return diffusion.cleaned(x, t, torch.zeros_like(x), seen, guidance)

    without, with_source = cleaned(None), cleaned(seen)
    assert torch.allclose(with_source[1], without[1], atol=1e-5)  # a row without a source
    assert float((with_source[0] - without[0]).detach().abs().max()) > 1e-3
    assert torch.allclose(cleaned(seen, 0.0), without)
    assert torch.allclose(cleaned(seen, 3.0), without + 3 * (with_source - without), atol=1e-5)


def test_variations_keep_what_little_noise_leaves():
    schedule = Schedule()
    diffusion = made()
    diffusion.measure([LATENTS])
    near, far = (diffusion.denoise_from(LATENTS[:8], t, seed=1) for t in (0.08, 1.0))
    assert near.shape == far.shape == (8, 3, 8)
    assert torch.equal(near, diffusion.denoise_from(LATENTS[:8], 0.08, seed=1))
    spiked = diffusion.denoise_from(LATENTS[:8], 0.5, seed=1, spike=(0.5, 0.3))
    assert not torch.equal(spiked, diffusion.denoise_from(LATENTS[:8], 0.5, seed=1))
    a, s = schedule.alpha(torch.tensor(0.5)), schedule.sigma(torch.tensor(0.5))
    x = diffusion.noised(LATENTS[:1], torch.tensor([0.5]), torch.ones(1, 3, 8))
    assert torch.allclose(x, a.float() * LATENTS[:1] + s.float())


def test_settings_that_do_not_fit():
    diffusion = made()
    with pytest.raises(ConfigError, match="has no statistics of latents"):
        diffusion.sample(1)
    diffusion.measure([LATENTS])
    with pytest.raises(ConfigError, match=r"no solver 'dimm' \(did you mean 'ddim'"):
        diffusion.sample(1, solver="dimm")
    with pytest.raises(ConfigError, match="steps 0: expected 1 or more"):
        diffusion.sample(1, steps=0)
    with pytest.raises(ConfigError, match=r"t 0\.01: expected a time above 0\.05"):
        diffusion.denoise_from(LATENTS[:1], 0.01)
    with pytest.raises(ConfigError, match="no prediction 'noise'"):
        DiffusionConfig(prediction="noise")
    with pytest.raises(ConfigError, match=r"t_min 0: expected"):
        DiffusionConfig(t_min=0)


def test_a_schedule_that_does_not_exist():
    pytest.importorskip("diffusers")
    with pytest.raises(ConfigError, match=r"no schedule 'cosin' \(did you mean 'cosine'"):
        Schedule("cosin")
