"""Does a value, as JSON or a command line gives it, fit the type that a setting is declared with?"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def fits(value: Any, hint: Any) -> bool:
    """Whether the kind of `value` is that of the type `hint`: a whole number is a float too, a list a tuple.

    Which words of a Literal there are, and what makes an object of another class, its owner checks.
    """
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if kind is Literal:
        return any(type(value) is type(one) for one in get_args(hint))
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is tuple:
        return isinstance(value, list | tuple)
    if kind in (str, dict, type(None)):
        return isinstance(value, Mapping if kind is dict else kind)
    return True
