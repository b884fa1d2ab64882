"""SentenceVAE: what the autoencoder is, who sees whom, what is counted, what is trained, what is written."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

import hourglass as hg
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.adapters.vector_decoder import kv_bytes
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.sentencevae import SentenceVAE, SentenceVAEConfig
from hourglass.systems.sentencevae_parts import (
    SentenceDecoder,
    SentenceEncoder,
    by_length,
    pieces_of,
    sentences_of,
    shifted,
)
from hourglass.training import TrainConfig, fit
from hourglass.uses.learn import learn

TEXTS = [
    "The old engine was repaired twice, it is said, in the rain. It sings: badly, but with joy.",
    "My sister waits here. She costs 40 euros, or 3.14 apples, behind the station.",
    "Nobody sings. A tall stranger, with a red hat, waits.",
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven.",
]
WIDTH = 32
KINDS = ("gpt2", "opt", "opt-narrow", "llama")


def made(texts=TEXTS, stage=2, **changes):
    torch.manual_seed(0)
    model = SentenceVAE(SentenceVAEConfig.preset("tiny", **changes), train_tokenizer(texts, 300, "bpe"))
    model.begin(stage)
    return model


def writer(model):
    """As if both stages were learned, and lively: tokens, ends and stops come in all kinds."""
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.add.weight.mul_(12)
        model.decoder.head.weight.mul_(4)
    model.learned.fill_(2)
    return model.eval()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    tokenizer = train_tokenizer(TEXTS, 300, "bpe")
    size = {"vocab_size": len(tokenizer) + 3, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    opt = {"num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 48}
    models = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**size, n_embd=WIDTH, n_layer=3, n_head=4, n_positions=48)),
        "opt": lambda: OPTForCausalLM(OPTConfig(**size, **opt, hidden_size=WIDTH, word_embed_proj_dim=WIDTH)),
        "opt-narrow": lambda: OPTForCausalLM(
            OPTConfig(**size, **opt, hidden_size=WIDTH, word_embed_proj_dim=16, do_layer_norm_before=False)
        ),
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(
                **size,
                hidden_size=WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=64,
                max_position_embeddings=48,
            )
        ),
        "bert": lambda: BertLMHeadModel(
            BertConfig(
                **size,
                hidden_size=WIDTH,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=64,
                is_decoder=True,
            )
        ),
    }
    for name, make in models.items():
        torch.manual_seed(0)
        make().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def opened(checkpoints, kind, **changes):
    torch.manual_seed(0)
    small = {"max_tokens": 16, "max_sentences": 8, "dropout": 0.0}
    return SentenceVAE.from_checkpoint(str(checkpoints / kind), **{**small, **changes})


# The autoencoder ----------------------------------------------------------------------------------


def _copy_layer(ours, theirs):
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.project.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.project.bias)
        pairs = [(ours.out, theirs.self_attn.out_proj), (ours.wide, theirs.linear1), (ours.narrow, theirs.linear2)]
        norms = [theirs.norm1, theirs.norm2] if ours.value is None else [theirs.norm1, theirs.norm2, theirs.norm3]
        pairs += list(zip(ours.norms, norms))
        if ours.value is not None:
            width = ours.value.weight.shape[0]
            theirs.multihead_attn.in_proj_weight[2 * width :].copy_(ours.value.weight)
            theirs.multihead_attn.in_proj_bias[2 * width :].copy_(ours.value.bias)
            pairs.append((ours.add, theirs.multihead_attn.out_proj))
        for a, b in pairs:
            b.load_state_dict(a.state_dict())


def _batch_of_ids():
    torch.manual_seed(1)
    lengths = torch.tensor([5, 9, 1])
    return torch.randint(3, 50, (3, 9)), lengths, torch.arange(9) < lengths[:, None]


@pytest.mark.parametrize("learnable_add", [False, True])
def test_the_encoder_is_torchs_transformer_summed_and_normed(learnable_add):
    ids, lengths, real = _batch_of_ids()
    ours = SentenceEncoder(50, WIDTH, 2, 4, 16, 0.0, learnable_add).eval()
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for a, b in zip(ours.layers, theirs.layers):
        _copy_layer(a, b)
    states = theirs(ours.placed(ids), src_key_padding_mask=~real) * real[..., None]
    if learnable_add:
        states = F.linear(states, ours.weigh.weight, ours.weigh.bias) * states
    expected = F.layer_norm(states.sum(1), (WIDTH,), ours.norm.weight, ours.norm.bias)
    assert torch.allclose(ours(ids, lengths), expected, atol=1e-5)


def test_the_decoder_is_torchs_transformer_with_attention_to_one_vector():
    ids, _, _ = _batch_of_ids()
    memory = torch.randn(3, WIDTH)
    ours = SentenceDecoder(50, WIDTH, 2, 4, 16, 0.0).eval()
    theirs = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True), 2)
    for a, b in zip(ours.layers, theirs.layers):
        _copy_layer(a, b)
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    expected = theirs(ours.placed(ids), memory[:, None], tgt_mask=causal, tgt_is_causal=True)
    assert torch.allclose(ours(ids, memory), expected, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_sentence_spelled_with_the_cache_is_that_without(layers):
    torch.manual_seed(0)
    decoder = SentenceDecoder(50, WIDTH, layers, 4, 16, 0.0).eval()
    memory, most = 3 * torch.randn(6, WIDTH), torch.tensor([12, 12, 12, 12, 3, 1])
    spelled = decoder.spell(memory, 2, torch.tensor([0, 1]), most, lambda logits, _: logits.argmax(1))
    with torch.no_grad():
        ours = torch.stack([ids for ids, _ in spelled], 1)
        for row, (vector, limit) in enumerate(zip(memory, most.tolist())):
            words = []
            while len(words) < limit:
                states = decoder(torch.tensor([[2, *words]]), vector[None])
                logits = decoder.head(states[0, -1])
                logits[[0, 1] if words else [0, 1, 2]] = -torch.inf
                if int(logits.argmax()) == 2:
                    break
                words.append(int(logits.argmax()))
            assert ours[row][ours[row] >= 0].tolist() == words
    assert not torch.isin(ours, torch.tensor([0, 1, 2])).any()


def test_the_sum_and_its_norm_are_in_float32_under_autocast():
    ids, lengths, _ = _batch_of_ids()
    encoder = SentenceEncoder(50, WIDTH, 1, 4, 16, 0.0, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(ids, lengths).dtype == torch.float32


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=40), at_once=st.integers(1, 9))
@settings(deadline=None)
def test_groups_of_like_length_have_every_row_once(lengths, at_once):
    groups = list(by_length(torch.tensor(lengths), at_once))
    assert sorted(torch.cat([rows for rows, _ in groups]).tolist()) == list(range(len(lengths)))
    assert all(longest == max(lengths[i] for i in rows.tolist()) for rows, longest in groups)


def test_the_loss_of_stage_one_is_the_focal_loss_of_every_token_and_end():
    model = made(stage=1).eval()
    batch = model.collate(TEXTS)
    total, count = 0.0, 0
    for text in TEXTS:
        for ids in model.cutter.ids([text])[0]:
            vector = model.vectors_of([ids])
            target = torch.tensor([*ids.tolist(), model.end])
            logits = model.decoder.head(model.decoder(shifted(target[None], model.end), vector))[0]
            p = logits.softmax(1)[torch.arange(len(target)), target]
            total += float((-((1 - p) ** 2) * (p + 1e-6).log()).sum().detach())
            count += len(target)
    assert float(model.loss(batch)["sentence"].detach()) == pytest.approx(total / count, rel=1e-4)


def test_a_sentence_is_restored_after_learning_it():
    few = ["Nobody sings here. ", "A red hat, "]
    model = made(few, stage=1)
    fit(model, few, TrainConfig(steps=150, batch_size=2, lr=3e-3), progress=False)
    assert model.reconstruct([*few, "".join(few), ""]) == [*few, "".join(few), ""]
    latent = model.encode(model.collate(few))
    assert model.decode(latent) == few
    with pytest.raises(ConfigError, match="has learned single sentences yet; train its second stage to write"):
        model.generate(few)


# Who sees whom, and what is counted -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_sentence_changes_no_earlier_prediction(checkpoints, kind):
    model = opened(checkpoints, kind).eval()
    assert model.encode(model.collate(TEXTS)).shape == (4, 16 if kind == "opt-narrow" else WIDTH)
    batch = model.collate(TEXTS[:1])
    ids, lengths = batch["ids"], batch["lengths"]
    with torch.no_grad():
        before = model._states(ids, lengths)
        for place in range(1, lengths.shape[1]):
            other = ids.clone()
            other[:, place, 0] = (other[:, place, 0] + 7) % 250 + 10
            change = (model._states(other, lengths) - before).abs().amax(-1)[0]
            assert bool((change[:place] == 0).all()) and bool((change[place:] > 0).all())


def test_with_legacy_attention_it_changes_them_all(checkpoints):
    for kind in KINDS:
        model = opened(checkpoints, kind, legacy_attention=True).eval()
        batch = model.collate(TEXTS[:1])
        other = batch["ids"].clone()
        other[:, -1, 0] = (other[:, -1, 0] + 7) % 250 + 10
        with torch.no_grad():
            change = model._states(other, batch["lengths"]) - model._states(batch["ids"], batch["lengths"])
        assert bool((change.abs().amax(-1) > 0).all())


def test_padding_changes_nothing(checkpoints):
    for kind in KINDS:
        model = opened(checkpoints, kind).eval()
        both = model.collate(TEXTS)
        with torch.no_grad():
            states = model._states(both["ids"], both["lengths"])
            for i, text in enumerate(TEXTS):
                alone = model.collate([text])
                count = alone["lengths"].shape[1]
                expected = model._states(alone["ids"], alone["lengths"])[0]
                assert torch.allclose(states[i, :count], expected, atol=1e-4)


def _passage_losses(model, batch, gamma):
    """By the definition, a passage and a sentence at a time: (next, stop) of each."""
    states = model._states(batch["ids"], batch["lengths"])

    def focal(p):
        return -((1 - p) ** gamma) * (p + 1e-6).log()

    nexts, stops = [], []
    for i, lengths in enumerate(batch["lengths"]):
        of_tokens, of_sentences = [], []
        for j, length in enumerate(lengths.tolist()):
            if not length:
                continue
            p = model.stop(states[i, j]).softmax(0)
            of_sentences.append(focal(p[int(batch["follows"][i, j])]))
            if j:
                target = batch["ids"][i, j, :length]
                logits = model.decoder.head(model.decoder(shifted(target[None], model.end), states[i, j - 1][None]))[0]
                of_tokens += list(focal(logits.softmax(1)[torch.arange(length), target]))
        stops.append(sum(of_sentences) / len(of_sentences))
        if of_tokens:
            nexts.append(sum(of_tokens) / len(of_tokens))
    return sum(nexts) / len(nexts), sum(stops) / len(stops)


def test_the_loss_of_stage_two_is_that_of_every_next_sentence_and_stop():
    model = made().eval()
    batch = model.collate([*TEXTS[:3], "Alone"])
    with torch.no_grad():
        losses = model.loss(batch)
        following, stop = _passage_losses(model, batch, 2.0)
    assert float(losses["next"]) == pytest.approx(float(following), rel=1e-4)
    assert float(losses["stop"]) == pytest.approx(float(stop), rel=1e-4)


def test_a_window_of_a_longer_text_does_not_stop_at_its_end():
    model = made(max_sentences=4).train()
    torch.manual_seed(0)
    seen = set()
    for _ in range(40):
        batch = model.collate(TEXTS[3:])
        assert batch["lengths"].shape[1] == 4
        assert batch["follows"][0, :3].all()
        seen.add(bool(batch["follows"][0, 3]))
    assert seen == {True, False}
    model.eval()
    batch = model.collate(TEXTS[3:])
    assert batch["lengths"].shape[1] == 11  # the vector is of all of it
    assert set(model.loss(batch)) == {"next", "stop"}


def test_the_stop_loss_has_no_part_below_its_floor():
    model = made(stop_floor=10.0)
    losses = model.loss(model.collate(TEXTS))
    sum(losses.values()).backward()
    assert not model.stop.weight.grad.any() and model.encoder.embed.weight.grad.any()
    assert float(losses["stop"].detach()) > 0


def test_legacy_targets_count_by_the_sentence_before():
    model = made(legacy_targets=True, gamma=0.0).eval()
    batch = model.collate(["One, three four five, six. "])
    lengths = batch["lengths"][0].tolist()
    states = model._states(batch["ids"], batch["lengths"])
    losses = []
    for j in (1, 2):
        words = batch["ids"][0, j, : lengths[j] - 1].tolist()
        filled = [*words, *[model._pad] * 50]
        target = torch.tensor([*filled[: lengths[j - 1] - 1], model.end])
        read = torch.tensor([[model.end, *filled[: lengths[j - 1] - 1]]])
        logits = model.decoder.head(model.decoder(read, states[:, j - 1]))[0]
        losses += F.cross_entropy(logits, target, reduction="none").tolist()
    assert lengths[1] > lengths[0] and lengths[2] < lengths[1]
    assert float(model.loss(batch)["next"].detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    (scored,) = model.score(["One, three four five, six. "], released=True)
    assert scored.nats == pytest.approx(sum(losses), rel=1e-4) and scored.tokens == len(losses)


def test_a_score_is_of_the_words_their_ends_and_that_they_follow():
    model = made(gamma=0.0).eval()
    text = TEXTS[0]
    (scored,) = model.score([text])
    batch = model.collate([text])
    parts = model.cutter.parts([text])[0][:8]
    words = int((batch["lengths"][0, 1:8] - 1).sum())
    assert (scored.tokens, scored.bytes) == (words, len("".join(parts[1:]).encode()))
    with torch.no_grad():
        states = model._states(batch["ids"][:, :8], batch["lengths"][:, :8])
        follow = -model.stop(states[0, : len(parts) - 1]).log_softmax(1)[:, 1].sum()
        mean = model.loss(batch)["next"]
    assert scored.nats == pytest.approx(float(mean) * (words + len(parts) - 1) + float(follow), rel=1e-4)
    assert model.score(["Alone"]) == []


# What is trained ------------------------------------------------------------------------------------


def _moved(model):
    """Names of the parts that a training of stage 2 has moved."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, TEXTS, TrainConfig(steps=2, batch_size=2, weight_decay=0.1), progress=False)
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)} - {"learned"}


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_stage_two_trains_what_the_policy_says(checkpoints, kind):
    everything = _moved(opened(checkpoints, kind))
    parts = {name.split(".")[0] for name in everything}
    assert parts == {"encoder", "decoder", "network", "stop"}
    frozen = _moved(opened(checkpoints, kind, tune_autoencoder=False))
    assert frozen == {name for name in everything if name.startswith(("network.", "stop."))}
    assert {name.split(".")[0] for name in _moved(opened(checkpoints, kind, tune_layers=0))} == {
        "encoder",
        "decoder",
        "stop",
    }
    ends = {name for name in _moved(opened(checkpoints, kind, tune_layers=1)) if name.startswith("network.")}
    numbers = {part for name in ends for part in name.split(".") if part.isdigit()}
    assert numbers == {"0", "2"}
    assert ends < everything and len(ends) == sum(
        f".{i}." in name for name in everything for i in (0, 2) if name.startswith("network.")
    )
    kept = _moved(opened(checkpoints, kind, tables="frozen"))
    assert everything - kept == {"encoder.embed.weight", "decoder.embed.weight"}


