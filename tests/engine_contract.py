"""What every engine must do, as checks that take a Subject: run them on an engine by making a Subject of it.

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check, subject): CHECKS[check](subject)

A check compares with the plain forward pass of transformers over the same weights. Numbers need not agree to the bit:
a greedy token may differ where two logits nearly tie, log-probabilities within a tolerance.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from zerolab.datatypes import Completion
from zerolab.models.hf import named_weights
from zerolab.rollout.engine import Engine, Request, generate_all


@dataclass(frozen=True)
class Subject:
    """An engine under test. `model` is the reference with its weights, `other` has the same shape and other weights."""

    make: Callable[[], Engine]
    model: Any
    other: Any
    tokenizer: Any
    eos: int
    logprob_tolerance: float = 1e-4
    near_tie: float = 1e-4  # logits closer than this may be ordered either way
    hottest: float = 5.0  # the highest temperature that the engine takes
    same_share: float = 0.9  # responses that must not change with the batch around them; the rest are near ties

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """Five prompts of 1 to 33 tokens, none of them special."""
        rng = np.random.default_rng(0)
        return [tuple(rng.integers(2, self.model.config.vocab_size, n).tolist()) for n in (9, 33, 1, 17, 9)]

    def requests(self, samples: int = 3, budgets: Sequence[int] = (24, 5, 40), **values: Any) -> list[Request]:
        """`samples` for each prompt, with different budgets, so that rows end at different times."""
        triples = itertools.product(range(len(self.prompts)), range(samples))
        return [
            Request(i, self.prompts[p], seed=1000 + i, max_new_tokens=budgets[(p + s) % len(budgets)], **values)
            for i, (p, s) in enumerate(triples)
        ]


@torch.no_grad()
def reference_logits(model: Any, request: Request, completion: Completion) -> torch.Tensor:
    """float32 [L, V]: the logits from which each response token should have been drawn."""
    ids = torch.tensor([[*request.prompt_ids, *completion.token_ids_L.tolist()]], device=model.device)
    return model(ids).logits[0, len(request.prompt_ids) - 1 : -1].float().cpu()


def teacher_forced(model: Any, request: Request, completion: Completion) -> np.ndarray:
    """float64 [L] log-probabilities of the response at the request's temperature (1 where it is 0)."""
    logprobs = torch.log_softmax(reference_logits(model, request, completion).double() / (request.temperature or 1), -1)
    return logprobs.gather(1, torch.from_numpy(completion.token_ids_L)[:, None])[:, 0].numpy()


def assert_greedy(subject: Subject, model: Any, request: Request, completion: Completion) -> None:
    """Every token is the reference's best given what stands before it, up to near ties."""
    logits = reference_logits(model, request, completion)
    chosen = logits.gather(1, torch.from_numpy(completion.token_ids_L)[:, None])[:, 0]
    worst = (logits.max(-1).values - chosen).max().item()
    assert worst <= subject.near_tie, f"a greedy token is {worst} below the best"


def assert_complete(request: Request, completion: Completion, eos: int) -> None:
    """The response ends where it says, and for the reason it says."""
    ids = completion.token_ids_L.tolist()
    assert completion.request_id == request.id
    assert len(ids) == len(completion.logprobs_L) <= request.max_new_tokens
    assert eos not in ids[:-1]
    if completion.finish_reason == "length":
        assert len(ids) == request.max_new_tokens
        assert ids[-1] != eos


def same_tokens(a: Completion, b: Completion) -> bool:
    return a.token_ids_L.tolist() == b.token_ids_L.tolist() and a.finish_reason == b.finish_reason


def greedy_equals_transformers(subject: Subject) -> None:
    engine = subject.make()
    for prompt in subject.prompts:
        request = Request(0, prompt, seed=0, max_new_tokens=32, temperature=0.0)
        (completion,) = generate_all(engine, [request])
        assert_greedy(subject, subject.model, request, completion)
        ids = torch.tensor([prompt], device=subject.model.device)
        out = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32, pad_token_id=1
        )
        theirs = out[0, len(prompt) :].tolist()
        ours = completion.token_ids_L.tolist()
        first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if first is None:
            assert ours == theirs
        else:
            logits = reference_logits(subject.model, request, completion)[first]
            assert abs(logits[ours[first]] - logits[theirs[first]]) <= subject.near_tie


