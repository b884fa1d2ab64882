"""A sparse autoencoder from whatever file or folder it is in: the format is known by the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hourglass.adapters import dictionary_learning, saelens, sparsify
from hourglass.adapters.openai_sae import read_openai
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import FolderError

_FORMATS: dict[tuple[str, str], Callable[[Path], SparseAutoencoder]] = {
    ("config.json", "model.safetensors"): SparseAutoencoder.from_pretrained,
    (saelens.CONFIG, saelens.WEIGHTS): saelens.read_saelens,
    (sparsify.CONFIG, sparsify.WEIGHTS): sparsify.read_sparsify,
    (dictionary_learning.CONFIG, dictionary_learning.WEIGHTS): dictionary_learning.read_dictionary_learning,
}


def load_sae(path: str | Path) -> SparseAutoencoder:
    """A trained sparse autoencoder: ours (the folder of `fit` or its `model`), SAELens, sparsify, dictionary_learning or OpenAI.

    Raises FolderError where no format is recognised, and what the format's reader raises.
    """
    path = Path(path)
    if path.is_file():
        beside = path.name == dictionary_learning.WEIGHTS and (path.parent / dictionary_learning.CONFIG).is_file()
        return dictionary_learning.read_dictionary_learning(path) if beside else read_openai(path)
    for folder in (path, path / "model"):
        for files, read in _FORMATS.items():
            if all((folder / file).is_file() for file in files):
                return read(folder)
    known = "; ".join(" + ".join(files) for files in _FORMATS)
    raise FolderError(f"{path}: no sparse autoencoder; expected a folder with {known}; or a .pt file of OpenAI's")
