"""The certificate of an objective: what its production gradient is, and whether the objective keeps its invariants.

It is a proof in two steps for the code that trains. (1) On sampled steps, the production gradient is the sum of
coefficient times score, however the step is split. (2) The mean of that sum over all steps is computed exactly and
compared with the exact policy gradient. Two curves show the biases of GRPO: what a token counts for against the
length of its response, and what a question counts for against its pass rate.

`INVARIANTS` has one row for each preset: what holds for its on-policy gradient. Two invariants hold for all of them:
the gradient is the sum of coefficient times score, and no split of a step changes it. `zerolab certify` fails if one
of these is broken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from zerolab.audit.enumerate import BUDGET, POLICIES, EnumerablePolicy
from zerolab.audit.expectation import Expectation, couples_questions, critic_expectation, expectation, representative
from zerolab.audit.split_invariance import make_learner, rank_changes, score_residual, split_changes
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import Objective

CURVE_GROUP_SIZES = (2, 4, 8, 16)
PASS_RATES = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)


def weight_ratio_within_step(objective: Objective) -> float:
    """Weight of a token of the longest response over one of the shortest, in one step that holds every length."""
    weight_N = token_weights(np.arange(1, BUDGET + 1), objective.aggregation, BUDGET)
    return float(weight_N[-1] / weight_N[0])


def question_weights(objective: Objective, size: int) -> list[float]:
    """c(p) at PASS_RATES: the gradient of a question with 0/1 rewards is on average c(p) grad p, lengths being equal.

    With k of the siblings right, c(p) = E_k[A(right | k) - A(wrong | k)], because p E[S | right] = -(1-p) E[S | wrong]
    = grad p. Where advantages look at other questions, one more question with pass rate 1/2 is in the step.
    """
    gap_KJ, other_J = _gaps(objective, size)
    gap_K = gap_KJ @ other_J
    return [float(binomial(size - 1, p) @ gap_K) for p in PASS_RATES]


def _gaps(objective: Objective, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A(right) - A(wrong) by (right siblings k, right answers j to the other question), and the probability of j."""
    others = range(size + 1) if couples_questions(objective) else range(1)
    gaps = [
        [
            _advantage(objective, k + 1, size, j, right=True) - _advantage(objective, k, size, j, right=False)
            for j in others
        ]
        for k in range(size)
    ]
    return np.array(gaps), binomial(size, 0.5) if len(others) > 1 else np.ones(1)


def _advantage(objective: Objective, solved: int, size: int, other: int, right: bool) -> float:
    """Production advantage of a right or wrong response in a group of `size` with `solved` right ones."""
    groups = [
        representative([1.0] * count + [0.0] * (size - count), number) for number, count in enumerate((solved, other))
    ]
    batch = make_batch(groups, objective)
    return float(batch.advantage_N[0 if right else size - 1])


@cache
def binomial(count: int, p: float) -> np.ndarray:
    """P(k) of k = 0 .. count."""
    return np.array([math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(count + 1)])


@dataclass(frozen=True)
class Invariant:
    """scale      of an unbiased direction: "1" or "(G-1)/G"; None: the direction is biased, and shown to be
    tokens     weight of a token: the same in all steps, the same within a step, or falling with 1/L
    questions  weight of a question against its pass rate p (0/1 rewards): one of QUESTION_WEIGHTS; None: depends on
               the other questions of the step
    silent     a group of equal rewards has no gradient
    """

    scale: Literal["1", "(G-1)/G"] | None
    tokens: Literal["constant", "one per step", "1/L"]
    questions: str | None
    silent: bool = True

    def scale_at(self, size: int) -> float:
        return 1.0 if self.scale == "1" else (size - 1) / size


def _centred(p: float, size: int) -> float:
    return (size - 1) / size


def _one(p: float, size: int) -> float:
    return 1.0