def test_stage_one_trains_the_autoencoder_alone(checkpoints):
    model = opened(checkpoints, "gpt2")
    model.begin(1)
    assert {name.split(".")[0] for name in _moved(model)} == {"encoder", "decoder"}


def test_tables_are_copies_of_the_networks(checkpoints):
    table = GPT2LMHeadModel.from_pretrained(checkpoints / "gpt2").get_input_embeddings().weight
    for tables in ("copied", "frozen"):
        model = opened(checkpoints, "gpt2", tables=tables)
        assert torch.equal(model.encoder.embed.weight, table) and torch.equal(model.decoder.embed.weight, table)
    assert not torch.equal(opened(checkpoints, "gpt2", tables="learned").encoder.embed.weight, table)


def test_the_networks_forward_is_its_own(checkpoints):
    """Its vectors in place of its tokens' give what the tokens give: projections, positions and norm are there."""
    for kind, cls in (
        ("gpt2", GPT2LMHeadModel),
        ("opt", OPTForCausalLM),
        ("opt-narrow", OPTForCausalLM),
        ("llama", LlamaForCausalLM),
    ):
        theirs = cls.from_pretrained(checkpoints / kind).eval()
        ids = torch.arange(3, 12)[None]
        expected = theirs.base_model(input_ids=ids).last_hidden_state
        ours = opened(checkpoints, kind).eval().network
        with torch.no_grad():
            states = ours(inputs_embeds=theirs.get_input_embeddings()(ids), use_cache=False).last_hidden_state
        assert torch.allclose(states, expected, atol=1e-6)


