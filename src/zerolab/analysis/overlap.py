"""How much of a benchmark stands in a training text: shared n-grams of words, found through one hash table."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NGRAM = 13  # words; the length of GPT-3's contamination study (arXiv 2005.14165, appendix C)
CONTAINED = 0.8  # share of a question's n-grams from which on the training text holds the question
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Match:
    """A benchmark question and the training text that shares most with it."""

    question: int  # index in the benchmark
    text: int  # index in the training texts
    coverage: float  # share of the question's n-grams that this one text holds
    shared: str  # the longest run of words of the question whose n-grams are all shared


@dataclass(frozen=True)
class Overlap:
    """One benchmark against one training set."""

    questions: int
    texts: int
    ngram: int
    coverage: tuple[float, ...]  # per question: share of its n-grams found anywhere in the training set
    exact: frozenset[int]  # questions whose words are those of one training text
    matches: tuple[Match, ...]  # one per question that shares anything, fullest first

    @property
    def touched(self) -> int:
        """Questions that share at least one n-gram."""
        return sum(c > 0 for c in self.coverage)

    @property
    def contained(self) -> int:
        """Questions of which the training set holds at least CONTAINED of the n-grams."""
        return sum(c >= CONTAINED for c in self.coverage)


def words(text: str) -> list[str]:
    """Letters and digits in lower case; marks, spaces and LaTeX signs do not count."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[int, str]]:
    """(place, n words). A text of fewer than n words is one n-gram, so that short questions are compared whole."""
    if not tokens:
        return
    for i in range(max(1, len(tokens) - n + 1)):
        yield i, " ".join(tokens[i : i + n])


def overlap(benchmark: Sequence[str], training: Iterable[str], n: int = NGRAM) -> Overlap:
    """Reads the training texts once, in any number; memory goes with the benchmark alone."""
    questions = [words(text) for text in benchmark]
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # n-gram -> where the benchmark has it
    for q, tokens in enumerate(questions):
        for i, gram in ngrams(tokens, n):
            places[gram].append((q, i))
    whole = defaultdict(list)
    for q, tokens in enumerate(questions):
        whole[" ".join(tokens)].append(q)
    sizes = [max(1, len(tokens) - n + 1) for tokens in questions]
    # First word of an n-gram -> lengths of those n-grams: a question shorter than n words is one of its own length.
    lengths: dict[str, set[int]] = defaultdict(set)
    for gram in places:
        first, *rest = gram.split(" ")
        lengths[first].add(1 + len(rest))

    found: list[set[int]] = [set() for _ in questions]
    best: list[tuple[int, int, set[int]]] = [(0, -1, set()) for _ in questions]
    exact: set[int] = set()
    count = 0
    for number, text in enumerate(training):
        count += 1
        tokens = words(text)
        exact.update(whole.get(" ".join(tokens), ()))
        here: dict[int, set[int]] = defaultdict(set)
        for start, first in enumerate(tokens):
            for length in lengths.get(first, ()):
                if start + length <= len(tokens):
                    for q, i in places.get(" ".join(tokens[start : start + length]), ()):
                        here[q].add(i)
        for q, starts in here.items():
            found[q] |= starts
            if len(starts) > best[q][0]:
                best[q] = len(starts), number, starts
    matches = [
        Match(q, number, hits / sizes[q], _longest_run(questions[q], starts, n))
        for q, (hits, number, starts) in enumerate(best)
        if hits
    ]
    matches.sort(key=lambda match: (-match.coverage, match.question))
    coverage = tuple(len(starts) / size for starts, size in zip(found, sizes, strict=True))
    return Overlap(len(questions), count, n, coverage, frozenset(exact), tuple(matches))


def _longest_run(tokens: Sequence[str], starts: set[int], n: int) -> str:
    """The words under the longest run of neighbouring n-grams."""
    longest, best = 0, 0
    for start in starts:
        if start - 1 in starts:
            continue
        end = start
        while end + 1 in starts:
            end += 1
        if end - start + 1 > longest:
            longest, best = end - start + 1, start
    return " ".join(tokens[best : best + longest - 1 + n])
