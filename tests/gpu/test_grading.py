"""The grader beside a CUDA context: its workers are fresh interpreters, so no fork of the context happens."""

import pytest

from zerolab.grading import grade_batch


@pytest.mark.gpu
def test_grading_after_cuda_has_started() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    total = torch.ones(8, device="cuda").sum()
    grades = grade_batch([rf"\boxed{{x+{k}}}" for k in range(16)], [f"{k}+x" for k in range(16)])
    assert all(g.correct for g in grades)
    assert total.item() == 8
