"""Weights of terms: what is learned and how it is read, by hand and by brute force; simulated text in which frequency
misleads."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertForTokenClassification

from encoders import KINDS, WORDS, make_pair
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair, Retriever, RetrieverConfig
from hourglass.uses.finetune.distillation import distilled
from hourglass.uses.search.stages import Query
from hourglass.uses.search.term_weights import (
    Coil,
    CoilConfig,
    DeepCT,
    DeepCTConfig,
    DeepImpact,
    DeepImpactConfig,
    as_matrix,
    bm25_weights,
    by_passages,
    explain,
    folded,
    frequencies,
    impacted,
    quantised,
    recalled,
    word_spans,
)
from hourglass.uses.search.words import Words
from hourglass.uses.vectors import Weigher

ROWS = st.lists(st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1e4, allow_subnormal=False)), max_size=6)


@pytest.fixture(scope="module")
def bert():
    return make_pair("bert")


@pytest.fixture(autouse=True)
def same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def learn(head, examples, steps=60, lr=3e-3):
    return fit(head, examples, TrainConfig(steps=steps, batch_size=16, lr=lr, warmup=0.1, log_every=1), progress=False)


# Rows -----------------------------------------------------------------------------------------------------


def test_frequencies_are_rounded_and_what_is_below_one_is_left_out():
    rows = [{"a": 0.256, "b": -0.5, "c": 0.004, "d": 1.2}]
    assert frequencies(rows) == [{"a": 26, "d": 120}]
    assert frequencies(rows, root=True) == [{"a": 51, "c": 6, "d": 110}]
    with pytest.raises(ConfigError, match="scale 0"):
        frequencies(rows, 0)


def test_weights_of_bm25_sum_to_its_score():
    rows = [{"a": 3, "b": 1}, {"b": 2}, {"c": 6}]
    k1, b, mean = 1.2, 0.75, 4.0
    rarity = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = rarity * 2 / (2 + k1 * (1 - b + b * 2 / mean))
    assert bm25_weights(rows, k1, b)[1] == {"b": pytest.approx(expected)}
    assert bm25_weights([{}], k1, b) == [{}]
    with pytest.raises(ConfigError, match=r"b 1\.5"):
        bm25_weights(rows, 1.0, 1.5)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_byte_keeps_each_weight_within_half_the_scale_and_again_gives_the_same(rows):
    made = quantised(rows)
    assert all(0 < number <= 255 for row in made.rows for number in row.values())
    back = made.weights()
    for row, kept in zip(rows, back):
        for term, weight in row.items():
            assert abs(weight - kept.get(term, 0.0)) <= made.scale / 2 * (1 + 1e-9)
    assert quantised(back, made.scale) == made


def test_bytes_refuse_what_they_cannot_hold():
    with pytest.raises(SourceError, match="row 0: weight -1 of 'a'"):
        quantised([{"a": -1}])
    with pytest.raises(SourceError, match="more than 255 x the scale"):
        quantised([{"a": 300.0}], scale=1.0)
    with pytest.raises(ConfigError, match="scale 0"):
        quantised([{"a": 1.0}], scale=0.0)


def test_rows_as_a_matrix():
    matrix, terms = as_matrix([{"b": 1.0, "a": 2.0}, {}, {"a": 3.0}])
    assert terms == ["b", "a"]
    assert matrix.toarray().tolist() == [[1, 2], [0, 0], [0, 3]]
    assert as_matrix([])[0].shape == (0, 0)


def test_an_explanation_is_the_shared_terms_and_sums_to_the_score():
    found = explain({"a": 1.0, "b": 2.0, "z": 9.0}, {"a": 4.0, "b": 2.0, "c": 1.0})
    assert [each.term for each in found] == ["a", "b"]
    assert sum(each.score for each in found) == 8.0
    assert len(explain({"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 2.0}, 1)) == 1


# Long documents -------------------------------------------------------------------------------------------


def test_passages_fold_as_written_down():
    rows = [{"a": 6.0}, {"a": 3.0, "b": 9.0}, {}]
    assert folded(rows, "sum") == {"a": 9.0, "b": 9.0}
    assert folded(rows, "max") == {"a": 6.0, "b": 9.0}
    assert folded(rows, "mean") == {"a": pytest.approx(3.0), "b": pytest.approx(3.0)}
    norm = 1 + 1 / 2 + 1 / 3
    assert folded(rows, "decay") == {"a": pytest.approx((6 + 3 / 2) / norm), "b": pytest.approx(9 / 2 / norm)}
    assert folded([], "decay") == {}
    with pytest.raises(ConfigError, match="no fold 'decays'"):
        folded(rows, "decays")


def test_documents_are_read_passage_by_passage():
    def weigh(texts):
        return [dict(Counter(text.split())) for text in texts]

    made = by_passages(weigh, ["a a b", "", "c"], "max", size=2)
    assert made == [{"a": 2, "b": 1}, {}, {"c": 1}]


# DeepCT ---------------------------------------------------------------------------------------------------


def test_recall_is_the_share_of_queries_that_name_a_term():
    example = recalled("Red river, red stone", ["red bird", "RED red stone", "apple", "river?"])
    assert example.recall == (0.5, 0.25, 0.5, 0.25)
    assert example.text[slice(*example.stretches[1])] == "river"
    with pytest.raises(SourceError, match="without queries"):
        recalled("red", [])


def test_terms_can_be_those_of_an_index():
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")
    example = recalled("The running rivers", ["river runs", "the"], Words().spans)
    assert example.recall == (0.5, 0.5)
    assert example.text[slice(*example.stretches[0])] == "running"


def test_a_word_has_the_weight_of_its_first_piece_and_repeats_the_largest(bert):
    model = DeepCT(DeepCTConfig(max_tokens=64, dropout=0.0), bert).eval()
    text = "redstone apple redstone"
    read = model.tokenizer(text, return_offsets_mapping=True)
    batch = model.tokens([text])
    with torch.no_grad():
        each = model.linear(model.states(batch))[0, :, 0]
    expected = {}
    for start, stop, term in word_spans(text):
        at = next(i for i, (a, b) in enumerate(read["offset_mapping"]) if a <= start < b)
        assert any(start < a < stop for a, _ in read["offset_mapping"]) == (term == "redstone")
        expected[term] = max(expected.get(term, 0.0), float(each[at]))
    (found,) = model.weigh([text])
    assert found == pytest.approx({term: weight for term, weight in expected.items() if weight > 0})


def test_only_first_pieces_of_terms_are_learned_from(bert):
    model = DeepCT(DeepCTConfig(max_tokens=64, dropout=0.0), bert)
    batch = model.collate([recalled("redstone , apple", ["apple"]), recalled("red", ["red"])])
    states = model.states(batch).detach().requires_grad_()
    model.states = lambda _: states
    model.loss(batch)["recall"].backward()
    touched = states.grad.abs().sum(-1) > 0
    wanted = torch.zeros_like(touched)
    for row, places in enumerate(batch["first"].tolist()):
        wanted[row, [place for place in places if place >= 0]] = True
    assert torch.equal(touched, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make",
    [lambda of: DeepCT(DeepCTConfig(max_tokens=64), of), lambda of: DeepImpact(DeepImpactConfig(max_tokens=64), of)],
)
def test_any_encoder_gives_each_word_a_weight(kind, make):
    model = make(make_pair(kind)).eval()
    model.linear.bias.data.fill_(100.0)
    assert list(model.weigh(["Red, (redstone) Straße 東 red"])[0]) == ["red", "redstone", "straße", "東"]
    assert model.weigh(["..."]) == [{}]
    assert model.weigh([]) == []


def test_terms_that_are_cut_off_have_no_weight(bert):
    model = DeepCT(DeepCTConfig(max_tokens=4, dropout=0.0), bert)
    model.linear.bias.data.fill_(100.0)
    assert list(model.eval().weigh(["red green blue round"])[0]) == ["red", "green"]


def simulated(random, number):
    """(text, subject): a sentence about a subject, and a quotation, before or after it, that says another word over
    and over."""
    made = []
    for _ in range(number):
        subject, other, filler = random.choice(len(WORDS), 3, replace=False)
        said, quoted = f"{WORDS[filler]} {WORDS[subject]} .", f'" {" ".join([WORDS[other]] * 4)} "'
        made.append((f"{said} {quoted}" if random.random() < 0.5 else f"{quoted} {said}", WORDS[subject]))
    return made


def mean_precision(rows, subjects):
    """Of a query for each word, documents about it being relevant."""
    found = []
    for word in WORDS:
        relevant = np.array([subject == word for subject in subjects])
        order = np.argsort([-row.get(word, 0.0) for row in rows], kind="stable")
        places = np.flatnonzero(relevant[order])
        if len(places):
            found.append(np.mean((1 + np.arange(len(places))) / (1 + places)))
    return np.mean(found)


def test_learned_weights_beat_frequency_where_it_misleads(bert):
    random = np.random.default_rng(0)
    train, test = simulated(random, 300), simulated(random, 100)
    model = DeepCT(DeepCTConfig(dropout=0.0, max_tokens=32), bert)
    examples = [recalled(text, [subject]) for text, subject in train]
    learn(model, examples, steps=150)
    texts, subjects = zip(*test)
    counts = [dict(Counter(term for _, _, term in word_spans(text))) for text in texts]
    plain = max(mean_precision(bm25_weights(counts, k1, b), subjects) for k1 in (0.1, 0.9, 2.0) for b in (0.0, 0.7))
    learned = mean_precision(bm25_weights(frequencies(model.weigh(texts)), 10, 0.9), subjects)
    assert learned > plain + 0.2
    assert model.score([recalled(text, [subject]) for text, subject in test]).value > 0.5


def test_a_saved_deepct_weighs_the_same(bert, tmp_path):
    model = DeepCT(DeepCTConfig(max_tokens=64), bert).eval()
    model.save_pretrained(tmp_path / "m")
    assert DeepCT.from_pretrained(tmp_path / "m").weigh(["red apple"]) == model.weigh(["red apple"])
    with pytest.raises(FolderError, match="holds 'deepct', expected 'coil'"):
        Coil.from_pretrained(tmp_path / "m")


def test_examples_that_do_not_fit_are_named(bert):
    with pytest.raises(SourceError, match="example 0: expected a Recalled, found str"):
        DeepCT(DeepCTConfig(max_tokens=64), bert).collate(["red"])
    with pytest.raises(SourceError, match="example 0: expected an Impacted"):
        DeepImpact(DeepImpactConfig(max_tokens=64), bert).collate([Pair("a", "b")])
    with pytest.raises(SourceError, match="example 0: 0 negatives"):
        DeepImpact(DeepImpactConfig(max_tokens=64), bert).collate([impacted(Pair("red", "red"))])
    with pytest.raises(ConfigError, match="negatives 0: expected 1 or more"):
        DeepImpactConfig(negatives=0)
    with pytest.raises(ConfigError, match="cls 8"):
        CoilConfig(cls=8)
    with pytest.raises(ConfigError, match="teaching 'margins'"):
        CoilConfig(teaching="margins")


# DeepImpact -----------------------------------------------------------------------------------------------


def test_impacts_are_of_first_occurrences_and_never_below_zero(bert):
    model = DeepImpact(DeepImpactConfig(max_tokens=64, dropout=0.0), bert).eval()
    texts = ["red stone red apple red", "river bird"]
    for text, row in zip(texts, model.weigh(texts)):
        batch = model.located([text], [[(a, b) for a, b, _ in word_spans(text)]])
        with torch.no_grad():
            numbers = model.numbers(batch)[0].tolist()
        firsts = {}
        for (_, _, term), number in zip(word_spans(text), numbers):
            firsts.setdefault(term, number)
        assert min(numbers) >= 0
        assert row == pytest.approx({term: number for term, number in firsts.items() if number > 0}, rel=1e-4)


def test_the_loss_of_impacts_is_that_of_the_shared_terms(bert):
    model = DeepImpact(DeepImpactConfig(max_tokens=64, dropout=0.0), bert).eval()
    pair = Pair("red river anna", "heavy red river red", ("anna is light", "bird"))
    rows = model.weigh([pair.document, *pair.negatives])
    scores = torch.tensor([sum(row.get(word, 0.0) for word in pair.query.split()) for row in rows])
    model.config = DeepImpactConfig(max_tokens=64, negatives=2, distillation=1.0, teaching="mse", dropout=0.0)
    taught = Pair(pair.query, pair.document, pair.negatives, (1.0, 0.0, 0.5))
    with torch.no_grad():
        losses = model.loss(model.collate([impacted(taught)]))
    assert float(losses["contrastive"]) == pytest.approx(float(-scores.log_softmax(0)[0]), abs=1e-5)
    assert float(losses["distillation"]) == pytest.approx(
        float((scores - torch.tensor(taught.teacher)).square().mean()), abs=1e-5
    )


def test_impacts_learn_which_of_two_documents_is_meant(bert):
    random = np.random.default_rng(1)

    def examples(number):
        about = simulated(random, number)
        quoting = [
            next(text for text, s in about if s != subject and f"{subject} {subject}" in text) for _, subject in about
        ]
        return [impacted(Pair(subject, text, (other,))) for (text, subject), other in zip(about, quoting)]

    model = DeepImpact(DeepImpactConfig(dropout=0.0, max_tokens=32), bert)
    learn(model, examples(200), steps=80)
    with torch.no_grad():
        loss = float(model.loss(model.collate(examples(200)))["contrastive"])
    assert loss < 0.35  # 0.69 without a difference


# COIL and uniCOIL -----------------------------------------------------------------------------------------


def brute(model, query, document):
    """The score, token by token."""
    special = set(model.tokenizer.all_special_ids)
    with torch.no_grad():
        asked, read = (model.read(model.tokens([text])) for text in (query, document))
    total = float((asked.cls[0] * read.cls[0]).sum())
    for i, token in enumerate(asked.ids[0].tolist()):
        if token not in special:
            same = [j for j, other in enumerate(read.ids[0].tolist()) if other == token]
            total += max([0.0, *(float(asked.vectors[0, i] @ read.vectors[0, j]) for j in same)])
    return total


@pytest.mark.parametrize("more", [{}, {"width": 8}, {"width": 8, "cls": 4}])
def test_a_score_is_the_largest_of_the_shared_tokens_by_brute_force(bert, more):
    model = Coil(CoilConfig(max_tokens=64, dropout=0.0, **more), bert).eval()
    queries, documents = ["red red stone", "bird"], ["stone red bird red", "apple", "bird bird anna stone river"]
    expected = [[brute(model, query, document) for document in documents] for query in queries]
    found = model.similarity(queries, documents)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(model.score_texts(Query("1", queries[0]), documents), expected[0], atol=1e-4)


def test_the_inner_product_of_weights_is_the_score(bert):
    model = Coil(CoilConfig(max_tokens=64, dropout=0.0), bert).eval()
    model.tokens_linear.bias.data.fill_(1.0)
    query, document = "red red stone anna", "stone red bird red"
    asked, read = model.weigh([query], "query")[0], model.weigh([document])[0]
    score = sum(each.score for each in explain(asked, read))
    assert score == pytest.approx(float(model.similarity([query], [document])[0, 0]), rel=1e-5)
    assert min(read.values()) > 0
    assert not set(read) & set(model.tokenizer.all_special_tokens)


def test_weights_go_to_an_index_as_those_of_any_model(bert, tmp_path):
    model = Coil(CoilConfig(max_tokens=64, dropout=0.0), bert).eval()
    model.tokens_linear.bias.data.fill_(1.0)
    model.save_pretrained(tmp_path / "m")
    for given_as in (model, str(tmp_path / "m")):
        tokens, weights = Weigher(given_as).arrow(["stone red bird red"])
        found = dict(zip(tokens[0].as_py(), weights[0].as_py()))
        assert found == pytest.approx(model.weigh(["stone red bird red"])[0])


def test_only_matched_tokens_get_gradients(bert):
    model = Coil(CoilConfig(max_tokens=64, width=8, dropout=0.0), bert)
    batch = model.collate([Pair("red stone", "red bird"), Pair("anna", "anna river")])
    flat = {name: batch[name].flatten(0, 1) for name in ("ids", "mask", "types")}
    states = model.states(flat).detach().requires_grad_()
    query_states = model.states({name: batch[f"query_{name}"] for name in flat}).detach()
    model.states = lambda given: states if torch.equal(given["ids"], flat["ids"]) else query_states
    model.loss(batch)["contrastive"].backward()
    named = set(batch["query_ids"].flatten().tolist()) - set(model.tokenizer.all_special_ids)
    touched = states.grad.abs().sum(-1) > 0
    assert touched.any()
    assert set(flat["ids"][touched].tolist()) <= named


@pytest.mark.parametrize("more", [{}, {"width": 8, "cls": 8}])
def test_it_learns_its_pairs(bert, more):
    pairs = [
        Pair(word, f"{word} {WORDS[i - 1]} {WORDS[i - 2]}", (f"{WORDS[i - 1]} {word}",)) for i, word in enumerate(WORDS)
    ]
    model = Coil(CoilConfig(max_tokens=64, dropout=0.0, negatives=1, **more), bert)
    done = learn(model, pairs, steps=60)
    assert done.history[-1]["loss"] < 0.6 * done.history[0]["loss"]


def test_coil_has_no_one_weight_for_a_token(bert):
    with pytest.raises(ConfigError, match="a token of COIL has no one weight"):
        Coil(CoilConfig(max_tokens=64, width=8), bert).weigh(["red"])


# What others have published -------------------------------------------------------------------------------


def folder_of(bert, folder, prefix, more):
    network, tokenizer = bert
    network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = {f"{prefix}{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    save_file({**tensors, **more}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("outer", ["", "coil_encoder."])
def test_published_unicoil_is_read(bert, tmp_path, outer):
    torch.manual_seed(3)
    weight, bias = torch.randn(1, 32), torch.ones(1)
    more = {f"{outer}tok_proj.weight": weight, f"{outer}tok_proj.bias": bias}
    model = Coil.published(folder_of(bert, tmp_path, f"{outer}bert.", more))
    read = model.tokens(["red stone bird"])
    with torch.no_grad():
        states = bert[0](read["ids"], read["mask"].long()).last_hidden_state
    expected = torch.relu(states @ weight[0] + bias)[0, 1:-1]
    names = model.tokenizer.convert_ids_to_tokens(read["ids"][0, 1:-1].tolist())
    wanted = {name: float(w) for name, w in zip(names, expected) if w > 0}
    assert model.weigh(["red stone bird"]) == [pytest.approx(wanted, rel=1e-4)]


def test_published_coil_has_its_layers_beside_it(bert, tmp_path):
    folder = folder_of(bert, tmp_path, "", {})
    torch.save({"tok_proj.weight": torch.randn(8, 32), "cls_proj.weight": torch.randn(4, 32)}, folder / "model.pt")
    model = Coil.published(folder)
    assert (model.config.width, model.config.cls) == (8, 4)


def test_what_is_unknown_or_lacks_is_refused(bert, tmp_path):
    folder = folder_of(bert, tmp_path, "bert.", {"decoder.weight": torch.zeros(2, 2)})
    with pytest.raises(FolderError, match=r"1 of its tensors fit neither BertModel nor cls_proj, tok_proj, decoder"):
        Coil.published(folder)
    folder = folder_of(bert, tmp_path, "bert.", {})
    with pytest.raises(FolderError, match="lacks 1 tensors, tok_proj first"):
        Coil.published(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FolderError, match=r"no model\.safetensors or pytorch_model\.bin"):
        DeepCT.published(folder)


def test_a_token_classifier_with_one_label_is_a_deepct(bert, tmp_path):
    network, tokenizer = bert
    config = type(network.config).from_dict(json.loads(network.config.to_json_string()) | {"num_labels": 1})
    other = BertForTokenClassification(config).eval()
    other.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = DeepCT.published(tmp_path)
    read = tokenizer("red stone", return_tensors="pt")
    with torch.no_grad():
        expected = other(**read).logits[0, 1:-1, 0]
    wanted = {word: float(w) for word, w in zip(("red", "stone"), expected) if w > 0}
    assert model.weigh(["red stone"]) == [pytest.approx(wanted, rel=1e-4)]


# Distillation ---------------------------------------------------------------------------------------------


def test_losses_of_a_teacher_in_closed_form():
    student = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[5.0, 2.0, 1.0]], requires_grad=True)
    assert float(distilled(student, teacher, "margin").detach()) == pytest.approx(((3 - 1) ** 2 + (4 - 2) ** 2) / 2)
    assert float(distilled(student, teacher, "mse").detach()) == pytest.approx((9 + 1 + 1) / 3)
    p, q = teacher.softmax(1), student.softmax(1)
    assert float(distilled(student, teacher).detach()) == pytest.approx(
        float((p * (p / q).log()).sum().detach()), abs=1e-6
    )
    for teaching in ("kl", "margin", "mse"):
        distilled(student, teacher, teaching).backward()
    assert teacher.grad is None
    assert float(distilled(student + 7, teacher, "margin").detach()) == pytest.approx(4.0)


def test_a_retriever_learns_a_teachers_margins(bert):
    config = RetrieverConfig(
        max_tokens=64, negatives=1, contrastive=0.0, distillation=1.0, teaching="margin", temperature=1.0, dropout=0.0
    )
    pairs = [Pair(word, f"{word} stone", ("red apple",), (0.9, -0.3)) for word in WORDS]
    done = learn(Retriever(config, bert), pairs, steps=40)
    assert done.history[-1]["loss"] < 0.3 * done.history[0]["loss"]
    with pytest.raises(ConfigError, match="teaching 'margins'"):
        RetrieverConfig(teaching="margins")
