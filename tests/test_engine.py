"""The torch engine against the contract, for each kind of decoder; and what is its own: memory, sharing, drawing."""

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from engine_contract import CHECKS, Subject, assert_greedy, same_tokens, teacher_forced
from tape import Tape, tape_recorder
from tiny_models import EOS, VOCABULARY, tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.models.hf import named_weights
from zerolab.rollout import kv_cache
from zerolab.rollout.cached_decoder import CachedDecoder
from zerolab.rollout.cuda_graphs import Bucket, StepGraphs, round_up
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.fused_decoder import FusedDecoder
from zerolab.rollout.in_flight import close_gaps
from zerolab.rollout.kv_cache import Plan, plan_memory
from zerolab.rollout.sampler import as_words, sample, uniforms
from zerolab.rollout.stop_strings import StopStrings, token_pieces
from zerolab.rollout.torch_engine import TorchEngine

# name -> (family, tied head, keywords of the engine)
SUBJECTS: dict[str, tuple[str, bool | None, dict[str, Any]]] = {
    "qwen2": ("qwen2", True, {}),
    "qwen2-untied-refilled": ("qwen2", False, {"max_rows": 6}),
    "llama": ("llama", False, {}),
    "qwen3": ("qwen3", True, {}),
    "mistral": ("mistral", False, {}),
    "gemma3": ("gemma3", None, {}),
    "gpt2": ("gpt2", None, {}),
    "gemma2": ("gemma2", None, {}),
    "one block, as on a GPU": ("qwen2", True, {}),
    "one block, recorded steps": ("qwen3", True, {"max_rows": 11}),
}
WHOLE_CONTRACT = ("qwen2", "qwen2-untied-refilled", "llama", "qwen3", "gpt2")
CORE = (
    "greedy_equals_transformers",
    "logprobs_equal_teacher_forcing",
    "new_weights_are_used",
    "weights_updated_in_a_pause_are_used_from_there_on",
)


def make_graphs(decoder: Any, recorder: Any = tape_recorder) -> StepGraphs:
    return StepGraphs(decoder._forward_rows, decoder._kv_heads, device=torch.device("cpu"), recorder=recorder)


@cache
def make_subject(name: str) -> Subject:
    family, tied, keywords = SUBJECTS[name]
    eager = {"attn_implementation": "eager"} if family == "gemma2" else {}
    model, other = (tiny_model(family, seed=seed, tied=tied, **eager) for seed in (0, 1))

    def make() -> TorchEngine:
        engine: Any = TorchEngine(model, tiny_tokenizer(), **keywords)
        if "one block" in name:
            engine._decoder._block = None
        if "recorded" in name:
            engine._decoder._graphs = make_graphs(engine._decoder)
        return engine

    return Subject(make, model, other, tiny_tokenizer(), EOS)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", WHOLE_CONTRACT)
def test_contract(name: str, check: str) -> None:
    CHECKS[check](make_subject(name))


@pytest.mark.parametrize("check", CORE)
@pytest.mark.parametrize("name", ["mistral", "gemma3", "one block, as on a GPU", "one block, recorded steps"])
def test_core_of_the_contract(name: str, check: str) -> None:
    CHECKS[check](make_subject(name))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", sorted(set(SUBJECTS) - set(WHOLE_CONTRACT)))
def test_contract_of_the_others(name: str, check: str) -> None:
    CHECKS[check](make_subject(name))


def test_families_get_the_decoder_that_fits() -> None:
    def kind(family: str, **changes: Any) -> type:
        return type(TorchEngine(tiny_model(family, **changes), tiny_tokenizer())._decoder)

    assert {kind(family) for family in ("qwen2", "qwen3", "llama", "mistral")} == {FusedDecoder}
    assert {kind(family) for family in ("gemma3", "gpt2")} == {CachedDecoder}
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    assert {kind(family, **window) for family in ("qwen2", "qwen3")} == {CachedDecoder}
    assert kind("mistral", sliding_window=8) is CachedDecoder
    assert kind("mistral", sliding_window=256) is FusedDecoder  # as long as the context
    assert kind("qwen3", attention_bias=True) is kind("llama", attention_bias=True) is CachedDecoder


