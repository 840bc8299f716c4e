"""Reward functions of a user: TRL's signature, TRL's own functions, and what a broken one does."""

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import refusal, run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import RewardConfig
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.errors import UserError
from zerolab.models.hf import export_model
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS
from zerolab.rl.reward import is_mixed, make_group
from zerolab.rl.reward_function import close_terms, load_terms
from zerolab.rundir import read_metrics

BUDGET = 8
TEXTS = ("<think>a</think> \\boxed{7}", "\\boxed{8}", "7 7 7 7", "")
LENGTHS = (4, 8, 8, 2)
ROW = {"question": "3+4?", "solution": "$7$", "prompt": "never passed", "level": 2}
PROMPT = Prompt(Question("q:0", "3+4?", ("7",), columns=ROW), "Q: 3+4? A:", (1, 2))


def completions() -> list[Completion]:
    return [
        Completion(i, text, np.arange(n) % 3, np.zeros(n, np.float32), "length" if i == 2 else "stop", 5)
        for i, (text, n) in enumerate(zip(TEXTS, LENGTHS, strict=True))
    ]


def group(functions: list[dict], chat: bool = False, prompt: Prompt = PROMPT, **reward: Any) -> Group:
    config = RewardConfig(**{"truncation": "keep", **reward}, functions=functions)
    grades = [Grade(i == 0, i < 2, "correct" if i == 0 else "wrong") for i in range(4)]
    return make_group(prompt, completions(), grades, config, BUDGET, load_terms(config, chat))


@pytest.fixture
def module(tmp_path: Path) -> Any:
    """Writes functions to a file; gives the path of one."""

    def write(body: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "mine.py").write_text(body)
        return f"{folder}/mine.py:f"

    return write


def test_a_function_gets_what_trl_gives_it(module: Any) -> None:
    path = module(
        "seen = []\n"
        "def f(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric, **columns):\n"
        "    log_extra('a', [1]); log_metric('b', 2.0)\n"
        "    assert prompts == ['Q: 3+4? A:'] * 4 and trainer_state.global_step == 5\n"
        "    assert completion_ids[0] == [0, 1, 2, 0] and solution == ['$7$'] * 4\n"
        "    assert columns == {'question': ['3+4?'] * 4, 'level': [2] * 4, 'answer': ['7'] * 4}, columns\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    made = group([{"path": path, "weight": 0.5, "name": "length"}])
    assert made.parts_G["length"].tolist() == [len(text) / 2 for text in TEXTS]
    assert made.rewards_G.tolist() == (made.parts_G["correctness"] + made.parts_G["length"]).tolist()


def test_conversations_are_passed_as_messages(module: Any) -> None:
    path = module(
        "async def f(prompts, completions):\n"
        "    assert prompts[0] == [{'role': 'user', 'content': '3+4?'}]\n"
        "    return [c[0]['role'] == 'assistant' and c[0]['content'].startswith('<think>') for c in completions]\n"
    )
    for keys, chat in (({}, True), ({"completions": "messages"}, False)):
        assert group([{"path": path, **keys}], chat).parts_G["f"].tolist() == [1, 0, 0, 0]


def test_columns_and_options_have_the_names_that_a_function_wants(module: Any) -> None:
    path = module("def f(bonus=0):\n    return lambda gold, completion_ids: [bonus * (g == '$7$') for g in gold]\n")
    made = group([{"path": path, "options": {"bonus": 3}, "columns": {"gold": "solution"}}], correctness=0)
    assert made.rewards_G.tolist() == [3, 3, 3, 3]


def test_none_adds_nothing_and_a_response_without_any_opinion_stays_out(module: Any) -> None:
    path = module("def f(completions):\n    return [1.0, None, None, 0.0]\n")
    scored = group([{"path": path}])
    assert scored.rewards_G.tolist() == [2, 0, 0, 0]
    assert scored.loss_mask_G is None
    alone = group([{"path": path}], correctness=0)
    assert alone.loss_mask_G is not None
    assert alone.loss_mask_G.tolist() == [True, False, False, True]
    assert is_mixed(alone)
    batch = make_batch([alone], PRESETS["dr_grpo"])  # mean of the scored ones alone, as TRL's nanmean
    assert batch.advantage_N.tolist() == [0.5, -0.5]
    other = module("def f(completions):\n    return [None, 4.0, None, None]\n")
    both = group([{"path": other, "name": "g"}, {"path": other}], correctness=0)
    assert both.rewards_G.tolist() == [0, 8, 0, 0]
    masked = group([{"path": path}], correctness=0, truncation="mask")
    assert masked.loss_mask_G is not None
    assert masked.loss_mask_G.tolist() == [True, False, False, True]


def test_truncated_answers_earn_nothing_from_any_term_under_zero(module: Any) -> None:
    path = module("def f(completions):\n    return [5, 5, 5, 5]\n")
    made = group([{"path": path}], truncation="zero")
    assert made.rewards_G.tolist() == [6, 5, 0, 5]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def f(completions):\n    return [1.0]\n", ["returned 1 rewards for 4 responses"]),
        ("def f(completions):\n    return 1.0\n", ["TypeError", "not iterable"]),
        ("def f(completions):\n    return None\n", ["TypeError"]),
        ("def f(completions):\n    return ['x', 0, 0, 0]\n", ["returned 'x'", "neither a number nor None"]),
        ("def f(completions):\n    return [1e999, 0, 0, 0]\n", ["infinite reward"]),
        ("def f(completions):\n    return [0, float('nan'), 0, 0]\n", ["returned NaN", "return None"]),
        ("import os\ndef f(completions):\n    os._exit(0)\n", ["ended its process with code 0"]),
        ("import os\ndef f(completions):\n    os.abort()\n", ["ended its process with code -6"]),
        ("def f(completions):\n    raise ValueError('two\\nlines')\n", ["ValueError: two lines (mine.py:2)"]),
        ("def f(completions):\n    exit(3)\n", ["SystemExit: 3"]),
        ("def f(completions, solutions):\n    return []\n", ["asks for 'solutions'", "did you mean solution?"]),
        ("def f(completions, zebra):\n    return []\n", ["asks for 'zebra'", "it has answer, question"]),
    ],
)
def test_a_broken_function_is_one_line_that_names_it(module: Any, body: str, words: list[str]) -> None:
    path = module(body)
    with pytest.raises(UserError) as failed:
        group([{"path": path}])
    message = str(failed.value)
    assert "\n" not in message
    assert all(word in message for word in [f"reward function {path}", "q:0", *words]), message