def logprobs_equal_teacher_forcing(subject: Subject) -> None:
    engine = subject.make()
    for temperature in (1.0, 0.6, 1.7, 0.0):
        requests = subject.requests(temperature=temperature)
        for request, completion in zip(requests, generate_all(engine, requests), strict=True):
            assert_complete(request, completion, subject.eos)
            difference = completion.logprobs_L - teacher_forced(subject.model, request, completion)
            assert np.abs(difference).max() <= subject.logprob_tolerance
    mixed = [Request(i, subject.prompts[0], i, 8, temperature=t) for i, t in enumerate((0.0, 1.0, 0.5, 0.0))]
    for request, completion in zip(mixed, generate_all(engine, mixed), strict=True):
        difference = completion.logprobs_L - teacher_forced(subject.model, request, completion)
        assert np.abs(difference).max() <= subject.logprob_tolerance


def new_weights_are_used(subject: Subject) -> None:
    """Same prompts before and after; the engine follows its own copy, and a changed source does not reach it."""
    engine = subject.make()
    requests = subject.requests(samples=2, temperature=0.0)
    before = generate_all(engine, requests)
    for version, model in ((1, subject.other), (2, subject.model)):
        engine.update_weights(version, named_weights(model))
        assert engine.version == version
        after = generate_all(engine, requests)
        assert {c.version for c in after} == {version}
        for request, completion in zip(requests, after, strict=True):
            assert_greedy(subject, model, request, completion)
            difference = completion.logprobs_L - teacher_forced(model, request, completion)
            assert np.abs(difference).max() <= subject.logprob_tolerance
        if version == 1:
            assert any(not same_tokens(a, b) for a, b in zip(before, after, strict=True))


def wrong_weights_are_refused(subject: Subject) -> None:
    engine = subject.make()
    weights = dict(named_weights(subject.other))
    name = next(n for n, w in weights.items() if w.dim() == 2)
    with pytest.raises(ValueError, match="unknown tensor"):
        engine.update_weights(1, [*weights.items(), ("model.nonsense.weight", torch.zeros(1))])
    with pytest.raises(ValueError, match="shape"):
        engine.update_weights(1, [*list(weights.items())[:-1], (name, weights[name][:-1])])
    with pytest.raises(ValueError, match="lacks"):
        engine.update_weights(1, list(weights.items())[:1])
    with pytest.raises(RuntimeError, match="failed half way"):
        list(engine.generate(subject.requests()))
    engine.update_weights(1, weights.items())
    assert len(generate_all(engine, subject.requests())) == len(subject.requests())


def samples_are_distinct_and_repeatable(subject: Subject) -> None:
    engine = subject.make()
    requests = [Request(i, subject.prompts[0], seed=i, max_new_tokens=24) for i in range(16)]
    first, again = generate_all(engine, requests), generate_all(engine, requests)
    assert len({tuple(c.token_ids_L.tolist()) for c in first}) == 16
    assert all(same_tokens(a, b) for a, b in zip(first, again, strict=True))
    twins = generate_all(engine, [Request(i, subject.prompts[0], seed=7, max_new_tokens=24) for i in range(2)])
    assert same_tokens(*twins)


def eos_is_kept(subject: Subject) -> None:
    engine = subject.make()
    requests = [Request(i, subject.prompts[i % 5], seed=i, max_new_tokens=64, temperature=1.5) for i in range(60)]
    completions = generate_all(engine, requests)
    for request, completion in zip(requests, completions, strict=True):
        assert_complete(request, completion, subject.eos)
    ended = [c for c in completions if c.finish_reason == "stop"]
    assert len(ended) >= 3, "too few responses ended by themselves for this check to mean something"
    for completion in ended:
        assert completion.token_ids_L[-1] == subject.eos
        assert subject.tokenizer.decode([subject.eos]) not in completion.text


