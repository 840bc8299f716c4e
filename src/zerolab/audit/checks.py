"""The checks of an audit: the weight that a loss gives every token, turned into a number and a verdict each.

Every number is computed from coefficients -dLoss/dlogprob that the peer's own code gave to responses of our choosing,
at ratio 1 unless said otherwise; only ratios of coefficients are used, so constants of a loss do not matter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from zerolab.audit.certificate import PASS_RATES, binomial
from zerolab.audit.peers.peer import Case, Coefficients, Peer, balanced, change, measure, size

LENGTHS = (4, 8, 16, 32)
GROUPS = ((4, 4, 8, 16), (4, 8, 8, 16), (8, 16, 32, 32), (16, 32, 32, 32))  # short ones first: splits are unequal
BUDGET = 64
TOLERANCE = 1e-3  # peers compute in float32 and add epsilons to their denominators
# Noise of the sampler: 16 tokens here spread log pi_old - log mu as far as 8192 tokens with 0.02 each.
NOISE_LENGTHS, NOISE_REPEATS, REFERENCE_NOISE, STRETCH = (1, 4, 16), 32, 0.02, 512
NOISE = REFERENCE_NOISE * STRETCH**0.5


@dataclass(frozen=True)
class Row:
    """One question. `value` is None where the peer cannot be asked, and `biased` then too."""

    key: str
    value: float | None
    verdict: str
    biased: bool | None
    curve: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    name: str
    version: str
    about: str
    rows: tuple[Row, ...]

    def row(self, key: str) -> Row:
        return next(row for row in self.rows if row.key == key)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def audit(peers: Sequence[Peer]) -> list[Audit]:
    """All rows for every peer. Raises UserError when one cannot be run."""
    answers = measure([(peer, cases(peer)) for peer in peers])
    return [
        Audit(peer.name, version, peer.about, tuple(_row(key, peer, found) for key in ROWS))
        for peer, (version, found) in zip(peers, answers, strict=True)
    ]


def _row(key: str, peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    if key in peer.unable:
        return Row(key, None, f"not measured: {peer.unable[key]}", None)
    return ROWS[key](peer, found)


# --- cases -----------------------------------------------------------------------------------------------------------


def cases(peer: Peer) -> dict[str, Case]:
    """Everything one peer is asked, by name."""
    base = balanced(GROUPS, BUDGET).replace(micro_batches=peer.micro_batches)
    count = len(base.lengths)
    alone = count // peer.smallest
    asked = {
        "base": base,
        "half": base.replace(lengths=tuple(length // 2 for length in base.lengths)),
        "whole": base.replace(micro_batches=1),
        "halves": base.replace(micro_batches=2),
        "alone": base.replace(micro_batches=alone),
        "mixed": base.replace(micro_batches=4),
        "shuffled": base.replace(micro_batches=4, order=1),
        "shuffled again": base.replace(micro_batches=4, order=2),
    }
    if "pass-rate" not in peer.unable:
        asked["pass rate"] = pass_rates(peer.group_size)
    if "zero-variance" not in peer.unable:
        asked["silent"] = silent(base)
    if "truncation" not in peer.unable:
        asked["truncated"] = base.replace(truncated=tuple(_cut(base)))
    if "importance" not in peer.unable:
        asked["noise"], asked["no noise"] = noise(), noise().replace(mismatch=None)
    if "ranks" not in peer.unable:
        asked["ranks"] = base.replace(micro_batches=1, ranks=2)
    return asked


def pass_rates(group_size: int) -> Case:
    """A group for every number of right responses, 0 .. G; lengths are equal."""
    count = group_size * (group_size + 1)
    rewards = [float(i < solved) for solved in range(group_size + 1) for i in range(group_size)]
    return Case((8,) * count, tuple(rewards), (False,) * count, group_size, BUDGET)


def silent(base: Case) -> Case:
    """One more group, all of it right."""
    size = base.group_size
    return base.replace(
        lengths=base.lengths + base.lengths[:size],
        rewards=base.rewards + (1.0,) * size,
        truncated=base.truncated + (False,) * size,
        micro_batches=1,
    )


def _cut(base: Case) -> list[bool]:
    """In every second group the 8s and 32s ran into the budget."""
    return [bool(g % 2) and length in (8, 32) for g, length in zip(base.groups(), base.lengths, strict=True)]


def noise() -> Case:
    """log pi_old - log mu of every response ~ N(-s^2 L / 2, s^2 L), s = NOISE: one response per quantile of its sum.

    Its exponential has mean 1, as for responses that were really sampled from mu.
    """
    case = balanced((NOISE_LENGTHS,) * NOISE_REPEATS, BUDGET)
    generator = np.random.default_rng(0)
    seen = dict.fromkeys(NOISE_LENGTHS, 0)
    each = 2 * NOISE_REPEATS
    shifts = []
    for length in case.lengths:
        quantile = NormalDist().inv_cdf((seen[length] + 0.5) / each)
        seen[length] += 1
        tokens = generator.standard_normal(length)
        tokens += quantile / length**0.5 - tokens.mean()
        shifts.append(tuple((NOISE * tokens - NOISE**2 / 2).tolist()))
    return case.replace(mismatch=tuple(shifts))


# --- rows ------------------------------------------------------------------------------------------------------------


def by_length(coefficients: Coefficients, case: Case) -> dict[int, float]:
    """Mean weight of a token against response length, relative to the shortest."""
    sizes, lengths = size(coefficients), np.array(case.lengths)
    mean = {length: float(sizes[lengths == length].mean()) for length in sorted(set(case.lengths))}
    return {length: weight / mean[min(mean)] for length, weight in mean.items()}


def _length(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    curve = by_length(found["base"], cases(peer)["base"])
    ratio = curve[max(curve)]
    slope = float(np.polyfit(np.log(list(curve)), np.log(np.maximum(list(curve.values()), 1e-300)), 1)[0])
    if abs(ratio - 1) < TOLERANCE:
        verdict = "a token weighs the same in every response"
    elif abs(slope + 1) < 0.01:
        verdict = "1/length"
    else:
        verdict = f"about length^{slope:.2f}"
    if peer.micro_batches > 1:
        verdict += f" (in {peer.micro_batches} micro-batches)"
    return Row("length", ratio, verdict, abs(ratio - 1) >= TOLERANCE, {str(k): v for k, v in curve.items()})


def _scale(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    """Weight of a token when every response of the step is half as long."""
    ratio = float(size(found["half"]).mean() / size(found["base"]).mean())
    if abs(ratio - 1) < TOLERANCE:
        return Row("scale", ratio, "steps do not shrink as responses grow", False)
    law = "as 1/(mean length)" if abs(ratio - 2) < 2 * TOLERANCE else f"x {1 / ratio:.3g} when lengths double"
    return Row("scale", ratio, f"weight of all tokens goes {law}", True)


def _pass_rate(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    curve = question_weights(found["pass rate"], peer.group_size)
    ratio = curve[0] / curve[PASS_RATES.index(0.5)]
    flat = max(curve) / min(curve) - 1 < TOLERANCE if min(curve) > 0 else False
    verdict = "all questions weigh the same" if flat else f"questions with p = .01 weigh {ratio:.2f} x those with .5"
    return Row("pass-rate", ratio, verdict, not flat, {f"{p:g}": c for p, c in zip(PASS_RATES, curve, strict=True)})


def question_weights(coefficients: Coefficients, group_size: int) -> list[float]:
    """c(p) at PASS_RATES, as in weights.question_weights, relative to its mean."""
    sums = np.array([c.sum() for c in coefficients]).reshape(group_size + 1, group_size)
    gap_K = np.array([sums[k + 1, 0] - sums[k, -1] for k in range(group_size)])
    curve = np.array([float(binomial(group_size - 1, p) @ gap_K) for p in PASS_RATES])
    return [float(c) for c in curve / curve.mean()]


def _split(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    changes = {name: change(found[name], found["whole"]) for name in ("halves", "mixed", "alone")}
    worst = max(changes.values())
    if worst < TOLERANCE:
        return Row("split", worst, "micro-batches change nothing", False, changes)
    case = cases(peer)["alone"]
    ratio = by_length(found["alone"], case)[max(LENGTHS)]
    whole = by_length(found["whole"], case)[max(LENGTHS)]
    part = f"{len(case.lengths) // case.micro_batches} per micro-batch"
    verdict = f"with {part} a token of 32 weighs {ratio:.3f} of one of 4, in one piece {whole:.3f}"
    return Row("split", worst, verdict, True, changes)


def _order(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    worst = max(change(found[name], found["mixed"]) for name in ("shuffled", "shuffled again"))
    same = worst < TOLERANCE
    verdict = "order changes nothing" if same else f"shuffling before cutting in 4 changes the gradient by {worst:.0%}"
    return Row("order", worst, verdict, not same)


def _ranks(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    worst = change(found["ranks"], found["whole"])
    same = worst < TOLERANCE
    verdict = "two ranks change nothing" if same else f"two ranks change the gradient by {worst:.0%}"
    return Row("ranks", worst, verdict, not same)


def _truncation(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    cut = np.array(_cut(cases(peer)["base"]))
    ratios = size(found["truncated"]) / size(found["base"])
    kept, others = float(ratios[cut].mean()), float(ratios[~cut].mean())
    verdict = "a cut-off response counts as its reward says"
    if abs(kept - 1) >= TOLERANCE:
        verdict = f"a token of a cut-off response weighs {kept:.3g} of one of a finished response"
    if kept < TOLERANCE:
        verdict = "a cut-off response is masked: nothing presses against overlong answers"
    if abs(others - 1) >= TOLERANCE:
        verdict += f"; the others weigh x {others:.3g}"
    return Row("truncation", kept, verdict, abs(kept - 1) >= TOLERANCE, {"others": others})


def _zero_variance(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    joined, alone = found["silent"], found["whole"]
    rest = joined[: len(alone)]
    own = float(size(joined[len(alone) :]).max() / size(rest).mean())
    others = float(size(rest).mean() / size(alone).mean())
    a, b = np.concatenate(rest), np.concatenate(alone)
    turned = float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    biased = own >= TOLERANCE or turned >= TOLERANCE
    verdict = "no gradient of its own" if own < TOLERANCE else f"its tokens weigh {own:.2g} of the others'"
    verdict += f"; others x {others:.3f}" if abs(others - 1) >= TOLERANCE else "; others unchanged"
    return Row("zero-variance", own, verdict, biased, {"others": others, "turned": turned})


def _importance(peer: Peer, found: Mapping[str, Coefficients]) -> Row:
    case = noise()
    ratios = np.array([np.abs(c).mean() for c in found["noise"]]) / size(found["no noise"])
    lengths = np.array(case.lengths)
    curve = {length: float(ratios[lengths == length].mean()) for length in NOISE_LENGTHS}
    last = curve[max(curve)] / curve[min(curve)]
    if abs(last - 1) < 0.05:
        verdict = "importance weights keep their mass at every length"
    else:
        texts = [f"{weight:.2f} at {STRETCH * length}" for length, weight in curve.items()]
        verdict = f"mean weight with noise {REFERENCE_NOISE} per token: {', '.join(texts)} tokens"
    return Row("importance", last, verdict, abs(last - 1) >= 0.05, {str(STRETCH * k): v for k, v in curve.items()})


ROWS: dict[str, Callable[[Peer, Mapping[str, Coefficients]], Row]] = {
    "length": _length,
    "scale": _scale,
    "pass-rate": _pass_rate,
    "split": _split,
    "order": _order,
    "ranks": _ranks,
    "truncation": _truncation,
    "zero-variance": _zero_variance,
    "importance": _importance,
}


def summary(audit: Audit) -> str:
    """One sentence about everything that is biased; `scale` is no bias of direction and stands last."""
    names = {
        "length": "length bias",
        "pass-rate": "question bias",
        "truncation": "truncation",
        "zero-variance": "groups of equal rewards",
        "importance": "importance weights",
    }
    words = [f"{name} ({audit.row(key).verdict})" for key, name in names.items() if audit.row(key).biased]
    split = [key for key in ("split", "order", "ranks") if audit.row(key).biased]
    if split:
        words.append(f"the gradient depends on {' and '.join(split)}")
    if audit.row("scale").biased:
        words.append(audit.row("scale").verdict)
    return "; ".join(words) if words else "unbiased in everything that was measured"


def biased(audits: Sequence[Audit], keys: Sequence[str]) -> list[str]:
    """One line for every row among `keys` that is biased."""
    return [f"{a.name}: {a.row(key).verdict}" for a in audits for key in keys if a.row(key).biased]