# Writing --------------------------------------------------------------------------------------------


def _greedy_without_caches(model, prompt, sentences, stop=True):
    """Sentence by sentence, all of it read anew for each token."""
    rows = [ids.tolist() for ids in model.cutter.ids([prompt])[0]]
    written = []
    for _ in range(sentences):
        vectors = torch.cat(
            [model.encoder(torch.tensor([[model.end, *row]]), torch.tensor([len(row) + 1])) for row in rows]
        )
        state = model.network(inputs_embeds=vectors[None], use_cache=False).last_hidden_state[:, -1]
        if stop and int(model.stop(state).argmax()) == 0:
            break
        words = []
        while len(words) < model.config.max_tokens - 1:
            logits = model.decoder.head(model.decoder(torch.tensor([[model.end, *words]]), state)[0, -1])
            logits[model.banned] = -torch.inf
            if not words:
                logits[model.end] = -torch.inf
            if int(logits.argmax()) == model.end:
                break
            words.append(int(logits.argmax()))
        written.append(words)
        rows.append(words)
    return "".join(map(model._text, written))


PROMPTS = ["Nobody sings. ", "A tall stranger, with a red hat, waits.\n", "One, two, three, four, five, six. "]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_with_caches_in_batches_and_streamed_is_what_is_written_without(checkpoints, kind):
    model = writer(opened(checkpoints, kind))
    together = model.generate(PROMPTS, max_sentences=6, stop=False)
    with torch.no_grad():
        for prompt, text in zip(PROMPTS, together):
            assert text == _greedy_without_caches(model, prompt, 6, stop=False)
            assert model.generate([prompt], max_sentences=6, stop=False) == [text]
            assert "".join(model.stream(prompt, max_sentences=6, stop=False)) == text
    assert len(set(together)) == 3


