"""An engine of your own, here the plainest one: python examples/engine.py [MODEL]"""

import copy
import sys

import numpy as np
import torch

import zerolab
from zerolab.datatypes import Completion


class Plain:
    def __init__(self, config, model, tokenizer, device):
        self.model, self.tokenizer, self.version = copy.deepcopy(model), tokenizer, 0

    def generate(self, requests):
        for r in requests:
            random, ids, logprobs, eos = torch.Generator().manual_seed(r.seed), [], [], self.tokenizer.eos_token_id
            while len(ids) < r.max_new_tokens and eos not in ids:
                with torch.no_grad():
                    logits = self.model(torch.tensor([[*r.prompt_ids, *ids]])).logits[0, -1] / r.temperature
                ids.append(int(torch.multinomial(logits.softmax(-1), 1, generator=random)))
                logprobs.append(float(logits.log_softmax(-1)[ids[-1]]))
            text, end = self.tokenizer.decode(ids, skip_special_tokens=True), "stop" if eos in ids else "length"
            yield Completion(r.id, text, np.array(ids), np.array(logprobs, np.float32), end, self.version)

    def update_weights(self, version, tensors):
        self.version = version
        self.model.load_state_dict(dict(tensors), strict=False)

    def close(self): ...


def main(model: str | None = None) -> None:
    base = {"path": model} if model else {"base": "laptop/smoke-base"}
    rollout = {"questions_per_step": 4, "samples_per_question": 4, "max_new_tokens": 8}
    keys = {"questions": {"path": "synthetic:modular"}, "rollout": rollout, "objective": "dr_grpo"}
    print(zerolab.train({"name": "own-engine", "steps": 2, "model": base, **keys}, engine=Plain, overwrite=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
