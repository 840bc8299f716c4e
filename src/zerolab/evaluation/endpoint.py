"""A model behind an OpenAI-compatible endpoint as a sampler: vLLM, SGLang, llama.cpp, a public service.

The server is not trusted. An invalid answer, a stall or a refusal for load is tried again with growing pauses, for a
bounded time; a request that gets no response is a `Failed` with its reason. The bytes and the nesting of a body are
capped before it is parsed. No text from the server that may contain our key is shown or stored as it is.
"""

import asyncio
import base64
import os
import queue
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from zerolab.errors import UserError
from zerolab.evaluation.samplers import Ask, Failed, Sampled

MAX_BYTES = 8 * 2**20  # of one body; 100,000 tokens are about half a MiB
MAX_DEPTH = 64  # of nested objects and lists in a body; a reply has 5
SHORTEST_SECRET = 6  # characters; a shorter key would be found in ordinary text
HIDDEN = "[hidden]"


class RefusedBody(Exception):
    """A body that was not read to its end, or not parsed. The message says why."""


async def read_capped(response: Any) -> None:
    """Read the body of an httpx response. Raises RefusedBody for one that would fill the memory or the stack."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise RefusedBody(f"a compressed body ({encoding[:20]!r}), which was not asked for")
    kind: Any = type(response.stream)
    response.stream = _capped(kind)(response.stream)
    if is_deeper(await response.aread(), MAX_DEPTH):
        raise RefusedBody(f"a body nested deeper than {MAX_DEPTH} levels")


@cache
def _capped(kind: type) -> type:
    """A stream of the kind that the client checks for: openai has built on httpx and on a successor of it."""
    base: Any = next(parent for parent in kind.__mro__ if parent.__name__ == "AsyncByteStream")

    class CappedStream(base):
        def __init__(self, stream: Any):
            self.stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self.stream:
                size += len(chunk)
                if size > MAX_BYTES:
                    raise RefusedBody(f"a body of more than {MAX_BYTES / 2**20:g} MiB")
                yield chunk

        async def aclose(self) -> None:
            await self.stream.aclose()

    return CappedStream


# A whole string (the last one may lack its end), or a bracket. No part backtracks, so that a search is linear.
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def is_deeper(body: bytes, levels: int) -> bool:
    """Whether JSON nests more than so many objects and lists, found without parsing it."""
    if body.count(b"[") + body.count(b"{") <= levels:
        return False
    depth = 0
    for mark in _MARKS.finditer(body):
        if mark[0] in (b"[", b"{"):
            depth += 1
            if depth > levels:
                return True
        elif mark[0] in (b"]", b"}"):
            depth -= 1
    return False


class Secrets:
    """The key and whatever names the user in an address, in every form in which a server could send them back."""

    def __init__(self, url: str, key: str | None):
        user, _, _ = urlsplit(url).netloc.rpartition("@") if "//" in url else ("", "", "")
        plain = [key or "", user, *user.split(":")]
        forms = {form for s in plain for form in (s, quote(s, safe=""), unquote(s))}
        forms.add(base64.b64encode(unquote(user).encode()).decode())
        known = sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known)), re.IGNORECASE) if known else None

    def hide(self, text: str) -> str:
        """`text` without our secrets."""
        return self._pattern.sub(HIDDEN, text) if self._pattern else text

    def hide_tokens(self, text: str) -> str:
        """The same, and without whatever follows the word Bearer: for errors, which quote headers."""
        return re.sub(r"(?i)(\bbearer\s+)[^\s\"',}]+", rf"\1{HIDDEN}", self.hide(text))


def without_secrets(url: str) -> str:
    """An address to be shown or stored: user, password and the values of its query are hidden."""
    url = re.sub(r"//[^/?#]*@", f"//{HIDDEN}@", url)
    return re.sub(r"([?&][^=&#]*=)[^&#]*", rf"\1{HIDDEN}", url)


KEY_VARIABLE = "OPENAI_API_KEY"
GIVE_UP_AFTER = 20  # asks that failed in a row, with nothing sampled between them
NO_USE = {401: "refuses the key", 403: "refuses access", 404: "knows no such model or path"}


class NoResponse(Exception):
    """This try gave nothing; `again` says whether another may, `pause` how long the server asks to wait (seconds)."""

    def __init__(self, why: str, again: bool = True, pause: float = 0.0):
        super().__init__(why)
        self.again, self.pause = again, pause


@dataclass(frozen=True)
class Endpoint:
    """url as OpenAI's clients take it, up to /v1. `api` is completions (text goes on: base models) or chat (the prompt
    is a user's turn: instruct models). Times in seconds."""

    url: str
    model: str
    api: Literal["completions", "chat"] = "completions"
    key_variable: str = KEY_VARIABLE
    concurrency: int = 16
    timeout: float = 600.0  # for one response, from the first byte sent to the last one read
    tries: int = 6
    pause: float = 1.0  # before the second try; doubles with each
    longest_pause: float = 60.0
    patience: float = (
        120.0  # no try begins later than this after the first one: an ask takes patience + timeout at most
    )