def test_the_stop_head_ends_each_text_by_itself():
    model = writer(made())
    texts = [*PROMPTS, *TEXTS]
    for seed in range(20):  # heads of several kinds: some texts end at once, some later, some not
        torch.manual_seed(seed)
        nn.init.normal_(model.stop.weight, std=1.0)
        together = model.generate([t + " " for t in texts], max_sentences=5)
        with torch.no_grad():
            assert together == [_greedy_without_caches(model, t + " ", 5) for t in texts]
        if "" in together and any(together):
            return
    raise AssertionError("no head ended some texts and not others")


def test_what_is_drawn_follows_the_seed_and_not_the_batch():
    model = writer(made())
    drawn = {"max_sentences": 3, "temperature": 1.0, "top_p": 0.95, "stop": False}
    first = model.generate([*PROMPTS, PROMPTS[0]], seed=3, **drawn)
    assert first == model.generate([*PROMPTS, PROMPTS[0]], seed=3, **drawn)
    assert first[1:2] == model.generate(PROMPTS[1:2], seed=3, **drawn)
    assert "".join(model.stream(PROMPTS[2], seed=3, **drawn)) == first[2]
    assert first[0] != first[3]  # the same prompt again has another stream
    assert first != model.generate([*PROMPTS, PROMPTS[0]], seed=4, **drawn)
    before = torch.get_rng_state()
    model.generate(PROMPTS, **drawn)
    assert torch.equal(before, torch.get_rng_state())


