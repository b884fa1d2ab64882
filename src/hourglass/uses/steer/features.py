"""Which feature a person means: by its number, or by a part of its name."""

from __future__ import annotations

import pandas as pd

from hourglass.errors import InputError

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
