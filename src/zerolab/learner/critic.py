"""The critic: V(q, o_<t), the expected reward of the policy from a state on.

It is a linear head on hidden states, of a separate copy of the policy or of the policy itself. In the second case the
value loss trains the policy's weights too. The head starts at 0, so that the first update is plain REINFORCE.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from zerolab.config import CriticConfig, LearnerConfig
from zerolab.learner.optim import clip_and_step, load_optimizer, make_optimizer, save_optimizer
from zerolab.learner.precision import trained_weights
from zerolab.learner.ranks import Shards
from zerolab.learner.scorer import Scorer
from zerolab.rl.batch import Batch, MicroBatch, micro_batches, token_indices

WEIGHTS_FILE, OPTIMIZER_FILE = "critic.safetensors", "critic_optimizer.safetensors"


class Critic(nn.Module):
    """A value head with its optimizer.

    Args:
        policy: scorer of the model that the critic copies or shares.
    """

    def __init__(self, policy: Scorer, config: CriticConfig, optimizer: LearnerConfig):
        super().__init__()
        self.shares_trunk = config.kind == "head"
        self.scorer = policy if self.shares_trunk else policy.copy()
        # As an attribute, the trunk is trained and saved with the critic. A shared trunk belongs to the policy.
        self.trunk = None if self.shares_trunk else self.scorer.model.get_decoder()
        weight = self.scorer.head.weight
        self.head = nn.Linear(self.scorer.head.in_features, 1, device=weight.device, dtype=torch.float32)
        if weight.dtype == torch.float64:
            self.head.double()
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.config = optimizer.model_copy(update={"lr": config.lr or optimizer.lr})
        self.optimizer = make_optimizer(trained_weights(self), self.config)

    def values(self, micro: MicroBatch, policy_hidden_TD: torch.Tensor) -> torch.Tensor:
        """values_T, the value before every response token. A shared trunk takes the policy's hidden states."""
        hidden_TD = policy_hidden_TD if self.shares_trunk else self.scorer.hidden(micro)
        return self.head(hidden_TD.to(self.head.weight.dtype)).squeeze(-1)

    @torch.no_grad()
    def values_of(self, batch: Batch, token_budget: int) -> np.ndarray:
        """values_T of a batch, by a forward pass over all rows."""
        found_T = np.empty_like(batch.old_logprobs_T)
        for micro in micro_batches(batch, np.arange(len(batch)), token_budget, self.scorer.device):
            values_T = self.head(self.scorer.hidden(micro).to(self.head.weight.dtype)).squeeze(-1)
            found_T[token_indices(batch.response_len_N, micro.rows_B)] = values_T.cpu().numpy()
        return found_T

    def optim_step(self, step: int, total_steps: int) -> dict[str, float]:
        """Clip the gradient of the critic's own parameters and take one AdamW step."""
        done = clip_and_step(self.optimizer, step, total_steps, self.config)
        return {f"critic/{name}": value for name, value in done.items()}

    def save(self, folder: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS_FILE)
        save_optimizer(self.optimizer, folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        stored = Shards([folder / WEIGHTS_FILE])
        self.load_state_dict({name: stored.tensor(name) for name in stored.names()})
        load_optimizer(self.optimizer, folder / OPTIMIZER_FILE)