def _over_std(p: float, size: int) -> float:
    """E_k of the gap 1/std between a right and a wrong answer, std over size - 1, where the group is mixed."""

    def gap(solved: int, right: bool) -> float:
        if solved in (0, size):
            return 0.0
        std = math.sqrt(solved * (size - solved) / (size * (size - 1)))
        return (1 - solved / size if right else solved / size) / std

    chances = [math.comb(size - 1, k) * p**k * (1 - p) ** (size - 1 - k) for k in range(size)]
    return sum(chance * (gap(k + 1, True) + gap(k, False)) for k, chance in enumerate(chances))


def _over_mean(p: float, size: int) -> float:
    """2602.02710: the gradient of log p, truncated at order G - 1."""
    return (1 - (1 - p) ** (size - 1)) / p


QUESTION_WEIGHTS = {"1": _one, "(G-1)/G": _centred, "E[1/std]": _over_std, "(1-(1-p)^(G-1))/p": _over_mean}

INVARIANTS: dict[str, Invariant] = {
    "reinforce": Invariant("1", "constant", "1", silent=False),
    "dr_grpo": Invariant("(G-1)/G", "constant", "(G-1)/G"),
    "grpo": Invariant(None, "1/L", "E[1/std]"),
    "grpo_kl": Invariant(None, "1/L", "E[1/std]"),
    "grpo_length_fix": Invariant(None, "constant", "E[1/std]"),
    "grpo_std_fix": Invariant(None, "1/L", "(G-1)/G"),
    "rloo": Invariant("1", "constant", "1"),
    "remax": Invariant("1", "constant", "1", silent=False),
    "dapo": Invariant(None, "one per step", "E[1/std]"),
    "reinforce_pp_baseline": Invariant(None, "one per step", None),
    "lite_ppo": Invariant(None, "one per step", None),
    "gspo": Invariant(None, "1/L", "E[1/std]"),
    "luspo": Invariant(None, "constant", "E[1/std]"),
    "cispo": Invariant(None, "one per step", "E[1/std]"),
    "maxrl": Invariant(None, "constant", "(1-(1-p)^(G-1))/p"),
    "dppo": Invariant("(G-1)/G", "constant", "(G-1)/G"),
    "ppo": Invariant("1", "constant", "1", silent=False),
    "ppo_response_mean": Invariant(None, "1/L", "1", silent=False),
    "cross_entropy": Invariant(None, "one per step", "1", silent=False),
}


POLICY_SEED = 1  # its true gradient and GRPO's disagree clearly; any other gives the same verdicts
GROUP_SIZES = (2, 4, 8)
COUPLED_SIZES = (2, 4)  # where advantages look at other questions the situations multiply
TRUNCATION_SIZE = 4
EXACT = 1e-12  # cosine, scale, weights
SPLIT = 1e-10
BIASED = 1e-6  # below this a direction counts as unbiased
EPSILON_SLACK = 1e-6  # the epsilon added to a standard deviation


@dataclass(frozen=True)
class Direction:
    """An expected gradient beside a target gradient."""

    cosine: float
    scale: float  # projection on the target over the target, L_max multiplied back in
    bias: float  # distance to the target after the best rescale, relative to the target

    @classmethod
    def of(cls, gradient: np.ndarray, target: np.ndarray) -> "Direction":
        along, square = gradient @ target, gradient @ gradient
        if square == 0:
            return cls(0.0, 0.0, 1.0)
        norm = np.linalg.norm(target)
        residual = np.linalg.norm(gradient * (along / square) - target)
        return cls(float(along / np.sqrt(square) / norm), float(along / norm**2), float(residual / norm))


@dataclass(frozen=True)
class Truncation:
    """Under one truncation policy: the direction beside the gradient of what that policy states to optimise."""

    target: Direction
    question_cosine: float  # the worst question taken alone
    reward_cosine: float  # beside grad E[R]


@dataclass(frozen=True)
class ZeroVariance:
    """A group of equal rewards: its own advantages, and what its presence does to the other groups' coefficients."""

    largest_advantage: float
    others_scale: float  # factor; 3/4 when one group of equal size joins three, since N is in every denominator
    others_turned: float  # 1 - cosine of their coefficients with and without it


