"""Heads on tiny encoders: what each reads and learns, on networks that see both ways and on those that saw one way only."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from encoders import KINDS, POSITIONS, WORDS, make_pair
from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.dupmae import DupMAE
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import (
    Answerer,
    AnswererConfig,
    Classifier,
    ClassifierConfig,
    Pair,
    Question,
    Retriever,
    RetrieverConfig,
    Tagger,
    TaggerConfig,
    mine_negatives,
    with_teacher,
)
from hourglass.uses.finetune.encoder import TokenEncoder
from hourglass.uses.probe import retrieval


@pytest.fixture(scope="module")
def pairs():
    return {kind: make_pair(kind) for kind in KINDS}


@pytest.fixture(autouse=True)
def same_start():
    """A new linear layer is the same in every run of a test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def learn(head, examples, steps=60, lr=3e-3, **more):
    settings = TrainConfig(steps=steps, batch_size=16, lr=lr, schedule="linear", warmup=0.1, log_every=1)
    return fit(head, examples, settings, progress=False, **more)


# The encoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_sees_every_other_and_no_padding(pairs, kind, attention):
    network = copy.deepcopy(pairs[kind][0])
    network.set_attn_implementation(attention)
    encoder = TokenEncoder(network).eval()
    ids = torch.tensor([[10, 11, 12, 13, 14, 0], [10, 11, 12, 13, 15, 0]])
    mask = torch.tensor([[True] * 5 + [False]] * 2)
    with torch.no_grad():
        first, second = encoder(ids, mask)
        for position in range(5):
            assert (first[position] - second[position]).norm() > 1e-5 * first[position].norm()
        ids[:, 5] = 20
        assert torch.equal(encoder(ids, mask)[:, :5], torch.stack([first, second])[:, :5])
        assert encoder(ids[:, :5], mask[:, :5])[0].numpy() == pytest.approx(first[:5].numpy(), abs=1e-5)


def test_a_network_that_sees_both_ways_gives_its_own_states(pairs):
    network, _ = pairs["bert"]
    ids = torch.tensor([[10, 11, 12]])
    with torch.no_grad():
        assert torch.equal(
            TokenEncoder(network).eval()(ids, ids > 0), network(ids, attention_mask=(ids > 0).long()).last_hidden_state
        )


def test_a_network_that_heeds_no_mask_is_refused(pairs):
    network = copy.deepcopy(pairs["gpt2"][0])
    inner = network.forward
    network.forward = lambda input_ids, attention_mask: inner(input_ids)
    with pytest.raises(ConfigError, match="heeds no other mask"):
        TokenEncoder(network)


