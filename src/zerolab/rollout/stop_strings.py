"""Stop strings, found in the text although tokens do not respect their borders."""

from functools import lru_cache
from typing import Any

import numpy as np

# Special tokens with these texts stay in a response: grading/extract.py looks for them.
ANSWER_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class StopStrings:
    """Says after each token whether a response now contains one of the stop strings of its request.

    Decoding every row at every token would cost more than a small model's forward pass. So the vocabulary is looked
    through once per set of stop strings: only a token whose text can hold the end of one makes a row worth decoding.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._texts: list[str] | None = None
        self._ids: dict[tuple[str, ...], int] = {}
        self._strings: list[tuple[str, ...]] = []
        self._enders_SV = np.zeros((0, vocab_size), dtype=bool)

    def register(self, strings: tuple[str, ...]) -> int:
        """The number under which `found` knows this set of stop strings; -1 for none."""
        strings = tuple(s for s in strings if s)
        if not strings:
            return -1
        if strings not in self._ids:
            self._ids[strings] = len(self._strings)
            self._strings.append(strings)
            self._enders_SV = np.vstack([self._enders_SV, self._enders(strings)])
        return self._ids[strings]

    def candidates(self, sets_N: np.ndarray, tokens_N: np.ndarray) -> np.ndarray:
        """Indices of the rows whose newest token may complete a stop string. sets_N holds numbers from `register`."""
        if not self._strings:
            return np.empty(0, dtype=np.int64)
        return np.nonzero((sets_N >= 0) & self._enders_SV[sets_N, tokens_N])[0]

    def found(self, number: int, token_ids_L: np.ndarray, min_tokens: int = 0) -> bool:
        """Whether the response's text contains a stop string of this set that ends after its first `min_tokens` tokens.

        Only a tail is decoded: a character is at most four tokens, and the tail starts some tokens earlier so that
        what a decoder does at the start of a text does not matter.
        """
        if len(token_ids_L) <= min_tokens:
            return False
        strings = self._strings[number]
        tail = token_ids_L[-(4 * max(map(len, strings)) + 8) :]
        text = decode(self._tokenizer, tail, strings)
        if not min_tokens:
            return any(s in text for s in strings)
        # One that was complete earlier came too early to count; a character that is not whole yet counts as new.
        before = len(decode(self._tokenizer, tail[:-1], strings).rstrip("\ufffd"))
        return any(text.rfind(s) + len(s) > before for s in strings if s in text)

    def _enders(self, strings: tuple[str, ...]) -> np.ndarray:
        """bool [V]: the token contains a stop string, begins with the end of one, or is no whole character."""
        if self._texts is None:
            self._texts = token_texts(self._tokenizer, self._vocab_size)
        texts = list(self._texts)
        for token, text in kept_special_tokens(self._tokenizer, strings).items():
            if token < len(texts):
                texts[token] = text
        ends = tuple({s[k:] for s in strings for k in range(len(s))})
        return np.array(
            [text.startswith(ends) or "\ufffd" in text or any(s in text for s in strings) for text in texts]
        )


def decode(tokenizer: Any, token_ids_L: np.ndarray, stop: tuple[str, ...] = ()) -> str:
    """Text of a response, spaces untouched. Special tokens are left out, except `kept_special_tokens`."""
    ids, kept = token_ids_L.tolist(), kept_special_tokens(tokenizer, stop)
    if kept:
        special = special_tokens(tokenizer)
        ids = [i for i in ids if i in kept or i not in special]
    return tokenizer.decode(ids, skip_special_tokens=not kept, clean_up_tokenization_spaces=False)


def kept_special_tokens(tokenizer: Any, stop: tuple[str, ...] = ()) -> dict[int, str]:
    """Special tokens that the text of a response keeps: answer tags, and tokens that are part of a stop string.

    Without them neither the format nor the stop string could be found in the text.
    """
    return _kept(tokenizer, (*ANSWER_TAGS, *stop))


@lru_cache(maxsize=32)
def _kept(tokenizer: Any, sought: tuple[str, ...]) -> dict[int, str]:
    return {
        token: text
        for token, text in special_tokens(tokenizer).items()
        if text.strip() and any(text.strip() in string for string in sought)
    }


@lru_cache(maxsize=8)
def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Text of every special token by its id."""
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = {token: str(entry) for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return named | added


def token_texts(tokenizer: Any, vocab_size: int) -> list[str]:
    """What each token adds to a text. Decoded behind another token, because some decoders strip a leading space."""
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1]
    size = min(vocab_size, len(tokenizer))
    before = len(decode(tokenizer, np.array([anchor])))
    pairs = [[anchor, token] for token in range(size)]
    texts = tokenizer.batch_decode(pairs, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text[before:] for text in texts] + [""] * (vocab_size - size)


def token_pieces(tokenizer: Any, token_ids_L: np.ndarray, stop: tuple[str, ...] = ()) -> list[str]:
    """What each token of a response adds to its text: joined, they are `decode` of the whole.

    A character that is spread over several tokens belongs to the one that completes it, and a special token that
    `decode` leaves out adds nothing. Each piece is the difference of two short decodes from the same start, since a
    token's text can depend on what stands before it. In a long run of bytes that are no text, a character may get lost.
    """
    pieces: list[str] = []
    start = shown = 0  # tokens before `start` are not decoded again, the text up to `shown` is given out
    for end in range(1, len(token_ids_L) + 1):
        known = decode(tokenizer, token_ids_L[start:shown], stop)
        text = decode(tokenizer, token_ids_L[start:end], stop)
        whole = not text.endswith("\ufffd") or end == len(token_ids_L) or end - shown >= 256
        pieces.append(text[len(known) :] if whole else "")
        if whole and pieces[-1]:
            start, shown = shown, end
    return pieces
