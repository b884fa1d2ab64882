"""Where an index is kept: a folder of this machine, or the URL of an object store (s3://, gs://, az://).

    home = home_of("s3://bucket/reviews.index")
    home.manifest(), home.table()
    with home.building(force=False) as building: ...

In a folder one process writes at a time, under a lock. An object store has no locks: a table changes by commits of Lance, of
which one of two that change the same rows is refused; `index.json`, written last, says in which table the documents are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, final

from hourglass.errors import FolderError
from hourglass.storage.atomic import read_json, replace_folder, write_json
from hourglass.storage.places import Place, is_url, reaching
from hourglass.uses.search.layout import LEARNED, MANIFEST, TABLE, checked, exclusive, is_index, lock, read_manifest

_BUILDING, _BLOCKS = "building.json", "blocks"


class Home(ABC):
    """Where an index is.

    folder   as it is named in messages and opened again: a path, or a URL
    cache    the folder of this machine for what retrievers make of a version
    """

    folder: Path | str

    @property
    @abstractmethod
    def cache(self) -> Path: ...

    @abstractmethod
    def is_index(self) -> bool: ...

    @abstractmethod
    def is_unfinished(self) -> bool:
        """Whether an index that should come here was begun."""

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """What index.json says; FolderError where it cannot be read."""

    @abstractmethod
    def table(self) -> str:
        """What Lance opens."""

    @abstractmethod
    def file(self, name: str) -> Place:
        """What was learned of the documents, and belongs to them."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of the documents."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out where that can be done; FolderError where there is one."""

    @abstractmethod
    def begin_reading(self) -> Callable[[], None]:
        """Keep the versions of the index from being cleaned away, until what is returned is called."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[bool]:
        """Whether it is known that nobody reads."""

    @abstractmethod
    def require_free(self, force: bool) -> None:
        """FolderError where there is something that `force` does not replace."""

    @abstractmethod
    def building(self, force: bool) -> AbstractContextManager[Building]:
        """A new index on its way here."""


class Building(ABC):
    """An index that is being made.

    where   it is, for messages
    """

    where: Path | str

    @property
    @abstractmethod
    def table(self) -> str:
        """What Lance writes to."""

    @abstractmethod
    def has_table(self) -> bool:
        """Whether anything has been committed."""

    @abstractmethod
    def kept(self) -> dict[str, Any]:
        """What `keep` wrote last, before a kill perhaps; {} where there is nothing."""

    @abstractmethod
    def keep(self, values: dict[str, Any]) -> None: ...

    @abstractmethod
    def begin_again(self) -> None:
        """Drop what has been committed."""

    @abstractmethod
    def file(self, name: str) -> Place:
        """What is learned of the documents, and goes with them."""

    @abstractmethod
    def block(self, name: str) -> Place:
        """A file for texts on their way to workers; gone when the index is done."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing."""

    @abstractmethod
    def finish(self, manifest: dict[str, Any]) -> None:
        """Put the index to its home, in the place of the one that was there."""


def home_of(name: str | Path) -> Home:
    """Of the folder or URL of an index, there or not."""
    if isinstance(name, str) and is_url(name):
        place = Place.of(name)
        return Folder(Path(place.files._strip_protocol(place.path))) if place.is_local else Store(name)
    return Folder(Path(name))


# A folder of this machine --------------------------------------------------------------------------------


