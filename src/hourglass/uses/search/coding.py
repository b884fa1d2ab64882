"""Binary codes of an index's vectors: signs, codes that are learned from the vectors themselves, or the encoder's own.

What is learned is learned from a sample of all vectors when the last is there, and kept in the folder of the index: what is added
later, and every query, is hashed as the first documents were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa

from hourglass.bottlenecks.discrete import METHODS, Hasher, check_bits, fit_hasher
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.storage.places import Place
from hourglass.uses.search.encoding import IndexEncoder, compared
from hourglass.uses.search.homes import Building
from hourglass.uses.search.layout import HASHER, import_lance, open_table, rows_of_lists
from hourglass.uses.search.stages import Array

OWN_CODE = "own"
CODES = (*METHODS, OWN_CODE)
_SAMPLE = 20_000
_ROWS_AT_ONCE = 8192


class Coder(Protocol):
    """Binary codes of vectors."""

    @property
    def bits(self) -> int:
        """Of each code."""
        ...

    def codes(self, vectors: Array) -> Array:
        """[n, bytes] uint8 of vectors [n, d] as the encoder gives them: bits packed as NumPy does, the last byte filled with 0."""
        ...


@final
class Hashed:
    """Codes by a hasher, of vectors as an index with `settings` keeps them and compares them."""

    def __init__(self, hasher: Hasher, settings: dict[str, Any]) -> None:
        self._hasher, self._settings = hasher, settings

    @property
    def bits(self) -> int:
        return self._hasher.bits

    def codes(self, vectors: Array) -> Array:
        with np.errstate(over="ignore"):  # what is no longer finite is refused by the hasher
            kept = vectors.astype(self._settings["dtype"]).astype(np.float32)
        return self._hasher.codes(compared(kept, self._settings["similarity"]))


@final
class Own:
    """Codes that the encoder has learned with its vectors."""

    def __init__(self, encoder: IndexEncoder, bits: int) -> None:
        self.bits = bits
        self.codes = encoder.own_codes


def code_settings(code: str | None, bits: int | None, encoder: IndexEncoder | None) -> dict[str, Any] | None:
    """What an index keeps of its code: {"id", "bits" (null: as many as the vectors have numbers)}; None: it has none.

    An encoder with codes of its own gives them unless another is named. Raises ConfigError for a code that there is not.
    """
    own = encoder.code_bits if encoder is not None else None
    if code is None and own is None:
        if bits is not None:
            raise ConfigError(f"bits {bits}: of which code? name one: {', '.join(METHODS)}")
        return None
    if code is not None and code not in CODES:
        raise ConfigError(f"no code {code!r}{nearest(code, CODES)}")
    if code not in (None, OWN_CODE):
        return {"id": code, "bits": bits}
    if encoder is None or own is None:
        why = "there is no encoder" if encoder is None else f"the encoder {encoder.name!r} has no codes"
        raise ConfigError(f"code 'own': {why}; expected one of {', '.join(METHODS)}")
    if bits not in (None, own):
        raise ConfigError(f"bits {bits}: the codes of the encoder {encoder.name!r} have {own}")
    return {"id": OWN_CODE, "bits": own}


def settle_bits(manifest: dict[str, Any]) -> None:
    """Bits of the code, once the width of the vectors is known; ConfigError where these have no code of so many."""
    code, vectors = manifest["code"], manifest["vectors"]
    if code and code["id"] != OWN_CODE and vectors["width"] is not None:
        code["bits"] = check_bits(code["id"], vectors["width"], code.get("bits"))


def is_learned(code: dict[str, Any]) -> bool:
    """Whether it comes when all vectors are there."""
    return code["id"] not in ("sign", OWN_CODE)


def index_coder(hasher: Place | None, manifest: dict[str, Any], encoder: Callable[[], IndexEncoder]) -> Coder:
    """Of an index, of which `hasher` is the file of what was learned; FolderError where that is missing."""
    code, vectors = manifest["code"], manifest["vectors"]
    if code["id"] == OWN_CODE:
        return Own(encoder(), code["bits"])
    if hasher is not None and is_learned(code):
        return Hashed(_read(hasher), vectors)
    return Hashed(Hasher(np.zeros(vectors["width"], np.float32)), vectors)


def add_learned_codes(building: Building, manifest: dict[str, Any]) -> None:
    """Learn the code of an index from its vectors, and give every document its own; what a killed call has done is kept.

    Raises ConfigError for vectors that will not do.
    """
    table = open_table(building.table, building.where)
    if "code" in table.schema.names:
        return
    vectors, place = manifest["vectors"], building.file(HASHER)
    if not place.is_file():
        rows = np.arange(table.count_rows())
        if len(rows) > _SAMPLE:
            rows = np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False))
        sample = rows_of_lists(table.take(rows.tolist(), columns=["vector"])["vector"].combine_chunks())
        try:
            code = manifest["code"]
            hasher = fit_hasher(code["id"], compared(sample, vectors["similarity"]), code["bits"])
        except InputError as error:
            raise ConfigError(f"code {manifest['code']['id']!r}: {error}") from None
        place.keep(hasher.save)
    coder = Hashed(_read(place), vectors)
    schema = pa.schema([pa.field("code", pa.binary(-(-coder.bits // 8)))])

    def codes(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch([arrow_codes(coder.codes(rows_of_lists(batch.column("vector"))))], schema=schema)

    udf = import_lance().batch_udf(output_schema=schema)(codes)
    table.add_columns(udf, read_columns=["vector"], batch_size=_ROWS_AT_ONCE)


def _read(place: Place) -> Hasher:
    if not place.is_file():
        raise FolderError(f"{place}: missing; make the index again")
    with place.fetched() as path:
        return Hasher.load(path)


def arrow_codes(codes: Array) -> pa.Array:
    """A column of codes [n, bytes]."""
    buffer = pa.py_buffer(np.ascontiguousarray(codes).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(codes.shape[1]), len(codes), [None, buffer])
