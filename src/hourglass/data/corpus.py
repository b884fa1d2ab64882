"""The texts of a source as a sequence on disk, so that training can take them in any order and memory follows the batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hourglass.data.sources import TextSource
from hourglass.errors import FolderError, SourceError
from hourglass.storage.atomic import atomic_folder, read_json, write_json

_SPACE = re.compile(r"\s")


class Corpus(Sequence[Any]):
    """Texts in an Arrow file that is mapped into memory; `corpus[i]` reads one, or (text, what stands beside it)."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = read_json(folder / "corpus.json")
        self._columns = pa.ipc.open_file(pa.memory_map(str(folder / "texts.arrow"))).read_all().columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            read = [column[index].to_pylist() for column in self._columns]
            return read[0] if len(read) == 1 else list(zip(*read))
        row = tuple(column[int(index)].as_py() for column in self._columns)
        return row[0] if len(row) == 1 else row


def keep_corpus(
    texts: TextSource,
    folder: Path,
    made_from: dict[str, Any],
    cut: Callable[[str], Iterable[str]],
    beside: str | None = None,
) -> Corpus:
    """Copy the texts of a source into `folder`, each in the pieces that `cut` makes of it.

    made_from   what the corpus is made of, in JSON. A folder with the same is taken as it is, one with another refused
    beside      column that is kept beside the text. A text in several pieces, or with nothing beside it, is left out and counted
                (`about["left_out"]`)

    Raises FolderError for a folder with another corpus, SourceError where the source has no text.
    """
    if (folder / "corpus.json").exists():
        there = Corpus(folder)
        if there.about["made_from"] != made_from:
            raise FolderError(f"{folder}: holds the texts of {there.about['made_from']}; choose another --out")
        return there
    documents = left_out = 0
    with atomic_folder(folder) as new:
        names = ["text"] if beside is None else ["text", "beside"]
        schema = pa.schema([(name, pa.large_string()) for name in names])
        with pa.OSFile(str(new / "texts.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in texts.batches():
                kept = batch.column(texts.text_column).to_pylist()
                documents += len(kept)
                rows: list[tuple[str, ...]]
                if beside is None:
                    rows = [(piece,) for text in kept for piece in cut(text)]
                else:
                    pairs = zip(kept, batch.column(beside).to_pylist())
                    rows = [(t, o) for t, o in pairs if isinstance(o, str) and o.strip() and len(list(cut(t))) == 1]
                    left_out += len(kept) - len(rows)
                columns = [pa.array([row[i] for row in rows], pa.large_string()) for i in range(len(names))]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        counts = {"documents": documents, **({} if beside is None else {"left_out": left_out})}
        write_json(new / "corpus.json", {"made_from": made_from, **counts})
    corpus = Corpus(folder)
    if not len(corpus):
        why = "" if beside is None else f" (none with a {beside!r} beside it that is short enough for the model)"
        raise SourceError(f"{texts.name}: no text to learn from{why}")
    return corpus


def pieces(text: str, longest: int | None) -> Iterator[str]:
    """A text in pieces of at most `longest` characters (None: whole) that end at white space where they can; none is blank."""
    start = 0
    while longest is not None and len(text) - start > longest:
        spaces = [found.start() for found in _SPACE.finditer(text, start + longest // 2, start + longest)]
        stop = spaces[-1] + 1 if spaces else start + longest
        yield text[start:stop]
        start = stop
    if text[start:].strip():
        yield text[start:]