def a_sample_does_not_depend_on_the_others(subject: Subject) -> None:
    engine = subject.make()
    requests = subject.requests(samples=2)
    together = generate_all(engine, requests)
    shuffled = [requests[i] for i in np.random.default_rng(1).permutation(len(requests))]
    by_id = {c.request_id: c for c in engine.generate(shuffled)}
    alone = [generate_all(engine, [r])[0] for r in requests]
    for others in (alone, [by_id[r.id] for r in requests]):
        same = np.mean([same_tokens(a, b) for a, b in zip(together, others, strict=True)])
        assert same >= subject.same_share


def frequencies_match_the_softmax(subject: Subject) -> None:
    """Chi-square of 1200 first tokens against the reference's probabilities; fails by chance once in 10^4 engines."""
    engine = subject.make()
    for temperature in (1.0, 0.6):
        requests = [Request(i, subject.prompts[3], i, max_new_tokens=1, temperature=temperature) for i in range(1200)]
        completions = generate_all(engine, requests)
        logits = reference_logits(subject.model, requests[0], completions[0])[0].double()
        expected = torch.softmax(logits / temperature, -1).numpy() * len(requests)
        counts = np.bincount([c.token_ids_L[0] for c in completions], minlength=len(expected))
        rare = expected < 5  # pooled, as the test asks
        pooled = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
        assert (~rare).sum() >= 10
        assert stats.chisquare(*pooled).pvalue > 1e-4


def stop_strings_end_a_response(subject: Subject) -> None:
    """Also across token borders; the text and the tokens keep the stop string, and nothing comes after its token."""
    engine = subject.make()
    requests = subject.requests(budgets=(40,))

    def decode(ids: np.ndarray) -> str:
        return subject.tokenizer.decode(ids.tolist(), skip_special_tokens=True)

    wholes: list[Completion] = []
    with_stop: list[Request] = []
    for request, whole in zip(requests, generate_all(engine, requests), strict=True):
        for middle in range(8, len(whole) - 3, 9):
            before, upto = (len(decode(whole.token_ids_L[:n])) for n in (middle, middle + 1))
            stop = decode(whole.token_ids_L)[before - 1 : upto + 1]  # ends in one token and begins in another
            number = {"id": len(wholes), "stop": ("never to be seen", stop)}
            with_stop.append(replace(request, **number))
            wholes.append(whole)
    same, across = [], 0
    for request, whole, cut in zip(with_stop, wholes, generate_all(engine, with_stop), strict=True):
        stop = request.stop[1]
        end = next(n for n in range(41) if stop in decode(whole.token_ids_L[:n]))
        same.append(cut.token_ids_L.tolist() == whole.token_ids_L[:end].tolist())
        assert stop not in decode(cut.token_ids_L[:-1])
        if same[-1]:
            assert cut.finish_reason == "stop"
            assert stop in cut.text
            across += stop not in decode(cut.token_ids_L[-1:])
    assert np.mean(same) >= subject.same_share
    assert across >= 10, "too few stop strings lay across token borders for this check to mean something"


def update_while_busy_is_refused(subject: Subject) -> None:
    engine = subject.make()
    requests = subject.requests()
    expected = {c.request_id: c for c in engine.generate(requests)}
    running = engine.generate(requests)
    got = [next(running)]
    with pytest.raises(RuntimeError, match="idle or paused"):
        engine.update_weights(1, named_weights(subject.other))
    with pytest.raises(RuntimeError, match="generating"):
        next(engine.generate(requests))
    with pytest.raises(RuntimeError, match="generating"):
        engine.sleep()
    got += list(running)
    assert all(same_tokens(c, expected[c.request_id]) for c in got)
    assert len(got) == len(requests)
    engine.update_weights(1, named_weights(subject.other))


def a_dropped_call_leaves_the_engine_idle(subject: Subject) -> None:
    engine = subject.make()
    running: Any = engine.generate(subject.requests())
    next(running)
    running.close()
    engine.update_weights(1, named_weights(subject.model))
    assert len(generate_all(engine, subject.requests())) == len(subject.requests())


