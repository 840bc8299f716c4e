"""The two weight curves of any certificates, as one PNG with its CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from zerolab.audit.certificate import Certificate
from zerolab.audit.enumerate import BUDGET
from zerolab.audit.weights import PASS_RATES

GROUP_SIZE = 8


def write_csv(path: Path, certificates: Sequence[Certificate]) -> None:
    """Lines (curve, objective, G, x, weight): x is a length or a pass rate."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["curve", "objective", "group_size", "x", "weight"])
        for c in certificates:
            for length, weight in enumerate(c.token_weights, 1):
                writer.writerow(["token", c.name, c.largest_size, length, weight])
            for size, values in c.question_weights.items():
                for p, weight in zip(PASS_RATES, values, strict=True):
                    writer.writerow(["question", c.name, size, p, weight])


def draw(path: Path, certificates: Sequence[Certificate]) -> None:
    """Left: weight of a token against response length. Right: weight of a question against its pass rate.

    Objectives with the same curve share a line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lengths = range(1, BUDGET + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    by_length = merge({c.name: [w / c.token_weights[0] for w in c.token_weights] for c in certificates})
    by_pass_rate = merge({c.name: c.question_weights[GROUP_SIZE] for c in certificates})
    for label, curve in by_length.items():
        left.plot(lengths, curve, marker="o", linewidth=1.8, label=label)
    for label, curve in by_pass_rate.items():
        right.plot(PASS_RATES, curve, linewidth=1.8, label=label)
    left.set(xlabel="response length", ylabel="weight of a token / that at length 1", ylim=(0, 1.55), xticks=lengths)
    top = 1.6 * max(max(curve) for curve in by_pass_rate.values())
    right.set(xlabel=f"pass rate p (G = {GROUP_SIZE})", ylabel="weight of a question: c(p) grad p", ylim=(0, top))
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    figure.suptitle("What a token and a question count for; an unbiased objective is flat in both")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def merge(curves: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Curves that agree to six digits as one, labelled with all their names, three to a line."""
    names: dict[tuple, list[str]] = {}
    for name, curve in curves.items():
        names.setdefault(tuple(round(v, 6) for v in curve), []).append(name)
    return {
        ",\n".join(", ".join(group[i : i + 3]) for i in range(0, len(group), 3)): curves[group[0]]
        for group in names.values()
    }
