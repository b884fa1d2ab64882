"""Errors of dialogues against loops over tokens, however the dialogues are cut into batches."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hourglass.adapters.dialogues import TokenRows
from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.errors import SourceError
from hourglass.metrics.dialogues import PARTS, measure_dialogues
from hourglass.metrics.reconstruction import fvu

D = 6
LENGTHS = (5, 1, 9, 3)


@pytest.fixture
def sae():
    torch.manual_seed(0)
    return SparseAutoencoder(SparseAutoencoderConfig(d_in=D, width=20, k=3, precision="float32")).eval()


@pytest.fixture
def tokens():
    random = torch.Generator().manual_seed(1)
    number = sum(LENGTHS)
    ids = torch.randint(0, 7, (number,), generator=random)
    return TokenRows(
        states=3 + torch.randn(number, D, generator=random),
        documents=torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)),
        positions=torch.cat([torch.arange(n) for n in LENGTHS]),
        special=ids < 3,
        ids=ids,
    )


def cut(tokens, *places):
    """The same tokens in batches that begin at these places."""
    ends = [*places, len(tokens.ids)]
    return [
        TokenRows(**{name: column[a:b] for name, column in vars(tokens).items()}) for a, b in zip([0, *places], ends)
    ]


def by_hand(x, restored, dialogue, keep):
    """Mean over columns, then tokens, then dialogues."""
    of_dialogue = []
    for d in sorted(set(dialogue.tolist())):
        errors = [
            float(((x[i] - restored[i]) ** 2).sum()) / D for i in range(len(x)) if keep[i] and int(dialogue[i]) == d
        ]
        if errors:
            of_dialogue.append(sum(errors) / len(errors))
    return sum(of_dialogue) / len(of_dialogue), len(of_dialogue)


@pytest.mark.parametrize("places", [(), (5, 6, 15), (2, 3, 11, 17)])  # the last cuts through dialogues
def test_every_part_is_what_loops_find(sae, tokens, places):
    found = measure_dialogues(sae, cut(tokens, *places))
    x, codes = tokens.states, sae.codes(tokens.states)
    restored = sae.decode(codes)
    variance = float(x.double().var(0, unbiased=False).mean())
    assert found["variance"] == pytest.approx(variance)
    first = tokens.positions == 0
    parts = {
        "all": torch.ones_like(first),
        "special": tokens.special,
        "content": ~tokens.special,
        "first": first,
        "after_first": ~first,
        "special_after_first": tokens.special & ~first,
    }
    assert tuple(parts) == PARTS
    for part, keep in parts.items():
        mse, dialogues = by_hand(x, restored, tokens.documents, keep)
        said = found[part]
        assert (said["dialogues"], said["tokens"]) == (dialogues, int(keep.sum()))
        assert said["mse"] == pytest.approx(mse, rel=1e-5)
        assert said["mse_of_variance"] == pytest.approx(mse / variance, rel=1e-5)
        assert said["log2_mse"] == pytest.approx(math.log2(mse), abs=1e-5)
        assert said["log2_mse_of_variance"] == pytest.approx(math.log2(mse / variance), abs=1e-5)
        assert said["fvu"] == pytest.approx(fvu(x[keep], restored[keep]), rel=1e-5)
        assert said["l0"] == pytest.approx(float(codes.offsets.diff()[keep].double().mean()))


def test_special_tokens_by_number(sae, tokens):
    listed = measure_dialogues(sae, [tokens], special=[0, 1, 2])
    assert listed == measure_dialogues(sae, [tokens])
    assert measure_dialogues(sae, [tokens], special=[5])["special"]["tokens"] == int((tokens.ids == 5).sum())


def test_a_long_dialogue_counts_as_much_as_a_short_one():
    errors = torch.tensor([4.0, 4.0, 4.0, 1.0])
    coder = SimpleNamespace(
        codes=lambda x: SimpleNamespace(offsets=torch.zeros(len(x) + 1, dtype=torch.int64), x=x),
        decode=lambda codes: codes.x - errors.sqrt()[:, None],
    )
    tokens = TokenRows(
        states=torch.randn(4, D),
        documents=torch.tensor([0, 0, 0, 1]),
        positions=torch.tensor([0, 1, 2, 0]),
        special=torch.zeros(4, dtype=torch.bool),
        ids=torch.zeros(4),
    )
    found = measure_dialogues(coder, [tokens])
    assert found["all"]["mse"] == pytest.approx(2.5)
    assert found["special"]["mse"] is None and found["special"]["l0"] is None
    assert found["special"]["tokens"] == 0


def test_states_that_are_all_equal_have_no_fvu_and_nothing_is_an_error(sae, tokens):
    tokens = replace(tokens, states=torch.full_like(tokens.states, 0.1))
    found = measure_dialogues(sae, [tokens])
    assert found["all"]["fvu"] is None and found["all"]["mse_of_variance"] is None
    assert found["all"]["mse"] > 0
    with pytest.raises(SourceError, match="no token"):
        measure_dialogues(sae, [])
