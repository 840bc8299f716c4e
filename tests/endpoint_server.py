"""A small OpenAI-compatible server in a thread, which can also misbehave."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL_SECONDS = 30.0
Reply = Callable[[dict[str, Any]], dict[str, Any]]


def say(text: str, finish_reason: str = "stop", tokens: int | None = None, **extra: Any) -> dict[str, Any]:
    """The choice of a reply."""
    return {
        "text": text,
        "finish_reason": finish_reason,
        "tokens": len(text.split()) if tokens is None else tokens,
        **extra,
    }


class Server:
    """`modes` are used up one a request; the last one stays. `answer` makes the choice of a good reply."""

    def __init__(self, answer: Reply, *modes: str):
        self.answer, self.modes = answer, list(modes) or ["good"]
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    server.requests.append(body)
                    server.paths.append(self.path)
                    server.keys.append(self.headers["authorization"])
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    mode = server.modes.pop(0) if len(server.modes) > 1 else server.modes[0]
                try:
                    self.respond(mode, body)
                finally:
                    with server.lock:
                        server.at_once -= 1

            def respond(self, mode: str, body: dict[str, Any]) -> None:
                if mode == "stall":
                    server.closing.wait(STALL_SECONDS)
                elif mode == "slow":
                    time.sleep(0.03)
                    self.send(200, server.reply(self.path, body))
                elif mode.isdigit():
                    self.send(int(mode), json.dumps({"error": {"message": f"no, {mode}"}}))
                else:
                    self.send(200, BAD.get(mode) or server.reply(self.path, body))

            def send(self, status: int, text: str) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def reply(self, path: str, body: dict[str, Any]) -> str:
        choice = dict(self.answer(body))
        tokens = choice.pop("tokens")
        if path.endswith("/chat/completions"):
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        usage = {} if tokens < 0 else {"usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1}}
        return json.dumps(
            {"id": "1", "object": "x", "model": body["model"], "choices": [{"index": 0, **choice}], **usage}
        )


BAD = {
    "garbage": "<html>502 Bad gateway",
    "list": "[1, 2]",
    "null": "null",
    "no choices": '{"choices": []}',
    "no text": '{"choices": [{"index": 0, "text": 5, "message": {"content": 5}, "finish_reason": "stop"}]}',
    "filtered": '{"choices": [{"text": "", "message": {"content": ""}, "finish_reason": "content_filter"}]}',
}


@contextmanager
def serve(answer: Reply, *modes: str) -> Iterator[Server]:
    server = Server(answer, *modes)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
