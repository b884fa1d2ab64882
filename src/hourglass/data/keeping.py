"""States on disk that are read unit by unit, so that a kill at any moment costs one unit.

Each folder holds the files of `hourglass.storage.rows` and states.json: what the states were made with and of, and whether
all of them are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hourglass.errors import FolderError
from hourglass.storage.atomic import clear_leftovers, read_json, write_json
from hourglass.storage.memory import release_memory
from hourglass.storage.rows import RowFile, RowWriter


@dataclass(frozen=True)
class Kept:
    """Rows that are kept: in which folder, how wide, and what they are made with and of, in JSON.

    A folder with rows of something else is refused.
    """

    folder: Path
    width: int
    made_from: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """What is read at once.

    documents  of how many documents, or parts of them
    append     gives its rows to the writers, by the number of the folder, which makes so many units done
    """

    documents: int
    append: Callable[[Mapping[int, RowWriter], int], None]


def keep_rows(
    units: Iterable[Unit], kept: Sequence[Kept], advance: Callable[[int], None] | None = None
) -> list[RowFile]:
    """Keep the rows of all `units`, made anew or taken up where the folders stop; a unit has rows for each of them.

    The units, in number, order and content, must depend on what the folders are made from alone, for those that are there
    already are passed over. A folder that a kill has cut off earlier than the others is brought level with them.
    `advance` is told how many documents have been read each time.

    Raises FolderError for a folder with rows of something else, or that another process writes to.
    """
    with ExitStack() as locks:
        unfinished = {}
        for number, rows in enumerate(kept):
            rows.folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(FileLock(rows.folder / ".lock", blocking=False))
            except Timeout:
                raise FolderError(f"{rows.folder}: another process is writing to it; wait for it to end") from None
            clear_leftovers(rows.folder)
            if not finished(rows.folder, rows.made_from):
                unfinished[number] = rows
        if unfinished:
            _write(units, unfinished, advance)
        for rows in unfinished.values():
            write_json(rows.folder / "states.json", {**rows.made_from, "finished": True})
    return [RowFile(rows.folder) for rows in kept]


def finished(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether all rows are there; begins a folder that is new. FolderError for one that is made from something else."""
    manifest = folder / "states.json"
    if not manifest.exists():
        if RowFile.exists(folder):
            raise FolderError(f"{folder}: holds rows of something else; choose another folder")
        write_json(manifest, {**made_from, "finished": False})
    state = read_json(manifest)
    for key, value in made_from.items():
        if state.get(key) != value:
            raise FolderError(
                f"{folder}: holds states with {key} {state.get(key)!r}, now {value!r}; choose another folder"
            )
    return bool(state.get("finished"))


def _write(units: Iterable[Unit], kept: Mapping[int, Kept], advance: Callable[[int], None] | None) -> None:
    with ExitStack() as files:
        writers = {n: files.enter_context(RowWriter(rows.folder, rows.width)) for n, rows in kept.items()}
        # What is read together depends on the source alone, and so do the bits of the states: a batch has its own rounding.
        for number, unit in enumerate(units):
            lacking = {n: writer for n, writer in writers.items() if number >= writer.done}
            if lacking:
                unit.append(lacking, number + 1)
                release_memory()
            if advance is not None:
                advance(unit.documents)
