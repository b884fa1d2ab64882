"""A chat endpoint against a server on this machine: retries, faults, answers on disk, budgets, and a key that stays in."""

import sqlite3
import time

import pytest

from chat_server import chat_server
from hourglass.adapters.chat_endpoint import ChatEndpoint, Prices, json_object
from hourglass.errors import ConfigError, EndpointError, FolderError
from hourglass.uses.judge import Context, asking


@pytest.fixture
def chat():
    with chat_server(lambda messages: f"to {messages[-1]['content']}") as chat:
        yield chat


def to(chat, **settings):
    return ChatEndpoint(chat.url, "tiny", **{"pause": 0.001, "timeout": 5.0, **settings})


def said(*prompts):
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


def asked(endpoint, *prompts):
    return {number: reply.text for number, reply in endpoint.ask_all(said(*prompts))}


def test_answers_come_by_number_and_are_counted(chat):
    endpoint = to(chat)
    assert asked(endpoint, *"abcdefghijklm") == {i: f"to {c}" for i, c in enumerate("abcdefghijklm")}
    assert (endpoint.usage.asked, endpoint.usage.prompt_tokens, endpoint.usage.completion_tokens) == (13, 130, 65)
    assert not endpoint.usage.estimated
    body = chat.requests[0]
    assert body["model"] == "tiny"
    assert body["temperature"] == 0
    assert "Authorization" not in chat.headers[0]
    assert endpoint.ask("x") == "to x"


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "half", "garbage", {"error": {"message": "overloaded"}}])
def test_what_may_pass_is_tried_again(chat, fault):
    chat.faults = [fault, fault]
    assert asked(to(chat), "a") == {0: "to a"}
    assert len(chat.requests) == 3


def test_a_server_that_stays_broken_is_given_up_in_one_line_and_answers_are_kept(chat, tmp_path):
    endpoint = to(chat, answers=tmp_path / "answers.sqlite", at_once=1, tries=3)
    got = []
    with pytest.raises(EndpointError, match=r"HTTP 500 it is so, after 3 tries; 2 answers are kept"):
        for number, _ in endpoint.ask_all(said("a", "b", "c")):
            got.append(number)
            if len(got) == 2:
                chat.faults = [500] * 9
    chat.faults = []
    before = len(chat.requests)
    assert asked(to(chat, answers=tmp_path / "answers.sqlite"), "a", "b", "c") == {0: "to a", 1: "to b", 2: "to c"}
    assert len(chat.requests) == before + 1


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_server_that_never_answers_times_out(chat, fault):
    chat.faults = [fault] * 9
    started = time.monotonic()
    with pytest.raises(EndpointError, match=r"no answer in 0.2 s, after 2 tries"):
        asked(to(chat, timeout=0.2), "a")
    assert time.monotonic() - started < 2


def test_nobody_there():
    with pytest.raises(EndpointError, match=r"the connection fails .*refused.*after 2 tries"):
        asked(ChatEndpoint("http://127.0.0.1:9/v1", "tiny", pause=0.001, tries=2), "a")


def test_the_key_goes_to_the_server_and_nowhere_else(chat, tmp_path, monkeypatch):
    monkeypatch.setenv("HOURGLASS_API_KEY", "sk-secret")
    endpoint = to(chat, answers=tmp_path / "answers.sqlite")
    asked(endpoint, "a")
    assert chat.headers[0]["Authorization"] == "Bearer sk-secret"
    assert b"sk-secret" not in (tmp_path / "answers.sqlite").read_bytes()
    assert "sk-secret" not in repr(endpoint)
    chat.faults = [(401, "the key sk-secret is unknown")]
    with pytest.raises(EndpointError, match=r"HTTP 401 the key … is unknown; put the key .* into HOURGLASS_API_KEY"):
        asked(endpoint, "b")
    chat.faults = ["elsewhere"]
    with pytest.raises(EndpointError, match=r"HTTP 307 .*leads elsewhere"):
        asked(endpoint, "b")
    monkeypatch.setenv("HOURGLASS_API_KEY", "sk\nsecret")
    with pytest.raises(ConfigError, match="holds a sign that no key has"):
        to(chat)


def test_a_question_that_the_server_declines_is_a_refusal(chat):
    endpoint = to(chat, at_once=1)
    asked(endpoint, "a")
    chat.faults = [(400, "content policy")]
    ((_, reply),) = endpoint.ask_all(said("b"))
    assert reply.text is None
    assert "content policy" in reply.refusal


def test_a_server_that_declines_everything_ends_it(chat):
    chat.faults = [(400, "no such option")] * 9
    with pytest.raises(EndpointError, match="no such option"):
        asked(to(chat, at_once=1), "a", "b", "c", "d")
    assert len(chat.requests) == 3


def test_refusals_of_the_model(chat):
    chat.reply = lambda messages: {"role": "assistant", "content": None, "refusal": "I will not"}
    ((_, reply),) = to(chat).ask_all(said("b"))
    assert (reply.text, reply.refusal) == (None, "I will not")
    with pytest.raises(EndpointError, match="tiny refused: I will not"):
        to(chat).ask("b")


