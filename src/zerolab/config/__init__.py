"""The configs of all commands: frozen values, read from TOML, written as resolved JSON. An unknown key is an error.

`docs/config.md` is generated from the descriptions in these files.
"""

from zerolab.config.learner_config import CriticConfig, LearnerConfig, LoraConfig, OptimizerConfig
from zerolab.config.pretrain_config import (
    ArchitectureConfig,
    CorporaConfig,
    CorpusConfig,
    DemoConfig,
    GateConfig,
    PretrainConfig,
    StartConfig,
    TextEvaluationConfig,
    TextLearnerConfig,
    TextRunConfig,
)
from zerolab.config.run_config import (
    CheckpointConfig,
    ClusterConfig,
    ControlConfig,
    EvaluationConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    SampleConfig,
    TrackConfig,
    load_run_config,
)
from zerolab.data.question_config import CorpusSource, QuestionsConfig, QuestionSource
from zerolab.data.templates import TemplateConfig
from zerolab.rl.reward_config import CosineReward, RewardConfig, RewardFunction
from zerolab.toml import Seed, Strict

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
