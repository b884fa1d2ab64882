"""The same tokens in every flow, in another context each: what is read alone, in blocks, and packed."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from hourglass.adapters.chat_templates import Rendered
from hourglass.adapters.dialogues import DialogueReader, TokenRows, Tokens
from hourglass.data import states
from hourglass.data.dialogues import open_dialogues, text_documents
from hourglass.data.flows import Flow, arrange, cache_flow, gather, read_flow, whole_dialogues
from hourglass.errors import ConfigError, FolderError, SourceError, StatesError

ROLES = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
CHATS = [
    [{"role": "user", "content": "hello " * (i * 5 % 7)}, {"role": "assistant", "content": "yes, no, " * (i % 3 + 1)}]
    for i in range(12)
]


class Reader:
    """A token for each character, of which capitals are special; its state is what else is in its sequence."""

    width, longest = 2, 50

    def describe(self):
        return {"model": "letters"}

    def require_isolation(self):
        pass

    def render(self, document):
        if not isinstance(document, str):
            document = "".join(turn["role"][0].upper() + turn["content"] for turn in document)
        if "refuse" in document:
            raise SourceError("a dialogue that the chat template refuses (so)")
        return Rendered(document, [(0, len(document))], True)

    def tokenize(self, rendered):
        texts = [one.text for one in rendered]
        offsets = np.append(0, np.cumsum([len(text) for text in texts])).astype(np.int64)
        ids = np.array([ord(c) for c in "".join(texts)], np.int64)
        positions = np.concatenate([np.zeros(0, np.int32), *(np.arange(len(text)) for text in texts)]).astype(np.int32)
        return Tokens(ids, positions, np.array([c.isupper() for c in "".join(texts)], bool), offsets)

    def states(self, tokens, cuts, apart=False):
        assert cuts[0] == 0 and cuts[-1] == len(tokens) and (np.diff(cuts) > 0).all()
        sequence = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
        # At which place of its sequence a token stands, or of its document where these do not see each other.
        place = tokens.positions if apart else np.arange(len(tokens)) - cuts[sequence]
        return torch.tensor(np.stack([tokens.ids, place], 1), dtype=torch.float32).reshape(-1, 2)


def joined(blocks):
    parts = list(blocks)
    fields = [
        [getattr(part, name) for part in parts] for name in ("states", "documents", "positions", "special", "ids")
    ]
    return TokenRows(*(torch.cat(values) for values in fields))


texts = st.lists(st.text("abAB", max_size=25), min_size=1, max_size=15).filter(lambda some: any(map(str.strip, some)))


@settings(deadline=None)
@given(some=texts, pack=st.sampled_from(["none", "blocks", "masked"]), block=st.integers(1, 30), data=st.data())
def test_every_token_comes_once_in_order_and_as_many_as_asked_for(some, pack, block, data):
    flow = Flow(pack=pack, block=block, special=data.draw(st.booleans()))
    expected = [
        (number, place, sign)
        for number, text in enumerate(some, 1)
        for place, sign in enumerate(text)
        if flow.special or not sign.isupper()
    ]
    if not expected:
        return
    tokens = data.draw(st.none() | st.integers(1, len(expected)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "WINDOW_CHARACTERS", data.draw(st.integers(1, 60)))
        documents = text_documents(some)
        rows = joined(read_flow(Reader(), documents, flow, tokens=tokens))
        arranged = list(arrange(Reader(), documents, flow, tokens=tokens))
    found = list(zip(rows.documents.tolist(), rows.positions.tolist(), map(chr, rows.ids.tolist())))
    assert found == expected[:tokens]
    assert rows.special.tolist() == [sign.isupper() for _, _, sign in found]
    assert rows.states[:, 0].tolist() == rows.ids.tolist()
    everything = [place for text in some for place in range(len(text))]
    if pack == "blocks":
        signs = "".join(some)
        of_stream = [i for i, c in enumerate(signs) if flow.special or not c.isupper()]
        assert rows.states[:, 1].tolist() == [i % block for i in of_stream[: len(found)]]
    else:
        assert rows.states[:, 1].tolist() == rows.positions.tolist()
    lengths = np.concatenate([np.diff(one.cuts) for one in arranged])
    if pack == "masked":
        longest = max(map(len, some))
        assert lengths.max() <= max(block, longest)
    if tokens is None:
        assert lengths.sum() == len(everything)
        assert sum(one.ended for one in arranged) == sum(bool(text) for text in some)


def test_rows_of_masked_hold_as_many_documents_as_fit():
    (one,) = arrange(
        Reader(), text_documents(["aaaa", "aa", "a" * 9, "a", "aaa", "aaaa"]), Flow(pack="masked", block=8)
    )
    assert np.diff(one.cuts).tolist() == [6, 9, 8]


def test_documents_that_the_template_refuses_are_left_out_and_named():
    chats = open_dialogues([[{"role": "user", "content": text}] for text in ("one", "refuse", "two")])
    rows = joined(read_flow(Reader(), chats, Flow()))
    assert rows.documents.unique().tolist() == [1, 3]
    assert chats.report.skipped == [(2, "a dialogue that the chat template refuses (so)")]
    with pytest.raises(SourceError, match="the list: no token to read; 1 row was skipped: a dialogue that the chat"):
        list(read_flow(Reader(), open_dialogues([[{"role": "user", "content": "refuse"}]]), Flow()))
    with pytest.raises(SourceError, match="document 7: a dialogue that the chat template refuses"):
        gather(Reader(), [(7, "refuse")], Flow())
    plain = joined(read_flow(Reader(), chats, Flow(template=False)))
    assert plain.ids.tolist() == [ord(c) for c in "onetwo"]


@pytest.mark.parametrize(
    ("flow", "tokens", "error", "said"),
    [
        ({"pack": "block"}, None, ConfigError, "no pack 'block' \\(did you mean 'blocks'\\?\\)"),
        ({"pack": "blocks", "block": 0}, None, ConfigError, "block 0: expected 1 token or more"),
        ({"pack": "blocks", "block": 51}, None, ConfigError, "block 51: the model takes 50 tokens at most"),
        ({}, 0, ConfigError, "tokens 0"),
        ({}, 6, SourceError, "the list: ends after 5 tokens, 6 were asked for"),
    ],
)
def test_flows_that_cannot_be(flow, tokens, error, said):
    with pytest.raises(error, match=said):
        list(read_flow(Reader(), text_documents(["abc", "ab"]), Flow(**flow), tokens=tokens))


def test_a_block_must_fit_for_a_few_documents_too():
    with pytest.raises(ConfigError, match="block 51: the model takes 50 tokens at most"):
        gather(Reader(), [(1, "abc")], Flow(pack="blocks", block=51))


# What a real model makes of it ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, causal_folder):
    """A model with learned positions, and one with rotary ones."""
    return DialogueReader(str(causal_folder / request.param), layer=2, dtype="float32", template=ROLES)


def test_masked_is_alone_and_blocks_are_not(model):
    chats = open_dialogues(CHATS)
    alone = joined(read_flow(model, chats, Flow()))
    masked = joined(read_flow(model, chats, Flow(pack="masked", block=150)))
    blocks = joined(read_flow(model, chats, Flow(pack="blocks", block=150)))
    for other in (masked, blocks):
        for name in ("documents", "positions", "special", "ids"):
            assert torch.equal(getattr(alone, name), getattr(other, name))
    assert (masked.states - alone.states).abs().max() <= 1e-5
    moved = (blocks.states - alone.states).norm(dim=1) / alone.states.norm(dim=1)
    first = alone.documents == 1
    assert moved[first].max() < 1e-5  # it begins its block
    assert moved[~first].median() > 0.01
    # Each dialogue by itself, through the whole model.
    network = AutoModel.from_pretrained(model.describe()["model"], dtype=torch.float32).eval()
    for number in (1, 5, 12):
        own = alone.where(alone.documents == number)
        with torch.no_grad():
            states = network(own.ids[None], output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(own.states, states, atol=1e-5, rtol=1e-5)


def test_positions_must_begin_anew_where_they_are_learned(model):
    """The mask of "masked" by hand, positions going on: rotary models do not mind, others do."""
    chats = [(i, chat) for i, chat in enumerate(CHATS[:2])]
    alone = gather(model, chats, Flow())
    apart = alone.documents[:, None] == alone.documents
    mask = torch.where(apart.tril(), 0.0, torch.finfo(torch.float32).min)[None, None]
    name = model.describe()["model"]
    network = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    with torch.no_grad():
        states = network(alone.ids[None], attention_mask=mask, output_hidden_states=True).hidden_states[2][0]
    difference = (states - alone.states).abs().max()
    assert difference > 0.1 if name.endswith("gpt2") else difference < 1e-3


def test_the_context_makes_no_difference_to_what_is_cached_but_its_states(model, tmp_path):
    chats = open_dialogues(CHATS)
    for flow in (Flow(), Flow(pack="blocks", block=60), Flow(pack="masked", block=100, special=False)):
        rows = joined(read_flow(model, chats, flow, tokens=300))
        told = []
        cached = cache_flow(model, chats, flow, tmp_path / flow.pack, tokens=300, advance=told.append)
        assert len(rows) == len(cached) == 300
        assert cached.documents[:].tolist() == rows.documents.tolist()
        assert cached.spans[:].tolist() == [[place, place + 1] for place in rows.positions.tolist()]
        assert np.array_equal(cached.rows[:], rows.states.half().numpy())
        assert sum(told) in (rows.documents[-1], rows.documents[-1] - 1)
    manifest = json.loads((tmp_path / "masked" / "states.json").read_text())
    assert manifest["finished"] and not manifest["special"] and manifest["block"] == 100
    with pytest.raises(FolderError, match="holds states with pack 'masked', now 'blocks'"):
        cache_flow(model, chats, Flow(pack="blocks", block=100, special=False), tmp_path / "masked", tokens=300)


@pytest.mark.parametrize("flow", [Flow(), Flow(pack="blocks", block=60), Flow(pack="masked", block=100)])
def test_after_a_stop_only_what_lacks_is_read_and_the_bytes_are_the_same(model, flow, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "WINDOW_CHARACTERS", 90)

    class Counting:
        def __init__(self, stop):
            self.stop, self.units = stop, 0

        def __getattr__(self, name):
            return getattr(model, name)

        def states(self, *arguments, **more):
            if self.units == self.stop:
                raise KeyboardInterrupt
            self.units += 1
            return model.states(*arguments, **more)

    whole, stopped, rest = Counting(None), Counting(2), Counting(None)
    cache_flow(whole, open_dialogues(CHATS), flow, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        cache_flow(stopped, open_dialogues(CHATS), flow, tmp_path / "states")
    cache_flow(rest, open_dialogues(CHATS), flow, tmp_path / "states")
    assert whole.units > 3 and rest.units == whole.units - 2
    for name in ("rows.f16", "documents.i64", "spans.i32", "rows.json", "states.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "states" / name).read_bytes()


def test_each_dialogue_whole_to_measure_on(model):
    found = list(whole_dialogues(model, open_dialogues(CHATS)))
    assert [one.documents.unique().tolist() for one in found] == [[i] for i in range(1, 13)]
    assert all(torch.equal(one.positions, torch.arange(len(one), dtype=torch.int32)) for one in found)
    assert all(bool(one.special[0]) and not bool(one.special.all()) for one in found)


def test_states_that_are_not_finite_name_the_row(causal_folder):
    reader = DialogueReader(str(causal_folder / "gpt2"), layer=1, dtype="float32")
    reader._runs.module.wte.weight[reader._runs.tokenizer.convert_tokens_to_ids("X")] = torch.nan
    for flow in (Flow(), Flow(pack="blocks", block=3), Flow(pack="masked", block=9)):
        with pytest.raises(StatesError, match="text 4 "):
            list(read_flow(reader, text_documents(["a", " ", "c", "dX"]), flow))