def test_soft_caps_that_the_attention_would_ignore_are_refused() -> None:
    with pytest.raises(UserError, match=r'sdpa attention leaves out: load .* "eager"'):
        TorchEngine(tiny_model("gemma2", attn_implementation="sdpa"), tiny_tokenizer())


def test_sizes_are_rounded_up_to_few_and_little() -> None:
    sizes = [round_up(n, 1000) for n in range(1, 1001)]
    assert all(n <= size <= max(1.5 * n, 2) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 20
    plan = Plan(rows=37, prompts=5, prompt_len=64, block=300, blocks=1)
    assert Bucket.of(20, 4, 9, 70, plan) == Bucket(24, 4, 12, 96)
    assert Bucket.of(37, 5, 30, 299, plan) == Bucket(37, 5, 32, 300)


def test_recorded_steps_equal_the_others() -> None:
    """Two rollouts of one plan and one of another, with new weights in between: steps are replayed, and on new data."""
    subject = make_subject("qwen2")
    plain: Any = subject.make()
    recorded: Any = subject.make()
    recorded._decoder._block = None
    replayed = []

    def recorder() -> Any:
        def record(body: Any) -> Any:
            with Tape() as tape:
                body()
            return lambda: (replayed.append(1), tape.replay())

        return record

    recorded._decoder._graphs = graphs = make_graphs(recorded._decoder, recorder)
    rollouts = [subject.requests(samples=4), subject.requests(samples=4), subject.requests(samples=2, budgets=(30,))]
    for version, requests in enumerate(rollouts):
        pairs = list(zip(generate_all(plain, requests), generate_all(recorded, requests), strict=True))
        assert np.mean([same_tokens(a, b) for a, b in pairs]) >= subject.same_share
        for a, b in (pair for pair in pairs if same_tokens(*pair)):
            np.testing.assert_allclose(a.logprobs_L, b.logprobs_L, atol=1e-4)
        for engine in (plain, recorded):
            engine.update_weights(version + 1, named_weights(subject.other if version % 2 else subject.model))
    assert len(replayed) > 40
    assert not graphs.off
    recorded.sleep()
    assert not graphs._recorded


def test_a_step_that_cannot_be_recorded_is_launched_as_it_is() -> None:
    subject = make_subject("qwen2")
    engine: Any = subject.make()
    engine._decoder._block = None

    def broken() -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    engine._decoder._graphs = make_graphs(engine._decoder, broken)
    requests = subject.requests()
    with pytest.warns(UserWarning, match="goes on without CUDA graphs, as recording failed: operation not permitted"):
        completions = generate_all(engine, requests)
    same = [same_tokens(a, b) for a, b in zip(completions, generate_all(subject.make(), requests), strict=True)]
    assert np.mean(same) >= subject.same_share


def test_graphs_come_back_after_a_passing_shortage_and_it_is_said_once() -> None:
    subject = make_subject("qwen2")
    engine: Any = subject.make()
    engine._decoder._block = None
    tries: list[bool] = []

    def scarce() -> Any:
        def record(body: Any) -> Any:
            tries.append(len(tries) >= 2)
            if not tries[-1]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
            return tape_recorder()(body)

        return record

    engine._decoder._graphs = graphs = make_graphs(engine._decoder, scarce)
    requests = subject.requests()
    with pytest.warns(UserWarning, match="the next one tries again") as said:
        rollouts = [generate_all(engine, requests) for _ in range(3)]
    assert len([warning for warning in said if "tries again" in str(warning.message)]) == 1
    assert tries[:2] == [False, False]
    assert len(tries) > 2
    assert all(tries[2:])
    assert any(replay is not None for replay in graphs._recorded.values())
    plain = generate_all(subject.make(), requests)
    for completions in rollouts:
        same = [same_tokens(a, b) for a, b in zip(completions, plain, strict=True)]
        assert np.mean(same) >= subject.same_share


def test_a_recurrent_family_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1))
    with pytest.raises(UserError, match="recurrent state"):
        TorchEngine(model, tiny_tokenizer())


