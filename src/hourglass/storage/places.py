"""Files and folders of this machine, or anywhere that fsspec reaches: s3://, gs://, hf://, https://, memory://, file:// ...

place = Place.of("s3://bucket/reviews.parquet")
with place.open() as stream: ...
with place.replaced() as stream: ...     # what was there stays until the new file is whole
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from hourglass.errors import HourglassError, SourceError
from hourglass.storage.atomic import atomic_file

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)


def is_url(name: str) -> bool:
    """Whether a name is an address rather than a path: a letter and a colon alone are a drive."""
    return _SCHEME.match(name) is not None


@dataclass(frozen=True)
class Place:
    """A file or folder, there or not.

    name  as a person wrote it, and what messages say
    path  as its file system has it

    Every method raises SourceError, in one line, for a place that cannot be reached.
    """

    name: str
    path: str
    files: fsspec.AbstractFileSystem

    @classmethod
    def of(cls, name: str) -> Place:
        if not is_url(name):
            return cls(name, str(Path(name).expanduser()), LocalFileSystem())
        with reaching(name):
            return cls(name, *_found(name))

    def __str__(self) -> str:
        return self.name

    @property
    def suffixes(self) -> list[str]:
        return [suffix.lower() for suffix in PurePosixPath(self.path).suffixes]

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, LocalFileSystem)

    def is_file(self) -> bool:
        with reaching(self.name):
            return bool(self.files.isfile(self.path))

    def is_folder(self) -> bool:
        with reaching(self.name):
            return bool(self.files.isdir(self.path))

    def size(self) -> int:
        """Bytes of a file; 0 where it is not told."""
        with reaching(self.name):
            return int(self.files.size(self.path) or 0)

    def inside(self, *, deep: bool = False) -> list[Place]:
        """The files in a folder in the order of their names, those of its folders too if `deep`; hidden ones left out."""
        with reaching(self.name):
            found = self.files.find(self.path, maxdepth=None if deep else 1)
            root = str(self.files._strip_protocol(self.path)).rstrip("/")
        below = sorted((PurePosixPath(path).relative_to(root), path) for path in found)
        return [
            Place(f"{self.name.rstrip('/')}/{inside}", path, self.files)
            for inside, path in below
            if not inside.name.startswith(".")
        ]

    def open(self) -> BinaryIO:
        with reaching(self.name):
            return Path(self.path).open("rb") if self.is_local else cast(BinaryIO, self.files.open(self.path, "rb"))

    @contextmanager
    def replaced(self) -> Iterator[BinaryIO]:
        """A stream to write the file to, which is there, in the place of an older one, once all went well."""
        if self.is_local:
            path = Path(self.files._strip_protocol(self.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as temporary, temporary.open("wb") as stream:
                yield stream
            return
        if isinstance(self.files, ArrowFSWrapper):
            # Its streams cannot be given up once they are open.
            with tempfile.TemporaryFile() as waiting:
                yield cast(BinaryIO, waiting)
                waiting.seek(0)
                with reaching(self.name), self.files.open(self.path, "wb") as stream:
                    shutil.copyfileobj(waiting, stream)
            return
        with reaching(self.name):
            self.files.makedirs(self.files._parent(self.path), exist_ok=True)
            stream = self.files.open(self.path, "wb", autocommit=False)
        try:
            yield cast(BinaryIO, stream)
        except BaseException:
            stream.discard()
            raise
        with reaching(self.name):
            stream.close()
            stream.commit()


def _found(name: str) -> tuple[str, fsspec.AbstractFileSystem]:
    """(path, its file system) of a URL: by fsspec's own, and s3:// by Arrow's where s3fs is not installed."""
    try:
        files, path = fsspec.core.url_to_fs(name)
    except ImportError:
        if not name.lower().startswith("s3://"):
            raise
        return name[len("s3://") :], ArrowFSWrapper(_s3(os.environ.get("AWS_ENDPOINT_URL")))
    return path, files


@lru_cache
def _s3(endpoint: str | None) -> Any:
    """Credentials and region are found as Amazon's clients find them; its own servers are meant where no other is named."""
    from pyarrow.fs import S3FileSystem

    if endpoint is None:
        return S3FileSystem()
    scheme, _, host = endpoint.rpartition("://")
    return S3FileSystem(endpoint_override=host, scheme=scheme or "https")


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """What goes wrong on the way to a place becomes a SourceError: file systems raise errors of many kinds."""
    try:
        yield
    except HourglassError:
        raise
    except Exception as error:
        lines = [str(getattr(error, "strerror", None) or ""), *str(error).splitlines(), type(error).__name__]
        raise SourceError(f"{name}: cannot be reached ({next(line for line in lines if line.strip())})") from None
