"""The docstrings of the installed Python packages: real text that every machine has. Nothing is imported or run."""

from __future__ import annotations

import ast
import random
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from hourglass.data.rows import Row
from hourglass.errors import SourceError, nearest

_FEWEST_WORDS = 5
_LEFT_OUT = {"tests", "test", "testing", "_vendor", "site-packages", "idlelib", "lib2to3", "__pycache__"}


def docstrings(packages: Sequence[str] = ()) -> Iterator[Row]:
    """Rows (package, module, name, text), each text once, files in a fixed shuffled order: any beginning is a fair mix.

    Raises SourceError for a package that is not installed.
    """
    roots = _packages()
    for package in packages:
        if package not in roots:
            raise SourceError(f"docstrings:{package}: no such package is installed{nearest(package, roots)}")
    wanted = packages or sorted(roots)
    files = [(package, path) for package in wanted for path in _files(roots[package])]
    random.Random(0).shuffle(files)
    seen: set[int] = set()
    number = 0
    for package, path in files:
        for name, text in _of_file(path):
            if hash(text) in seen:
                continue
            seen.add(hash(text))
            number += 1
            module = ".".join(path.with_suffix("").parts[len(roots[package].parent.parts) :])
            yield number, {"package": package, "module": module, "name": name, "text": text}, None


def _packages() -> dict[str, Path]:
    """Top-level packages and modules of the environment and the standard library, by name."""
    places = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    found: dict[str, Path] = {}
    for place in dict.fromkeys([*places, *(Path(p) for p in sys.path if p.endswith("site-packages"))]):
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.name in _LEFT_OUT or path.name.startswith((".", "__")):
                continue
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                found.setdefault(path.stem, path)
    return found


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    depth = len(root.parts)
    return [path for path in sorted(root.rglob("*.py")) if not _LEFT_OUT & set(path.parts[depth:])]


def _of_file(path: Path) -> Iterator[tuple[str, str]]:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if '"""' not in source and "'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for name, node in _walk(tree, ""):
        text = ast.get_docstring(node)
        if text and len(text.split()) >= _FEWEST_WORDS:
            yield name, text


def _walk(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    yield name, node
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(child, f"{name}.{child.name}".lstrip("."))
