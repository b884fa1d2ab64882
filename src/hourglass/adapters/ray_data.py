"""Ray Data as the place where work is done: the same work on the same units, on every machine of a cluster.

    for result in on_cluster(work, units, advance): ...

The cluster is the one that Ray finds (`ray.init` was called, RAY_ADDRESS, a cluster that runs here); where there is none, it
is the cores of this machine. A worker has a GPU where the cluster has any, else as many cores as torch has threads here, so
that its sums are taken in the order in which they are taken here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from hourglass.errors import HourglassError, InputError, MissingExtra

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_TRIES = 3
"""How often a unit is begun whose worker died of it."""


def require_ray() -> None:
    """MissingExtra where Ray is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtra("the engine 'ray'", "cluster") from None


def on_cluster(
    work: Callable[[Unit, Callable[[int], None]], Result], units: Sequence[Unit], advance: Callable[[int], None]
) -> Iterator[Result]:
    """What `work` gives for each unit, in their order; it goes to the workers by pickle, and is there once for many units.

    `work` is told of a function to say how much is done; that reaches `advance` with the result. An error of it names the
    unit: an InputError stays one. HourglassError for one that several workers died of, as they do without enough memory.
    """
    import ray

    if not len(units):
        return
    _join()
    done = 0
    try:
        for outcome in _outcomes(work, units):
            if outcome.error is not None:
                kind = InputError if outcome.input_at_fault else HourglassError
                raise kind(f"{units[done]}: {outcome.error}")
            advance(outcome.advanced)
            yield outcome.result
            done += 1
    except ray.exceptions.RayError as error:
        raise HourglassError(
            f"{units[done]}, or one beside it: Ray gave up ({type(error).__name__}); the same command goes on from here"
        ) from error


@dataclass(frozen=True)
class _Outcome:
    result: Any = None
    advanced: int = 0
    error: str | None = None
    input_at_fault: bool = False


class _Worker:
    """Lives in a process of the cluster and does one unit after another."""

    def __init__(self, work: Callable[..., Any], units: Sequence[Any], threads: int, begun: Any) -> None:
        import torch

        torch.set_num_threads(threads)
        self._work, self._units, self._begun = work, units, begun

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes = np.empty(len(batch["id"]), object)
        for place, number in enumerate(batch["id"]):
            outcomes[place] = self._outcome(int(number))
        return {"outcome": outcomes}

    def _outcome(self, number: int) -> _Outcome:
        import ray

        if ray.get(self._begun.again.remote(number)) > _TRIES:
            return _Outcome(error=f"{_TRIES} workers died of it; do they have enough memory?")
        unit = self._units[number]
        steps: list[int] = []
        try:
            return _Outcome(self._work(unit, steps.append), sum(steps))
        except HourglassError as error:
            return _Outcome(error=str(error), input_at_fault=isinstance(error, InputError))
        except Exception as error:  # whatever it is, the one who waits for it is elsewhere
            return _Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())}")


class _Begun:
    """Counts how often each unit was begun, for Ray tries without end."""

    def __init__(self) -> None:
        self._times: Counter[int] = Counter()

    def again(self, number: int) -> int:
        self._times[number] += 1
        return self._times[number]


def _join() -> None:
    """Be part of a cluster, which lives on until this process ends."""
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise InputError(f"no Ray cluster at {where}: {str(error).splitlines()[0]}") from None


def _outcomes(work: Callable[..., Any], units: Sequence[Any]) -> Iterator[_Outcome]:
    import ray

    threads, share, workers = _shares()
    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        initial_size=min(workers, len(units)),
        max_size=len(units),
        max_tasks_in_flight_per_actor=1,  # a unit takes minutes, so none waits behind another
    )
    with _quiet():
        # Units that are there from the start: to make them a task would need the cores that the workers hold.
        numbers = ray.data.from_items([{"id": i} for i in range(len(units))], override_num_blocks=len(units))
        done = numbers.map_batches(
            _Worker,
            batch_size=1,
            compute=pool,
            fn_constructor_args=(work, units, threads, ray.remote(_Begun).options(num_cpus=0).remote()),
            **share,
        )
    rows = iter(done.iter_rows())
    while True:
        with redirect_stdout(sys.stderr):  # where Ray tells of a worker that died
            row = next(rows, None)
        if row is None:
            return
        yield row["outcome"]


def _shares() -> tuple[int, dict[str, Any], int]:
    """Threads of a worker, what it takes of a machine, and how many the cluster has room for."""
    import ray
    import torch

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processors = sum(int(machine.get("GPU", 0)) for machine in machines)
    if processors:
        return torch.get_num_threads(), {"num_gpus": 1}, processors
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    threads = max(1, min(torch.get_num_threads(), max(cores)))
    return threads, {"num_cpus": threads}, max(1, sum(number // threads for number in cores))


@contextmanager
def _quiet() -> Iterator[None]:
    """Results in order, and nothing on the terminal, for the data sets that are made inside."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = context.enable_progress_bars, options.preserve_order
    context.enable_progress_bars, options.preserve_order = False, True
    try:
        yield
    finally:
        context.enable_progress_bars, options.preserve_order = before
