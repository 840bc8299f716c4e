"""A reward of your own, with TRL's signature: python examples/reward.py [MODEL]"""

import sys

import zerolab


def brief(prompts, completions, completion_ids, **columns):
    """1 for an empty response, 0 for one of 16 tokens."""
    return [1 - len(ids) / 16 for ids in completion_ids]


def main(model: str | None = None) -> None:
    config = {
        "name": "own-reward",
        "steps": 2,
        "model": {"path": model} if model else {"base": "laptop/smoke-base"},
        "questions": {"path": "synthetic:modular"},
        "rollout": {"questions_per_step": 8, "samples_per_question": 4, "max_new_tokens": 16},
        "reward": {"functions": [{"path": f"{__file__}:brief", "weight": 0.1}], "truncation": "keep"},
        "objective": "rloo",
    }
    print(zerolab.train(config, overwrite=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
