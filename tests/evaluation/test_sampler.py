"""Samplers: an engine with its tokenizer, and an endpoint that may misbehave."""

import threading
import time
from typing import Any

import pytest

from endpoint_server import BAD, say, serve
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.evaluation.endpoint import Endpoint, EndpointSampler, stop_string
from zerolab.evaluation.samplers import CUT_TOKENS, Ask, EngineSampler, Failed, Sampled
from zerolab.rollout.torch_engine import TorchEngine


def asks(count: int, **changes: Any) -> list[Ask]:
    return [Ask(i, f"question {i}", seed=i, max_new_tokens=50, **changes) for i in range(count)]


def echo(body: dict[str, Any]) -> dict[str, Any]:
    prompt = body.get("prompt") or body["messages"][-1]["content"]
    return say(f"so {prompt} is {body['seed']}")


def make(url: str, **changes: Any) -> EndpointSampler:
    return EndpointSampler(Endpoint(url, "m", **{"timeout": 5.0, "pause": 0.01, **changes}))


# --- an engine -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler() -> EngineSampler:
    tokenizer = tiny_tokenizer()
    engine = TorchEngine(tiny_model("qwen2"), tokenizer)
    return EngineSampler(engine, tokenizer, lambda text: tokenizer(text)["input_ids"], context=256)


def test_an_engine_samples_texts_by_their_own_seeds(sampler: EngineSampler) -> None:
    together = {s.id: s for s in sampler.sample(asks(3))}
    alone = next(iter(sampler.sample(asks(3)[1:2])))
    assert isinstance(alone, Sampled)
    assert together[1] == alone
    assert len({s.text for s in together.values() if isinstance(s, Sampled)}) == 3


def test_cuts_are_where_the_tokens_end(sampler: EngineSampler) -> None:
    outcomes = sampler.sample([Ask(i, "abc", seed=i, max_new_tokens=200) for i in range(60)])
    long = max((s for s in outcomes if isinstance(s, Sampled)), key=lambda s: s.tokens or 0)
    assert long.tokens is not None
    assert len(long.cuts) == long.tokens // CUT_TOKENS >= 1
    for i, cut in enumerate(long.cuts, 1):
        (short,) = sampler.sample([Ask(0, "abc", seed=long.id, max_new_tokens=CUT_TOKENS * i)])
        assert isinstance(short, Sampled)
        assert short.text == long.text[:cut]


def test_a_context_that_is_too_short_is_said(sampler: EngineSampler) -> None:
    length = len(sampler.encode("a b " * 60))
    pair = [Ask(0, "a b " * 60, seed=1, max_new_tokens=250), Ask(1, "a b " * 200, seed=1, max_new_tokens=5)]
    fits, full = sorted(sampler.sample(pair), key=lambda outcome: outcome.id)
    assert isinstance(fits, Sampled)
    assert fits.budget == 256 - length
    assert isinstance(full, Failed)
    assert "fills the context of 256" in full.why


# --- an endpoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_endpoint_gets_what_was_asked(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "secret")
    with serve(echo) as server:
        sampler = make(server.url, api=api, key_variable="OTHER_KEY")
        found = {s.id: s for s in sampler.sample(asks(5, temperature=0.7, stop=("</answer>",)))}
    assert found[3] == Sampled(3, "so question 3 is 3", 5, "stop", 50)
    assert len(found) == len(server.requests) == 5
    assert set(server.keys) == {"Bearer secret"}
    body = server.requests[0]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.7, 50, ["</answer>"])
    assert ("messages" in body) == (api == "chat")
    assert all(path.endswith("/chat/completions" if api == "chat" else "/v1/completions") for path in server.paths)


@pytest.mark.parametrize("mode", [*BAD, "500", "429", "503"])
def test_a_bad_reply_is_tried_again(mode: str) -> None:
    with serve(echo, mode, mode, "good") as server:
        sampler = make(server.url, concurrency=1)
        found = list(sampler.sample(asks(2)))
    assert [s.text for s in found if isinstance(s, Sampled)] == ["so question 0 is 0", "so question 1 is 1"]
    assert sampler.retries == 2
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("mode", "why"), [("garbage", "response"), ("stall", "within 0.2 s"), ("500", "HTTP 500"), ("429", "HTTP 429")]
)
def test_what_stays_bad_is_a_failure_with_its_reason(mode: str, why: str) -> None:
    with serve(echo, mode) as server:
        found = list(make(server.url, tries=2, timeout=0.2).sample(asks(3)))
        assert len(server.requests) == 6
    assert len(found) == 3
    for outcome in found:
        assert isinstance(outcome, Failed)
        assert why in outcome.why
        assert "2 tries" in outcome.why


def test_a_refused_prompt_is_not_tried_again() -> None:
    with serve(echo, "400") as server:
        (found,) = make(server.url).sample(asks(1))
    assert isinstance(found, Failed)
    assert "HTTP 400" in found.why
    assert len(server.requests) == 1


@pytest.mark.parametrize(("mode", "word"), [("401", "refuses the key"), ("404", "knows no such model")])
def test_no_access_ends_it_at_once(mode: str, word: str) -> None:
    with serve(echo, mode) as server, pytest.raises(UserError, match=word):
        list(make(server.url, concurrency=2).sample(asks(50)))
    assert len(server.requests) <= 4


def test_a_server_that_is_gone_ends_it_after_a_while() -> None:
    with serve(echo) as server:
        url = server.url
    with pytest.raises(UserError, match="20 responses in a row failed"):
        list(make(url, tries=1).sample(asks(60)))


def test_so_many_asks_at_once_and_no_more() -> None:
    with serve(echo, "slow") as server:
        assert len(list(make(server.url, concurrency=4).sample(asks(20)))) == 20
        assert server.most_at_once == 4


def test_stopping_leaves_the_rest_out() -> None:
    with serve(echo, "good", "stall") as server:
        sampler = make(server.url, concurrency=1)
        threading.Timer(0.3, sampler.stop).start()
        started = time.monotonic()
        found = list(sampler.sample(asks(5)))
    assert len(found) == 1
    assert time.monotonic() - started < 4


def test_tokens_that_nobody_counted_are_unknown_not_zero() -> None:
    with serve(lambda body: say("a b c", tokens=-1)) as server:
        (unknown,) = make(server.url).sample(asks(1))
        (counted,) = EndpointSampler(Endpoint(server.url, "m"), lambda text: len(text.split())).sample(asks(1))
    assert isinstance(unknown, Sampled)
    assert isinstance(counted, Sampled)
    assert (unknown.tokens, counted.tokens) == (None, 3)


@pytest.mark.parametrize(
    ("text", "said", "added"),
    [
        ("</think> <answer> 4 ", None, "</answer>"),
        ("</think> <answer> 4 ", "</answer>", "</answer>"),
        ("</think> <answer> 4 </answer>", "</answer>", ""),
        ("</think> <answer> 4 </answer>", None, ""),
        ("no tag, then EOS", None, ""),
        ("</think> <answer> 4 ", 151643, "</answer>"),
    ],
)
def test_the_stop_string_is_put_back(text: str, said: Any, added: str) -> None:
    assert stop_string(text, ("</answer>",), said) == added


def test_an_address_is_checked_before_anything_is_sent() -> None:
    with pytest.raises(UserError, match="no address"):
        make("localhost:8000")
