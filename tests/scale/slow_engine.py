"""Engines of a test's own: slow, and some that die or stop at a given moment."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from zerolab.build import make_engine


def slow(seconds: float, config: Any, model: Any, tokenizer: Any, device: Any) -> Any:
    """The torch engine, sleeping before every step; its numbers are the same."""
    engine: Any = make_engine(config, model, tokenizer, device)
    advance = engine._advance

    def slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return advance(*arguments)

    engine._advance = slowly
    return engine


def struck(folder: Path, number: signal.Signals, step: int, *arguments: Any) -> Any:
    """The torch engine whose process is sent a signal before its forward pass `step`, once in the life of a folder."""
    engine: Any = slow(0.005, *arguments)
    advance = engine._advance

    def until_then(*rest: Any) -> Any:
        mark = folder / "struck"
        if engine.steps >= step and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), number)
        return advance(*rest)

    engine._advance = until_then
    return engine
