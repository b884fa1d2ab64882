"""Where no terminal is, long work leaves a line now and then, and short work none."""

from hourglass.training import progress
from hourglass.uses.progress import Progress


def work(shown=True):
    with Progress(shown) as bars:
        task = bars.start("encoding", 2000, "texts")
        bars.advance(task, 1000)
        endless = bars.start("reading", None, "rows")
        bars.advance(endless, 5)
    with progress.ProgressBar(300, 100, shown) as bar:
        bar.step(0.5)


def test_short_work_says_nothing(capsys):
    work()
    assert capsys.readouterr() == ("", "")


def test_long_work_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    work()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "encoding: 1,000 of 2,000 texts, 00:00:00",
        "reading: 5 rows, 00:00:00",
        "training: 101 of 300 steps, loss 0.5, 00:00:00",
    ]
    work(shown=False)
    assert capsys.readouterr().err == ""


def test_a_function_is_told_every_step_and_nothing_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    told = []
    with Progress(lambda *step: told.append(step)) as bars:
        bars.advance(bars.start("encoding", 2000, "texts"), 1000)
        bars.advance(bars.start("reading", None, "rows"), 5)
    assert told == [("encoding", 0, 2000), ("encoding", 1000, 2000), ("reading", 0, None), ("reading", 5, None)]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_no_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines = progress.LogLines(True)
    lines.say("encoding", 1, 2, "texts")
    assert "encoding: 1" not in capsys.readouterr().err
