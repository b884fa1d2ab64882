"""Any server that speaks OpenAI's chat protocol: a provider's, or llama.cpp, Ollama or vLLM on this machine.

    endpoint = ChatEndpoint("http://localhost:11434/v1", "llama3.1", answers="answers.sqlite")
    for number, reply in endpoint.ask_all(conversations): ...
    endpoint.usage, endpoint.cost

A few questions are on their way at a time. A server that is busy (429), broken (5xx), silent or gone is asked again
after a pause that doubles. Every answer is kept on disk by the hash of model and messages, so that no question is
paid for twice and the same call after a stop goes on from there. With a budget no question is sent that could pass
it. The key is read from the environment (HOURGLASS_API_KEY) and goes nowhere but into the request.
"""

from __future__ import annotations

import copy
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from hourglass.errors import ConfigError, EndpointError, RefusalError
from hourglass.storage.answers import Answers

KEY = "HOURGLASS_API_KEY"
"""Environment variable that holds the key of the server, where it wants one."""

Conversation = Sequence[Mapping[str, str]]
"""Messages with "role" and "content"."""

_BYTES_PER_TOKEN = 3  # fewer than in nearly any text, so that an estimate is rather too high
_BUSY = (408, 409, 425, 429)
_THIS_QUESTION = (400, 413, 422)
_TRIES_IN_SILENCE = 2
_LONGEST_PAUSE = 60.0
_MOST_BYTES = 2**22
_DECLINED_AT_FIRST = 3
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Reply:
    """text: what the model said; or None, and `refusal` says why it, or its server, would not answer."""

    text: str | None
    refusal: str | None = None


@dataclass
class Usage:
    """asked: questions that were answered; kept: answers found on disk; estimated: whether the server left tokens uncounted."""

    asked: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


class Prices(NamedTuple):
    """Money for a million tokens, in any currency."""

    prompt: float
    completion: float

    @classmethod
    def parse(cls, text: str) -> Prices:
        """Out of "0.15/0.60"."""
        try:
            prompt, completion = map(float, text.split("/"))
            if prompt >= 0 and completion >= 0:
                return cls(prompt, completion)
        except ValueError:
            pass
        raise ConfigError(f"prices {text!r}: expected those of a million tokens read and written, as 0.15/0.60")

    def of(self, prompt: int, completion: int) -> float:
        return (self.prompt * prompt + self.completion * completion) / 1e6


