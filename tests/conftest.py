"""Tests never reach for the network."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory):
    """Folders gpt2 and llama, each with a causal model of three blocks, its head, and a tokenizer of bytes."""
    from causal_models import make_causal

    return make_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def browser():
    """Chromium, for a module at a time: while it runs, nothing else in this thread may run an event loop."""
    from chromium import chromium

    with chromium() as browser:
        yield browser