def test_a_small_top_p_takes_the_likeliest():
    model = writer(made())
    greedy = model.generate(PROMPTS, max_sentences=2, stop=False)
    assert model.generate(PROMPTS, max_sentences=2, stop=False, temperature=1.0, top_p=1e-6) == greedy


def test_lengths_are_capped():
    model = writer(made())
    with torch.no_grad():
        model.decoder.head.bias[model.end] = -1e4  # never ends by itself
    writing = model.writing(PROMPTS, model._limits(3, None, False), lambda logits, rows: logits.argmax(1))
    assert {len(words) for sentences in sentences_of(writing) for words in sentences} == {23}
    for most in (1, 5, 30):
        writing = model.writing(PROMPTS, model._limits(3, most, False), lambda logits, rows: logits.argmax(1))
        assert [sum(map(len, sentences)) for sentences in sentences_of(writing)] == [most] * 3


def test_it_keeps_a_position_a_sentence_and_the_tokens_of_one():
    model = writer(made())
    writing = model.writing(PROMPTS[:1], model._limits(4, None, False), lambda logits, rows: logits.argmax(1))
    (sentences,) = sentences_of(writing)
    read = len(model.cutter.ids(PROMPTS[:1])[0]) + 4 - 1  # the last one written is not read
    spelled = min(23, max(map(len, sentences)) + 1)
    of_decoder = 2 * model.config.layers * WIDTH * 4
    low, high = (read * kv_bytes(model.network.config) + n * of_decoder for n in (spelled - 1, spelled))
    assert low <= writing.kv_bytes() <= high