def abort_ends_everything(subject: Subject) -> None:
    """Each request is answered once; what was cut off has what was sampled so far, under its true probabilities."""
    engine = subject.make()
    engine.abort()  # nothing in flight: no effect
    requests = subject.requests(budgets=(4, 60, 60))
    for from_thread in (False, True):
        running = engine.generate(requests)
        got = [next(running)]
        if from_thread:
            thread = threading.Thread(target=engine.abort)
            thread.start()
            thread.join(10)
        else:
            engine.abort()
        got += list(running)
        assert sorted(c.request_id for c in got) == [r.id for r in requests]
        cut = [c for c in got if c.finish_reason == "abort"]
        assert cut
        for completion in (c for c in cut if len(c)):
            request = requests[completion.request_id]
            assert len(completion) < request.max_new_tokens
            difference = completion.logprobs_L - teacher_forced(subject.model, request, completion)
            assert np.abs(difference).max() <= subject.logprob_tolerance
    assert all(c.finish_reason != "abort" for c in engine.generate(requests))


def abort_ends_single_requests(subject: Subject) -> None:
    """Those asked for, running or waiting, also from another thread; the others come out as if nothing had been."""
    engine = subject.make()
    requests = subject.requests(budgets=(4, 60, 60))
    expected = {c.request_id: c for c in engine.generate(requests)}
    for from_thread in (False, True):
        running = engine.generate(requests)
        got = [next(running)]
        ids = [r.id for r in requests if r.max_new_tokens == 60][::2]
        asked = (*ids, got[0].request_id, 10**6)  # one that is done and one that never was
        if from_thread:
            thread = threading.Thread(target=engine.abort, args=(asked,))
            thread.start()
            thread.join(10)
        else:
            engine.abort(asked)
        got += list(running)
        assert sorted(c.request_id for c in got) == [r.id for r in requests]
        cut = [c for c in got if c.finish_reason == "abort"]
        assert cut
        assert {c.request_id for c in cut} <= set(ids)
        rest = [c for c in got if c.request_id not in ids]
        assert np.mean([same_tokens(c, expected[c.request_id]) for c in rest]) >= subject.same_share
        for completion in (c for c in cut if len(c)):
            difference = completion.logprobs_L - teacher_forced(
                subject.model, requests[completion.request_id], completion
            )
            assert np.abs(difference).max() <= subject.logprob_tolerance
    engine.abort([requests[0].id])  # nothing in flight: no effect on the next call
    assert all(c.finish_reason != "abort" for c in engine.generate(requests))


def pause_holds_until_resume(subject: Subject) -> None:
    """From another thread: nothing is sampled while paused, and the responses do not show that there was a pause."""
    engine = subject.make()
    requests = subject.requests()
    expected = {c.request_id: c for c in engine.generate(requests)}
    got: list[Completion] = []
    begun = threading.Event()

    def consume() -> None:
        for completion in engine.generate(requests):
            got.append(completion)
            begun.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert begun.wait(30)
    engine.pause()
    held = len(got)
    thread.join(0.2)
    # What the last step before the pause finished may still be handed over.
    settled = len(got)
    thread.join(0.2)
    assert len(got) == settled
    assert thread.is_alive() or held == len(requests)
    engine.resume()
    thread.join(30)
    assert not thread.is_alive()
    assert all(same_tokens(c, expected[c.request_id]) for c in got)
    assert len(got) == len(requests)


def weights_updated_in_a_pause_are_used_from_there_on(subject: Subject) -> None:
    """Tokens before the update are the old model's, later ones the new model's on caches that it computed itself."""
    engine = subject.make()
    requests = subject.requests(budgets=(6, 40, 50))
    running = engine.generate(requests)
    got = [next(running)]
    engine.pause()
    engine.update_weights(7, named_weights(subject.other))
    engine.resume()
    got += list(running)
    mixed = [c for c in got if c.versions_L is not None]
    assert mixed, "no response was in flight during the update"
    assert sorted(c.request_id for c in got) == [r.id for r in requests]
    for completion in mixed:
        request = requests[completion.request_id]
        is_new = np.asarray(completion.versions_L) == 7
        assert completion.version == 0
        assert not is_new[0]
        assert (np.diff(is_new.astype(int)) >= 0).all()
        for model, part in ((subject.model, ~is_new), (subject.other, is_new)):
            difference = completion.logprobs_L - teacher_forced(model, request, completion)
            assert np.abs(difference[part]).max() <= subject.logprob_tolerance


