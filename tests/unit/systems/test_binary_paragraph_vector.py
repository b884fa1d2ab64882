"""Binary paragraph vectors: gradients, losses and inference against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.binary_paragraph_vector import BinaryParagraphVector, BinaryParagraphVectorConfig
from hourglass.systems.binary_paragraph_vector_parts import Draws, Tree, kept_share, straight_through, terms, windows
from hourglass.testing import SYSTEM_CHECKS, tiny_examples
from hourglass.training import TrainConfig, fit

TEXTS = list(tiny_examples(BinaryParagraphVector))
STEPS = TrainConfig(steps=20, batch_size=16, lr=0.01, schedule="constant", clip=None)
KINDS = {
    "dbow": {},
    "real": {"latent": "real"},
    "real_binary": {"latent": "real_binary", "bits": 28},
    "dm_concat": {"model": "dm"},
    "dm_sum": {"model": "dm", "combine": "sum"},
    "negative": {"objective": "negative", "negatives": 5},
    "sampled": {"objective": "sampled", "negatives": 60},
    "hierarchical": {"objective": "hierarchical"},
    "dm_hierarchical": {"model": "dm", "objective": "hierarchical", "combine": "sum"},
    "dm_negative": {"model": "dm", "objective": "negative", "negatives": 5},
    "none": {"binarise": "none"},
    "noise": {"binarise": "noise"},
    "bernoulli": {"binarise": "bernoulli"},
    "bigrams": {"bigrams": True, "stop_words": "none"},
}


def made(**settings):
    torch.manual_seed(0)
    return BinaryParagraphVector(BinaryParagraphVectorConfig.preset("tiny", **settings))


def learned(**settings):
    return fit(made(**settings), TEXTS, STEPS, progress=False).model


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dbow"])
def test_every_kind_keeps_the_contract_where_it_could_differ(kind):
    """The contract tests run over the tiny preset alone."""

    class Other(BinaryParagraphVector):
        class Config(BinaryParagraphVectorConfig):
            presets = {  # noqa: RUF012
                name: {**BinaryParagraphVectorConfig.presets["tiny"], **KINDS[kind]}
                for name in ("tiny", "base", "paper")
            }

    wanted = {"check_loss_falls", "check_resume", "check_gradients", "check_encode_repeats", "check_save_and_load"}
    for check in SYSTEM_CHECKS:
        if check.__name__ in wanted:
            check(Other)


def test_the_gradient_goes_straight_through():
    soft = torch.tensor([0.2, 0.7, 0.5], requires_grad=True)
    hard = straight_through(soft, soft >= 0.5)
    assert hard.tolist() == [0.0, 1.0, 1.0]
    (hard * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert soft.grad.tolist() == [1.0, -2.0, 3.0]


def test_the_gradient_of_a_document_is_that_of_softmax_times_that_of_the_sigmoid():
    model = learned(dropout=0.0, l2=0.0).train()
    batch = model.collate(TEXTS[:4])
    model.zero_grad()
    sum(model.loss(batch).values()).backward()
    with torch.no_grad():
        p = model.documents[batch["row"]]
        code = (p >= 0).float()
        shares = torch.zeros(4, len(model.out)).scatter_add_(1, batch["ids"], batch["weights"])
        back = (torch.softmax(code @ model.out.T + model.bias, 1) - shares) @ model.out / 4
        expected = back * torch.sigmoid(p) * (1 - torch.sigmoid(p))
    assert torch.allclose(model.documents.grad[batch["row"]], expected, atol=1e-7)


def test_the_full_loss_is_the_mean_over_tokens():
    model = learned(stop_words="none")
    batch = model.collate(TEXTS[:5])
    found = model.loss(batch)["words"].detach()
    means = []
    with torch.no_grad():
        for text, row in zip(TEXTS[:5], batch["row"]):
            logits = model.out @ (model.documents[row] >= 0).float() + model.bias
            each = [-torch.log_softmax(logits, 0)[model.vocabulary.index(w)] for w in terms(text, False, False)]
            means.append(float(torch.stack(each).mean()))
    assert float(found) == pytest.approx(np.mean(means), rel=1e-5)


def test_negative_sampling_is_on_average_what_inference_minimises():
    system = learned(objective="negative", negatives=3, dropout=0.0)
    batch = system.collate(TEXTS[:4])
    vectors = system.documents[batch["row"]].detach()
    with torch.no_grad():
        exact = system._words_loss(vectors, batch, learning=False)
        drawn = torch.stack([system._words_loss(vectors, batch, learning=True) for _ in range(4000)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert bool(((drawn.mean(0) - exact).abs() < 5 * error + 1e-6).all())


def test_a_hierarchical_softmax_gives_all_words_the_probability_one():
    system = learned(objective="hierarchical", dropout=0.0)
    words = torch.arange(len(system.vocabulary))
    batch = {"ids": words[:, None], "weights": torch.ones(len(words), 1)}
    with torch.no_grad():
        each = system._words_loss(system.documents[:1].expand(len(words), -1), batch, learning=False)
    assert float((-each).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_a_tree_is_as_short_as_a_code_can_be():
    counts = [50, 20, 10, 10, 5, 3, 1, 1]
    turns = Tree(counts).targets(torch.arange(8), torch.ones(8)).counts
    assert turns.tolist()[0] == 1
    assert float((0.5 ** turns.double()).sum()) == 1  # every way ends at a word
    mean, entropy = (np.average(x, weights=counts) for x in (turns.numpy(), -np.log2(np.array(counts) / 100)))
    assert entropy <= mean < entropy + 0.1
    assert len(Tree([3]).targets(torch.tensor([0]), torch.ones(1)).rows) == 0


def test_draws_come_in_proportion():
    weights = np.array([8.0, 4.0, 2.0, 1.0, 1.0, 0.25])
    torch.manual_seed(0)
    found = torch.bincount(Draws(weights).draw((200_000,), torch.device("cpu")), minlength=6).numpy()
    expected = 200_000 * weights / weights.sum()
    assert (np.abs(found - expected) < 5 * np.sqrt(expected)).all()


def test_dm_is_inferred_against_the_same_draws_place_by_place():
    system = learned(objective="negative", negatives=3, dropout=0.0, model="dm")
    batch = system.collate(TEXTS[:4])
    vectors = system.documents[batch["row"]].detach()
    with torch.no_grad():
        read = system._with_words(system._hidden(vectors, learning=False), batch["around"])
        logits = read @ system.out.T + system.bias
        draws = system._fixed_draws.expand(len(TEXTS[:4]), -1, -1)
        named = logits.gather(2, batch["ids"][..., None])
        others = torch.nn.functional.softplus(logits.gather(2, draws)) * (draws != batch["ids"][..., None])
        expected = ((torch.nn.functional.softplus(-named[..., 0]) + others.sum(2)) * batch["weights"]).sum(1)
        state = torch.get_rng_state()
        found = system._words_loss(vectors, batch, learning=False)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("model", ["dbow", "dm"])
def test_sampled_softmax_has_the_partition_function_on_average(model):
    system = learned(objective="sampled", negatives=4, dropout=0.0, model=model)
    batch = system.collate(TEXTS[:3])
    with torch.no_grad():
        read = system._hidden(system.documents[batch["row"]], learning=False)[:, None]
        if model == "dm":
            read = system._with_words(read[:, 0], batch["around"])
        ids = batch["ids"]
        named = (system.out[ids] * read).sum(-1) + system.bias[ids]
        exact = system._all_logits(read, ids, named, learning=False).exp()
        drawn = torch.stack([system._all_logits(read, ids, named, learning=True).exp() for _ in range(4000)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert bool(((drawn.mean(0) - exact).abs() < 5 * error + 1e-6).all())


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_text_has_the_same_vector_to_the_bit_in_any_batch(kind):
    model = learned(**KINDS[kind])
    long = " ".join(TEXTS)

    def of(texts):
        with torch.inference_mode():
            return model.encode(model.collate(texts))

    alone = of([TEXTS[0]])[0]
    beside = of([long, *(f"{text} {other}" for text in TEXTS[1:20] for other in TEXTS[:6]), TEXTS[0]])[-1]
    assert torch.equal(alone, beside)
    assert torch.equal(alone, of(TEXTS)[0])
    if model.code_bits:
        with torch.inference_mode():
            assert torch.equal(model.bits_of(alone[None])[0], model.bits_of(of(TEXTS))[0])


def test_inference_lowers_the_loss_and_takes_no_randomness():
    model = learned()
    batch = dict(model.collate(TEXTS[:8]))
    state = torch.get_rng_state()
    vectors = model.encode(batch)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        start, end = (
            float(model._words_loss(rows, batch, learning=False).sum()) for rows in (torch.zeros_like(vectors), vectors)
        )
    assert end < start


def test_texts_without_a_known_word_have_zeros_and_are_flagged():
    model = learned()
    batch = model.collate(["", "zzzz qqqq", TEXTS[0]])
    assert batch["known"].tolist() == [False, False, True]
    vectors = model.encode(batch)
    assert not vectors[:2].any()
    assert not model.bits_of(vectors)[:2].any()
    assert vectors[2].any()


def test_a_corpus_without_common_words_cannot_be_learned_from():
    with pytest.raises(SourceError, match="no word stands 3 times"):
        fit(made(min_count=3), ["one", "two words"], STEPS, progress=False)


def test_a_new_text_while_learning_is_refused():
    model = learned().train()
    with pytest.raises(SourceError, match="not there when the training began"):
        model.loss(model.collate(["My sister waits elsewhere"]))


def test_equal_texts_are_one_document_and_words_are_counted_once():
    model = fit(made(stop_words="none"), ["red red house", "red red house", "blue house"], STEPS, progress=False).model
    assert len(model.documents) == 2
    assert dict(zip(model.vocabulary, model.counts.tolist())) == {"house": 2, "red": 2, "blue": 1}


def test_bits_flip_while_learning():
    model = made()
    model.initialize([model.collate(TEXTS)])
    before = model.documents.detach() >= 0
    trained = fit(
        made(), TEXTS, TrainConfig(steps=60, batch_size=16, lr=0.03, schedule="constant"), progress=False
    ).model
    assert float((before != (trained.documents >= 0)).float().mean()) > 0.05


def test_the_folder_keeps_no_documents_and_a_foreign_one_is_refused(tmp_path):
    model = learned()
    model.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "vocabulary.txt",
    ]
    again = BinaryParagraphVector.from_pretrained(str(tmp_path / "model"))
    assert again.vocabulary == model.vocabulary
    assert len(again.documents) == 0
    (tmp_path / "model" / "vocabulary.txt").write_text("one\n")
    with pytest.raises(FolderError, match="1 words for"):
        BinaryParagraphVector.from_pretrained(str(tmp_path / "model"))


def test_words_around_are_those_of_the_text():
    batch = windows([np.array([5, 6, 7]), np.array([])], np.ones(8), draws=4, window=2, at_random=False)
    assert batch["ids"].tolist() == [[5, 6, 7, 0], [0, 0, 0, 0]]
    assert batch["around"][0, :3].tolist() == [[-1, -1, 6, 7], [-1, 5, 7, -1], [5, 6, -1, -1]]
    assert batch["weights"].sum(1).tolist() == [1.0, 0.0]


def test_words_are_unicode_and_stop_words_a_setting():
    assert terms("The Größe of a Straße-name, naïve!", True, False) == ["größe", "straße-name", "naïve"]
    assert terms("The big house", False, True) == ["the", "big", "house", "the big", "big house"]


def test_subsampling_keeps_rare_words():
    keep = kept_share(np.array([10_000, 10, 1]), 1e-4)
    assert keep[0] == pytest.approx(math.sqrt(1e-4 * 10_011 / 10_000) + 1e-4 * 10_011 / 10_000)
    assert keep[2] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latent": "quantum"}, "latent 'quantum'"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"bits": 0}, "bits 0"),
        ({"model": "dm", "bigrams": True}, "bigrams"),
        ({"l2": -1.0}, "l2 -1.0"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        made(**settings)


def test_a_real_latent_has_no_code():
    model = learned(latent="real")
    assert model.code_bits is None
    with pytest.raises(ConfigError, match="has no code"):
        model.bits_of(model.encode(model.collate(TEXTS[:2])))
