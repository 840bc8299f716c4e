"""Every claim of the ledger on one GPU for hours, and with the paper's models, data and settings.

Settings of the paper are those of its public scripts: the recipes' headers say which, and what is not known. Hours are
computed (`scales.py`), never written here. The paper's runs sampled and learned on the same eight GPUs; four engines
and four learner ranks are our choice.
"""

from collections.abc import Mapping

from zerolab.claims.protocol import Scale
from zerolab.claims.scales import Larger, Pretraining, Sampling, Training

ONE, EIGHT, A100 = "1xH100", "8xA100-80", "1xA100-80"
FOUR_ARMS = {name: (f"objective={name}",) for name in ("grpo", "grpo_length_fix", "grpo_std_fix", "dr_grpo")}
TWO_ARMS = {name: FOUR_ARMS[name] for name in ("grpo", "dr_grpo")}
ON_POLICY = ("learner.updates_per_rollout=1", "learner.old_logprobs=detach")
RANDOM = ("random-reward",)
CLUSTER = ("cluster.engines=4", "cluster.learner_ranks=4")  # of eight GPUs: half sample, half learn, in turn
TEMPLATES = ("r1", "qwen-math", "none")
SETS = ("orz_57k", "math12k", "gsm_8k", "asdiv_2k")
SMALL = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-Math-1.5B", "meta-llama/Llama-3.2-1B")
BASES = (
    *("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B"),
    *("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-3B"),
)
NO_DEEPSEEK = (
    "DeepSeek-V3-Base does not fit eight of these GPUs: `zerolab analyze NAME --endpoint URL` for one that is served, "
    "not in the hours; nor is the judge, whose prompt is ours (the paper's is not public)"
)


