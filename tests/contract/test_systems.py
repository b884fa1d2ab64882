"""Every system that discovery finds keeps every point of the contract."""

from __future__ import annotations

import pytest

from hourglass.systems import discover
from hourglass.testing import SYSTEM_CHECKS

SYSTEMS = discover()


@pytest.mark.parametrize("check", SYSTEM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("system", SYSTEMS)
def test_system(system, check):
    check(SYSTEMS[system])
