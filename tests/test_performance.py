"""docs/performance.md says what the JSON files say, and what cannot run here runs on a tiny shape."""

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/ by its name, as a script there would."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module
    for name in ("record", "models", "performance", "gpu", "rl_step"):
        sys.modules.pop(name, None)


def test_the_page_is_what_the_results_say(benchmark: Any) -> None:
    page = benchmark("performance").page()
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_every_result_has_its_origin_and_its_section(benchmark: Any) -> None:
    performance = benchmark("performance")
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert file.stem == record["benchmark"]
        if file.stem not in performance.ELSEWHERE:
            assert file.stem in performance.SECTIONS
            assert record["date"] in performance.page()
        assert record["versions"]["torch"]
        assert record["hardware"]["cores"] >= 1


def test_a_number_on_the_page_is_that_of_the_file(benchmark: Any, tmp_path: Path) -> None:
    side = {"step": 1.0, "sample": 0.25, "learn": 0.75, "coverage": 0.5}
    step = {"size": "1M", "rewards": "usual", "updates": 1, "threads": 1, "zerolab": side, "trl": side, "ratio": 77.77}
    brought = {"size": "1M", "step_factor": {"without skipping": 1.25}, "learn_factor": {"without skipping": 88.88}}
    benchmark("record").write("rl_step", {"steps": [step], "shares": [brought]}, tmp_path / "rl_step.json")
    page = benchmark("performance").page(tmp_path)
    assert "**77.77**" in page
    assert "| 1M | without skipping | 88.88 | 1.25 |" in page
    assert "`python benchmarks/gpu.py`: never run." in page
    assert version("torch") in page


def test_the_gpu_script_measures_a_tiny_shape_on_a_cpu(benchmark: Any) -> None:
    gpu = benchmark("gpu")
    found = gpu.measure("tiny", torch.device("cpu"), with_trl=False)
    assert "tiny: 107,072 parameters" in gpu.text(found)
    assert [row["checkpointing"] for row in found["learning"]] == [False, True]
    for speed in (found["sampling"]["tokens_per_s"], *(row["tokens_per_s"] for row in found["learning"])):
        assert speed > 0
    benchmark("performance").gpu([found])


def test_the_gpu_script_keeps_every_part_and_starts_none_after_its_time(benchmark: Any) -> None:
    gpu = benchmark("gpu")
    kept: list[str] = []

    def keep(found: dict[str, Any]) -> None:
        kept.append(json.dumps(found))

    found = gpu.measure("tiny", torch.device("cpu"), with_trl=False, keep=keep)
    assert [bool(json.loads(record)["sampling"]) for record in kept] == [False, True, True, True]
    assert [len(json.loads(record)["learning"]) for record in kept] == [0, 0, 1, 2]
    assert found["left_out"] == []
    late = gpu.measure("tiny", torch.device("cpu"), with_trl=True, deadline=0.0)
    assert late["left_out"] == ["sampling", "learning", "learning, checkpointing", "TRL"]
    assert "left out for lack of time: sampling" in gpu.text(late)
    assert "tiny" not in benchmark("performance").gpu([late])


def test_model_flops_are_six_for_each_weight_and_token_at_length_one(benchmark: Any) -> None:
    """Where attention is nearly nothing, FLOPs are those of the weights of the matrices, counted on a real model."""
    gpu = benchmark("gpu")
    shape = gpu.SHAPES["tiny"]
    model = gpu.make_model(shape, torch.device("cpu"), torch.float32)
    body = sum(p.numel() for p in model.model.layers.parameters() if p.dim() == 2)
    tokens = shape.sequences * shape.length
    responses = shape.sequences * (shape.length - shape.length // 4)
    head = shape.model["hidden_size"] * shape.model["vocab_size"]
    attention = 6 * tokens * shape.length * shape.model["num_hidden_layers"] * shape.model["hidden_size"]
    assert gpu.model_flops(shape) == 6 * (tokens * body + responses * head) + attention


def test_both_sides_of_the_rl_step_get_the_same_rewards(benchmark: Any) -> None:
    rl_step = benchmark("rl_step")
    assert [rl_step.reward("t1 t2", n, "usual") for n in (0, 1, 4, 5)] == [1.0, 0.0, 1.0, 0.0]
    texts = [f"t{i}" for i in range(400)]
    coins = [rl_step.reward(text, 2, "usual") for text in texts]
    assert coins == [rl_step.reward(text, 0, "mixed") for text in texts]
    assert 150 < sum(coins) < 250