def test_a_large_vocabulary_bounds_the_rows() -> None:
    model = tiny_model("qwen2")
    engine: Any = TorchEngine(model, tiny_tokenizer(), max_rows=10**9)
    assert engine._max_rows * VOCABULARY * 4 <= 2**29


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
def test_a_sliding_window_is_obeyed_by_the_fallback(family: str) -> None:
    window = {"use_sliding_window": True, "max_window_layers": 0} if family != "mistral" else {}
    model = tiny_model(family, sliding_window=8, **window)
    requests = make_subject("qwen2").requests(temperature=0.7)
    for request, completion in zip(requests, generate_all(TorchEngine(model, tiny_tokenizer()), requests), strict=True):
        np.testing.assert_allclose(completion.logprobs_L, teacher_forced(model, request, completion), atol=1e-4)


def test_equal_prompts_share_one_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_subject("qwen2")
    engine: Any = subject.make()
    computed: list[tuple[int, ...]] = []
    whole = engine._decoder._forward_whole

    def counted(sequences: list[tuple[int, ...]]) -> Any:
        computed.extend(sequences)
        return whole(sequences)

    monkeypatch.setattr(engine._decoder, "_forward_whole", counted)
    generate_all(engine, subject.requests(samples=6))
    assert sorted(computed) == sorted(set(subject.prompts))


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_little_memory_changes_the_order_of_work_only(family: str) -> None:
    subject = make_subject(family)
    requests = subject.requests(samples=4)
    plenty = generate_all(subject.make(), requests)
    per_token = 2 * 2 * (2 if family == "qwen2" else 4) * 12 * 4
    for rows in (1.0, 2.5, 7.0):
        tight = TorchEngine(subject.model, tiny_tokenizer(), kv_bytes=int(rows * (33 + 64) * per_token))
        same = [same_tokens(a, b) for a, b in zip(plenty, generate_all(tight, requests), strict=True)]
        assert np.mean(same) >= subject.same_share


def failing(function: Any, when: Any, error: Exception) -> Any:
    """The function, raising `error` whenever `when(number of the call, *arguments)`."""
    calls = itertools.count()

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        if when(next(calls), *arguments):
            raise error
        return function(*arguments, **keywords)

    return wrapped


CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("reserve", MemoryError()),
        ("admit", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        ("step", CPU_ERROR),
        ("keep", CPU_ERROR),
    ],
)
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
@pytest.mark.filterwarnings("ignore:memory ran out with [47]")
def test_memory_that_runs_out_halves_the_rows_and_loses_nothing(family: str, verb: str, error: Exception) -> None:
    """The allocator fails now and then in the middle of a call; every request is answered once, and as ever."""
    subject = make_subject(family)
    requests = subject.requests(budgets=(9, 4, 14))
    expected = generate_all(subject.make(), requests)
    engine: Any = subject.make()
    at = {"reserve": (0, 1), "admit": (0, 1), "step": (3, 9), "keep": (1, 3)}[verb]
    whole = getattr(engine._decoder, verb)
    setattr(engine._decoder, verb, failing(whole, lambda number, *_: number in at, error))
    with pytest.warns(UserWarning, match="memory ran out with 15 responses at once; sampling goes on with 7"):
        completions = list(engine.generate(requests))
    assert sorted(c.request_id for c in completions) == [r.id for r in requests]
    by_id = {c.request_id: c for c in completions}
    same = [same_tokens(c, by_id[c.request_id]) for c in expected]
    assert np.mean(same) >= subject.same_share
    assert engine._max_rows == 3  # and the next call begins with what was learnt


