"""Peak memory of a learner's step, in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def step_mib(model: dict[str, Any], learner: dict[str, Any]) -> float:
    """MiB by which a step over 8 rows of 256 tokens raises the peak, for a Qwen2 of this config and a LearnerConfig."""
    return float(subprocess.check_output([sys.executable, __file__, json.dumps([model, learner])]))


def _peak() -> float:  # ru_maxrss would begin with that of the process that started this one
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def _measure(model: dict[str, Any], learner: dict[str, Any]) -> float:
    import numpy as np
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from zerolab.config import LearnerConfig
    from zerolab.learner.learner import Learner
    from zerolab.rl.batch import pack
    from zerolab.rl.objective import PRESETS

    torch.set_num_threads(1)
    config = Qwen2Config(num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, **model)
    worker = Learner(Qwen2ForCausalLM(config), LearnerConfig(**learner), budget=256, total_steps=1)
    rows = [(2, 254, 0, 0.0, i - 3.5, 0) for i in range(8)]
    step = pack([np.arange(256) % config.vocab_size] * 8, [np.full(254, -7.0, np.float32)] * 8, rows)
    worker.forward_backward(step.select(np.arange(1)), PRESETS["dr_grpo"])  # what is imported and allocated once
    before = _peak()
    worker.forward_backward(step, PRESETS["dr_grpo"])
    return _peak() - before


if __name__ == "__main__":
    print(_measure(*json.loads(sys.argv[1])))
