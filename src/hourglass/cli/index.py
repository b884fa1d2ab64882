"""hourglass index"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import out, print_json
from hourglass.errors import InputError

if TYPE_CHECKING:
    from hourglass.uses.search.index import SearchIndex


def index(
    folder: Annotated[
        str, typer.Option("--out", metavar="DIR", help="The folder of the index, or its URL in an object store.")
    ],
    source: Annotated[str | None, typer.Argument(help="Texts, as for explore.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="'minilm', a folder, or a Hub id; 'none': words alone.", show_default="minilm; of an index, its own"
        ),
    ] = None,
    sparse: Annotated[str | None, typer.Option(help="Also weights of words by this model, as encode --sparse.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Also vectors of tokens by this late-interaction model (of ColBERT's kind).")
    ] = None,
    token_bits: Annotated[int, typer.Option(help="Of a number of these: 1, 2, 4 or 8.")] = 2,
    code: Annotated[
        str | None,
        typer.Option(
            help="Also a binary code of each vector: sign, median, hyperplanes, itq, or own (the encoder's).",
            show_default="own where the encoder has codes",
        ),
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Of a code.", show_default="a bit for each number")] = None,
    vectors: Annotated[str | None, typer.Option(help="Column that holds the vectors, as lists of numbers.")] = None,
    similarity: Annotated[
        str | None, typer.Option(help="cosine or dot.", show_default="what the encoder was made for")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of vectors on disk: float16 or float32.")] = "float16",
    stem: Annotated[str, typer.Option(help="Language of stems, or none.")] = "english",
    stop_words: Annotated[str, typer.Option(help="Language of stop words, or none.")] = "english",
    k1: Annotated[float, typer.Option(help="Of BM25.")] = 1.5,
    b: Annotated[float, typer.Option(help="Of BM25.")] = 0.75,
    precision: Annotated[str, typer.Option(help="Encoder arithmetic: auto, float32, bfloat16.")] = "auto",
    engine: Annotated[
        str, typer.Option(help="Where a new index is encoded: local, or ray: a cluster whose machines all see --out.")
    ] = "local",
    text: Annotated[str | None, typer.Option(help="Column that holds the text (guessed where it is plain).")] = None,
    id: Annotated[
        str | None, typer.Option(help="Column that names a document (default: id or _id, else the row).")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Add the texts to the index that is there.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add the texts, in the place of those with the same id.")
    ] = False,
    delete: Annotated[list[str] | None, typer.Option(help="Id of a document to remove (repeat).")] = None,
    delete_where: Annotated[str | None, typer.Option(help="Remove documents for which this holds.")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Join its files, and drop old versions.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the index that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a search index of texts, or change one: add, replace or remove documents."""
    from hourglass import api

    changes = append + update + bool(delete) + (delete_where is not None)
    if changes > 1:
        raise InputError("index: give one of --append, --update, --delete and --delete-where")
    if (source is None) != bool(delete or delete_where is not None or (compact and not changes)):
        raise InputError(
            "index: expected SOURCE, with --append or --update for an index that is there; or --delete, --delete-where or "
            "--compact without one"
        )
    reading: dict[str, Any] = {"text": text, "id": id, "limit": limit}
    written = removed = 0
    if source is not None and not changes:
        made = api.index(
            source,
            out=folder,
            encoder=_language(encoder or "minilm"),
            sparse=sparse,
            tokens=tokens,
            token_bits=token_bits,
            code=code,
            bits=bits,
            vectors=vectors,
            similarity=similarity,  # type: ignore[arg-type]  # checked there
            dtype=dtype,  # type: ignore[arg-type]
            stem=_language(stem),
            stop_words=_language(stop_words),
            k1=k1,
            b=b,
            precision=precision,  # type: ignore[arg-type]
            engine=engine,
            force=force,
            **reading,
        )
        written = len(made)
    else:
        made = api.open_index(folder, encoder=encoder)
        if encoder is not None:
            made.encoder  # noqa: B018  # one that it was not made with is refused
        if source is not None:
            written = made.append(source, **reading) if append else made.update(source, **reading)
        elif changes:
            removed = made.delete(delete or (), where=delete_where)
    alone = made.compact() if compact else None
    if as_json:
        print_json(_values(made, written, removed, alone))
        return
    _print(made, written, removed, alone)


def _language(name: str) -> str | None:
    return None if name == "none" else name


def _values(made: SearchIndex, written: int, removed: int, alone: bool | None) -> dict[str, Any]:
    encoder = made.manifest["encoder"]
    return {
        "index": str(made.folder),
        "documents": len(made),
        "written": written,
        "removed": removed,
        "encoder": encoder["id"] if encoder else None,
        "width": made.width if made.has_vectors else None,
        "columns": made.columns,
        "old_versions_kept": None if alone is None else not alone,
        "trouble": made.trouble,
    }


def _print(made: SearchIndex, written: int, removed: int, alone: bool | None) -> None:
    for line in made.trouble:
        out.print(line, markup=False, soft_wrap=True)
    did = ", ".join(f"{number:,} {what}" for number, what in ((written, "written"), (removed, "removed")) if number)
    kept = "; old versions were kept, somebody reads one, or may" if alone is False else ""
    out.print(
        f"{made.folder}: {len(made):,} documents{f' ({did})' if did else ''}{kept}\n"
        f"hourglass search {made.folder} QUERY",
        markup=False,
        soft_wrap=True,
    )