@final
class Folder(Home):
    """index.json, documents.lance and cache beside each other; built beside it, and renamed when it is whole."""

    folder: Path

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def is_index(self) -> bool:
        return is_index(self.folder)

    def is_unfinished(self) -> bool:
        return _beside(self.folder).is_dir()

    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.folder)

    def table(self) -> str:
        return str(self.folder / TABLE)

    def file(self, name: str) -> Place:
        return Place.of(str((self.folder / name).absolute()))

    def size(self) -> int:
        return sum(file.stat().st_size for file in (self.folder / TABLE).rglob("*") if file.is_file())

    def lock(self) -> AbstractContextManager[None]:
        return lock(self.folder)

    def begin_reading(self) -> Callable[[], None]:
        descriptor = os.open(self.folder / MANIFEST, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return lambda: os.close(descriptor)

    def exclusive(self) -> AbstractContextManager[bool]:
        return exclusive(self.folder)

    def require_free(self, force: bool) -> None:
        if self.folder.exists() and not (force and self.is_index()):
            raise _taken(self.folder, self.is_index())

    @contextmanager
    def building(self, force: bool) -> Iterator[Building]:
        self.require_free(force)
        out = self.folder
        beside = _beside(out)
        beside.mkdir(parents=True, exist_ok=True)
        with lock(out) if out.exists() else nullcontext(), lock(beside):
            yield _Beside(out)


@final
class _Beside(Building):
    where: Path

    def __init__(self, out: Path) -> None:
        self._out, self.where = out, _beside(out)
        self._blocks = self.where / _BLOCKS
        shutil.rmtree(self._blocks, ignore_errors=True)

    @property
    def table(self) -> str:
        return str(self.where / TABLE)

    def has_table(self) -> bool:
        return any((self.where / TABLE).glob("_versions/*.manifest"))

    def kept(self) -> dict[str, Any]:
        path = self.where / _BUILDING
        return dict(read_json(path)) if path.is_file() else {}

    def keep(self, values: dict[str, Any]) -> None:
        write_json(self.where / _BUILDING, values)

    def begin_again(self) -> None:
        shutil.rmtree(self.where / TABLE, ignore_errors=True)
        for name in LEARNED:
            (self.where / name).unlink(missing_ok=True)

    def file(self, name: str) -> Place:
        return Place.of(str((self.where / name).absolute()))

    def block(self, name: str) -> Place:
        return Place.of(str((self._blocks / name).absolute()))

    def discard(self) -> None:
        shutil.rmtree(self.where, ignore_errors=True)

    def finish(self, manifest: dict[str, Any]) -> None:
        shutil.rmtree(self._blocks, ignore_errors=True)
        write_json(self.where / MANIFEST, manifest)
        replace_folder(self.where, self._out)
        (self._out / _BUILDING).unlink()


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.new")


# An object store -----------------------------------------------------------------------------------------


@final
class Store(Home):
    """index.json and a table of a name of its own under a URL; the cache is a folder of this machine."""

    folder: str

    def __init__(self, url: str) -> None:
        self.folder = url.rstrip("/")
        self._manifest: dict[str, Any] | None = None

    @property
    def cache(self) -> Path:
        """Named after the table, too: an index that is made again begins its versions anew."""
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        name = hashlib.sha256(self.table().encode()).hexdigest()[:24]
        return Path(root) / "hourglass" / "indexes" / name

    def is_index(self) -> bool:
        return self._place(MANIFEST).is_file()

    def is_unfinished(self) -> bool:
        return self._place(_BUILDING).is_file()

    def manifest(self) -> dict[str, Any]:
        if self._manifest is None:
            self._manifest = checked(_read(self._place(MANIFEST)), self.folder)
        return dict(self._manifest)

    def table(self) -> str:
        return f"{self.folder}/{self.manifest()['table']}"

    def file(self, name: str) -> Place:
        return Place.of(f"{self.table()}/{name}")

    def size(self) -> int:
        place = Place.of(self.table())
        with reaching(place.name):
            return int(place.files.du(place.path))

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin_reading(self) -> Callable[[], None]:
        return lambda: None

    def exclusive(self) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def require_free(self, force: bool) -> None:
        there = self.is_index()
        if there and not force:
            raise _taken(self.folder, True)
        if not there and not self.is_unfinished() and Place.of(self.folder).inside(deep=True):
            raise _taken(self.folder, False)

    @contextmanager
    def building(self, force: bool) -> Iterator[Building]:
        self.require_free(force)
        yield _Under(self.folder, str(self.manifest()["table"]) if self.is_index() else None)

    def _place(self, name: str) -> Place:
        return Place.of(f"{self.folder}/{name}")


@final
class _Under(Building):
    """In its home already, and no index before index.json says so."""

    def __init__(self, url: str, before: str | None) -> None:
        self.where, self._before = url, before
        kept = self.kept().get("table")
        self._table = str(kept) if kept and kept != before else _table_name()

    @property
    def table(self) -> str:
        return f"{self.where}/{self._table}"

    def has_table(self) -> bool:
        return Place.of(f"{self.table}/_versions").is_folder()

    def kept(self) -> dict[str, Any]:
        place = Place.of(f"{self.where}/{_BUILDING}")
        return _read(place) if place.is_file() else {}

    def keep(self, values: dict[str, Any]) -> None:
        _write(Place.of(f"{self.where}/{_BUILDING}"), {**values, "table": self._table})

    def begin_again(self) -> None:
        _remove(Place.of(self.table))
        self._table = _table_name()

    def file(self, name: str) -> Place:
        return Place.of(f"{self.table}/{name}")

    def block(self, name: str) -> Place:
        return Place.of(f"{self.table}/{_BLOCKS}/{name}")

    def discard(self) -> None:
        for name in (self._table, _BUILDING):
            _remove(Place.of(f"{self.where}/{name}"))

    def finish(self, manifest: dict[str, Any]) -> None:
        _write(Place.of(f"{self.where}/{MANIFEST}"), {**manifest, "table": self._table})
        for name in (_BUILDING, f"{self._table}/{_BLOCKS}", *([self._before] if self._before else [])):
            _remove(Place.of(f"{self.where}/{name}"))


def _table_name() -> str:
    return f"documents-{uuid.uuid4().hex[:12]}.lance"


def _taken(out: Path | str, by_index: bool) -> FolderError:
    kind = "exists" if by_index else "is no search index"
    return FolderError(f"{out}: {kind}; choose another --out" + (", or replace it with --force" * by_index))


def _read(place: Place) -> dict[str, Any]:
    try:
        with place.open() as stream:
            return dict(json.loads(stream.read()))
    except (ValueError, TypeError) as error:
        raise FolderError(f"{place}: not valid JSON ({error}); was it edited by hand?") from None


def _write(place: Place, values: dict[str, Any]) -> None:
    with place.replaced() as stream:
        stream.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def _remove(place: Place) -> None:
    with reaching(place.name):
        if place.files.exists(place.path):
            place.files.rm(place.path, recursive=True)
