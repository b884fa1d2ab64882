"""Steering against hand-made forward passes; with the cache, padded, in half precision; and never a hook left behind."""

import re

import pandas as pd
import pytest
import torch

from causal_models import BLOCKS, WIDTH, orthonormal_sae, random_sae
from hourglass.adapters import causal
from hourglass.adapters.causal import CausalModel
from hourglass.adapters.dialogues import TokenRows
from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.errors import ConfigError, InputError
from hourglass.uses.steer import add, clamp, feature_number, features_of_token, generate, remove, steering
from hourglass.uses.steer.edits import Change
from hourglass.uses.steer.logits import logit_effect

PROMPTS = ["one two", "a longer prompt, which is not padded", "x"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def writer(request, causal_folder):
    return CausalModel(str(causal_folder / request.param), dtype="float32")


@pytest.fixture
def tokens():
    return torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(0))


def by_hand(model, hidden, layer):
    """Logits from the states after `layer` blocks."""
    if hasattr(model, "transformer"):
        blocks, norm, positions = model.transformer.h, model.transformer.ln_f, {}
    else:
        blocks, norm = model.model.layers, model.model.norm
        number = torch.arange(hidden.shape[1])[None]
        positions = {"position_embeddings": model.model.rotary_emb(hidden, number), "position_ids": number}
    for block in blocks[layer:]:
        out = block(hidden, **positions)
        hidden = out if isinstance(out, torch.Tensor) else out[0]
    return model.lm_head(norm(hidden))


def place(model, layer):
    """The module whose output is the state after `layer` blocks."""
    if hasattr(model, "transformer"):
        return model.transformer.h[layer - 1] if layer else model.transformer.drop
    return model.model.layers[layer - 1] if layer else model.model.embed_tokens


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("layer", [0, 1, BLOCKS - 1, BLOCKS, -2])
@torch.no_grad()
def test_adding_is_what_it_is_by_hand(writer, tokens, layer):
    sae, model = random_sae(), writer.network
    number = BLOCKS + 1 + layer if layer < 0 else layer
    states = []
    handle = place(model, number).register_forward_hook(
        lambda module, arguments, output: states.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    plain = model(tokens).logits
    handle.remove()
    torch.testing.assert_close(plain, by_hand(model, states[0], number))
    with steering(model, layer, sae, [add(5, 3.0), add(9, -1.5)]):
        steered = model(tokens).logits
    expected = by_hand(model, states[0] + 3.0 * sae.W_dec[5] - 1.5 * sae.W_dec[9], number)
    torch.testing.assert_close(steered, expected)
    assert (steered - plain).abs().max() > 0.1


@torch.no_grad()
def test_a_layer_is_the_one_that_the_reader_reads(writer):
    text, states = "one two three", []
    handle = place(writer.network, 2).register_forward_hook(
        lambda module, arguments, output: states.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    writer.network(**writer.batches([text])[0])
    handle.remove()
    read = HuggingFaceReader(writer.name, layer=2, dtype="float32").read([text])
    torch.testing.assert_close(states[0][0, 1:], read.states, atol=1e-5, rtol=1e-4)


def test_no_hook_is_left_behind_even_after_an_error(writer, tokens):
    model, before = writer.network, hooks(writer.network)
    with pytest.raises(ZeroDivisionError), steering(model, 2, random_sae(), [clamp(1, 2.0)], after=3):
        assert hooks(model) == before + 2
        1 / 0  # noqa: B018
    assert hooks(model) == before
    for layer, edits in ((9, [add(1)]), (2, [add(64)])):
        with pytest.raises(ConfigError), steering(model, layer, random_sae(), edits):
            pass
    assert hooks(model) == before


def test_a_clamped_feature_is_what_was_asked():
    sae = orthonormal_sae()
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(3))
    before, after = sae.codes(x).to_dense(), sae.codes(Change(sae, [clamp(4, 6.5), remove(7)])(x)).to_dense()
    assert (before > 0).all()
    torch.testing.assert_close(after[:, 4], torch.full((50,), 6.5), atol=1e-5, rtol=1e-5)
    assert after[:, 7].abs().max() < 1e-5
    others = [i for i in range(WIDTH) if i not in (4, 7)]
    torch.testing.assert_close(after[:, others], before[:, others], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_what_is_not_reconstructed_is_kept(activation):
    sae = random_sae(activation)
    x = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(4))
    codes = sae.codes(x).to_dense()
    feature = int((codes > 0).sum(0).argmax())
    changed = codes.clone()
    changed[:, feature] = 2.0
    expected = x - sae.decode(codes) + sae.decode(changed)
    torch.testing.assert_close(Change(sae, [clamp(feature, 2.0)])(x), expected, atol=1e-4, rtol=1e-4)
    silent = codes[:, feature] == 0
    assert torch.equal(Change(sae, [remove(feature)])(x)[silent], x[silent])


def test_half_precision_is_rounded_once():
    sae = random_sae()
    x = (20 * torch.randn(7, 3, WIDTH)).bfloat16()
    steered = Change(sae, [add(2, 0.7)])(x)
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered, (x.float() + 0.7 * sae.W_dec[2]).bfloat16())
    double = torch.randn(4, WIDTH, dtype=torch.float64)
    assert Change(sae, [clamp(2, 0.7)])(double).dtype == torch.float64


