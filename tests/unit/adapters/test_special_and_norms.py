"""Special tokens kept and told apart, sinks left out by their norm, numbers that are not finite named."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.adapters.huggingface_frames import rows
from hourglass.adapters.norms import within_norm
from hourglass.errors import ConfigError, StatesError
from hourglass.waist import TokenStates

TEXTS = ["the quick brown fox", "", "one two three", "fox " * 90]


def whole_states(folder, ids):
    """Last states of the whole model on one sequence of tokens."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_special_tokens_are_kept_and_marked(models_folder, name):
    folder = str(models_folder / name)
    read = HuggingFaceReader(folder, dtype="float32", special=True).read(TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert read.lengths[1] == 0
    for i in (0, 2):
        encoded = tokenizer(TEXTS[i], return_special_tokens_mask=True)
        own = slice(int(read.offsets[i]), int(read.offsets[i + 1]))
        assert read.special[own].tolist() == [bool(s) for s in encoded["special_tokens_mask"]]
        torch.testing.assert_close(read.states[own], whole_states(folder, encoded["input_ids"]), atol=2e-5, rtol=1e-4)
    plain = HuggingFaceReader(folder, dtype="float32").read(TEXTS)
    without = read.where(~read.special)
    assert plain.special is None
    for field in ("states", "offsets", "spans"):
        assert torch.equal(getattr(plain, field), getattr(without, field))


def test_special_tokens_of_a_long_text_are_those_at_its_ends(models_folder):
    folder = str(models_folder / "bert")
    reader = HuggingFaceReader(folder, dtype="float32", special=True, max_tokens=22, overlap=8)
    read = reader.read(["fox", TEXTS[3]])
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[3])["input_ids"]
    first, last = int(read.offsets[1]), int(read.offsets[2]) - 1
    assert read.lengths[1] == len(ids)
    assert read.special[first : last + 1].nonzero().flatten().tolist() == [0, len(ids) - 1]
    assert read.spans[first].tolist() == [0, 0]
    assert read.spans[last].tolist() == [len(TEXTS[3])] * 2
    torch.testing.assert_close(read.states[first], whole_states(folder, [*ids[:21], ids[-1]])[0], atol=2e-5, rtol=1e-4)


def test_template_tokens_and_those_within_a_text_are_special(models_folder):
    folder = str(models_folder / "llama")
    read = HuggingFaceReader(folder, dtype="float32", role="user", special=True).read(["one<|end|> two"])
    ids = AutoTokenizer.from_pretrained(folder)("<s><|user|>one<|end|> two<|end|>", add_special_tokens=False)[
        "input_ids"
    ]
    torch.testing.assert_close(read.states, whole_states(folder, ids), atol=2e-5, rtol=1e-4)
    assert read.special.tolist() == [i < 6 for i in ids]  # SPECIAL of conftest.py come first


@settings(deadline=None)
@given(
    pieces=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), max_size=5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
)
def test_every_row_is_given_once_and_in_order(pieces, before, after):
    borders = np.append(0, np.cumsum([n for text in pieces for n in text])).astype(np.int64)
    offsets = np.append(0, np.cumsum([sum(text) for text in pieces])).astype(np.int64)
    windows = HuggingFaceReader._windows(SimpleNamespace(_room=12, _overlap=4), borders)
    placed = rows(windows, offsets, before, after)
    given = [row + i for _, _, first, last, row in placed.windows.tolist() for i in range(last - first)]
    assert given == list(range(len(placed)))
    assert np.diff(placed.offsets).tolist() == [sum(text) + (before + after) * (sum(text) > 0) for text in pieces]
    for text, (first, last) in enumerate(zip(placed.offsets, placed.offsets[1:])):
        expected = [*range(first + before, last - after)] if last > first else []
        assert placed.tokens[offsets[text] : offsets[text + 1]].tolist() == expected
        assert (placed.texts(np.arange(first, last)) == text).all()


@given(
    lengths=st.lists(st.integers(0, 4), max_size=5),
    data=st.data(),
)
def test_where_keeps_texts_and_drops_tokens(lengths, data):
    number = sum(lengths)
    keep = data.draw(st.lists(st.booleans(), min_size=number, max_size=number))
    states = torch.arange(number).float()[:, None]
    offsets = torch.tensor([0, *np.cumsum(lengths).astype(int).tolist()])
    tokens = TokenStates(states, offsets, torch.zeros(number, 2), torch.ones(number, dtype=torch.bool))
    kept = tokens.where(torch.tensor(keep, dtype=torch.bool))
    for i in range(len(lengths)):
        own = range(int(offsets[i]), int(offsets[i + 1]))
        assert kept.states[kept.offsets[i] : kept.offsets[i + 1], 0].tolist() == [t for t in own if keep[t]]
    assert len(kept.spans) == len(kept.special) == sum(keep)


def test_norms_are_held_against_the_median():
    states = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 5.1], [0.0, 50.0], [0.0, 50.1]])
    assert within_norm(states, 2, median=25).tolist() == [True, True, True, True, False]
    assert within_norm(states, 10).tolist() == [True, True, True, True, True]
    assert within_norm(states[:4], 9).tolist() == [True, True, True, False]
    assert within_norm(states.bfloat16(), 9)[3].item() is False
    assert within_norm(torch.zeros(3, 2), 2).all()
    assert within_norm(states[:0], 2).shape == (0,)


@pytest.fixture
def sink(models_folder):
    """A reader for which one token, "two", is hundreds of times longer than others."""
    reader = HuggingFaceReader(str(models_folder / "gpt2"), layer=1, dtype="float32", max_norm=10)
    number = AutoTokenizer.from_pretrained(models_folder / "gpt2")(" two", add_special_tokens=False)["input_ids"]
    assert len(number) == 1
    reader._runs.module.wte.weight[number[0]] *= 1000
    return reader


def test_sinks_are_left_out_of_their_text(sink):
    text = "one two three"
    read = sink.read(["the fox", text])
    left = [text[a:b].strip() for a, b in read.spans[read.offsets[1] :].tolist()]
    assert "two" not in left
    assert {"one", "three"} <= set(left)
    assert int(read.offsets[-1]) == len(read.states) == len(read.spans)
    both = sink.read_sites([text], [(0, "residual"), (1, "mlp")])
    assert len(both[0, "residual"].states) < len(both[1, "mlp"].states)  # each place by its own norms


@pytest.mark.parametrize("factor", [1, 0, -2, float("nan")])
def test_a_norm_that_would_drop_half_is_refused(models_folder, factor):
    with pytest.raises(ConfigError, match="expected a multiple of the median norm, above 1"):
        HuggingFaceReader(str(models_folder / "gpt2"), max_norm=factor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("site", ["residual", "mlp"])
def test_numbers_that_are_not_finite_are_named(sink, bad, site):
    number = sink._tokenizer.encode(" two", add_special_tokens=False).ids[0]
    sink._runs.module.wte.weight[number] = bad
    with pytest.raises(
        StatesError, match=f"^layer 1, site '{site}': text 2 gives numbers that are not finite"
    ) as error:
        sink.read_sites(["the fox", "one", "one two three", "three"], [(1, site)])
    assert error.value.text == 2
    assert "\n" not in str(error.value)


def test_numbers_whose_sum_is_not_finite_may_be(models_folder):
    reader = HuggingFaceReader(str(models_folder / "gpt2"), layer=0, dtype="float32")
    reader._runs.module.wte.weight.fill_(3e38)
    assert torch.isfinite(reader.read(["one two three"]).states).all()