@dataclass(frozen=True)
class Certificate:
    name: str
    formula: str
    directions: dict[int, Direction]  # by group size
    token_weights: list[float]  # mean of N L_max w for lengths 1 .. L_max
    weight_ratio_within_step: float
    question_weights: dict[int, list[float]]  # by group size, at PASS_RATES
    score_residual: float
    splits: dict[str, float]
    zero_variance: ZeroVariance
    truncation: dict[str, Truncation]  # by policy, see `policies`
    length_drift: float  # of incorrect responses, per unit step along the expected gradient
    true_length_drift: float  # the same along the true gradient
    violations: list[str] = field(default_factory=list)

    @property
    def largest_size(self) -> int:
        return max(self.directions)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def certify(
    objectives: Sequence[Objective], *, ranks: bool = True, done: Callable[[str], None] = lambda _: None
) -> list[Certificate]:
    """One certificate per objective; `ranks` also shares a step among real processes. `done` hears of each name."""
    policy = EnumerablePolicy(POLICY_SEED)
    shared: list[float] = []
    if ranks:
        shared = rank_changes(policy, objectives)
    certificates = []
    for number, objective in enumerate(objectives):
        splits = split_changes(policy, objective) | ({"ranks": shared[number]} if ranks else {})
        certificates.append(measure(policy, objective, splits))
        done(objective.name)
    return certificates


def measure(policy: EnumerablePolicy, objective: Objective, splits: dict[str, float]) -> Certificate:
    """Everything but the splits, which may need processes."""
    truth = policy.true_gradient_QD().mean(0)
    sizes = COUPLED_SIZES if couples_questions(objective) else GROUP_SIZES
    expected = {size: mean_gradient(policy, objective, size) for size in sizes}
    gradients = {size: e.gradient_QD.sum(0) for size, e in expected.items()}
    certificate = Certificate(
        name=objective.name,
        formula=objective.formula(),
        directions={size: Direction.of(gradient, truth) for size, gradient in gradients.items()},
        token_weights=expected[max(sizes)].weight_L.tolist(),
        weight_ratio_within_step=weight_ratio_within_step(objective),
        question_weights={size: question_weights(objective, size) for size in CURVE_GROUP_SIZES},
        score_residual=score_residual(policy, objective),
        splits=splits,
        zero_variance=zero_variance(objective),
        truncation={name: truncation(policy, objective, name) for name in policies(objective)},
        length_drift=drift(policy, gradients[max(sizes)]),
        true_length_drift=drift(policy, truth),
    )
    certificate.violations.extend(violations(certificate, INVARIANTS.get(objective.name)))
    return certificate


def mean_gradient(policy: EnumerablePolicy, objective: Objective, size: int, truncation: str = "keep") -> Expectation:
    if objective.needs_critic:
        return critic_expectation(policy, objective, size, make_learner(policy.model, objective), truncation)
    return expectation(policy, objective, size, truncation)


def drift(policy: EnumerablePolicy, gradient: np.ndarray) -> float:
    """Change of the mean length of incorrect responses per unit step along a gradient, to first order."""
    return float(gradient @ policy.incorrect_length_gradient() / np.linalg.norm(gradient))


def policies(objective: Objective) -> list[str]:
    """The truncation policies under which an expectation is computed.

    Not soft where the objective refuses negative rewards, nor where advantages look at other questions: the many
    rewards that a penalty by length makes are too many situations then.
    """
    without_soft = objective.scale == "group_mean" or couples_questions(objective)
    return [name for name in POLICIES if name != "soft" or not without_soft]


def truncation(policy: EnumerablePolicy, objective: Objective, name: str) -> Truncation:
    size = min(COUPLED_SIZES) if couples_questions(objective) else TRUNCATION_SIZE
    gradient_QD = mean_gradient(policy, objective, size, name).gradient_QD
    target_QD, reward_QD = policy.true_gradient_QD(name), policy.true_gradient_QD()
    return Truncation(
        target=Direction.of(gradient_QD.sum(0), target_QD.mean(0)),
        question_cosine=min(Direction.of(g, t).cosine for g, t in zip(gradient_QD, target_QD, strict=True)),
        reward_cosine=Direction.of(gradient_QD.sum(0), reward_QD.mean(0)).cosine,
    )