@pytest.mark.filterwarnings("ignore:memory ran out with 4")
def test_memory_too_small_for_one_row_is_one_clear_line() -> None:
    engine: Any = make_subject("qwen2").make()
    engine._decoder.step = failing(engine._decoder.step, lambda *_: True, CPU_ERROR)
    with (
        pytest.warns(UserWarning, match="goes on with 1"),
        pytest.raises(UserError, match=r"one response at a time \(3 prompt \+ 9 new tokens\): lower rollout.max_new"),
    ):
        list(engine.generate([Request(i, (5, 6, 7), i, 9) for i in range(4)]))
    assert engine._max_rows == 1


@pytest.mark.filterwarnings("ignore:memory ran out with [24]")
def test_memory_that_the_kernel_would_grant_but_does_not_have_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = make_subject("qwen2").make()
    row = 96 * engine._decoder._memory.bytes_per_token
    monkeypatch.setattr(kv_cache, "free_bytes", lambda: 3 * row)
    requests = [Request(i, (5, 6, 7), i, 90) for i in range(8)]
    with pytest.warns(UserWarning, match="memory ran out with 8 responses"):
        assert len(generate_all(engine, requests)) == 8
    assert engine._max_rows == 2
    monkeypatch.setattr(kv_cache, "free_bytes", lambda: row // 2)
    engine.sleep()
    engine.wake()
    with pytest.raises(UserError, match="one response at a time"), pytest.warns(UserWarning, match="goes on with 1"):
        generate_all(engine, requests)


def test_free_memory_is_the_least_of_machine_and_container(tmp_path: Path) -> None:
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert kv_cache.free_bytes(proc, tmp_path) == 4000 * 1024
    for name, text in {"memory.max": "2000000", "memory.current": "1500000", "memory.stat": "inactive_file 7"}.items():
        (tmp_path / name).write_text(text + "\n")
    assert kv_cache.free_bytes(proc, tmp_path) == 500_007
    (tmp_path / "memory.max").write_text("max\n")
    assert kv_cache.free_bytes(proc, tmp_path) == 4000 * 1024
    assert kv_cache.free_bytes(tmp_path / "nothing", tmp_path) is None


def test_other_errors_pass() -> None:
    engine: Any = make_subject("qwen2").make()
    engine._decoder.step = failing(engine._decoder.step, lambda *_: True, RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side"):
        list(engine.generate([Request(0, (5,), 0, 9)]))


def test_memory_stays_within_its_budget() -> None:
    subject = make_subject("qwen2")
    budget = 300_000
    engine: Any = TorchEngine(subject.model, tiny_tokenizer(), kv_bytes=budget)
    generate_all(engine, subject.requests(samples=8))
    flat = engine._decoder._memory._flat
    assert 0.5 * budget < flat.numel() * flat.element_size() <= budget


def test_a_plan_never_exceeds_its_budget_and_leaves_little_of_it_unused() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        prompts, samples, longest = rng.integers(1, 20), rng.integers(1, 10), int(rng.integers(1, 300))
        requests = [
            Request(0, (int(p),) * int(rng.integers(1, 50)), 0, int(rng.integers(1, longest + 1)))
            for p in range(prompts)
            for _ in range(samples)
        ]
        budget = int(rng.integers(400, 40_000))
        plan = plan_memory(requests, bytes_per_token=1, budget_bytes=budget, max_rows=64, block=32)
        assert plan.tokens <= budget
        assert plan.own_len >= max(r.max_new_tokens for r in requests)
        assert 1 <= plan.prompts <= plan.rows <= min(64, len(requests))
        full = plan.rows == min(64, len(requests))
        assert full or plan.tokens + 2 * (plan.own_len + plan.prompt_len) > 0.5 * budget


def test_one_request_beyond_the_memory_budget_is_refused_in_one_line() -> None:
    for family in ("qwen2", "gpt2"):
        engine = TorchEngine(tiny_model(family), tiny_tokenizer(), kv_bytes=10_000)
        with pytest.raises(UserError, match=r"needs .* MiB of key/value memory.*raise rollout.kv_gb"):
            list(engine.generate([Request(0, (5, 6), 0, 100)]))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(0, (5,) * 200, 0, 57), "200 prompt \\+ 57 new tokens exceed the model's context of 256"),
        (Request(0, (), 0, 5), "at least one prompt token"),
        (Request(0, (5,), 0, 0), "at least one new token"),
        (Request(0, (5, VOCABULARY), 0, 5), "do not belong together"),
        (Request(0, (5,), 0, 5, temperature=-1.0), "temperature"),
        (Request(0, (5,), 0, 5, top_p=0.0), "top_p must be above 0"),
        (Request(0, (5,), 0, 5, top_k=-1), "top_k 0"),
        (Request(0, (5,), 0, 5, min_tokens=6), "min_tokens = 6 cannot be reached: max_new_tokens is 5"),
    ],
)
def test_impossible_requests_are_refused_before_anything_runs(request_: Request, message: str) -> None:
    engine = make_subject("qwen2").make()
    with pytest.raises(UserError, match=message):
        engine.generate([Request(1, (5,), 0, 5), request_])
    assert len(generate_all(engine, [Request(0, (5,) * 200, 0, 56)])) == 1


