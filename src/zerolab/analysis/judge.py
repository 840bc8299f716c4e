"""An LLM as judge: asked through any sampler of chat replies, read strictly, asked again, cached on disk, counted.

What a judge cannot be got to say is missing, never a category: `JudgeCounts` says how much is.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zerolab.analysis.rubric import Rubric, Verdict, prompt, read_verdict
from zerolab.evaluation.sampler import Ask, Failed, Sampler
from zerolab.rollout.sampling import request_seed
from zerolab.rundir import clear_errors

ATTEMPTS = 3
LONGEST_REPLY = 1000  # tokens
RETRY_TEMPERATURE = 0.7
AGAIN = "\n\nYour last reply was not the one JSON object that was asked for. Reply with that object alone."

# Texts and the attempt (0, 1, ...) in; (index, reply) as they come, None where the endpoint gave up on one.
Asking = Callable[[Sequence[str], int], Iterator[tuple[int, str | None]]]


@dataclass
class JudgeCounts:
    """What became of the items of one judgement."""

    asked: int = 0  # replies and failures
    cached: int = 0  # verdicts that were at hand
    judged: int = 0  # new verdicts
    garbage: int = 0  # replies that were no verdict, repeated attempts included
    failed: int = 0  # requests that never got a reply
    missing: int = 0  # items without a verdict in the end
    unquoted: int = 0  # verdicts whose evidence the response does not hold


@dataclass
class VerdictCache:
    """Verdicts by content hash, one JSON line each, appended as they come: a killed run loses none.

    The hash is of the rubric's text, the judge's name, question and response, so nothing stale is ever found.
    """

    path: Path | None = None
    known: dict[str, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        with clear_errors(self.path):
            lines = self.path.read_bytes().split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
                self.known[row["key"]] = Verdict(str(row["category"]), str(row["evidence"]), bool(row["quoted"]))
            except (ValueError, KeyError, TypeError):  # the line that a kill cut short
                continue

    def put(self, key: str, verdict: Verdict) -> None:
        self.known[key] = verdict
        if self.path is None:
            return
        row = {"key": key, "category": verdict.category, "evidence": verdict.evidence, "quoted": verdict.quoted}
        with clear_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                    file.write(b"\n")
                file.write(json.dumps(row).encode() + b"\n")


def cache_key(rubric: Rubric, judge: str, question: str, response: str) -> str:
    content = "\x1f".join((rubric.fingerprint, judge, question, response))
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


def ask_through(sampler: Sampler, max_new_tokens: int = LONGEST_REPLY) -> Asking:
    """Asks a sampler of chat replies: greedily, and with some chance where the greedy reply was no verdict."""

    def ask(texts: Sequence[str], attempt: int) -> Iterator[tuple[int, str | None]]:
        temperature = RETRY_TEMPERATURE if attempt else 0.0
        seed = request_seed("judge", attempt)
        asks = [Ask(i, text, seed, max_new_tokens, temperature) for i, text in enumerate(texts)]
        for outcome in sampler.sample(asks):
            yield outcome.id, None if isinstance(outcome, Failed) else outcome.text

    return ask


@dataclass(frozen=True)
class Judge:
    """`name` is the judge's model: verdicts of another judge are never taken for its own."""

    name: str
    ask: Asking
    cache: VerdictCache = field(default_factory=VerdictCache)
    attempts: int = ATTEMPTS

    def __call__(
        self,
        rubric: Rubric,
        pairs: Sequence[tuple[str, str]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[list[Verdict | None], JudgeCounts]:
        """Verdicts on (question, response) pairs, in order; None where there is none after all attempts.

        Equal pairs are asked once. `progress` hears how many distinct pairs are decided.
        """
        counts = JudgeCounts()
        keys = [cache_key(rubric, self.name, question, response) for question, response in pairs]
        distinct = dict(zip(keys, pairs, strict=True))
        counts.cached = sum(key in self.cache.known for key in distinct)
        done = counts.cached
        progress(done)
        failed: set[str] = set()  # the sampler has tried these again and again already
        for attempt in range(self.attempts):
            open_keys = [key for key in distinct if key not in self.cache.known and key not in failed]
            if not open_keys:
                break
            texts = [prompt(rubric, *distinct[key]) + AGAIN * bool(attempt) for key in open_keys]
            for index, reply in self.ask(texts, attempt):
                key = open_keys[index]
                counts.asked += 1
                if reply is None:
                    counts.failed += 1
                    failed.add(key)
                elif (verdict := read_verdict(reply, rubric, distinct[key][1])) is None:
                    counts.garbage += 1
                else:
                    counts.judged += 1
                    self.cache.put(key, verdict)
                    done += 1
                    progress(done)
        verdicts = [self.cache.known.get(key) for key in keys]
        counts.missing = sum(verdict is None for verdict in verdicts)
        counts.unquoted = sum(v is not None and bool(v.evidence) and not v.quoted for v in verdicts)
        return verdicts, counts
