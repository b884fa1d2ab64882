"""A sparse autoencoder from whatever file or folder it is in: the format is known by the files, or the tensors in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hourglass.adapters import dictionary_learning, gemma_scope, goodfire, llama_scope, openai_sae, saelens, sparsify
from hourglass.adapters.sae_weights import read_pickle
from hourglass.bottlenecks.sparse.coder import SparseCoder
from hourglass.bottlenecks.sparse.crosscoder import Crosscoder
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder
from hourglass.errors import FolderError
from hourglass.storage.atomic import read_json

_OWN = {cls.system_name(): cls for cls in (SparseAutoencoder, Transcoder, Crosscoder)}


def _read_own(folder: Path) -> SparseCoder:
    cls = _OWN.get(str(read_json(folder / "config.json").get("system")), SparseAutoencoder)
    return cls.from_pretrained(folder)


_FOLDERS: dict[tuple[str, ...], Callable[[Path], SparseCoder]] = {
    ("config.json", "model.safetensors"): _read_own,
    (saelens.CONFIG, saelens.WEIGHTS): saelens.read_saelens,
    (sparsify.CONFIG, sparsify.WEIGHTS): sparsify.read_sparsify,
    (dictionary_learning.CONFIG, dictionary_learning.WEIGHTS): dictionary_learning.read_dictionary_learning,
    (gemma_scope.ARRAYS,): gemma_scope.read_gemma_scope,
    (gemma_scope.WEIGHTS,): gemma_scope.read_gemma_scope,
    (llama_scope.CONFIG, llama_scope.WEIGHTS): llama_scope.read_llama_scope,
}
_PICKLES: dict[str, Callable[[Path], SparseCoder]] = {
    openai_sae.KEY: openai_sae.read_openai,
    goodfire.KEY: goodfire.read_goodfire,
}
"""By a tensor that only this format has."""


def load_sae(path: str | Path) -> SparseCoder:
    """A trained sparse autoencoder, transcoder or crosscoder: ours (the folder of `fit` or its `model`), or one of another
    library, in its own files.

    Raises FolderError where no format is recognised, and what the format's reader raises.
    """
    path = Path(path)
    if path.is_file():
        return _load_file(path)
    for folder in (path, path / "model"):
        for files, read in _FOLDERS.items():
            if all((folder / file).is_file() for file in files):
                return read(folder)
    known = "; ".join(" + ".join(files) for files in _FOLDERS)
    raise FolderError(
        f"{path}: no sparse autoencoder; expected a folder with {known}; or a .pt file of OpenAI's or Goodfire's"
    )


def _load_file(file: Path) -> SparseCoder:
    if file.name == dictionary_learning.WEIGHTS and (file.parent / dictionary_learning.CONFIG).is_file():
        return dictionary_learning.read_dictionary_learning(file)
    if file.name in (gemma_scope.ARRAYS, gemma_scope.WEIGHTS):
        return gemma_scope.read_gemma_scope(file)
    tensors = read_pickle(file)
    for key, read in _PICKLES.items():
        if key in tensors:
            return read(file)
    raise FolderError(
        f"{file}: no sparse autoencoder that is known by its tensors ({' or '.join(_PICKLES)}); "
        f"it has: {', '.join(sorted(map(str, tensors)))[:200]}"
    )