def test_no_requests_no_completions() -> None:
    assert list(make_subject("qwen2").make().generate([])) == []


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_bfloat16_stays_near_the_float32_model(family: str) -> None:
    model = tiny_model(family)
    requests = make_subject("qwen2").requests()
    engine = TorchEngine(model, tiny_tokenizer(), dtype="bfloat16")
    for request, completion in zip(requests, generate_all(engine, requests), strict=True):
        difference = completion.logprobs_L - teacher_forced(model, request, completion)
        assert np.abs(difference).mean() < 0.1


def test_the_engine_owns_its_weights() -> None:
    model = tiny_model("qwen2")
    engine = TorchEngine(model, tiny_tokenizer())
    request = Request(0, (5, 6, 7), 0, 16, temperature=0.0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert_greedy(make_subject("qwen2"), tiny_model("qwen2"), request, generate_all(engine, [request])[0])


def test_weights_that_diverged_are_an_error_and_leave_nothing_behind() -> None:
    """A few tokens' embeddings are NaN, so keys and values turn bad after some good ones."""
    good = tiny_model("llama")
    bad = tiny_model("llama")
    with torch.no_grad():
        bad.model.embed_tokens.weight[10:20] = float("nan")
    engine = TorchEngine(bad, tiny_tokenizer())
    requests = [Request(0, (5, 6), 0, 60)]
    with pytest.raises(FloatingPointError, match="not finite"):
        list(engine.generate(requests))
    engine.update_weights(1, good.state_dict().items())
    for request, completion in zip(requests, generate_all(engine, requests), strict=True):
        np.testing.assert_allclose(completion.logprobs_L, teacher_forced(good, request, completion), atol=1e-4)


def test_uniforms_are_uniform_and_unrelated_between_neighbours() -> None:
    seeds = as_words(list(range(200)))
    table = np.stack([uniforms(seeds, np.full(200, position)) for position in range(200)])
    assert table.min() >= 0
    assert table.max() < 1
    assert len(np.unique(table)) == table.size
    counts = np.bincount((table.ravel() * 50).astype(int), minlength=50)
    assert ((counts - 800) ** 2 / 800).sum() < 100  # 49 degrees of freedom: beyond 100 once in 10^5
    for a, b in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table[1:, 1:], table[:-1, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert as_words([-1, 2**64 + 5]).tolist() == [2**64 - 1, 5]


def test_drawing_inverts_the_distribution_function() -> None:
    torch.manual_seed(0)
    for vocabulary in (5, 64, 1000):
        logits = torch.randn(40, vocabulary) * 3
        logits[:, 1::3] = -torch.inf
        draws = np.random.default_rng(0).random(40)
        draws[:3] = 0.0, np.nextafter(1.0, 0.0), 0.5
        temperature = 0.8
        tokens, logprobs = sample(logits, np.full(40, temperature), draws)
        p = torch.softmax(logits.double() / temperature, -1)
        cdf = p.cumsum(-1).numpy()
        chosen = np.arange(40), tokens
        assert (p.numpy()[chosen] > 0).all()
        assert (cdf[chosen] >= draws - 1e-6).all()
        assert (cdf[chosen] - p.numpy()[chosen] <= draws + 1e-6).all()
        np.testing.assert_allclose(logprobs, p.log().numpy()[chosen], atol=1e-5)


def test_a_draw_reaches_the_tail_of_a_large_vocabulary() -> None:
    """150 000 equal logits: float32 sums alone would miss tokens."""
    draws = (np.arange(100) + 0.5) / 100
    tokens, _ = sample(torch.zeros(100, 150_000), np.ones(100), draws)
    assert np.abs(tokens - draws * 150_000).max() <= 1


def test_close_gaps_moves_only_the_last_rows() -> None:
    assert close_gaps(6, np.array([1, 4])).tolist() == [0, 5, 2, 3]
    assert close_gaps(3, np.array([0, 1, 2])).tolist() == []
    assert close_gaps(3, np.array([2])).tolist() == [0, 1]


def test_no_token_that_completes_a_stop_string_is_overlooked() -> None:
    tokenizer = tiny_tokenizer()
    rng = np.random.default_rng(0)
    texts = [tokenizer.decode([i]) for i in range(VOCABULARY)]
    for _ in range(40):
        ids = rng.integers(2, VOCABULARY, 12)
        text = tokenizer.decode(ids.tolist())
        start = rng.integers(0, len(text) - 4)
        strings = (text[start : start + int(rng.integers(1, 5))], "nowhere")
        stops = StopStrings(tokenizer, VOCABULARY)
        number = stops.register(strings)
        seen = ""
        for n, token in enumerate(ids, 1):
            seen += texts[token]
            is_candidate = bool(len(stops.candidates(np.array([number]), np.array([token]))))
            if strings[0] in seen:
                assert is_candidate
                assert stops.found(number, ids[:n])
                break
            assert not (is_candidate and stops.found(number, ids[:n]))
        else:
            raise AssertionError("the stop string never came")
    assert StopStrings(tokenizer, VOCABULARY).register(("",)) == -1


def test_pieces_of_tokens_join_to_the_text_and_no_character_is_split() -> None:
    from zerolab.models.tiny import train_bpe

    tokenizer = train_bpe(["the cat sat on the mat"] * 9, 270)
    ids = np.array(tokenizer("le café est là 🙂 – ∑ ok", add_special_tokens=False)["input_ids"])
    pieces = token_pieces(tokenizer, np.append(ids, tokenizer.eos_token_id))
    assert "".join(pieces) == "le café est là 🙂 – ∑ ok"
    assert len(pieces) == len(ids) + 1
    assert pieces[-1] == ""  # the end-of-sequence token
    assert "🙂" in pieces
    assert not any("\ufffd" in piece for piece in pieces)
    rng = np.random.default_rng(0)
    for _ in range(30):  # bytes that are no text
        ids = rng.integers(0, len(tokenizer), 40)
        assert "".join(token_pieces(tokenizer, ids)) == tokenizer.decode(ids.tolist(), skip_special_tokens=True)
    assert token_pieces(tokenizer, np.zeros(0, dtype=np.int64)) == []


# --- waiting for the device ------------------------------------------------------------------------------------------


class Waits(TorchFunctionMode):
    """Counts the calls that would wait for a GPU. `cpu()` counts although it copies nothing on a CPU."""

    CALLS = frozenset({"cpu", "item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__index__"})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        by_mask = spread = False
        if name == "__getitem__":
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            by_mask = any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in index)
        if name == "repeat_interleave":
            spread = isinstance(args[1], torch.Tensor) and kwargs.get("output_size") is None
        self.count += name in self.CALLS or by_mask or spread
        return func(*args, **kwargs)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_a_decoding_step_waits_for_the_device_once(temperature: float) -> None:
    engine = make_subject("qwen2").make()
    requests = [Request(i, (5, 6, 7 + i % 3), i, 8, temperature=temperature) for i in range(12)]
    with Waits() as waits:
        generate_all(engine, requests)
    assert 0 < waits.count <= engine.steps
