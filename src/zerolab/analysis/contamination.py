"""Two tests for benchmark questions in the training data of a model.

The completion probe shows a model the beginning of a question and compares what it writes with the hidden rest. Nobody
can compute the rest, so a model that writes it has read it (arXiv 2507.10532 finds this for Qwen2.5). Closeness is
ROUGE-L. The overlap test counts the word n-grams that a benchmark shares with a training text.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.analysis.rates import Rate, rate
from zerolab.analysis.result_table import Table
from zerolab.datatypes import Question
from zerolab.evaluation.intervals import Interval, bootstrap, clopper_pearson
from zerolab.evaluation.responses import Response

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


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, in len(a) * len(b) / word size steps (Hyyro 2004).

    A zero bit i of the state says that b[i] lengthens the subsequence; one addition carries all of them.
    """
    where: dict[Hashable, int] = {}
    for i, item in enumerate(b):
        where[item] = where.get(item, 0) | 1 << i
    full = (1 << len(b)) - 1
    state = full
    for item in a:
        hit = state & where.get(item, 0)
        state = ((state + hit) | (state - hit)) & full
    return len(b) - state.bit_count()


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, ROUGE-L with beta 1), in [0, 1]; 0 without words."""
    a, b = words(candidate), words(reference)
    if not a or not b:
        return 0.0
    return 2 * lcs_length(a, b) / (len(a) + len(b))


SHARES = (0.4, 0.6, 0.8)
PREFIX = "prefix-"  # a template of this name and a number: so many per cent of the question, and nothing else
FEWEST_WORDS = 3  # of the hidden part, for its reproduction to mean anything


def template_name(share: float) -> str:
    return f"{PREFIX}{round(100 * share)}"


def share_of(template: str) -> float | None:
    """The share that a template's name says; None for a template of another kind."""
    digits = template.removeprefix(PREFIX)
    return int(digits) / 100 if template.startswith(PREFIX) and digits.isdecimal() and len(digits) < 3 else None


def cut(question: str, share: float) -> tuple[str, str]:
    """(prefix, rest), cut at the border of words next to so much of the characters; together they are the question."""
    want = round(len(question) * share)
    ends = [i for i, letter in enumerate(question) if letter.isspace() and question[:i].strip()]
    if not ends:
        return question, ""
    at = min(ends, key=lambda i: abs(i - want))
    return question[:at], question[at:]


def probes(questions: Sequence[Question], shares: Sequence[float] = SHARES) -> list[tuple[float, Question, str]]:
    """(share, question, prefix) of every question whose hidden part has at least FEWEST_WORDS words."""
    found = []
    for share in shares:
        for question in questions:
            prefix, rest = cut(question.text, share)
            if len(words(rest)) >= FEWEST_WORDS:
                found.append((share, question, prefix))
    return found


@dataclass(frozen=True)
class Completion:
    """One model on one benchmark, given so much of each question."""

    model: str
    benchmark: str
    share: float
    exact: Rate  # the words that follow are those of the hidden part, all of them
    rouge: float  # mean ROUGE-L F1 against the hidden part, of as many words as that has
    rouge_interval: Interval
    answered: Rate  # the response reaches the right answer of the whole question, in any form


def reproduces(response: str, rest: str) -> bool:
    """Whether the response begins with the words of the hidden part; marks, spaces and case do not count."""
    wanted = words(rest)
    return words(response)[: len(wanted)] == wanted


def closeness(response: str, rest: str) -> float:
    """ROUGE-L of the hidden part and as many words of the response: what comes after it is no error."""
    return rouge_l(" ".join(words(response)[: len(words(rest))]), rest)


def completion(responses: Sequence[Response]) -> list[Completion]:
    """From recorded responses under the templates prefix-40, prefix-60, ...; others are left out."""
    groups: dict[tuple[str, str, float], list[Response]] = {}
    for response in responses:
        share = share_of(response.template)
        if share is not None:
            groups.setdefault((response.model, response.benchmark, share), []).append(response)
    return [_measured(*key, members) for key, members in sorted(groups.items())]


def _measured(model: str, benchmark: str, share: float, members: Sequence[Response]) -> Completion:
    names: Mapping[str, int] = {name: i for i, name in enumerate(dict.fromkeys(r.question_id for r in members))}
    question_N = np.array([names[r.question_id] for r in members])
    rests = [cut(r.problem, share)[1] for r in members]
    exact_N = np.array([reproduces(r.response, rest) for r, rest in zip(members, rests, strict=True)])
    close_N = np.array([closeness(r.response, rest) for r, rest in zip(members, rests, strict=True)])
    answered_N = np.array([bool(r.lenient and r.lenient.correct) for r in members])
    close_Q = np.bincount(question_N, close_N) / np.bincount(question_N)
    varied = close_Q.min() < close_Q.max()  # of equal values a bootstrap makes an interval of no width
    interval = bootstrap(close_Q[:, None]) if varied else clopper_pearson(float(close_Q.sum()), len(close_Q))
    exact, answered = rate(exact_N, question_N), rate(answered_N, question_N)
    return Completion(model, benchmark, share, exact, float(close_Q.mean()), interval, answered)


def completion_table(found: Sequence[Completion]) -> Table:
    columns = ("model", "benchmark", "given", "questions", "exact", "95 %", "ROUGE-L", "95 % of ROUGE-L")
    rows = []
    for c in found:
        measured = (c.exact.value, c.exact.interval, c.rouge, c.rouge_interval, c.answered.value, c.answered.interval)
        rows.append((c.model, c.benchmark, c.share, c.exact.responses, *measured))
    note = (
        "the model is given so much of the question and nothing else. exact: it writes the rest word for word; "
        "answered: it reaches the answer of the whole question, in any form"
    )
    title = "Contamination: the rest of a question from its beginning"
    return Table("completion", title, (*columns, "answered", "95 % of answered"), tuple(rows), note)