@pytest.mark.parametrize("after", [0, 9])
def test_with_the_cache_as_without(writer, tokens, after):
    model = writer.network
    arguments = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    plain = model.generate(tokens, **arguments)
    with steering(model, 2, random_sae(), [add(3, 6.0), clamp(8, 4.0)], after=after):
        cached = model.generate(tokens, use_cache=True, **arguments)
        whole = model.generate(tokens, use_cache=False, **arguments)
    assert torch.equal(cached, whole)
    assert not torch.equal(cached, plain)
    if after:  # the first token that is written follows from the prompt alone
        assert torch.equal(cached[:, after], plain[:, after])


@torch.no_grad()
def test_only_what_comes_after_the_prompt_is_edited(writer, tokens):
    sae, model = random_sae(), writer.network
    plain = model(tokens).logits
    with steering(model, 2, sae, [add(3, 5.0)], after=6):
        steered = model(tokens).logits
    torch.testing.assert_close(steered[:, :6], plain[:, :6])
    assert (steered[:, 6:] - plain[:, 6:]).abs().amax((0, 2)).min() > 0.01


def test_padding_does_not_matter(writer):
    edits = [add(3, 4.0), clamp(8, 4.0)]
    (batch,) = writer.batches(PROMPTS)
    assert batch["attention_mask"][2].sum() == 2
    with steering(writer.network, 2, random_sae(), edits):
        together = writer.write(batch, max_tokens=10)
        alone = [writer.write(writer.batches([prompt])[0], max_tokens=10) for prompt in PROMPTS]
    assert [text for texts in alone for text in texts] == together


def test_a_table_of_prompts_and_alphas(causal_folder, monkeypatch):
    monkeypatch.setattr(causal, "_PROMPTS_AT_ONCE", 2)
    steered = generate(
        str(causal_folder / "llama"), random_sae(), 2, PROMPTS, [add(3)], alphas=[0.0, 30.0], max_tokens=12
    )
    table = steered.table
    assert table["prompt"].tolist() == [p for p in PROMPTS for _ in range(2)]
    assert table["alpha"].tolist() == [0.0, 30.0] * 3
    nothing, strong = table[table["alpha"] == 0], table[table["alpha"] == 30]
    assert nothing["text"].tolist() == nothing["unsteered"].tolist()
    assert (strong["text"] != strong["unsteered"]).any()
    assert [set(row) for row in steered.to_dict()["rows"]] == [{"prompt", "alpha", "text", "unsteered"}] * 6


def test_drawn_texts_follow_from_the_seed(causal_folder):
    model, sae = str(causal_folder / "gpt2"), random_sae()
    drawn = [
        generate(model, sae, 2, PROMPTS, [add(3, 0.0)], temperature=1.0, seed=seed, max_tokens=12).table
        for seed in (0, 0, 1)
    ]
    assert drawn[0].equals(drawn[1])
    assert not drawn[0].equals(drawn[2])
    assert drawn[0]["text"].tolist() == drawn[0]["unsteered"].tolist()


