"""A recipe with the shape of its model, on GPUs, under assumptions: what everything else here is computed from."""

from dataclasses import dataclass, field

from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.plan.assumptions import Assumptions
from zerolab.plan.gpus import Cluster
from zerolab.plan.shapes import PUBLISHED, Layers, ModelShape, model_shape


@dataclass(frozen=True)
class Job:
    config: RunConfig
    shape: ModelShape
    cluster: Cluster
    assumed: Assumptions = field(default_factory=Assumptions)

    @property
    def layers(self) -> Layers:
        assert self.shape.layers is not None
        return self.shape.layers

    @property
    def computed(self) -> float:
        """Bytes of a number in the engine and in the learner's products."""
        return 4.0 if self.config.model.precision == "fp32" else 2.0

    @property
    def kv_bytes(self) -> float:
        return self.config.rollout.kv_gb * 2**30

    @property
    def trained(self) -> float:
        """Numbers that the optimizer moves."""
        lora = self.config.lora
        return float(lora.rank * self.shape.linear_width if lora else self.shape.parameters)


def make_job(config: RunConfig, cluster: Cluster, assumed: Assumptions | None = None) -> Job:
    """Raises UserError where the shape of the model is not known."""
    shape = model_shape(config.model)
    if shape is None or shape.layers is None:
        raise UserError(
            f"the shape of {config.model.path} is not known: give model.path as a folder with its config.json, or a "
            f"model of a known family ({', '.join(PUBLISHED)})"
        )
    return Job(config, shape, cluster, assumed or Assumptions())