HANGING = {
    "in Python": "import time\ndef f(completions):\n    time.sleep(60)\n",
    "in C, with the interpreter's lock": "import re\ndef f(completions):\n    re.match('(a+)+b', 'a' * 60)\n",
}


@pytest.mark.parametrize("body", HANGING.values(), ids=HANGING)
def test_a_function_that_hangs_is_one_line_after_its_deadline(module: Any, body: str) -> None:
    path = module(body)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"failed on question q:0: no reward within 0.5 s; .* raise reward.timeout_s"):
        group([{"path": path}], timeout_s=0.5)
    assert time.monotonic() - began < 30


def test_functions_of_a_run_keep_their_state_print_and_share_a_process_that_ends_with_them(
    module: Any, capfd: pytest.CaptureFixture
) -> None:
    path = module(
        "import os\n"
        "seen = []\n"
        "def f(completions):\n    seen.append(1)\n    print('called')\n    return [len(seen)] * len(completions)\n"
        "def g(completions):\n    return [os.getpid()] * len(completions)\n"
    )
    config = RewardConfig(functions=[{"path": path}, {"path": path[:-1] + "g"}])
    terms = load_terms(config)
    counts = [terms[0].rewards_G(PROMPT, completions()).tolist() for _ in range(3)]
    assert counts == [[1] * 4, [2] * 4, [3] * 4]
    assert capfd.readouterr().err.count("called") == 3
    (pid,) = set(terms[1].rewards_G(PROMPT, completions()))
    assert pid == terms[0].process.worker.process.pid != os.getpid()
    close_terms(terms)
    assert terms[0].process.worker.process.returncode is not None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module_here:f", ["cannot be loaded", "ModuleNotFoundError"]),
        ("nowhere/mine.py:f", ["cannot be loaded", "FileNotFoundError"]),
        ("math:sqrtt", ["math has no function sqrtt", "did you mean sqrt?"]),
    ],
)
def test_a_function_that_is_not_there_is_one_line(path: str, words: list[str]) -> None:
    with pytest.raises(UserError) as failed:
        load_terms(RewardConfig(functions=[{"path": path}]))
    assert all(word in str(failed.value) for word in words), failed.value


def test_a_module_that_ends_its_process_on_import_is_one_line(module: Any) -> None:
    path = module("import os\nos._exit(0)\n")
    with pytest.raises(UserError, match="cannot be loaded: its process ended with code 0"):
        load_terms(RewardConfig(functions=[{"path": path}]))


def test_a_module_that_fails_on_import_is_one_line(module: Any) -> None:
    path = module("import sys\nraise RuntimeError('at import')\n")
    with pytest.raises(UserError, match=r"cannot be loaded: RuntimeError: at import \(mine.py:2\)"):
        load_terms(RewardConfig(functions=[{"path": path}]))


# Against TRL's own functions.