def test_prompts_as_turns_of_a_user(causal_folder):
    writer = CausalModel(str(causal_folder / "llama"))
    (batch,) = writer.batches(["hi"], chat=True)
    assert writer.tokenizer.decode(batch["input_ids"][0]) == "<s>hi</s><s>"
    table = generate(
        str(causal_folder / "llama"), random_sae(), -1, "hi", [remove(0)], chat=True, tokens="generated", max_tokens=4
    ).table
    assert table["alpha"].isna().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer": None}, "no layer: .* train one on the output of a block .layer 1 to 3"),
        ({"layer": 4}, "layer 4: the model has 3 blocks"),
        ({"layer": -5}, "layer -5: the model has 3 blocks"),
        ({"edits": []}, "no edits"),
        ({"edits": [add(64)]}, "no feature 64; they go from 0 to 63"),
        ({"edits": [add(1), remove(1)]}, "feature 1 is edited 2 times"),
        ({"edits": [clamp(1, float("nan"))]}, "clamp nan is not a number"),
        ({"edits": [remove(1)], "alphas": [1.0]}, "no edit adds"),
        ({"tokens": "generatd"}, "did you mean 'generated'"),
        ({"max_tokens": 0}, "expected at least 1"),
        ({"max_tokens": 1000}, r"takes 160 tokens, and \d+ are the prompt's"),
        ({"chat": True}, "no chat template"),
    ],
)
def test_what_does_not_fit_is_one_line(causal_folder, changes, said):
    arguments = {"layer": 2, "prompts": PROMPTS, "edits": [add(1)], **changes}
    with pytest.raises(InputError, match=said) as error:
        generate(str(causal_folder / "gpt2"), random_sae(), **arguments)
    assert "\n" not in str(error.value)


def test_an_autoencoder_of_another_model_is_refused(writer):
    from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig

    other = SparseAutoencoder(SparseAutoencoderConfig(d_in=16, width=64, k=4))
    with (
        pytest.raises(ConfigError, match=r"states of 16 numbers, those of .* have 32"),
        steering(writer.network, 1, other, [add(1)]),
    ):
        pass


def test_a_feature_by_number_or_name():
    labels = pd.Series(["refunds", None, "late refunds", "Refusals"])
    assert feature_number(1, 4, labels) == 1
    assert feature_number("3", 4) == 3
    assert feature_number("refus", 4, labels) == 3
    assert feature_number("REFUNDS", 4, labels) == 0  # the whole name comes before a part of another
    for asked, known, said in (
        ("refun", labels, "2 features have a name with 'refun'; choose one by number: 0 refunds; 2 late refunds"),
        ("weather", labels, "no feature has a name with 'weather'"),
        ("refus", None, "an autoencoder alone has no names"),
        (4, labels, "no feature 4; they go from 0 to 3"),
        ("-1", labels, "no feature -1"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            feature_number(asked, 4, known)


def test_the_effect_on_logits_is_a_product_with_the_head(writer):
    sae = random_sae()
    effect = logit_effect(writer, sae, 5, top=3)
    logits = writer.network.get_output_embeddings().weight.float() @ sae.W_dec[5].detach()
    logits = logits - logits.mean()
    expected = torch.cat([logits.sort(descending=True).values[:3], logits.sort(descending=True).values[-3:]])
    assert effect["logit"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert effect["token"].iloc[0] == writer.tokenizer.decode([int(logits.argmax())])


def test_the_feature_of_a_token_is_the_one_that_is_most_active_on_it():
    sae = random_sae()
    random = torch.Generator().manual_seed(5)
    lengths = [7, 3, 12, 4, 9]
    states, ids = torch.randn(35, WIDTH, generator=random), torch.randint(0, 4, (35,), generator=random)
    ids[7:10] = 3  # a sample without the token does not count
    dialogue = torch.arange(5).repeat_interleave(torch.tensor(lengths))
    rows = TokenRows(states, dialogue, torch.zeros(35), ids < 2, ids)
    batches = [rows.where(dialogue < 3), rows.where(dialogue >= 3)]
    dense = sae.codes(states).to_dense()
    maxima = [dense[(dialogue == d) & (ids < 2)].amax(0) for d in (0, 2, 3, 4)]
    expected = torch.stack(maxima).mean(0)
    found = features_of_token(sae, batches, {0, 1}, top=4)
    assert found["feature"].tolist() == expected.argsort(descending=True)[:4].tolist()
    assert found["mean_max"].tolist() == pytest.approx(expected.sort(descending=True).values[:4].tolist())
    with pytest.raises(InputError, match="no sample has a token with the number 9"):
        features_of_token(sae, batches, 9)
    number = int(found["feature"][0])
    changed = Change(sae, [add(number, 15.0)])(states)  # what the alphas are of
    torch.testing.assert_close(changed, states + 15.0 * sae.W_dec[number])
