"""What keeps a server that means harm from our memory, our stack and our secrets."""

import base64
import re
from collections.abc import AsyncIterator
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

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