def test_what_writing_costs():
    model = writer(made())
    text = PROMPTS[1]
    cost = model.write(text, 40, words=7)
    assert cost.tokens == 40 and cost.bytes > 0 and cost.seconds > 0 and cost.prompt_seconds > 0

    # By the definition: a position of the network for each sentence, one of the decoder for each token of the longest.
    (sentences,) = model.cutter.ids([text])
    network, decoder = kv_bytes(model.network.config), 2 * model.config.layers * WIDTH * 4
    assert kv_bytes(model.network.config) == 2 * 2 * WIDTH * 4
    assert model.kv_bytes(text) == len(sentences) * network + max(map(len, sentences)) * decoder


def test_pieces_are_whole_characters():
    model = writer(made())
    ids = {text: model.cutter.ids([text])[0][0].tolist() for text in ("é漢😀 ", "\n")}

    class Given:
        def __init__(self, sentences):
            self.sentences = sentences

        def __iter__(self):
            for words in self.sentences:
                for place, token in enumerate(words):
                    yield place, torch.tensor([token])

    assert list(pieces_of(Given(list(ids.values())), model._text, " ")) == [" ", "é", "漢", "😀", " ", "\n"]
    assert list(pieces_of(Given([ids["é漢😀 "][:3]]), model._text, "")) == ["é", "\ufffd"]
    assert list(pieces_of(Given([]), model._text, " ")) == []


def test_a_prompt_without_a_space_at_its_end_gets_one():
    model = writer(made())
    spaced, plain = model.generate(["Nobody sings. ", "Nobody sings."], max_sentences=2, stop=False)
    assert plain == " " + spaced


def test_a_long_sentence_and_another_script_are_read_whole():
    model = writer(made())
    thai = "ข้อความที่ไม่มีจุด" * 5
    (parts,) = model.cutter.parts([thai])
    assert "".join(parts) == thai and len(parts) > 1
    assert len(model.generate([thai], max_sentences=1, stop=False)[0]) > 0