class ChatEndpoint:
    """One model behind one address.

    url         base address, such as http://localhost:11434/v1 (`/chat/completions` is added)
    answers     file in which answers are kept; None keeps none
    budget      most tokens, or most money where `prices` are given, of all calls together
    at_once     questions on their way at a time
    timeout     seconds after which a question without a whole answer counts as unanswered
    tries       how often a question is sent before the server counts as gone (twice where it is silent)
    pause       seconds before the second try; doubled for each further one
    max_tokens  longest answer
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        answers: str | Path | None = None,
        budget: float | None = None,
        prices: Prices | tuple[float, float] | None = None,
        at_once: int = 8,
        timeout: float = 120.0,
        tries: int = 5,
        pause: float = 1.0,
        max_tokens: int = 2048,
    ) -> None:
        self.url = _checked(url)
        if not model:
            raise ConfigError(f"{url}: which model? Name the one that the server is to use (--model)")
        if budget is not None and not budget > 0:
            raise ConfigError(f"budget {budget}: expected more than 0")
        self.model = model
        self.budget, self.prices = budget, Prices(*prices) if prices else None
        self.usage = Usage()
        self.stopped = False  # whether the budget has kept back a question
        self._answers = Answers(answers) if answers is not None else None
        self._at_once, self._timeout, self._tries, self._pause = at_once, timeout, tries, pause
        self._max_tokens = max_tokens
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{KEY}: holds a sign that no key has")
        # What some models call otherwise or do not take; learned from their first complaint.
        self._limit, self._temperature = "max_tokens", True
        self._declined = 0
        # A redirect would carry the key elsewhere, and this machine is not behind its own proxy.
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if urllib.parse.urlsplit(self.url).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"<ChatEndpoint {self.url}: {self.model}>"

    # Asking ------------------------------------------------------------------------------------------

    def ask(self, prompt: str | Conversation) -> str:
        """What the model says to one prompt.

        RefusalError where it refuses; EndpointError where it is gone, or the budget does not allow it.
        """
        for _, reply in self.ask_all([[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt]):
            if reply.text is None:
                raise RefusalError(f"{self.url}: {self.model} refused: {reply.refusal}")
            return reply.text
        raise EndpointError(f"{self.url}: {self.spent}")

    def ask_for(self, prompt: str, understood: Callable[[dict[str, Any]], Any], tries: int = 5) -> Any:
        """What `understood` makes of the JSON object that answers the prompt; its ValueError is told to the model, which
        then may try again. EndpointError when it never succeeds.
        """
        conversation = [{"role": "user", "content": prompt}]
        why = ""
        for _ in range(tries):
            said = self.ask(conversation)
            try:
                return understood(json_object(said))
            except ValueError as error:
                why = str(error)
            again = f"That cannot be used: {why}. Send the whole JSON object once more, and nothing else."
            conversation += [{"role": "assistant", "content": said}, {"role": "user", "content": again}]
        raise EndpointError(f"{self.url}: {self.model} gave no answer that can be used in {tries} tries: {why}")

    def with_model(self, model: str) -> ChatEndpoint:
        """Another model at the same address; budget, usage and answers are shared."""
        other = copy.copy(self)
        other.model = model
        return other

    def ask_all(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Reply]]:
        """(number of the conversation, reply), in the order in which they come.

        Those for which the budget is too small are left out, the last ones first. Raises EndpointError when the server is
        gone or does not let us in; what was answered is kept.
        """
        waiting: dict[str, list[int]] = {}
        for number, conversation in enumerate(conversations):
            waiting.setdefault(self._key_of(conversation), []).append(number)
        for key, kept in self._kept(list(waiting)).items():
            for number in waiting.pop(key):
                self.usage.kept += 1
                yield number, kept
        if waiting:
            yield from self._send(conversations, waiting)

    def _send(
        self, conversations: Sequence[Conversation], waiting: dict[str, list[int]]
    ) -> Iterator[tuple[int, Reply]]:
        queue = deque(waiting)
        flying: dict[str, float] = {}
        answered = 0
        workers = _Workers(self._answer, min(self._at_once, len(queue)))
        try:
            while True:
                while queue and len(flying) < self._at_once:
                    conversation = conversations[waiting[queue[0]][0]]
                    most = self._amount(_tokens(conversation), self._max_tokens)
                    if self.budget is not None and self._spent() + sum(flying.values()) + most > self.budget:
                        break
                    key = queue.popleft()
                    flying[key] = most
                    workers.start(key, conversation)
                if not flying:
                    self.stopped |= bool(queue)
                    return
                key, outcome = workers.next()
                del flying[key]
                reply = self._take(key, outcome)
                answered += 1
                for number in waiting[key]:
                    yield number, reply
        except EndpointError as error:
            kept = f"; {answered:,} answers are kept, the same call goes on from there" if self._answers else ""
            raise EndpointError(f"{error}{kept}") from None
        finally:
            workers.stop()
            for key, outcome in workers.rest():  # paid for, so kept
                if isinstance(outcome, _Answered):
                    self._take(key, outcome)

    def _take(self, key: str, outcome: _Answered | Exception) -> Reply:
        """Count an answer and keep it."""
        if isinstance(outcome, _Declined):
            self._declined += 1
            # A server that declines everything has no use for our way of asking.
            if self._declined >= _DECLINED_AT_FIRST and not self.usage.asked and not self.usage.kept:
                raise EndpointError(str(outcome))
            return Reply(None, str(outcome))
        if isinstance(outcome, Exception):
            raise outcome
        self.usage.asked += 1
        self.usage.prompt_tokens += outcome.prompt
        self.usage.completion_tokens += outcome.completion
        self.usage.estimated |= outcome.estimated
        if self._answers is not None:
            self._answers.put(key, {"text": outcome.reply.text, "refusal": outcome.reply.refusal})
        return outcome.reply

    def _kept(self, keys: list[str]) -> dict[str, Reply]:
        if self._answers is None:
            return {}
        return {key: Reply(value["text"], value["refusal"]) for key, value in self._answers.get(keys).items()}

    def _key_of(self, conversation: Conversation) -> str:
        return Answers.key([self.model, [dict(message) for message in conversation]])

    # Money -------------------------------------------------------------------------------------------

    @property
    def cost(self) -> float | None:
        """Money spent; None where no prices are known."""
        used = self.usage
        return self.prices.of(used.prompt_tokens, used.completion_tokens) if self.prices else None

    @property
    def spent(self) -> str:
        """One line that says that the budget is at its end."""
        unit = "tokens" if self.prices is None else "of money"
        return (
            f"the budget of {self.budget:,.10g} {unit} is spent as far as it may be ({self._spent():,.10g}); "
            "the same call with a larger one goes on from there"
        )

    def estimate(self, conversations: Sequence[Conversation], reply: int) -> tuple[int, float]:
        """(questions without an answer on disk, tokens that they take or, with prices, money) at `reply` tokens each."""
        keys = {self._key_of(conversation): conversation for conversation in conversations}
        new = [keys[key] for key in keys.keys() - self._kept(list(keys)).keys()]
        return len(new), self._amount(sum(map(_tokens, new)), reply * len(new))

    def _spent(self) -> float:
        return self._amount(self.usage.prompt_tokens, self.usage.completion_tokens)

    def _amount(self, prompt: int, completion: int) -> float:
        return self.prices.of(prompt, completion) if self.prices else prompt + completion

    # One question, in a thread of its own ------------------------------------------------------------

    def _answer(self, conversation: Conversation, stopped: threading.Event) -> _Answered:
        """Send until there is an answer; EndpointError when there is none."""
        silent = sent = 0
        while True:
            sent += 1
            try:
                return self._post(conversation)
            except _Again as error:
                silent += error.silent
                if sent >= self._tries or silent >= _TRIES_IN_SILENCE or stopped.is_set():
                    raise EndpointError(f"{self.url}: {error}, after {sent} tries") from None
                pause = self._pause * 2 ** (sent - 1) * random.uniform(0.75, 1.25)
                stopped.wait(min(_LONGEST_PAUSE, max(pause, error.after)))

    def _post(self, conversation: Conversation) -> _Answered:
        body: dict[str, Any] = {"model": self.model, "messages": [dict(message) for message in conversation]}
        limit, temperature = self._limit, self._temperature
        body[limit] = self._max_tokens
        if temperature:
            body["temperature"] = 0
        # Half a surrogate pair cannot be sent as text, but as an escape of JSON.
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            said = self._read(request)
        except urllib.error.HTTPError as error:
            with error:
                why = self._complaint(error)
                if error.code == 400 and limit == "max_tokens" and "max_completion_tokens" in why:
                    self._limit = "max_completion_tokens"
                    return self._post(conversation)
                if error.code == 400 and temperature and "temperature" in why:
                    self._temperature = False
                    return self._post(conversation)
                if error.code in _BUSY or error.code >= 500:
                    raise _Again(why, after=_seconds(error.headers.get("Retry-After"))) from None
                if error.code in _THIS_QUESTION:
                    raise _Declined(f"{self.url}: {why}") from None
                raise EndpointError(f"{self.url}: {why}{_hint(error.code)}") from None
        except TimeoutError:
            raise _Again(f"no answer in {self._timeout:g} s", silent=True) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _Again(f"no answer in {self._timeout:g} s", silent=True) from None
            raise _Again(f"the connection fails ({str(reason) or type(reason).__name__})") from None
        return self._understand(said, conversation)

    def _read(self, request: urllib.request.Request) -> bytes:
        """The whole answer, in time: a server that sends a byte now and then is silent too."""
        until = time.monotonic() + self._timeout
        with self._opener.open(request, timeout=self._timeout) as response:
            parts = bytearray()
            while part := response.read1(65_536):
                parts += part
                if time.monotonic() > until:
                    raise TimeoutError
                if len(parts) > _MOST_BYTES:
                    raise EndpointError(
                        f"{self.url}: an answer of more than {_MOST_BYTES:,} bytes; expected a chat endpoint"
                    )
            if response.length:
                raise http.client.IncompleteRead(bytes(parts), response.length)
        return bytes(parts)

    def _understand(self, said: bytes, conversation: Conversation) -> _Answered:
        try:
            answer = json.loads(said)
            choice = answer["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), message.get("content")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Again(f"expected an answer of a chat endpoint, got {self._quiet(said[:200])!r}") from None
        if choice.get("finish_reason") == "content_filter":
            refusal = refusal or "filtered by the server"
        reply = Reply(None, str(refusal)) if refusal else Reply(text if isinstance(text, str) else "")
        usage = answer.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(completion, int) and min(prompt, completion) >= 0:
            return _Answered(reply, prompt, completion, False)
        return _Answered(reply, _tokens(conversation), _length(reply.text or ""), True)

    def _complaint(self, error: urllib.error.HTTPError) -> str:
        """What the server says about an error, in one line."""
        try:
            said = error.read(4096)
        except (OSError, http.client.HTTPException):
            said = b""
        try:
            found = json.loads(said)["error"]
            message = str(found["message"] if isinstance(found, dict) else found)
        except (ValueError, LookupError, TypeError):
            message = self._quiet(said)
        return f"HTTP {error.code} {self._quiet(message.encode())[:300] or error.reason}"

    def _quiet(self, said: bytes) -> str:
        """What a server sent, in one line and without the key."""
        text = " ".join(said.decode("utf-8", "replace").split())
        return text.replace(self._key, "…") if self._key else text


# What the threads hand over ---------------------------------------------------------------------------


class _Answered(NamedTuple):
    reply: Reply
    prompt: int
    completion: int
    estimated: bool


class _Again(Exception):
    """What may pass: try again, after so many seconds where the server says so."""

    def __init__(self, message: str, *, after: float = 0.0, silent: bool = False) -> None:
        super().__init__(message)
        self.after, self.silent = after, silent


class _Declined(Exception):
    """The server will not take this one question."""


class _Workers:
    """Threads that answer questions. They are daemons: a stop by Ctrl-C does not wait for a server that is silent."""

    def __init__(self, work: Any, number: int) -> None:
        self._work = work
        self._tasks: SimpleQueue[tuple[str, Conversation] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def start(self, key: str, conversation: Conversation) -> None:
        self._tasks.put((key, conversation))

    def next(self) -> tuple[str, Any]:
        """The key and the answer, or the exception, of the question that is done first."""
        return self._done.get()

    def stop(self) -> None:
        self._stopped.set()
        for _ in self._threads:
            self._tasks.put(None)

    def rest(self) -> Iterator[tuple[str, Any]]:
        """What is done and was not fetched."""
        while not self._done.empty():
            yield self._done.get()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            key, conversation = task
            if self._stopped.is_set():
                continue
            try:
                self._done.put((key, self._work(conversation, self._stopped)))
            except Exception as error:
                self._done.put((key, error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


# Reading what a model says ----------------------------------------------------------------------------

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.S)
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.S)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a reply consists of; ValueError for anything else.

    Thoughts in <think> tags before it and a fence of Markdown around it are passed over, nothing more: a name that comes
    twice and NaN are refused too.
    """
    text = _THOUGHT.sub("", text)
    if fenced := _FENCE.match(text):
        text = fenced.group(1)
    found = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that comes twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


# Small things -----------------------------------------------------------------------------------------


def _checked(url: str) -> str:
    """The address to send to; ConfigError for one that cannot be."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{url!r}: expected the base address of a chat endpoint, such as http://localhost:11434/v1")
    if parts.username or parts.password or parts.query:
        raise ConfigError(f"{parts.hostname}: the address holds more than a place; a key belongs into {KEY}")
    return url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"


def _tokens(conversation: Conversation) -> int:
    """Tokens of a prompt, rather too many."""
    return sum(_length(message["content"]) + 8 for message in conversation)


def _length(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def _seconds(header: str | None) -> float:
    """Retry-After, where it is a number of seconds."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _hint(code: int) -> str:
    if code in (401, 403):
        return f"; put the key of the server into {KEY}"
    if code == 404:
        return "; expected the base address of a chat endpoint (as http://localhost:11434/v1) and a model that it has"
    return "; the address leads elsewhere: name the one that it leads to" if code < 400 else ""