class EndpointSampler:
    """Samples through an endpoint, `concurrency` asks at a time. `count` counts tokens where the server does not."""

    def __init__(self, endpoint: Endpoint, count: Callable[[str], int] | None = None):
        try:
            import openai
        except ImportError as error:
            raise UserError('an endpoint needs the package openai: pip install "zerolab[endpoint]"') from error
        if not endpoint.url.startswith(("http://", "https://")):
            raise UserError(f"the endpoint {without_secrets(endpoint.url)!r} is no address: write http://HOST:PORT/v1")
        self.endpoint, self.count, self._openai = endpoint, count, openai
        self.shown_url = without_secrets(endpoint.url)
        self._secrets = Secrets(endpoint.url, os.environ.get(endpoint.key_variable))
        self.retries = 0  # tries beyond the first, so far
        self._stopped = threading.Event()

    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        done: queue.Queue[Sampled | Failed | BaseException | None] = queue.Queue()
        self._stopped.clear()
        worker = threading.Thread(target=self._work, args=(list(asks), done), name="endpoint", daemon=True)
        worker.start()
        lost = 0
        try:
            while (outcome := done.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
                lost = lost + 1 if isinstance(outcome, Failed) else 0
                if lost >= GIVE_UP_AFTER and isinstance(outcome, Failed):
                    raise UserError(
                        f"{lost} responses in a row failed at {self.shown_url} (the last: {outcome.why}): see to "
                        "the server and start again; what was sampled is kept"
                    )
        finally:
            self.stop()
            worker.join()

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.stop()

    def _work(self, asks: list[Ask], done: "queue.Queue[Any]") -> None:
        """The thread of the event loop. Ends with None, or with what went wrong."""
        try:
            asyncio.run(self._all(asks, done))
            done.put(None)
        except BaseException as error:  # handed over to the thread that waits
            done.put(error)

    async def _all(self, asks: list[Ask], done: "queue.Queue[Any]") -> None:
        key = os.environ.get(self.endpoint.key_variable) or "none"
        client = self._openai.AsyncOpenAI(
            base_url=self.endpoint.url,
            api_key=key,
            max_retries=0,
            timeout=self.endpoint.timeout,
            default_headers={"Accept-Encoding": "identity"},  # a body of 1 MB may unpack to 1 GB
            http_client=self._openai.DefaultAsyncHttpxClient(event_hooks={"response": [read_capped]}),
        )
        waiting = iter(asks)

        async def lane() -> None:
            for ask in waiting:
                done.put(await self._ask(client, ask))

        lanes = [asyncio.create_task(lane()) for _ in range(min(self.endpoint.concurrency, len(asks)))]
        pending = set(lanes)
        try:
            while pending and not self._stopped.is_set():
                finished, pending = await asyncio.wait(pending, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
                for task in finished:
                    task.result()
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            await client.close()

    async def _ask(self, client: Any, ask: Ask) -> Sampled | Failed:
        """A response, or the reason of the last of so many tries. UserError for what no try can mend."""
        why, tries = "", 0
        began = time.monotonic()
        for attempt in range(self.endpoint.tries):
            if attempt:
                self.retries += 1
            tries += 1
            try:
                return await asyncio.wait_for(self._once(client, ask), self.endpoint.timeout)
            except TimeoutError:
                failure = NoResponse(f"no response within {self.endpoint.timeout:g} s")
            except NoResponse as error:
                failure = error
            why = str(failure)
            if not failure.again:
                return Failed(ask.id, why)
            if tries < self.endpoint.tries:
                pause = min(self.endpoint.pause * 2**attempt, self.endpoint.longest_pause)
                pause = max(pause * random.uniform(0.5, 1.0), min(failure.pause, self.endpoint.longest_pause))
                if time.monotonic() - began + pause > self.endpoint.patience:
                    break
                await asyncio.sleep(pause)
        return Failed(ask.id, f"{why} ({tries} {'try' if tries == 1 else 'tries'})")

    async def _once(self, client: Any, ask: Ask) -> Sampled:
        openai = self._openai
        options: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": ask.max_new_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed % 2**31,
        }
        if ask.stop:
            options["stop"] = list(ask.stop)
        if ask.top_p < 1:
            options["top_p"] = ask.top_p
        if extra := {k: v for k in ("top_k", "min_tokens") if (v := getattr(ask, k))}:
            options["extra_body"] = extra  # vLLM and SGLang know them, OpenAI's own service refuses
        try:
            if self.endpoint.api == "chat":
                turns = [{"role": "user", "content": ask.prompt}]
                reply = await client.chat.completions.create(messages=turns, **options)
            else:
                reply = await client.completions.create(prompt=ask.prompt, **options)
        except openai.APITimeoutError as error:
            raise NoResponse(f"no response within {self.endpoint.timeout:g} s") from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, RefusedBody):
                raise NoResponse(str(error.__cause__), again=False) from None
            raise NoResponse(f"no connection ({self._line(error.__cause__ or error)})") from error
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except RefusedBody as error:
            raise NoResponse(str(error), again=False) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError) as error:  # no JSON object
            raise NoResponse(f"no readable response ({self._line(error)})") from error
        return self._sampled(ask, reply)

    def _line(self, error: BaseException) -> str:
        """An error in a few words; what it quotes is hidden first, so that no cut leaves half a key."""
        return self._secrets.hide_tokens(" ".join(f"{type(error).__name__}: {error}".split()))[:160]

    def _refused(self, error: Any) -> Exception:
        status = int(error.status_code)
        if status in NO_USE:
            return UserError(
                f"{self.shown_url} {NO_USE[status]} (HTTP {status}, model {self.endpoint.model}): set "
                f"{self.endpoint.key_variable}, or check --endpoint and the model's name"
            )
        try:
            pause = float(error.response.headers.get("retry-after", 0))
        except (ValueError, AttributeError):
            pause = 0.0
        again = status >= 500 or status in (408, 409, 425, 429)
        return NoResponse(f"HTTP {status} ({self._line(error)})", again, pause)

    def _sampled(self, ask: Ask, reply: Any) -> Sampled:
        """What the reply says, or NoResponse where it says nothing that can be a response."""
        try:
            choice = reply.choices[0]
            text = choice.text if self.endpoint.api == "completions" else choice.message.content
            reason = choice.finish_reason
        except (AttributeError, IndexError, TypeError) as error:
            raise NoResponse("a reply without a response in it") from error
        if text is None and reason == "length":
            text = ""  # a model that was cut off before it said anything
        if not isinstance(text, str) or reason not in ("stop", "length"):
            said = self._secrets.hide(str(reason))[:40]
            raise NoResponse(f"a reply without a response in it (finish_reason {said!r})")
        text = self._secrets.hide(text)
        if reason == "stop":
            text += stop_string(text, ask.stop, getattr(choice, "stop_reason", None))
        tokens = getattr(getattr(reply, "usage", None), "completion_tokens", None)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            tokens = self.count(text) if self.count else None
        return Sampled(ask.id, text, tokens, reason, ask.max_new_tokens)


def stop_string(text: str, stops: Sequence[str], said: object) -> str:
    """The stop string that ended a response and that the server left out, "" for none.

    vLLM says which one it was (`stop_reason`). Where nobody says, a closing tag counts whose opening tag is still open:
    an <answer> that ended by "stop" ended by its </answer>.
    """
    if isinstance(said, str) and said in stops:
        return "" if text.endswith(said) else said
    for stop in stops:
        opening = stop.replace("</", "<", 1)
        if stop.startswith("</") and text.rfind(opening) > text.rfind(stop):
            return stop
    return ""
