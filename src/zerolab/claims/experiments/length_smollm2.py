"""L1 on a real model: what 1/|o| does to the lengths of SmolLM2 135M, predicted before the runs.

SmolLM2 135M Instruct (4-bit weights, dequantised) answers which city is the capital of a country, template chat. The
first city that a response names decides; a truncated response keeps its reward. 12 rollouts of 8 questions x 8, budget
64 tokens, one on-policy step of AdamW at 1e-5 each, gradients not clipped. Dr. GRPO (a constant divisor) against
grpo_std_fix (1/|o| alone), six paired seeds: the same questions and random numbers in both arms. A run takes about 8
CPU-minutes; 12 steps rather than 24 because lengths moved within 15 steps in trials by hand (one seed of each arm,
which led to the prediction and are no part of the result).

Measured are 40 held-out countries, four responses each at temperature 1: the base before training and the policy after
the last step, with the same questions and random numbers under one seed. Growth is the length of incorrect responses
after training minus that of the base. In the control every response earns a fair coin, in both arms, three seeds.

The registered prediction, from a probe of the first step's gradient (docs/lab_log.md): if truncated responses keep
their reward, 1/|o| shortens responses (140 tokens per unit of reward, a wide interval) and a constant divisor lengthens
them (50 tokens). That is the opposite of the paper's picture, and the claim is about this model alone. It is
two-sided: a difference wholly above 5 tokens would be the paper's direction, one within 5 tokens none that counts.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, difference, number

if TYPE_CHECKING:
    from zerolab.config import RunConfig

RECIPE, BASE, ARMS = "laptop/smollm2-dr-grpo", "base", ("dr_grpo", "grpo_std_fix")
COIN_SEEDS = 3
HELD_OUT, SAMPLES = 40, 4
Values = Callable[[Sequence[Row]], Sequence[float]]
# Means over the last four rollouts, beside what is measured on held-out questions.
LATE = {"reward": "reward/mean", "incorrect": "length/incorrect", "truncated": "truncated"}
SHOWN = ("accuracy", "truncated", "correct")
COUNTS = 5.0  # tokens that count as an effect
SETTINGS = (
    *("steps=12", "evaluation.every=0", "checkpoint.every=6", "transcripts_per_step=0"),
    *("reward.truncation=keep", "learner.max_grad_norm=1e9"),
)
# One figure for all cells, the mean of their times, so that the runner keeps their order: pairs first.
SECONDS = 400


def cells(plan: Plan) -> list[Cell]:
    """Base and both arms, seed by seed; then the control."""
    pairs: list[Factors] = [
        {"reward": "verdict", "arm": arm, "seed": seed} for seed in plan.seeds for arm in (BASE, *ARMS)
    ]
    coins: list[Factors] = [
        {"reward": "coin", "arm": arm, "seed": seed} for seed in plan.seeds[:COIN_SEEDS] for arm in ARMS
    ]
    return [Cell(factors, SECONDS) for factors in (*pairs, *coins)]


def config_of(factors: Factors) -> "RunConfig":
    from zerolab.recipes import controlled, find_recipe, load

    arm = "dr_grpo" if factors["arm"] == BASE else factors["arm"]
    config = load(find_recipe(RECIPE), [*SETTINGS, f"objective={arm}", f"seed={factors['seed']}"], verb="train")
    return controlled(config, "random-reward") if factors["reward"] == "coin" else config


def recipe(factors: Factors) -> Mapping[str, Any]:
    """All that decides a cell's numbers: the file of the model by its hash, the questions, the resolved recipe."""
    from zerolab.claims.results import deciding_keys
    from zerolab.data.questions import load_questions
    from zerolab.models.fetch import catalogue

    config = config_of(factors)
    sides = load_questions(config.questions)
    return {
        "steps": 0 if factors["arm"] == BASE else config.steps,
        "model": catalogue()[str(config.model.path)].sha256,
        "questions": [pool.fingerprint for pool in (*sides.train, *sides.holdout)],
        "held out": [HELD_OUT, SAMPLES],
        "recipe": deciding_keys(config),
    }


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.build import model_path
    from zerolab.claims.training import finite_mean, held_out_numbers, place_in, trained

    config = place_in(folder, config_of(factors))
    if factors["arm"] == BASE:
        return {"steps": 0, **held_out_numbers(config, model_path(config.model), HELD_OUT, SAMPLES)}
    found: dict[str, float] = {}
    series = trained(config, lambda policy: found.update(held_out_numbers(config, str(policy), HELD_OUT, SAMPLES)))
    late = {f"late_{n}": finite_mean(series[m][-4:]) for n, m in LATE.items()}
    return {"steps": len(series["accuracy"]), **found, **late}


def _cell(arm: str, reward: str = "verdict") -> Factors:
    return {"arm": arm, "reward": reward}


def _growth(cell: Factors, of: str = "incorrect") -> Values:
    """After training minus base, seed by seed."""
    return difference(of, cell, _cell(BASE))


def _grows(text: str, arm: str, region: tuple[float, float]) -> Statement:
    return Statement(text, _growth(_cell(arm)), region, unit="tokens", arm=arm)


def _shown(text: str, values: Values, unit: str = "") -> Statement:
    return Statement(text, values, (-INFINITY, INFINITY), role="shown", unit=unit)


PROTOCOL = Protocol(
    id="L1.smollm2",
    claim="L1",
    sentence="SmolLM2 on capitals, truncated responses keep their reward: 1/|o| shortens, the constant lengthens.",
    metric="tokens of incorrect responses to held-out questions after 12 steps, 1/|o| minus constant divisor",
    test="t interval over runs, paired by seed; 5 tokens count as an effect",
    refuted="a difference above -5 tokens, no growth under Dr. GRPO, none below 0 under 1/|o|; the same under a coin",
    cells=cells,
    recipe=recipe,
    run=run,
    statements=(
        Statement(
            "incorrect responses at the end: 1/|o| minus constant divisor",
            difference("incorrect", _cell("grpo_std_fix"), _cell("dr_grpo")),
            (-INFINITY, -COUNTS),
            unit="tokens",
            primary=True,
        ),
        _grows("1/|o| shortens them: end minus base", "grpo_std_fix", (-INFINITY, -COUNTS)),
        _grows("the constant divisor lengthens them: end minus base", "dr_grpo", (COUNTS, INFINITY)),
        Statement(
            "a coin for a reward: 1/|o| minus constant divisor",
            difference("incorrect", _cell("grpo_std_fix", "coin"), _cell("dr_grpo", "coin")),
            (-2 * COUNTS, 2 * COUNTS),
            role="control",
            level=0.90,
            unit="tokens",
        ),
        *(_shown(f"a coin for a reward, {arm}: end minus base", _growth(_cell(arm, "coin")), "tokens") for arm in ARMS),
        *(_shown(f"gain in held-out accuracy, {arm}", _growth(_cell(arm), "accuracy")) for arm in ARMS),
        *(_shown(f"held-out {of}, {arm}", number(of, **_cell(arm))) for of in SHOWN for arm in (BASE, *ARMS)),
    ),
    label="open",
    replicate="run",
    seeds=6,
    quick_seeds=1,
)
