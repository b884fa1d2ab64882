"""Docs that cannot rot: every verb and system has its place, generated pages are current, examples run."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import hourglass
from hourglass.cli import app
from hourglass.systems import discover

ROOT = Path(__file__).parents[2]
VERBS = sorted(command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb):
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert f"hourglass {verb}" in pages + (ROOT / "README.md").read_text(), f"no docs show `hourglass {verb}`"
    assert f"| `{verb}" in (ROOT / "docs" / "json.md").read_text()


def test_every_paper_of_the_code_is_in_the_readme_and_has_a_page_and_a_claim():
    readme = (ROOT / "README.md").read_text()
    for name, cls in discover().items():
        if cls.__module__.startswith("hourglass.systems."):
            assert f"`{name}`" in readme
            assert (ROOT / "docs" / "papers" / f"{name}.md").is_file()
            assert (ROOT / "claims" / f"{name}.py").is_file()
    assert len(re.findall(r"^\| .+ \| `[a-z0-9_]+` \| ", readme, re.M)) == 25


def test_the_page_of_measurements_is_what_the_results_say():
    check = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], check=False)
    assert check.returncode == 0, "run: python docs/generate.py"


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_public_names_exist():
    for name in hourglass.__all__:
        assert getattr(hourglass, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'explroe'"):
        hourglass.explroe  # noqa: B018


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path)])
    runpy.run_path(str(example), run_name="__main__")
    assert "report:" in capsys.readouterr().out


def test_python_of_the_docs_runs(tmp_path, monkeypatch):
    """The blocks that need nothing but themselves."""
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "train.md").read_text(), re.S):
        exec(compile(block, "docs/train.md", "exec"), {})