def test_models_that_call_the_limit_otherwise(chat):
    chat.faults = [(400, "'max_tokens' is not supported, use 'max_completion_tokens'"), (400, "no 'temperature' here")]
    endpoint = to(chat)
    assert asked(endpoint, "a") == {0: "to a"}
    assert asked(endpoint, "b") == {0: "to b"}
    assert len(chat.requests) == 4
    assert "max_completion_tokens" in chat.requests[-1]
    assert not {"max_tokens", "temperature"} & set(chat.requests[-1])


def test_no_question_is_paid_for_twice(chat, tmp_path):
    kept = tmp_path / "answers.sqlite"
    assert asked(to(chat, answers=kept), "a", "b", "a") == {0: "to a", 1: "to b", 2: "to a"}
    assert len(chat.requests) == 2
    again = to(chat, answers=kept)
    assert again.estimate(said("a", "b", "c"), 20)[0] == 1
    assert asked(again, "b", "a") == {0: "to b", 1: "to a"}
    assert (again.usage.asked, again.usage.kept, again.usage.prompt_tokens) == (0, 2, 0)
    assert asked(again.with_model("other"), "a") == {0: "to a"}
    assert len(chat.requests) == 3


def test_a_file_that_is_no_store_of_answers(chat, tmp_path):
    (tmp_path / "answers.sqlite").write_text("something else, long enough to be no empty database " * 40)
    with pytest.raises(FolderError, match="cannot be used as a store of answers"):
        asked(to(chat, answers=tmp_path / "answers.sqlite"), "a")


def test_a_budget_is_never_passed_and_a_larger_one_goes_on(chat, tmp_path):
    kept = tmp_path / "answers.sqlite"
    # A question of 1 byte: at most 9 tokens, and 5 of the reply that may be 20 long.
    endpoint = to(chat, answers=kept, budget=70, max_tokens=20, at_once=4)
    got = asked(endpoint, *"abcdefgh")
    assert sorted(got) == [0, 1, 2]
    assert endpoint.usage.prompt_tokens + endpoint.usage.completion_tokens == 45
    assert endpoint.stopped
    assert "the budget of 70 tokens is spent" in endpoint.spent
    with pytest.raises(EndpointError, match="budget of 70 tokens"):
        endpoint.ask("z")
    assert sorted(asked(to(chat, answers=kept, budget=1e6), *"abcdefgh")) == list(range(8))
    assert len(chat.requests) == 8


def test_money(chat):
    endpoint = to(chat, prices=Prices.parse("1/2"), budget=1e-4, max_tokens=20, at_once=1)
    asked(endpoint, *"abcdefgh")
    assert endpoint.cost == pytest.approx(endpoint.usage.asked * 20e-6)
    assert 0 < endpoint.cost <= 1e-4
    assert endpoint.stopped
    with pytest.raises(ConfigError, match="prices '1': expected"):
        Prices.parse("1")


def test_a_server_that_does_not_count(chat):
    chat.usage = False
    endpoint = to(chat)
    asked(endpoint, "a" * 300)
    assert endpoint.usage.estimated
    assert endpoint.usage.prompt_tokens >= 100


def test_a_stop_keeps_what_came(chat, tmp_path):
    endpoint = to(chat, answers=tmp_path / "answers.sqlite", at_once=2)
    with pytest.raises(KeyboardInterrupt):
        for number, _ in endpoint.ask_all(said(*"abcdef")):
            if number == 2:
                raise KeyboardInterrupt
    with sqlite3.connect(tmp_path / "answers.sqlite") as database:
        (count,) = database.execute("SELECT COUNT(*) FROM answers").fetchone()
    database.close()
    assert count >= 3


def test_an_unusable_answer_is_told_to_the_model(chat):
    replies = iter(['{"n": "x"}', "no idea", '{"n": 7}'])
    chat.reply = lambda messages: next(replies)

    def number(said):
        if not isinstance(said.get("n"), int):
            raise ValueError('"n" must be a number')
        return said["n"]

    assert to(chat).ask_for("which?", number) == 7
    assert '"n" must be a number' in chat.requests[1]["messages"][-1]["content"]
    chat.reply = lambda messages: "never"
    with pytest.raises(EndpointError, match="no answer that can be used in 2 tries"):
        to(chat).ask_for("which?", number, tries=2)


def test_it_judges_features_too(chat):
    chat.reply = lambda messages: '{"score": 4, "name": "fruit"}'
    judgement = asking(to(chat).ask)([Context(0, ("an", "apple"), (0.0, 1.0))])
    assert (judgement.score, judgement.name) == (4, "fruit")
    assert "apple" in chat.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://x/v1", "http://", "http://u:p@x/v1", "http://x:99999/v1"])
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError):
        ChatEndpoint(url, "tiny")


def test_what_else_must_be_said(chat):
    with pytest.raises(ConfigError, match="which model"):
        ChatEndpoint(chat.url, "")
    with pytest.raises(ConfigError, match="budget 0: expected more than 0"):
        to(chat, budget=0)


def test_json_is_read_strictly():
    assert json_object('{"a": 1}') == {"a": 1}
    assert json_object('<think>{"a": 2}</think>\n```json\n{"a": 1}\n```') == {"a": 1}
    for wrong in (
        "",
        "yes",
        "[1]",
        'Sure! {"a": 1}',
        '{"a": 1} {"a": 2}',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1,}',
    ):
        with pytest.raises(ValueError):
            json_object(wrong)