def test_a_head_is_made_of_a_text_model_or_a_pair_and_leaves_it_as_it_was(pairs):
    model = DupMAE(DupMAE.Config.preset("tiny"))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    head = Classifier(ClassifierConfig(labels=("a", "b"), max_tokens=16), model)
    learn(head, [("x", "a"), ("y", "b")] * 8, steps=3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    for wrong in ("bert", (pairs["bert"][0], None), None):
        with pytest.raises(ConfigError, match="expected a text model, or a pair"):
            Classifier(ClassifierConfig(), wrong)
    with pytest.raises(ConfigError, match=f"the network has {POSITIONS} positions"):
        Classifier(ClassifierConfig(max_tokens=200), pairs["bert"])


# Classification ---------------------------------------------------------------------------------------


def coloured(n, seed):
    """Texts of three words, labelled by whether one is a colour."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        words = random.choice(WORDS[3:], 3).tolist()
        if i % 2:
            words[random.integers(3)] = str(random.choice(WORDS[:3]))
        rows.append((" ".join(words), "colour" if i % 2 else "none"))
    return rows


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "cls"), ("bart", "mean"), ("gpt2", "mean"), ("llama", "mean")])
def test_a_classifier_learns(pairs, kind, pooling):
    head = Classifier(ClassifierConfig(labels=("none", "colour"), pooling=pooling, max_tokens=32), pairs[kind])
    learn(head, coloured(200, 0), steps=70, lr=5e-3)
    assert head.score(coloured(60, 1)).value > 0.85


def test_a_classifier_reads_pairs_of_texts(pairs):
    random = np.random.default_rng(0)
    rows = [
        (
            (str(random.choice(WORDS[:3])), str(random.choice(WORDS[:3] if i % 2 else WORDS[3:]))),
            "yes" if i % 2 else "no",
        )
        for i in range(200)
    ]
    head = Classifier(ClassifierConfig(max_tokens=32), pairs["bert"])
    assert head.collate(rows[:4])["types"].max() == 1
    learn(head, rows)
    assert head.score(rows).value > 0.9


def test_a_head_is_saved_loaded_and_resumed_bit_for_bit(pairs, tmp_path):
    rows = coloured(40, 2)
    config = ClassifierConfig(labels=("none", "colour"), max_tokens=32)

    def run(steps, out=None, seed=0):
        torch.manual_seed(seed)
        head = Classifier(config, pairs["gpt2"])
        settings = TrainConfig(steps=steps, batch_size=8, schedule="constant", warmup=0.0)
        return fit(head, rows, settings, out=out, progress=False).model

    whole = run(6)
    run(3, tmp_path, seed=1 - 1)
    resumed = run(6, tmp_path, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    loaded = Classifier.from_pretrained(str(tmp_path / "model"))
    assert loaded.config == config
    batch = loaded.collate(rows)
    with torch.no_grad():
        assert torch.equal(loaded.logits(batch), whole.logits(batch))
    assert loaded.predict([text for text, _ in rows]) == whole.predict([text for text, _ in rows])
    with pytest.raises(FolderError, match="holds 'classification', expected 'tagging'"):
        Tagger.from_pretrained(str(tmp_path / "model"))


def test_what_a_classifier_cannot_use_is_named(pairs):
    head = Classifier(ClassifierConfig(labels=("ham", "spam"), max_tokens=32), pairs["bert"])
    for rows, message in (
        ([("x", "ham"), ("y", "span")], r"example 1: label 'span' \(did you mean 'spam'\?\)"),
        ([("x", "ham"), (None, "ham")], "example 1: expected a text, found NoneType"),
        ([], "an empty batch"),
    ):
        with pytest.raises(SourceError, match=message):
            head.collate(rows)
    with pytest.raises(ConfigError, match="each once"):
        ClassifierConfig(labels=("a", "a"))
    with pytest.raises(ConfigError, match="pooling 'max'"):
        ClassifierConfig(pooling="max")


# Tagging ----------------------------------------------------------------------------------------------

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
KIND_OF = {"paris": "LOC", "london": "LOC", "berlin": "LOC", "anna": "PER", "peter": "PER", "maria": "PER"}


def tagged(n, seed):
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        words = random.choice(WORDS, 6).tolist()
        kinds = [KIND_OF.get(word, "") for word in words]
        tags = [
            "O" if not kind else f"{'I' if i and kinds[i - 1] == kind else 'B'}-{kind}" for i, kind in enumerate(kinds)
        ]
        rows.append((words, tags))
    return rows


@pytest.mark.parametrize("vocabulary", ["wordpiece", "bpe"])
def test_a_word_is_read_at_its_first_token(vocabulary):
    network, tokenizer = make_pair("bert", vocabulary)
    head = Tagger(TaggerConfig(tags=TAGS, max_tokens=40), (network, tokenizer))
    words = ["Unheard-of", "words", "é", "\u200b", "in", "paris"]
    batch = head.collate([(words, ["O"] * 5 + ["B-LOC"]), (["x"], ["O"])])
    ids, first = batch["ids"][0].tolist(), batch["first"][0].tolist()
    made = tokenizer(" ".join(words), return_offsets_mapping=True)
    assert ids[: len(made["input_ids"])] == made["input_ids"]
    text, start = " ".join(words), 0
    for word, at, tag in zip(words, first, batch["tags"][0].tolist()):
        if at >= 0:
            a, b = made["offset_mapping"][at]
            assert text[a:b].strip() and word.startswith(text[a:b].strip())
            assert a <= start < b
        else:
            assert tag == -100
        start += len(word) + 1
    assert batch["tags"][1].tolist() == [0] + [-100] * 5
    # Words beyond the longest input have no token, no part in the loss, and the tag O.
    long = [*["engine"] * 40, "paris"]
    batch = head.collate([(long, ["O"] * 40 + ["B-LOC"])])
    assert batch["tags"][0, -1] == -100
    assert head.predict([long])[0][-1] == "O"
    assert len(head.predict([long])[0]) == 41


def test_a_tagger_learns_and_is_scored_by_entities(pairs):
    head = Tagger(TaggerConfig(tags=TAGS, max_tokens=32), pairs["bert"])
    result = learn(head, tagged(200, 0), steps=100, lr=5e-3)
    assert result.history[-1]["loss"] < 0.3 * result.history[0]["loss"]
    assert head.score(tagged(50, 1)).value > 0.6


def test_what_a_tagger_cannot_use_is_named(pairs):
    head = Tagger(TaggerConfig(tags=TAGS, max_tokens=32), pairs["bert"])
    for rows, message in (
        ([(["a", "b"], ["O"])], "example 0: 1 tags for 2 words"),
        ([(["a"], ["B-ORG"])], "example 0: tag 'B-ORG'"),
        ([("ab", ["O", "O"])], "example 0: expected a list of words"),
        ([], "an empty batch"),
    ):
        with pytest.raises(SourceError, match=message):
            head.collate(rows)
    with pytest.raises(ConfigError, match="tags begin with 'B-LOC'"):
        TaggerConfig(tags=("B-LOC", "O"))


# Answering --------------------------------------------------------------------------------------------


def asked(n, seed, length=8):
    """Where is a person? In the city that follows the name."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        words = random.choice(WORDS[:12], length).tolist()
        at = int(random.integers(length - 1))
        words[at], words[at + 1] = str(random.choice(WORDS[15:])), str(random.choice(WORDS[12:15]))
        passage = " ".join(words)
        rows.append(Question("where", passage, ((len(" ".join(words[: at + 1])) + 1, words[at + 1]),)))
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_an_answer_are_its_characters(pairs, kind):
    head = Answerer(AnswererConfig(max_tokens=32, stride=8), pairs[kind])
    tokenizer = pairs[kind][1]
    questions = asked(20, 3, length=60)
    batch = head.collate(questions)
    assert batch["ids"].shape[1] <= 32
    for row, (first, last), question in zip(batch["ids"], batch["spans"].tolist(), questions):
        assert tokenizer.decode(row[first : last + 1]).strip() == question.answers[0][1]


def test_an_answerer_learns_and_finds_answers_in_long_passages(pairs):
    head = Answerer(AnswererConfig(max_tokens=32, stride=8, longest=4), pairs["bert"])
    learn(head, asked(300, 4), steps=120, lr=5e-3)
    assert head.score(asked(40, 5)).value > 0.8
    assert head.exact_match(asked(40, 5)).value > 0.8
    assert head.score(asked(20, 6, length=60)).value > 0.5


def test_questions_without_an_answer(pairs):
    rows = [
        Question("where", q.passage.replace(q.answers[0][1], "stone")) if i % 2 else q
        for i, q in enumerate(asked(300, 7))
    ]
    config = AnswererConfig(max_tokens=32, stride=8, longest=4, unanswerable=True)
    head = Answerer(config, pairs["bert"])
    batch = head.collate(rows[:2])
    assert batch["spans"][1].tolist() == [0, 0]
    learn(head, rows, steps=120, lr=5e-3)
    said = head.predict(rows)
    assert np.mean([answer == "" for answer in said[1::2]]) > 0.8
    assert np.mean([answer == "" for answer in said[::2]]) < 0.2


def test_what_an_answerer_cannot_use_is_named(pairs):
    head = Answerer(AnswererConfig(max_tokens=16, stride=2), pairs["bert"])
    for rows, message in (
        ([Question("where", "anna paris", ((3, "paris"),))], "example 0: the answer 'paris' is not at character 3"),
        ([Question("where", "anna paris")], "example 0: no answer; leave it out, or set unanswerable"),
        ([("where", "anna")], "example 0: expected a Question, found tuple"),
        ([Question("where", " ".join(WORDS), ((0, " ".join(WORDS)),))], "no window of 16 tokens holds the answer"),
        ([], "an empty batch"),
    ):
        with pytest.raises(SourceError, match=message):
            head.collate(rows)
    # A question that fills the window leaves half of it to the passage.
    assert head.predict([Question("where " * 50, "anna paris")])[0] in "anna paris"
    with pytest.raises(ConfigError, match="stride 9"):
        AnswererConfig(max_tokens=16, stride=9)


# Retrieval --------------------------------------------------------------------------------------------


def test_the_losses_of_retrieval_by_hand(pairs):
    examples = [
        Pair("red", "red stone", ("blue stone", "green"), (2.0, 1.0, -1.0)),
        Pair("blue", "blue bird", ("red stone", "river"), (0.5, 0.0, 0.0)),
        Pair("heavy", "red stone", ("apple", "light"), (1.0, 2.0, 3.0)),  # the document of the first as well
    ]
    config = RetrieverConfig(
        negatives=2, temperature=0.1, contrastive=0.5, distillation=2.0, dropout=0.0, max_tokens=32
    )
    head = Retriever(config, pairs["bert"]).eval()
    with torch.no_grad():
        losses = head.loss(head.collate(examples))
    documents = [text for e in examples for text in (e.document, *e.negatives)]
    scores = head.encode_query([e.query for e in examples]) @ head.encode_document(documents).T / 0.1
    wrong, divergence = [], []
    for i, example in enumerate(examples):
        counted = [j for j, text in enumerate(documents) if j == 3 * i or text != example.document]
        wrong.append(np.log(np.exp(scores[i, counted]).sum()) - scores[i, 3 * i])
        ours = scores[i, 3 * i : 3 * i + 3]
        ours = ours - np.log(np.exp(ours).sum())
        teacher = np.exp(example.teacher) / np.exp(example.teacher).sum()
        divergence.append((teacher * (np.log(teacher) - ours)).sum())
    assert float(losses["contrastive"]) == pytest.approx(0.5 * np.mean(wrong), rel=1e-4)
    assert float(losses["distillation"]) == pytest.approx(2 * np.mean(divergence), rel=1e-4)
    plain = Retriever(RetrieverConfig(max_tokens=32), pairs["bert"])
    assert set(plain.loss(plain.collate(examples))) == {"contrastive"}
    assert plain.collate(examples)["ids"].shape[:2] == (3, 1)


def described(n, seed):
    """A query has the words of its document in another order, a third of them."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        words = random.permutation(WORDS)[:6]
        rows.append(Pair(" ".join(random.permutation(words)[:3]), " ".join(words)))
    return rows


def as_judged(rows):
    return Judged(
        {f"d{i}": row.document for i, row in enumerate(rows)},
        {f"q{i}": row.query for i, row in enumerate(rows)},
        {f"q{i}": {f"d{i}": 1} for i in range(len(rows))},
    )


@pytest.mark.parametrize(("kind", "similarity", "temperature"), [("bert", "cosine", 0.05), ("gpt2", "dot", 1.0)])
def test_a_retriever_learns_and_is_an_encoder(pairs, kind, similarity, temperature):
    config = RetrieverConfig(similarity=similarity, temperature=temperature, max_tokens=48)
    head, judged = Retriever(config, pairs[kind]), as_judged(described(60, 1))
    before = head.score(judged).value
    learn(head, described(300, 0), steps=60)
    after = head.score(judged)
    assert after.value > before + 0.1
    assert retrieval(head, judged, similarity=similarity).means()["ndcg@10"] == after


def test_mined_negatives_are_near_and_wrong(pairs):
    rows = [*described(40, 2), Pair("red stone", "a red stone"), Pair("red stone", "the stone, red")]
    documents = [row.document for row in rows] * 2

    def letters(texts):
        return np.array([[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)

    mined = mine_negatives(letters, rows, documents, 3, last=5)
    found = letters([row.query for row in rows]) @ letters(documents[:42]).T
    norms = np.linalg.norm(letters([r.query for r in rows]), axis=1)[:, None] * np.linalg.norm(
        letters(documents[:42]), axis=1
    )
    for i, (row, pair) in enumerate(zip(rows, mined)):
        assert (pair.query, pair.document) == (row.query, row.document)
        own = {r.document for r in rows if r.query == row.query}
        assert len(set(pair.negatives)) == 3 and not own & set(pair.negatives)
        right = [j for j in np.argsort(-(found / norms)[i], kind="stable") if documents[j] not in own]
        lowest = (found / norms)[i, right[4]]
        assert all((found / norms)[i, documents.index(text)] >= lowest - 1e-6 for text in pair.negatives)
    assert mine_negatives(letters, rows, documents, 3, last=5) == mined
    with pytest.raises(SourceError, match="pair 0: 1 documents are no answer"):
        mine_negatives(letters, rows[:1], documents[:2], 2)

    taught = with_teacher(lambda asked: [len(q) + len(d) for q, d in asked], mined)
    for pair in taught:
        assert pair.teacher == tuple(len(pair.query) + len(d) for d in (pair.document, *pair.negatives))
    with pytest.raises(SourceError, match="the teacher gave shape"):
        with_teacher(lambda asked: [1.0], mined)
    config = RetrieverConfig(negatives=3, distillation=1.0, max_tokens=48)
    assert learn(Retriever(config, pairs["bert"]), taught, steps=3).steps == 3


def test_what_a_retriever_cannot_use_is_named(pairs):
    head = Retriever(RetrieverConfig(negatives=1, distillation=1.0, max_tokens=48), pairs["bert"])
    for rows, message in (
        ([Pair("q", "d")], "example 0: 0 negatives; expected 1 or more"),
        ([Pair("q", "d", ("n",))], "example 0: expected a teacher's score of the document and of each of 1 negatives"),
        ([("q", "d")], "example 0: expected a Pair, found tuple"),
        ([], "an empty batch"),
    ):
        with pytest.raises(SourceError, match=message):
            head.collate(rows)
    for settings in ({"temperature": 0.0}, {"similarity": "l2"}, {"distillation": 1.0}, {"contrastive": 0.0}):
        with pytest.raises(ConfigError):
            RetrieverConfig(**settings)


def test_texts_without_a_token_are_named(pairs):
    network, tokenizer = copy.deepcopy(pairs["gpt2"])
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    head = Classifier(ClassifierConfig(labels=("a", "b"), max_tokens=32), (network, tokenizer))
    with pytest.raises(SourceError, match="example 1: there is no token in its text"):
        head.collate([("x", "a"), ("", "b")])
    assert isinstance(head.linear, nn.Linear)
