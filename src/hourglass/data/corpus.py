"""The texts of a source as a sequence on disk, so that training can take them in any order and memory follows the batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hourglass.data.sources import TextSource
from hourglass.errors import FolderError, SourceError
from hourglass.storage.atomic import atomic_folder, read_json, write_json

_SPACE = re.compile(r"\s")


class Corpus(Sequence[str]):
    """Texts in an Arrow file that is mapped into memory; `corpus[i]` reads one."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = read_json(folder / "corpus.json")
        self._texts = pa.ipc.open_file(pa.memory_map(str(folder / "texts.arrow"))).read_all().column("text")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._texts[index].to_pylist()
        return self._texts[int(index)].as_py()


def keep_corpus(texts: TextSource, folder: Path, made_from: dict[str, Any], longest: int | None) -> Corpus:
    """Copy the texts of a source into `folder`, those of more than `longest` characters (None: none) in pieces that end at white space.

    made_from   what the corpus is made of, in JSON. A folder with the same is taken as it is, one with another refused

    Raises FolderError for a folder with another corpus, SourceError where the source has no text.
    """
    made_from = {**made_from, "longest": longest}
    if (folder / "corpus.json").exists():
        there = Corpus(folder)
        if there.about["made_from"] != made_from:
            raise FolderError(f"{folder}: holds the texts of {there.about['made_from']}; choose another --out")
        return there
    documents = 0
    with atomic_folder(folder) as new:
        schema = pa.schema([("text", pa.large_string())])
        with pa.OSFile(str(new / "texts.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in texts.batches():
                kept = batch.column(texts.text_column).to_pylist()
                documents += len(kept)
                pieces = [piece for text in kept for piece in _pieces(text, longest)]
                writer.write_batch(pa.record_batch([pa.array(pieces, pa.large_string())], schema=schema))
        write_json(new / "corpus.json", {"made_from": made_from, "documents": documents})
    corpus = Corpus(folder)
    if not len(corpus):
        raise SourceError(f"{texts.name}: no text to learn from")
    return corpus


def _pieces(text: str, longest: int | None) -> Iterator[str]:
    start = 0
    while longest is not None and len(text) - start > longest:
        spaces = [found.start() for found in _SPACE.finditer(text, start + longest // 2, start + longest)]
        stop = spaces[-1] + 1 if spaces else start + longest
        yield text[start:stop]
        start = stop
    if text[start:].strip():
        yield text[start:]
