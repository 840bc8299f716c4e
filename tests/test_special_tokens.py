"""Special tokens that a run looks for stay in the text of a response."""

import copy
from typing import Any

import numpy as np

from tiny_models import tiny_model, tiny_tokenizer
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.stop_strings import StopStrings, decode, token_pieces
from zerolab.rollout.torch_engine import TorchEngine


def tokenizer_with_special_tags() -> Any:
    """Tags of the answer format, a turn's end and a token of no use are special tokens, from id 160."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tags = ["<think>", "</think>", "<answer>", "</answer>", "<|turn|>", "<|other|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": tags})
    assert tokenizer.convert_tokens_to_ids(tags) == list(range(160, 166))
    return tokenizer


def test_tags_that_are_special_tokens_stay_in_the_text_and_end_a_response() -> None:
    tokenizer, stop = tokenizer_with_special_tags(), ("</answer>",)
    requests = [Request(i, (5, 6, 7), i, 60, 1.0, stop) for i in range(40)]
    done = generate_all(TorchEngine(tiny_model(vocab_size=166), tokenizer), requests)
    stopped = [c for c in done if 163 in c.token_ids_L]
    assert len(stopped) > 5
    for completion in stopped:
        assert completion.finish_reason == "stop"
        assert completion.token_ids_L.tolist().index(163) == len(completion) - 1
        assert completion.text.endswith("</answer>")
    for completion in done:
        ids = completion.token_ids_L.tolist()
        assert [completion.text.count(tag) for tag in ("<think>", "</think>")] == [ids.count(160), ids.count(161)]
        assert "<|" not in completion.text  # special tokens that nobody looks for


def test_a_stop_string_of_special_tokens_is_found_and_pieces_join_to_the_text() -> None:
    tokenizer, stop = tokenizer_with_special_tags(), ("\n<|turn|>",)
    line_feed = tokenizer.encode("\n")
    tokens = np.array([10, 165, 160, 11, 161, *line_feed, 164])
    stops = StopStrings(tokenizer, 166)
    number = stops.register(stop)
    assert stops.candidates(np.array([number]), tokens[-1:]).tolist() == [0]
    assert stops.found(number, tokens)
    text = decode(tokenizer, tokens, stop)
    assert text.endswith("\n<|turn|>")
    assert "<|turn|>" not in decode(tokenizer, tokens)
    assert "".join(token_pieces(tokenizer, tokens, stop)) == text