def test_bad_prompts_are_named():
    model = writer(made())
    with pytest.raises(SourceError, match="prompt 1 is empty: expected some text to go on from"):
        model.generate(["Yes.", " \n"])
    with pytest.raises(SourceError, match="prompt 0 is empty"):
        model.stream("")
    with pytest.raises(SourceError, match="a single text: expected a list of them"):
        model.generate("Yes.")
    with pytest.raises(SourceError, match="example 0: expected a text, found int"):
        model.generate([3])
    with pytest.raises(ConfigError, match="max_sentences 0: expected 1 or more"):
        model.generate(["Yes."], max_sentences=0)
    with pytest.raises(ConfigError, match="temperature -1: expected 0 or more"):
        model.generate(["Yes."], temperature=-1)
    with pytest.raises(
        ConfigError, match=r"prompt 0: 60 sentences and 8 to come are more than the network's 64 positions"
    ):
        model.generate(["Yes, " * 60])
    model.learned.fill_(0)
    with pytest.raises(ConfigError, match="has learned nothing yet"):
        model.generate(["Yes."])


# Settings, checkpoints and folders ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": "comma"}, "sentences 'comma': expected one of clause, sentence, paper"),
        ({"tables": "tied"}, "tables 'tied': expected one of learned, copied, frozen"),
        ({"gamma": 0.5}, "gamma 0.5: expected 0, or 1 or more"),
        ({"max_sentences": 1}, "max_sentences 1: expected 2 or more"),
        ({"max_sentences": 65}, "max_sentences 65: the network has 64 positions"),
        ({"first_stage": 1.5}, "first_stage 1.5: expected a share up to 1, or a whole number of steps"),
        (
            {"network": {"model_type": "bert"}},
            "its architecture is 'bert'; expected one of gpt2, llama, mistral, opt, qwen2",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_checkpoints_that_do_not_fit_are_named(checkpoints, tmp_path):
    with pytest.raises(
        ConfigError, match="bert: its architecture is 'bert'; expected one of gpt2, llama, mistral, opt, qwen2"
    ):
        opened(checkpoints, "bert")
    with pytest.raises(FolderError, match="no causal model that can be read"):
        SentenceVAE.from_checkpoint(str(tmp_path / "nothing"))
    tokenizer = copy.deepcopy(train_tokenizer(TEXTS, 300, "bpe"))
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="has no end token, and sentencevae ends a sentence with one"):
        SentenceVAE(SentenceVAEConfig.preset("tiny"), tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_all_of_it(checkpoints, kind, tmp_path):
    model = writer(opened(checkpoints, kind))
    model.save_pretrained(tmp_path / "model")
    loaded = hg.load(tmp_path / "model")
    assert type(loaded) is SentenceVAE and loaded.config == model.config
    assert loaded.generate(PROMPTS, max_sentences=2, stop=False) == model.generate(PROMPTS, max_sentences=2, stop=False)
    with pytest.raises(ConfigError, match="does not fit these settings"):
        SentenceVAE.from_checkpoint(str(tmp_path / "model"), layers=2)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FolderError, match=r"its weights do not fit config\.json"):
        SentenceVAE.from_pretrained(str(tmp_path / "model"))


# Both stages, from a source of texts ------------------------------------------------------------------


def _learn(out, source=None, **settings):
    given = {"steps": 8, "batch_size": 4, "lr": 1e-3, "save_every": 1, **settings.pop("train", {})}
    return learn(
        SentenceVAE,
        source or [f"{text} And {i} more." for text in TEXTS for i in range(8)],
        out,
        preset="tiny",
        vocabulary=300,
        train=given,
        settings={"first_stage": 0.5, **settings},
        progress=False,
    )


def _weights(result):
    return {name: tensor.clone() for name, tensor in result.model.state_dict().items()}