def sleep_and_wake(subject: Subject) -> None:
    engine = subject.make()
    requests = subject.requests()
    before = generate_all(engine, requests)
    engine.sleep()
    with pytest.raises(RuntimeError, match="wake"):
        list(engine.generate(requests))
    engine.update_weights(3, named_weights(subject.model))
    engine.wake()
    assert all(same_tokens(a, b) for a, b in zip(before, generate_all(engine, requests), strict=True))
    engine.close()


def restricted(request: Request, logits_LV: torch.Tensor, eos: int) -> torch.Tensor:
    """float64 [L, V] log-probabilities of what a request asks for, token by token."""
    rows = []
    for place, logits_V in enumerate(logits_LV.double() / (request.temperature or 1)):
        if place < request.min_tokens:
            logits_V[eos] = -torch.inf
        probabilities_V = torch.softmax(logits_V, -1)
        allowed: list[int] = []
        mass = 0.0
        if request.temperature and request.top_k:
            worst = probabilities_V.sort(descending=True).values[: request.top_k][-1]
            probabilities_V = torch.where(probabilities_V >= worst, probabilities_V, 0.0)
            probabilities_V /= probabilities_V.sum()
        for token in probabilities_V.argsort(descending=True).tolist() if request.temperature else []:
            if mass >= request.top_p:
                break
            allowed.append(token)
            mass += probabilities_V[token].item()
        if allowed and request.top_p < 1:
            keep_V = torch.zeros_like(probabilities_V, dtype=torch.bool)
            keep_V[allowed] = True
            probabilities_V = torch.where(keep_V, probabilities_V, 0.0)
            probabilities_V /= probabilities_V.sum()
        rows.append(probabilities_V.log())
    return torch.stack(rows)


RESTRICTIONS: tuple[dict[str, Any], ...] = (
    {"top_k": 1},
    {"top_k": 3},
    {"top_p": 0.7},
    {"top_p": 0.9, "top_k": 7, "temperature": 1.4},
    {"top_p": 1e-9},
    {"min_tokens": 4, "temperature": 1.5},
    {"top_k": 5, "top_p": 0.8, "min_tokens": 3},
)


def restricted_draws_have_their_exact_probabilities(subject: Subject) -> None:
    """Against a brute-force softmax with a mask; each request of the batch has its own restriction, some have none."""
    engine = subject.make()
    kinds = [{}, *RESTRICTIONS]
    requests = [Request(i, subject.prompts[i % 5], i, 8, **kinds[i % len(kinds)]) for i in range(5 * len(kinds))]
    narrowed = 0
    for request, completion in zip(requests, generate_all(engine, requests), strict=True):
        expected_LV = restricted(request, reference_logits(subject.model, request, completion), subject.eos)
        chosen = expected_LV.gather(1, torch.from_numpy(completion.token_ids_L)[:, None])[:, 0].numpy()
        # A token at the border of the support may fall on either side, and takes its mass with it.
        close = np.abs(completion.logprobs_L - chosen) <= subject.logprob_tolerance
        assert close.mean() >= subject.same_share
        narrowed += bool((completion.logprobs_L - teacher_forced(subject.model, request, completion) > 0.01).any())
    assert narrowed >= len(requests) // 2, "too few draws were restricted for this check to mean something"


def restricted_draws_reach_their_whole_support(subject: Subject) -> None:
    """Chi-square of 600 first tokens: nothing outside the support, and inside it the renormalized softmax."""
    engine = subject.make()
    for restriction in ({"top_k": 4}, {"top_p": 0.8, "temperature": 0.9}):
        requests = [Request(i, subject.prompts[3], i, 1, **restriction) for i in range(600)]
        completions = generate_all(engine, requests)
        logits_LV = reference_logits(subject.model, requests[0], completions[0])
        expected = restricted(requests[0], logits_LV, subject.eos)[0].exp().numpy() * len(requests)
        counts = np.bincount([c.token_ids_L[0] for c in completions], minlength=len(expected))
        assert counts[expected == 0].sum() == 0
        assert (counts[expected > 10] > 0).all()
        assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-4


