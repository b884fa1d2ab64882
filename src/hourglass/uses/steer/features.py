"""Which feature a person means: by its number, by a part of its name, or by the token on which it is most active."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd
import torch

from hourglass.adapters.dialogues import TokenRows
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import InputError, SourceError

_LISTED = 8


def feature_number(asked: int | str, width: int, labels: pd.Series | None = None) -> int:
    """The number of the feature that is asked for.

    asked    a number (also as text), or a part of a name, in any case
    labels   names by feature, null where there is none; None where features have no names at all

    Raises InputError where there is no such feature, and where several have the name it lists them.
    """
    if str(asked).strip().lstrip("-").isdigit():
        number = int(asked)
        if not 0 <= number < width:
            raise InputError(f"no feature {number}; they go from 0 to {width - 1}")
        return number
    if labels is None:
        raise InputError(f"feature {asked!r}: an autoencoder alone has no names; give a number from 0 to {width - 1}")
    named = labels.dropna().astype(str)
    found = named[named.str.contains(str(asked), case=False, regex=False)]
    exact = found[found.str.casefold() == str(asked).casefold()]
    if len(exact) == 1:
        found = exact
    if len(found) == 0:
        raise InputError(f"no feature has a name with {asked!r}; `hourglass features DIR` lists the names")
    if len(found) > 1:
        several = "; ".join(f"{number} {label}" for number, label in found.head(_LISTED).items())
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise InputError(f"{len(found)} features have a name with {asked!r}; choose one by number: {several}{more}")
    return int(found.index[0])


def features_of_token(
    sae: SparseAutoencoder, batches: Iterable[TokenRows], token: int | Collection[int], top: int = 10
) -> pd.DataFrame:
    """The features that are most active on a token: columns feature, mean_max, best first.

    token     a token number, or several that count as one, such as those with which every turn of a dialogue begins
    mean_max  the highest activation on such a token in a sample, mean over the samples that have one

    Each sample lies whole in one batch. Li et al. (2025) steer by the first, of 1,000 samples. Raises SourceError where no
    sample has the token.
    """
    wanted = torch.tensor([token] if isinstance(token, int) else sorted(token))
    total, samples = torch.zeros(sae.config.width, dtype=torch.float64), 0
    for batch in batches:
        here = torch.isin(batch.ids, wanted.to(batch.ids))
        if not here.any():
            continue
        _, lengths = batch.documents[here].unique_consecutive(return_counts=True)
        maxima = sae.codes(batch.states[here]).largest(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))
        total += maxima.double().sum(0).cpu()
        samples += len(lengths)
    if not samples:
        raise SourceError(f"no sample has a token with the number {', '.join(map(str, wanted.tolist()))}")
    mean, features = (total / samples).sort(descending=True, stable=True)
    return pd.DataFrame({"feature": features[:top].numpy(), "mean_max": mean[:top].numpy()})
