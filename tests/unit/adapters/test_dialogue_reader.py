"""Dialogues as a chat model reads them: written once, each token with what it is."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BloomConfig, BloomModel, MistralConfig, MistralModel

from hourglass.adapters.chat_templates import ChatTemplate
from hourglass.adapters.dialogues import DialogueReader
from hourglass.errors import ConfigError, SourceError, StatesError

ROLES = "{{ bos_token }}{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}{{ '' }}"
CHAT = [
    {"role": "user", "content": " Wer da? \n"},
    {"role": "assistant", "content": "user\nnobody, héllo"},
    {"role": "user", "content": "</s>"},
]


def turns(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


@pytest.fixture(scope="module")
def llama(causal_folder):
    return DialogueReader(str(causal_folder / "llama"), layer=2, dtype="float32", template=ROLES)


def words(reader, rows, wanted):
    return reader._runs.tokenizer.decode(rows.ids[wanted].tolist(), clean_up_tokenization_spaces=False)


def test_a_dialogue_is_written_with_the_template_and_tokenised_once(causal_folder):
    folder = str(causal_folder / "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = DialogueReader(folder, layer=2, dtype="float32").read([CHAT, turns("a")])
    expected = [tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"] for chat in (CHAT, turns("a"))]
    assert rows.ids.tolist() == expected[0] + expected[1]
    assert rows.ids[:2].tolist() == [1, tokenizer.convert_tokens_to_ids("Ġ")]  # one <s>, not two
    assert rows.documents.tolist() == [0] * len(expected[0]) + [1] * len(expected[1])
    assert rows.positions.tolist() == [*range(len(expected[0])), *range(len(expected[1]))]
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = whole(torch.tensor([expected[0]]), output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(rows.states[: len(states)], states, atol=1e-4, rtol=1e-5)


def test_what_the_template_puts_in_is_special(llama):
    rows = llama.read([CHAT])
    assert words(llama, rows, rows.special) == "<s><s>user\n</s>\n<s>assistant\n</s>\n<s>user\n</s></s>\n"
    # A special token that a user has typed is one, and the words of a role that he has typed are not the template's.
    assert words(llama, rows, ~rows.special) == "Wer da?user\nnobody, héllo"


def test_special_tokens_by_a_list(causal_folder):
    reader = DialogueReader(str(causal_folder / "llama"), layer=1, template=ROLES, special_ids=[2])
    rows = reader.read([CHAT, "plain"])
    assert torch.equal(rows.special, rows.ids == 2)
    assert reader.describe()["special_ids"] == [2] and reader.describe()["chat_template"] == ROLES


def test_a_plain_text_has_the_special_tokens_of_the_tokenizer_and_needs_no_template(causal_folder):
    reader = DialogueReader(str(causal_folder / "gpt2"), layer=2, dtype="float32")
    rows = reader.read(["one two", ""])
    assert words(reader, rows, rows.special) == "<s><s>"
    assert words(reader, rows, ~rows.special) == "one two"
    with pytest.raises(ConfigError, match="gpt2: its tokenizer has no chat template to write dialogues with; give one"):
        reader.read([CHAT])


def test_long_documents_are_cut(causal_folder):
    reader = DialogueReader(str(causal_folder / "llama"), layer=1, dtype="float32", template=ROLES, max_tokens=20)
    rows = reader.read([turns("a" * 50), "b" * 50, turns("c")])
    assert rows.documents.bincount().tolist() == [20, 20, 10]
    assert DialogueReader(str(causal_folder / "llama"), layer=1).max_tokens == 160  # 8192, but the model takes no more
    with pytest.raises(ConfigError, match=r"max_tokens 161: .* takes 160 at most"):
        DialogueReader(str(causal_folder / "llama"), max_tokens=161)
    with pytest.raises(ConfigError, match="max_tokens 0"):
        DialogueReader(str(causal_folder / "llama"), max_tokens=0)


@pytest.mark.parametrize(
    ("template", "chat", "content"),
    [
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}", turns(" a]", "[", ""), [" a]", "[", ""]),
        ("{% for m in messages %}{{ m.content.strip() }}\n{% endfor %}", turns("a\n", "b"), ["a", "b"]),
        ("{% for m in messages %}{{ m.content.split('>')[-1] }}|{% endfor %}", turns("x>y", "z"), ["y", "z"]),
        ("{% for m in messages if m.role != 'user' %}<{{ m.content }}>{% endfor %}", turns("a", "b"), ["b"]),
        ("{% for m in messages|reverse %}<{{ m.content }}>{% endfor %}", turns("a", "b"), ["b", "a"]),
        ("{{ messages[0].content }}", turns("a", "b"), ["a"]),
    ],
)
def test_the_words_of_turns_are_found_in_what_was_written(template, chat, content, causal_folder):
    tokenizer = AutoTokenizer.from_pretrained(causal_folder / "llama")
    rendered = ChatTemplate("m", tokenizer, template).render(chat)
    assert [rendered.text[first:last] for first, last in rendered.content] == content


@pytest.mark.parametrize(
    ("template", "error", "said"),
    [
        ("{% for %}", ConfigError, "the chat template is not Jinja: line 1"),
        ("{{ raise_exception('no such role') }}", SourceError, "that the chat template refuses \\(no such role\\)"),
        ("nothing", SourceError, "that the chat template leaves out"),
        ("{{ messages[0].content | length }}<{{ messages[1].content }}>", SourceError, "leaves out"),
        ("<{{ messages[0].content }}{% if messages[0].content == 'a' %}!{% endif %}>", SourceError, None),
    ],
)
def test_templates_that_cannot_be_used(template, error, said, causal_folder):
    tokenizer = AutoTokenizer.from_pretrained(causal_folder / "llama")
    written = ChatTemplate("m", tokenizer, template)
    if said is None:
        assert written.render(turns("a")).text == "<a!>"  # what it adds is taken for the turn's
        return
    with pytest.raises(error, match=said):
        written.render(turns("a", "b"))


def test_packed_documents_must_not_see_each_other(models_folder):
    bert = DialogueReader(str(models_folder / "bert"), dtype="float32")
    tokens = bert.tokenize([bert.render(text) for text in ("one two", "the fox")])
    with pytest.raises(ConfigError, match="packed documents see each other; use pack 'none'"):
        bert.states(tokens, np.array([0, len(tokens)]), apart=True)


def test_models_that_see_a_window_or_have_no_positions(causal_folder, tmp_path):
    """Packed, the first is as if alone, documents longer than its window included; the other is found out."""
    tokenizer = AutoTokenizer.from_pretrained(causal_folder / "llama")
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    mistral = MistralConfig(
        **size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        sliding_window=8,
        max_position_embeddings=160,
    )
    made = {
        "window": MistralModel(mistral),
        "alibi": BloomModel(BloomConfig(**size, hidden_size=32, n_layer=2, n_head=4)),
    }
    for name, network in made.items():
        network.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    reader = DialogueReader(str(tmp_path / "window"), dtype="float32")
    tokens = reader.tokenize([reader.render(chat) for chat in (CHAT, turns("a"), CHAT[1:])])
    packed, alone = reader.states(tokens, tokens.offsets[[0, -1]], apart=True), reader.states(tokens, tokens.offsets)
    assert (alone - packed).abs().max() <= 1e-5
    assert np.diff(tokens.offsets).max() > 16
    with pytest.raises(ConfigError, match="packed documents see each other"):
        DialogueReader(str(tmp_path / "alibi"), dtype="float32").require_isolation()


def test_states_that_are_not_finite_name_their_document(causal_folder):
    reader = DialogueReader(str(causal_folder / "gpt2"), layer=1, dtype="float32")
    reader._runs.module.wte.weight[reader._runs.tokenizer.convert_tokens_to_ids("X")] = torch.nan
    with pytest.raises(StatesError, match="text 1 "):
        reader.read(["a", "bX", "c"])
