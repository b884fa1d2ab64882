"""The five strongest contexts against a search of all tokens; judges that are told what to say; what goes wrong."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from causal_models import WIDTH, random_sae
from hourglass.adapters.dialogues import DialogueReader, TokenRows
from hourglass.data.dialogues import open_dialogues
from hourglass.data.flows import Flow, read_flow
from hourglass.errors import EndpointError, RefusalError, SourceError
from hourglass.systems.fast_sae import PAPER_ALPHAS
from hourglass.uses.judge import Context, Judgement, asking, judge_features, protocol, question, strongest, tokens_agree
from hourglass.uses.steer import add, features_of_token, generate

SAMPLES = 24


@pytest.fixture(scope="module")
def sae():
    return random_sae(width=48, k=3)


@pytest.fixture(scope="module")
def samples():
    """Each sample is its token numbers and their states."""
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (SAMPLES,), generator=random).tolist()
    return [(torch.randint(0, 9, (n,), generator=random), 2 * torch.randn(n, WIDTH, generator=random)) for n in lengths]


def read(samples):
    lengths = torch.tensor([len(ids) for ids, _ in samples])
    ids = torch.cat([ids for ids, _ in samples])
    return TokenRows(
        states=torch.cat([states for _, states in samples]),
        documents=torch.arange(len(samples)).repeat_interleave(lengths),
        positions=torch.cat([torch.arange(n) for n in lengths.tolist()]),
        special=ids > 7,
        ids=ids,
    )


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(protocol, "_AT_ONCE", 5)


def word(number):
    return f"w{number}"


def test_the_strongest_are_those_that_a_search_finds(sae, samples):
    maxima = torch.stack([sae.codes(states).to_dense().amax(0) for _, states in samples])
    found = strongest(sae, [read(samples)])
    values, where = maxima.sort(dim=0, descending=True, stable=True)
    assert found.samples == SAMPLES
    torch.testing.assert_close(found.values, values[:5])
    assert torch.equal(found.where[found.values > 0], where[:5][values[:5] > 0])
    assert torch.equal(found.live, (maxima > 0).sum(0) >= 5)
    assert 0 < int(found.live.sum()) < 48


def test_the_judge_sees_tokens_and_activations_around_each_peak(sae, samples):
    seen = []

    def judge(contexts):
        seen.append(contexts)
        return Judgement(4, "something")

    judged = judge_features(sae, samples, read, word, judge, features=6)
    best = strongest(sae, [read(samples)])
    assert len(seen) == len(judged.table) == 6
    for feature, contexts in zip(judged.table["feature"], seen, strict=True):
        assert best.live[feature]
        assert [c.sample for c in contexts] == best.where[:, feature].tolist()
        for rank, context in enumerate(contexts):
            ids, states = samples[context.sample]
            values = sae.codes(states).to_dense()[:, feature]
            peak = int(values.argmax())
            near = slice(max(0, peak - 20), peak + 21)
            assert context.tokens == tuple(map(word, ids[near].tolist()))
            assert context.values == pytest.approx(values[near].tolist(), rel=1e-5)
            assert max(context.values) == pytest.approx(float(best.values[rank, feature]), rel=1e-5)
            assert context.peak == word(int(ids[peak]))


def test_shares_follow_from_the_scores_and_the_seed_draws(sae, samples):
    scores = iter([5, 4, 3, 3, 2, 1, 1, 5])
    judged = judge_features(sae, samples, read, word, lambda _: Judgement(next(scores), "x"), features=8)
    assert judged.share == 3 / 8
    assert judged.cdf == {1: 2 / 8, 2: 3 / 8, 3: 5 / 8, 4: 6 / 8, 5: 1}
    said = json.loads(json.dumps(judged.to_dict()))
    assert said["low"] < said["share"] < said["high"]
    assert (said["judged"], said["width"], said["samples"]) == (8, 48, SAMPLES)
    drawn = [
        judge_features(sae, samples, read, word, tokens_agree, features=8, seed=seed).table["feature"].tolist()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(judge_features(sae, samples, read, word, tokens_agree).table) == judged.live


def test_a_language_model_is_asked_in_words_and_understood():
    contexts = [Context(i, ('"', "Bé", "\n"), (0.0, 2.499, 0.0)) for i in range(5)]
    prompts = []

    def ask(prompt):
        prompts.append(prompt)
        return 'Well:\n```json\n{"score": 4, "name": "capital letters"}\n```'

    assert asking(ask)(contexts) == Judgement(4, "capital letters")
    assert prompts == [question(contexts)]
    assert prompts[0].count('[["\\"", 0.0], ["Bé", 2.5], ["\\n", 0.0]]') == 5


@pytest.mark.parametrize("reply", ["I cannot say", '{"score": 9, "name": "x"}', '{"score": 3}', "{3}", "[1]"])
def test_a_reply_without_a_judgement_is_named_and_left_out(sae, samples, reply):
    replies = iter([reply, *['{"score": 5, "name": "x"}'] * 3])
    judged = judge_features(sae, samples, read, word, asking(lambda _: next(replies)), features=4)
    assert len(judged.table) == 3 and judged.share == 1
    assert len(judged.trouble) == 1 and repr(reply)[:20] in judged.trouble[0]
    with pytest.raises(SourceError, match="no judgement of 4 features"):
        judge_features(sae, samples, read, word, asking(lambda _: reply), features=4)


def test_a_judge_who_is_gone_is_asked_once_and_one_who_refuses_goes_on(sae, samples):
    asked = []

    def gone(prompt):
        asked.append(prompt)
        raise EndpointError("http://localhost:1: the connection fails, after 5 tries")

    def shy(prompt):
        asked.append(prompt)
        if len(asked) == 1:
            raise RefusalError("http://localhost:1: m refused: I will not")
        return '{"score": 4, "name": "x"}'

    with pytest.raises(EndpointError, match="the connection fails, after 5 tries"):
        judge_features(sae, samples, read, word, asking(gone), features=6)
    assert len(asked) == 1
    asked.clear()
    judged = judge_features(sae, samples, read, word, asking(shy), features=6)
    assert len(asked) == 6
    assert len(judged.table) == 5
    assert judged.trouble[0].endswith("m refused: I will not")


def test_no_feature_in_five_samples_is_an_error(sae, samples):
    with pytest.raises(SourceError, match="no feature is active in 5 of 4 samples"):
        judge_features(sae, samples[:4], read, word, tokens_agree)


@pytest.mark.parametrize(("peaks", "score"), [("aaaaa", 5), ("aabaa", 4), ("abaca", 3), ("abcad", 2), ("abcde", 1)])
def test_the_rule_counts_contexts_that_agree(peaks, score):
    contexts = [Context(i, ("x", f" {peak}"), (0.5, 1.0)) for i, peak in enumerate(peaks)]
    assert tokens_agree(contexts) == Judgement(score, "token 'a'")


def test_a_chat_models_features_are_judged_and_the_one_of_a_template_token_steers(causal_folder):
    model = str(causal_folder / "llama")
    dialogues = [
        [{"role": "user", "content": f"What is {word}?"}, {"role": "assistant", "content": f"{word} is {i}."}]
        for i, word in enumerate(["snow", "rain", "hail", "fog", "sun", "wind", "ice"])
    ]
    reader = DialogueReader(model, layer=2, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(model)
    sae = random_sae()
    judged = judge_features(sae, dialogues, reader.read, tokenizer.decode, tokens_agree)
    assert judged.samples == 7 and len(judged.table) == judged.live > 0
    assert any("<s>" in peaks for peaks in judged.table["peaks"])
    rows = list(read_flow(reader, open_dialogues(dialogues), Flow()))
    found = features_of_token(sae, rows, tokenizer.convert_tokens_to_ids("<s>"))
    feature = int(found["feature"][0])
    on_it = torch.cat([r.states[r.ids == 1] for r in rows])
    assert found["mean_max"][0] >= float(sae.codes(on_it).to_dense()[:, feature].mean()) > 0
    steered = generate(model, sae, 2, ["Why?"], [add(feature)], alphas=PAPER_ALPHAS, chat=True, max_tokens=4).table
    assert steered["alpha"].tolist() == list(PAPER_ALPHAS)
    assert steered["text"][0] == steered["unsteered"][0]
    assert len(set(steered["text"])) > 1