def zero_variance(objective: Objective) -> ZeroVariance:
    mixed = [representative(r, n) for n, r in enumerate(([0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.5, 1.0]))]
    alone = make_batch(mixed, objective)
    joined = make_batch([*mixed, representative([1.0] * 3, len(mixed))], objective)
    before, after = (_coefficients(batch, objective)[: len(alone)] for batch in (alone, joined))
    direction = Direction.of(after, before)
    return ZeroVariance(float(np.abs(joined.advantage_N[len(alone) :]).max()), direction.scale, 1 - direction.cosine)


def _coefficients(batch: Batch, objective: Objective) -> np.ndarray:
    return batch.advantage_N * token_weights(batch.response_len_N, objective.aggregation, BUDGET)


def violations(certificate: Certificate, invariant: Invariant | None) -> list[str]:
    """One line for every invariant that is broken. Universal ones hold for rows that have none of their own."""
    found = []
    if not certificate.score_residual < SPLIT:
        found.append(f"production gradient is not coefficient times score (off by {certificate.score_residual:.1e})")
    for way, change in certificate.splits.items():
        if not change < SPLIT:
            found.append(f"the gradient changes with {way} (by {change:.1e})")
    if invariant is None:
        return found
    return [
        *found,
        *_direction_violations(certificate, invariant),
        *_truncation_violations(certificate, invariant),
        *_token_violations(certificate, invariant),
        *_question_violations(certificate, invariant),
    ]


def _direction_violations(certificate: Certificate, invariant: Invariant) -> list[str]:
    found = []
    for size, direction in certificate.directions.items():
        if invariant.scale is None:
            if direction.bias < BIASED:
                found.append(f"G = {size}: promised a bias and shows none")
            continue
        if not abs(1 - direction.cosine) < EXACT or not direction.bias < BIASED:
            found.append(f"G = {size}: cosine to the true gradient {direction.cosine:.6f}, promised 1")
        if not abs(direction.scale - invariant.scale_at(size)) < EXACT:
            found.append(f"G = {size}: scale {direction.scale:.6f}, promised {invariant.scale}")
    if invariant.silent != (certificate.zero_variance.largest_advantage == 0):
        found.append("groups of equal rewards " + ("have a gradient" if invariant.silent else "have no gradient"))
    return found


def _truncation_violations(certificate: Certificate, invariant: Invariant) -> list[str]:
    """An unbiased row optimises what each policy states; masking needs a baseline and re-weights the questions."""
    if invariant.scale is None:
        return []
    cosines = {name: t.target.cosine for name, t in certificate.truncation.items() if name != "mask"}
    if invariant.silent:
        cosines["mask"] = certificate.truncation["mask"].question_cosine
    return [
        f"truncation {name}: cosine to its stated target {cosine:.6f}, promised 1"
        for name, cosine in cosines.items()
        if not abs(1 - cosine) < EXACT
    ]


def _token_violations(certificate: Certificate, invariant: Invariant) -> list[str]:
    across = certificate.token_weights[-1] / certificate.token_weights[0]
    within = certificate.weight_ratio_within_step
    promised = {"constant": (1, 1), "one per step": (1, None), "1/L": (1 / BUDGET, 1 / BUDGET)}[invariant.tokens]
    measured = (("within a step", within, promised[0]), ("on average", across, promised[1]))
    return [
        f"{where} a token of the longest response weighs {value:.6f} of one of the shortest, promised {wanted:g}"
        for where, value, wanted in measured
        if wanted is not None and not abs(value - wanted) < EXACT
    ]


def _question_violations(certificate: Certificate, invariant: Invariant) -> list[str]:
    if invariant.questions is None:
        return []
    law = QUESTION_WEIGHTS[invariant.questions]
    slack = EPSILON_SLACK if invariant.questions == "E[1/std]" else EXACT
    found = []
    for size, measured in certificate.question_weights.items():
        promised = np.array([law(p, size) for p in PASS_RATES])
        if not (np.abs(measured - promised) <= slack * promised).all():
            found.append(f"G = {size}: question weight against pass rate is not {invariant.questions}")
    return found