def a_restricted_sample_does_not_depend_on_the_others(subject: Subject) -> None:
    engine = subject.make()
    requests = [Request(i, subject.prompts[i % 5], i, 12, **RESTRICTIONS[i % len(RESTRICTIONS)]) for i in range(7)]
    free = subject.requests(samples=1)
    together = generate_all(engine, requests + [replace(r, id=100 + r.id) for r in free])
    alone = [generate_all(engine, [r])[0] for r in requests] + generate_all(engine, free)
    assert np.mean([same_tokens(a, b) for a, b in zip(together, alone, strict=True)]) >= subject.same_share


def restrictions_leave_greedy_alone(subject: Subject) -> None:
    engine = subject.make()
    plain = subject.requests(samples=1, temperature=0.0)
    narrow = [replace(r, top_k=2, top_p=0.5) for r in plain]
    for a, b in zip(generate_all(engine, plain), generate_all(engine, narrow), strict=True):
        assert same_tokens(a, b)
        np.testing.assert_allclose(a.logprobs_L, b.logprobs_L, atol=subject.logprob_tolerance)


def nothing_ends_before_min_tokens(subject: Subject) -> None:
    engine = subject.make()
    free = [Request(i, subject.prompts[i % 5], i, 40, temperature=subject.hottest) for i in range(90)]
    ended = [r for r, c in zip(free, generate_all(engine, free), strict=True) if len(c) < 12]
    assert ended, "no response ended early enough for this check to mean something"
    longer = generate_all(engine, [replace(r, min_tokens=12) for r in ended])
    for completion in longer:
        assert len(completion) > 12
        assert subject.eos not in completion.token_ids_L[:12].tolist()


def a_stop_string_within_min_tokens_ends_nothing(subject: Subject) -> None:
    """Also not later; one that comes again does."""
    engine = subject.make()
    greedy = [Request(i, prompt, 0, 40, temperature=0.0) for i, prompt in enumerate(subject.prompts)]
    endless = [(r, c) for r, c in zip(greedy, generate_all(engine, greedy), strict=True) if len(c) == 40]
    assert endless, "every greedy response ended by itself, so this check means nothing"
    request, whole = endless[0]
    texts = [subject.tokenizer.decode(whole.token_ids_L[:n].tolist()) for n in range(41)]
    for first in (3, 8):
        stop = texts[first][len(texts[first - 1]) - 1 :]  # ends with token number `first`
        ends = [n for n in range(1, 41) if stop in texts[n] and texts[n].rfind(stop) + len(stop) > len(texts[n - 1])]
        for least in (0, first - 1, first, first + 4, 39):
            (cut,) = generate_all(engine, [replace(request, stop=(stop,), min_tokens=least)])
            assert len(cut) == next((n for n in ends if n > least), 40)


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        greedy_equals_transformers,
        logprobs_equal_teacher_forcing,
        new_weights_are_used,
        wrong_weights_are_refused,
        samples_are_distinct_and_repeatable,
        eos_is_kept,
        a_sample_does_not_depend_on_the_others,
        frequencies_match_the_softmax,
        stop_strings_end_a_response,
        update_while_busy_is_refused,
        a_dropped_call_leaves_the_engine_idle,
        abort_ends_everything,
        abort_ends_single_requests,
        pause_holds_until_resume,
        weights_updated_in_a_pause_are_used_from_there_on,
        sleep_and_wake,
        restricted_draws_have_their_exact_probabilities,
        restricted_draws_reach_their_whole_support,
        a_restricted_sample_does_not_depend_on_the_others,
        restrictions_leave_greedy_alone,
        nothing_ends_before_min_tokens,
        a_stop_string_within_min_tokens_ends_nothing,
    )
}