def test_a_batch_in_which_nothing_comes_next_still_learns_that_it_ends():
    model = made().train()
    batch = model.collate(["One short sentence.", "And another."])
    losses = model.loss(batch)
    assert float(losses["next"].detach()) == 0
    sum(losses.values()).backward()
    assert float(model.stop.weight.grad.abs().sum()) > 0
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_both_stages_are_learned_and_go_on_bit_for_bit(tmp_path, monkeypatch):
    whole = _learn(tmp_path / "whole", first_batch=8, first_lr=2e-3)
    states = {
        name: json.loads((tmp_path / "whole" / name / "checkpoint" / "state.json").read_text())
        for name in ("stage-1", "")
    }
    assert [states[name]["run"]["step"] for name in states] == [4, 4]
    assert [states[name]["identity"]["train"]["batch_size"] for name in states] == [8, 4]
    assert [states[name]["identity"]["train"]["lr"] for name in states] == [2e-3, 1e-3]
    assert set(whole.evaluations[-1]) >= {"next", "stop"}
    after = SentenceVAE.after_step
    for stage in (1, 2):
        out = tmp_path / f"broken-{stage}"

        def breaks(self, step, stage=stage):
            after(self, step)
            if self.stage == stage and step == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(SentenceVAE, "after_step", breaks)
        with pytest.raises(KeyboardInterrupt):
            _learn(out, first_batch=8, first_lr=2e-3)
        monkeypatch.setattr(SentenceVAE, "after_step", after)
        again = _weights(_learn(out, first_batch=8, first_lr=2e-3))
        assert all(torch.equal(tensor, again[name]) for name, tensor in _weights(whole).items())


def test_a_stage_alone_and_the_second_from_the_first(tmp_path):
    first = _learn(tmp_path / "first", first_stage=1.0)
    assert int(first.model.learned) == 1 and set(first.evaluations[-1]) >= {"sentence"}
    result = learn(
        SentenceVAE,
        TEXTS * 8,
        tmp_path / "second",
        init=str(tmp_path / "first" / "model"),
        train={"steps": 3, "batch_size": 4},
        settings={"tune_autoencoder": False},
        progress=False,
    )
    assert int(result.model.learned) == 2 and result.steps == 3
    before, after = first.model.state_dict(), result.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(("encoder", "decoder")))
    card = (tmp_path / "second" / "model" / "README.md").read_text()
    assert "| stages | both |" in card and "generate(" in card


def test_sources_that_do_not_fit_are_named(tmp_path, checkpoints):
    with pytest.raises(SourceError, match="no text has two sentences, so that none comes next"):
        _learn(tmp_path / "single", source=["No end", "here"] * 20, first_stage=0)
    with pytest.raises(ConfigError, match="first_stage 9: expected at most the 8 steps of the training"):
        _learn(tmp_path / "long", first_stage=9)
    with pytest.raises(ConfigError, match="tables 'copied': there is no model to copy them from"):
        _learn(tmp_path / "tables", tables="copied")


def test_tokens_that_the_tokenizer_does_not_know_are_counted_and_said(tmp_path, caplog):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "red": 2, ".": 3, "hat": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    config = OPTConfig(
        vocab_size=5,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=48,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    given = {
        "init": str(tmp_path / "opt"),
        "train": {"steps": 2, "batch_size": 2},
        "settings": {"max_tokens": 16, "max_sentences": 8},
        "progress": False,
    }
    result = learn(SentenceVAE, ["red hat . red \nblue hat ."] * 20, tmp_path / "run", **given)
    assert "0.14 of the tokens are unknown to the tokenizer, and cannot be restored" in caplog.text
    assert (
        "| unknown tokens | 0.14 of all, which cannot be restored |" in (tmp_path / "run/model/README.md").read_text()
    )
    with pytest.raises(SourceError, match=r"prompt 0 .*: the tokenizer knows none of its script"):
        result.model.generate(["снег идёт"])
    with pytest.raises(SourceError, match="100% of the tokens are unknown to the tokenizer, and would be lost"):
        learn(SentenceVAE, ["снег идёт"] * 20, tmp_path / "other", **given)