def arms(prefix: str, changes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {f"{prefix}-{name.replace('_', '-')}": more for name, more in changes.items()}


def grid(templates: tuple[str, ...], sets: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {
        f"d1-{template}-{name.replace('_', '-')}": (f"template.name={template}", f"questions.path={name}")
        for template in templates
        for name in sets
    }


def bases(name: str, models: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {f"{name}-{label}": (f"model.path={path}",) for label, path in models.items()}


def looked_at(claim: str) -> tuple[str, ...]:
    return (f"zerolab report runs/{claim}-*",)


def evaluated(base: str) -> tuple[str, ...]:
    """The last checkpoint of every run of R1 and the base, on the five benchmarks."""
    runs = [f"runs/r1-dr-grpo-seed{seed}{arm}" for seed in range(3) for arm in ("", "-random-reward")]
    words = "--device cuda --precision bf16"
    asked = [f"zerolab evaluate {run} --template qwen-math {words}" for run in runs]
    return (*asked, *(f"zerolab evaluate {base} --template {name} {words}" for name in TEMPLATES))


def study(temperatures: str, judged: bool, choices: str) -> Mapping[Scale, Larger]:
    """Base models, three templates, the 500 questions of MATH500."""
    small = Sampling(SMALL, "math500", temperatures=temperatures, judged=judged)
    whole = Sampling(BASES, "math500", temperatures=temperatures, judged=judged)
    return {
        "gpu": Larger(ONE, (small,), f"three small bases; {choices}; the judge is ours, and not in the hours"),
        "paper": Larger(A100, (whole,), f"{choices}; {NO_DEEPSEEK}"),
    }


ANYWHERE = Larger("", (), "no GPU is needed: the audit is the same command on any machine", ("zerolab claims run T2",))
PAPER_15B, SHORT = "paper/qwen2.5-math-1.5b", "gpu1/qwen2.5-math-1.5b"
CURVES, SHORT_CURVES = "paper/qwen2.5-1.5b-r1", "gpu1/qwen2.5-0.5b-r1"
UNKNOWN_CURVES = "model, template and question set of the paper's curves are not known; ours are in the recipe's header"
LLAMA = "paper/llama-3.2-3b-numinaqa"
PLAIN, PUBLISHED = "meta-llama/Llama-3.2-3B", "lkevinzc/Llama-3.2-3B-NuminaQA"
FINEMATH, NUMINA = (f"runs/llama-3.2-3b-{text}-pretrain-seed0/model" for text in ("finemath", "numinaqa"))

LARGER: Mapping[str, Mapping[Scale, Larger]] = {
    "C0": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("c0", TWO_ARMS), 3, ON_POLICY, (*RANDOM, "random-reward-truncated")),),
            "a control of ours: nothing of it is in the paper",
            looked_at("c0"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(CURVES, arms("c0", TWO_ARMS), 3, (*CLUSTER, *ON_POLICY), (*RANDOM, "random-reward-truncated")),),
            "a control of ours: nothing of it is in the paper; one optimizer step per rollout instead of eight",
            looked_at("c0"),
        ),
    },
    "B1": study("1", True, "8 responses a question at temperature 1"),
    "B2": study("0.2,0.6,1,1.4", False, "temperatures 0.2 to 1.4, 8 responses a question"),
    "B3": study("0.2,0.6,1,1.4", True, "temperatures 0.2 to 1.4; the responses of B2, judged"),
    "B4": study("1", True, "the responses of B3 at temperature 1"),
    "T1": {
        "gpu": Larger(
            ONE,
            (Sampling((SMALL[1],), "math500,amc", "few-shot,r1,qwen-math,none", "0", 1),),
            "one model, two benchmarks; the four examples are ours",
        ),
        "paper": Larger(
            A100,
            (Sampling(BASES[:2], "paper", "few-shot,r1,qwen-math,none", "0", 1),),
            "the four examples of the few-shot prompt are ours; strict and lenient format are both reported",
        ),
    },
    "T2": {"gpu": ANYWHERE, "paper": ANYWHERE},
    "L1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("l1", FOUR_ARMS), 5, (), RANDOM),),
            "model, question set, budget and number of steps are ours",
            looked_at("l1"),
        ),
        "paper": Larger(
            EIGHT,
            (
                Training(CURVES, arms("l1", TWO_ARMS), 5, CLUSTER, RANDOM),
                Training(CURVES, arms("l1", {k: FOUR_ARMS[k] for k in FOUR_ARMS if k not in TWO_ARMS}), 1, CLUSTER),
            ),
            f"{UNKNOWN_CURVES}; 5 seeds of the two arms, 1 of those between, a random reward beside each",
            looked_at("l1"),
        ),
    },
    "L2": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("l2", TWO_ARMS), 3),),
            "the first seeds of L1's runs serve as well: the bias meter logs the weights",
            looked_at("l2"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(CURVES, arms("l2", TWO_ARMS), 3, CLUSTER),),
            f"{UNKNOWN_CURVES}; the first seeds of L1's runs serve as well: the bias meter logs the weights",
            looked_at("l2"),
        ),
    },
    "D1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, grid(TEMPLATES[:2], ("math12k", "gsm_8k")), 3, (), RANDOM),),
            "two templates on two question sets, 100 steps, 3 seeds",
            looked_at("d1"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(PAPER_15B, grid(TEMPLATES, SETS), 1, CLUSTER, RANDOM),),
            "one seed, as in the paper; questions from the hub in place of the paper's files; steps: about 290",
            looked_at("d1"),
        ),
    },
    "D2": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, bases("d2", {"plain": "Qwen/Qwen2.5-1.5B", "math": BASES[0]}), 3, (), RANDOM),),
            "Qwen2.5-1.5B against Qwen2.5-Math-1.5B, which went on from it on mathematical text: another family",
            looked_at("d2"),
        ),
        "paper": Larger(
            EIGHT,
            (
                Pretraining("paper/llama-3.2-3b-finemath-pretrain"),
                Pretraining("paper/llama-3.2-3b-numinaqa-pretrain"),
                Training(
                    LLAMA,
                    bases("d2", {"plain": PLAIN, "finemath": FINEMATH, "numinaqa": NUMINA, "published": PUBLISHED}),
                    1,
                    CLUSTER,
                    RANDOM,
                ),
            ),
            "tokens, learning rate and mix of both pretrainings are not known: ours are in the recipes; so RL also "
            "goes on from the published NuminaQA model",
            looked_at("d2"),
        ),
    },
    "D3": {
        "gpu": Larger(
            ONE,
            (Training("gpu1/llama-3.2-1b", arms("d3", TWO_ARMS), 5, (), RANDOM),),
            "Llama-3.2-1B without pretraining on NuminaQA, GSM-8K, 1024 tokens",
            looked_at("d3"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(LLAMA, arms("d3", TWO_ARMS), 3, CLUSTER, RANDOM),),
            "3 seeds where the paper has one; the exact number of steps is not known",
            looked_at("d3"),
        ),
    },
    "R1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, arms("r1", {"dr_grpo": ()}), 3, (), RANDOM),),
            "a smaller model and a third of the steps: the recipe's gain over its random-reward control, not its table",
            evaluated("Qwen/Qwen2.5-Math-1.5B"),
        ),
        "paper": Larger(
            EIGHT,
            (Training("paper/qwen2.5-math-7b", arms("r1", {"dr_grpo": ()}), 3, CLUSTER, RANDOM),),
            "3 seeds where the paper has one; the last checkpoint and none chosen on a benchmark; the grader is ours",
            evaluated("Qwen/Qwen2.5-Math-7B"),
        ),
    },
}