def test_trls_own_functions_work_unchanged() -> None:
    rewards = pytest.importorskip("trl.rewards")
    messages = [[{"role": "assistant", "content": text}] for text in TEXTS]
    ids = [c.token_ids_L.tolist() for c in completions()]
    overlong = {"max_completion_len": BUDGET, "soft_punish_cache": 4}
    made = group(
        [
            {"path": "trl.rewards:think_format_reward", "completions": "messages"},
            {"path": "trl.rewards:get_repetition_penalty_reward", "options": {"ngram_size": 2}, "name": "repetition"},
            {"path": "trl.rewards:get_soft_overlong_punishment", "options": overlong, "name": "punishment"},
            {"path": "trl.rewards:accuracy_reward", "completions": "messages"},
        ],
        overlong=1.0,
        soft_margin=4,
    )
    parts = {name: part.tolist() for name, part in made.parts_G.items()}
    assert parts["think_format_reward"] == rewards.think_format_reward(messages) == [1, 0, 0, 0]
    assert parts["repetition"] == rewards.get_repetition_penalty_reward(ngram_size=2)(completion_ids=ids)
    assert min(parts["repetition"]) < 0
    assert parts["punishment"] == rewards.get_soft_overlong_punishment(**overlong)(completion_ids=ids)
    assert parts["punishment"] == parts["overlong"]  # DAPO's penalty here is TRL's
    assert parts["accuracy_reward"] == rewards.accuracy_reward(messages, ["$7$"] * 4)
    assert parts["accuracy_reward"][0] == 1


def test_the_cosine_reward_is_trls_where_nothing_is_truncated() -> None:
    rewards = pytest.importorskip("trl.rewards")
    cosine = {"correct": [1.0, 0.5], "wrong": [-1.0, -0.5], "exceed": -3.0}
    made = group([], correctness=0, cosine=cosine)
    messages = [[{"role": "assistant", "content": text}] for text in ("$\\boxed{7}$", "$\\boxed{8}$")]
    theirs = rewards.get_cosine_scaled_reward(BUDGET)(messages, ["$7$"] * 2, [[0] * 4, [0] * 8])
    assert made.rewards_G[:2].tolist() == pytest.approx(theirs)
    assert made.rewards_G[2] == -3


def test_the_cosine_reward_favours_short_right_and_long_wrong_answers() -> None:
    at = {}
    for correct in (True, False):
        for length in range(BUDGET + 1):
            done = [Completion(0, "", np.zeros(length, int), np.zeros(length, np.float32), "stop", 0)]
            grade = Grade(correct, True, "correct" if correct else "wrong")
            config = RewardConfig(correctness=0, truncation="keep", cosine={"weight": 2.0})
            at[correct, length] = make_group(PROMPT, done, [grade], config, BUDGET).rewards_G[0] / 2
    assert (at[True, 0], at[True, BUDGET], at[False, 0], at[False, BUDGET]) == pytest.approx((2, 1, -10, 0))
    assert at[True, BUDGET // 2] == pytest.approx(1.5)
    assert all(at[True, n] > at[True, n + 1] and at[False, n] < at[False, n + 1] for n in range(BUDGET))
    assert all(math.isfinite(value) for value in at.values())


# Through the whole program.


def test_a_run_with_functions_logs_every_term_and_a_broken_one_ends_it_in_one_line(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=2)
    path = module("def f(completions, answer, **columns):\n    return [0.1 * len(c) for c in completions]\n")
    terms = (f"out={tmp_path}/run", f"reward.functions=[{{path='{path}', name='letters'}}]", "reward.truncation=keep")
    cosine = ("reward.cosine={weight=0.1}", "reward.overlong=0.5", "reward.soft_margin=4")
    assert run("train", recipe, *settings(*terms, *cosine)) == 0
    for row in read_metrics(tmp_path / "run")[1:]:
        parts = [row[f"reward/{name}"] for name in ("correctness", "format", "letters", "cosine", "overlong")]
        assert row["reward/mean"] == pytest.approx(sum(parts))
        assert row["reward/letters"] > 0
    broken = f"reward.functions=[{{path='{module('def f(completions): return [1]')}'}}]"
    capsys.readouterr()
    assert run("train", recipe, *settings(f"out={tmp_path}/other", broken)) == 2
    line = capsys.readouterr().err.splitlines()[-1]  # after the line of step 0
    assert line.startswith("zerolab: reward function")
    assert "returned 1 rewards for 4 responses" in line
    ending = module("import os\ndef f(completions): os._exit(0)")
    assert run("train", recipe, *settings(f"out={tmp_path}/ended", f"reward.functions=[{{path='{ending}'}}]")) == 2
    assert "ended its process with code 0" in capsys.readouterr().err.splitlines()[-1]
    missing = f"reward.functions=[{{path='{tmp_path}/gone.py:f'}}]"
    assert "cannot be loaded" in refusal(capsys, "train", recipe, *settings(f"out={tmp_path}/third", missing))
