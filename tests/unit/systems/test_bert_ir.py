"""The survey's categories as pipelines: what an index has the parts for, and all of it runs."""

from typing import get_args

import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import hourglass as hg
from corpus import documents, write_csv
from encoders import make_pair
from hourglass.errors import ConfigError
from hourglass.systems import bert_ir
from hourglass.uses.search.parade import Parade, ParadeConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    source = write_csv(folder / "texts.csv", documents(30))
    network, tokenizer = make_pair()
    for part in (network, tokenizer):
        part.save_pretrained(folder / "encoder")
    config = ParadeConfig(max_tokens=32, size=10, stride=5, layers=1, heads=2)
    Parade(config, (network, tokenizer)).save_pretrained(folder / "parade")
    encoder = str(folder / "encoder")
    whole = hg.index(
        source, out=folder / "ix", encoder=encoder, tokens=encoder, code="sign", text="body", progress=False
    )
    words = hg.index(source, out=folder / "words", encoder=None, text="body", progress=False)
    return folder, whole, words


def test_an_index_of_words_has_the_pipelines_that_need_no_model(made):
    _, _, words = made
    assert set(bert_ir.pipelines(words)) == {recipe.pipeline for recipe in bert_ir.RECIPES if not recipe.needs}


def test_models_and_codes_bring_theirs(made):
    folder, whole, _ = made
    found = bert_ir.pipelines(whole, cross="some/model", parade=str(folder / "parade"))
    missing = {"weights"}
    expected = [recipe for recipe in bert_ir.RECIPES if not recipe.needs & missing]
    assert len(found) == len(expected)
    assert 'bm25 % 50 >> cross("some/model")' in found
    assert set(found.values()) == set(get_args(bert_ir.Category)) - {"term weights"}
    for text in found:
        whole.pipeline(text)  # each can be read


def test_all_that_needs_no_cross_encoder_finds_something(made):
    folder, whole, _ = made
    asked = " ".join(documents(30)[7]["body"].split()[:6])
    for text in bert_ir.pipelines(whole, parade=str(folder / "parade")):
        small = text.replace("ceqe", f'ceqe("{folder / "encoder"}")')
        assert len(whole.search(asked, pipeline=small, top=3)), text


def test_every_category_has_a_recipe_and_every_recipe_is_read_once():
    assert {recipe.category for recipe in bert_ir.RECIPES} == set(get_args(bert_ir.Category))
    assert len({recipe.pipeline for recipe in bert_ir.RECIPES}) == len(bert_ir.RECIPES)


def test_a_model_that_a_pipeline_cannot_name_is_refused(made):
    with pytest.raises(ConfigError, match="double quote"):
        bert_ir.pipelines(made[1], cross='a"b')
