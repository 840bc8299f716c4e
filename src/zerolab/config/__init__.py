"""What a run is: frozen values that refuse what they do not know. TOML in, resolved JSON out.

`docs/config.md` is generated from the descriptions in these files.
"""

from zerolab.config.cluster import ClusterConfig
from zerolab.config.corpora import (
    CorporaConfig,
    CorpusSource,
    StartConfig,
    TextEvaluationConfig,
    TextLearnerConfig,
    TextRunConfig,
)
from zerolab.config.learner import CriticConfig, LearnerConfig, LoraConfig, OptimizerConfig
from zerolab.config.pretrain import ArchitectureConfig, CorpusConfig, DemoConfig, GateConfig, PretrainConfig
from zerolab.config.questions import QuestionsConfig, QuestionSource, TemplateConfig
from zerolab.config.reward import CosineReward, RewardConfig, RewardFunction
from zerolab.config.run import (
    CheckpointConfig,
    ControlConfig,
    EvaluationConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TrackConfig,
    load_run_config,
)
from zerolab.config.sample import SampleConfig
from zerolab.config.strict import Seed, Strict

__all__ = [
    "ArchitectureConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "ControlConfig",
    "CorporaConfig",
    "CorpusConfig",
    "CorpusSource",
    "CosineReward",
    "CriticConfig",
    "DemoConfig",
    "EvaluationConfig",
    "GateConfig",
    "LearnerConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "QuestionSource",
    "QuestionsConfig",
    "RewardConfig",
    "RewardFunction",
    "RolloutConfig",
    "RunConfig",
    "SampleConfig",
    "Seed",
    "StartConfig",
    "Strict",
    "TemplateConfig",
    "TextEvaluationConfig",
    "TextLearnerConfig",
    "TextRunConfig",
    "TrackConfig",
    "load_run_config",
]
