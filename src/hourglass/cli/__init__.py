"""The command `hourglass`: a file per verb, each parses, calls one function of the api and prints.

Nothing heavy is imported until a verb runs.
"""

from __future__ import annotations

import os
import sys

import typer

from hourglass.cli import (
    adapt,
    claim,
    cluster,
    correlate,
    diff,
    embed,
    encode,
    evaluate,
    explore,
    export,
    features,
    find,
    fit,
    generate,
    index,
    interpolate,
    relabel,
    report,
    rewrite,
    search,
    steer,
    studio,
    trend,
    verify,
)
from hourglass.cli.output import errors, out
from hourglass.errors import HourglassError

app = typer.Typer(
    name="hourglass",
    help="Learned bottlenecks: look into a pile of texts, see how its groups differ and what goes together, find texts that have a property.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    explore.explore,
    diff.diff,
    verify.verify,
    correlate.correlate,
    trend.trend,
    find.find,
    cluster.cluster,
    embed.embed,
    export.export,
    features.features,
    relabel.relabel,
    fit.fit,
    adapt.adapt,
    encode.encode,
    index.index,
    search.search,
    evaluate.evaluate,
    steer.steer,
    generate.generate,
    rewrite.rewrite,
    interpolate.interpolate,
    studio.studio,
    report.report,
    claim.claim,
):
    app.command()(verb)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if show:
        from hourglass import __version__

        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run a verb; every error of ours is one line on standard error."""
    try:
        app()
    except HourglassError as error:
        errors.print(f"hourglass: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # typer makes 130 of Ctrl-C, and of nothing else
            raise
        errors.print("hourglass: stopped; the same command goes on from here")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
