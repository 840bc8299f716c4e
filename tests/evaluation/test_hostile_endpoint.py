"""A server that means harm gets no memory, no stack, no hours, and none of our secrets, on disk or on the screen."""

import base64
import gzip
import json
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from command import run
from zerolab.evaluation import endpoint
from zerolab.evaluation.endpoint import (
    MAX_BYTES,
    MAX_DEPTH,
    Endpoint,
    EndpointSampler,
    Secrets,
    is_deeper,
    without_secrets,
)
from zerolab.evaluation.samplers import Ask, Failed, Sampled

PACKED = gzip.compress(b" " * 200 * 2**20, 1)  # 200 MiB in 1
KEY = "sk-very-secret-0123456789"
Respond = Callable[[socket.socket, str], None]  # (connection, head of the request)


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **headers}
    head = "\r\n".join([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())])
    return head.encode() + b"\r\n\r\n" + body


def send_json(value: Any, status: str = "200 OK") -> Respond:
    return lambda connection, head: connection.sendall(http(json.dumps(value).encode(), status))


@contextmanager
def hostile(respond: Respond) -> Iterator[str]:
    """A server that answers every request by `respond`, byte by byte as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                head, _, body = head.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                while length and len(body) < int(length[1]):  # closing with unread bytes would reset the connection
                    body += connection.recv(65536)
                respond(connection, head.decode(errors="replace"))
            except OSError:  # the client had enough
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


def ask(url: str, **options: Any) -> Sampled | Failed:
    settings = {"timeout": 20.0, "pause": 0.01, "tries": 2, **options}
    (outcome,) = EndpointSampler(Endpoint(url, "m", **settings)).sample([Ask(0, "q", seed=0, max_new_tokens=5)])
    return outcome


# --- bytes and depth -------------------------------------------------------------------------------------------------


def endless(connection: socket.socket, head: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[")
    while True:
        connection.sendall(b" " * 2**20)


def bomb(connection: socket.socket, head: str) -> None:
    connection.sendall(http(PACKED, **{"content-encoding": "gzip"}))


def bomb_of_error(connection: socket.socket, head: str) -> None:
    connection.sendall(http(PACKED, "400 Bad Request", **{"content-encoding": "gzip"}))


def nested(levels: int) -> Respond:
    body = b'{"choices": ' + b"[" * levels + b"]" * levels + b"}"
    return lambda connection, head: connection.sendall(http(body))


@pytest.mark.parametrize(
    ("respond", "why"),
    [
        (endless, "a body of more than 8 MiB"),
        (bomb, "compressed"),
        (bomb_of_error, "compressed"),
        (nested(200_000), "nested deeper"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_bytes_and_depth_of_a_body_are_capped(respond: Respond, why: str) -> None:
    with hostile(respond) as url:
        tracemalloc.start()
        outcome = ask(url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(outcome, Failed)
    assert why in outcome.why
    assert peak < 6 * MAX_BYTES


def test_a_compressed_body_is_not_asked_for() -> None:
    heads: list[str] = []

    def respond(connection: socket.socket, head: str) -> None:
        heads.append(head)
        connection.sendall(http(b'{"choices": [{"text": "hi", "finish_reason": "stop"}]}'))

    with hostile(respond) as url:
        assert isinstance(ask(url), Sampled)
    assert "accept-encoding: identity\r\n" in heads[0].lower()


@pytest.mark.parametrize(
    ("body", "deeper"),
    [
        (b"[" * 5 + b"]" * 5, False),
        (b"[" * 6 + b"]" * 6, True),
        (b'{"a":' * 6, True),
        (b"[]" * 100, False),
        (b'["' + b"[" * 100 + b'"]', False),  # brackets in a string are text
        (b'["\\"' + b"[" * 100 + b'"]', False),
        (b'["\\\\"' + b"[" * 100, True),  # the string ended before them
        (b'"' + b"[" * 100, False),  # a string without an end
    ],
)
def test_depth_is_counted_outside_of_strings(body: bytes, deeper: bool) -> None:
    assert is_deeper(body, 5) == deeper


def test_counting_depth_is_linear_in_the_body() -> None:
    """A body of quotes without an end would make a careless pattern quadratic: hours instead of a second."""
    body = b"[" * 100 + b'\\"' * (MAX_BYTES // 2) + b"\\"
    body = body.replace(b"[", b"[]", 90)
    started = time.monotonic()
    is_deeper(body, MAX_DEPTH)
    is_deeper(b'"' + body, MAX_DEPTH)
    assert time.monotonic() - started < 10


# --- time ------------------------------------------------------------------------------------------------------------


def test_retries_end_within_patience_and_one_timeout() -> None:
    with hostile(lambda connection, head: connection.sendall(http(b"<html>", **{"retry-after": "50"}))) as url:
        started = time.monotonic()
        outcome = ask(url, tries=1000, pause=0.1, longest_pause=0.2, patience=1.0, timeout=2.0)
        seconds = time.monotonic() - started
    assert isinstance(outcome, Failed)
    assert 0.5 < seconds < 3.5


def test_a_retry_after_beyond_patience_is_not_waited_for() -> None:
    busy = http(b"{}", "429 Too Many Requests", **{"retry-after": "100000"})
    with hostile(lambda connection, head: connection.sendall(busy)) as url:
        started = time.monotonic()
        outcome = ask(url, patience=1.0)
    assert isinstance(outcome, Failed)
    assert time.monotonic() - started < 3


def test_a_body_that_drips_ends_with_the_timeout() -> None:
    def drip(connection: socket.socket, head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    with hostile(drip) as url:
        started = time.monotonic()
        outcome = ask(url, timeout=0.5, tries=1)
    assert isinstance(outcome, Failed)
    assert time.monotonic() - started < 5


# --- secrets ---------------------------------------------------------------------------------------------------------


def echo_headers(status: str) -> Respond:
    """An error, or a response, that quotes the head of the request."""

    def respond(connection: socket.socket, head: str) -> None:
        body = {"error": {"message": head}, "choices": [{"text": head, "finish_reason": "stop"}]}
        body["choices"][0]["message"] = {"role": "assistant", "content": head}  # type: ignore[index]
        connection.sendall(http(json.dumps(body).encode(), status))

    return respond


def forms(url: str) -> list[str]:
    user = url.split("//")[1].split("@")[0]
    return [KEY, KEY.upper(), "hunter22", base64.b64encode(user.encode()).decode()]


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oops"])
def test_no_secret_reaches_a_file_or_the_screen(
    status: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("zerolab.evaluation.endpoint.random.uniform", lambda low, high: 0.0)  # no pauses
    (tmp_path / "set.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    (tmp_path / "recorded.jsonl").write_text('{"problem": "1 + 1?", "answer": "2", "response": "\\\\boxed{2}"}\n')
    with hostile(echo_headers(status)) as plain:
        url = plain.replace("//", "//someone:hunter22@")
        run("evaluate", "m", "--endpoint", url, "--benchmarks", "set.jsonl", "--timeout", "3")
        run("analyze", "recorded.jsonl", "--judge", url, "--judge-model", "j", "--out", "judged")
        secrets = forms(url)
    out, err = capsys.readouterr()
    texts = {"screen": out + err}
    texts |= {str(p): p.read_bytes().decode(errors="replace") for p in tmp_path.rglob("*") if p.is_file()}
    assert any("responses.jsonl" in name or "failures.jsonl" in name for name in texts)
    for name, text in texts.items():
        for secret in secrets:
            assert secret.lower() not in text.lower(), name


def test_hiding_covers_every_form_and_leaves_the_rest() -> None:
    secrets = Secrets("http://us%65r:p%40ssword@host/v1", KEY)
    basic = base64.b64encode(b"user:p@ssword").decode()
    text = f"{KEY} {KEY.upper()} p@ssword p%40ssword {basic} basic algebra, Bearer of news"
    assert secrets.hide(text) == " ".join(["[hidden]"] * 5) + " basic algebra, Bearer of news"
    assert secrets.hide_tokens("authorization: Bearer abc") == "authorization: Bearer [hidden]"
    assert Secrets("http://host/v1", None).hide("as it is") == "as it is"
    assert Secrets("http://host/v1", "a").hide("a banana") == "a banana"  # a key of one letter is no secret


def test_an_address_is_shown_and_stored_without_its_secrets() -> None:
    assert without_secrets("https://user:pw@host:8000/v1") == "https://[hidden]@host:8000/v1"
    assert without_secrets("https://host/v1?api-key=abc&v=1") == "https://host/v1?api-key=[hidden]&v=[hidden]"
    assert without_secrets("http://localhost:8000/v1") == "http://localhost:8000/v1"


def test_caps_leave_ordinary_replies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_BYTES", 2000)
    text = "[" * 500 + "x" * 500
    with hostile(send_json({"choices": [{"text": text, "finish_reason": "stop"}]})) as url:
        outcome = ask(url)
    assert isinstance(outcome, Sampled)
    assert outcome.text == text
