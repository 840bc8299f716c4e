"""The two weight curves of any certificates, as one PNG with its CSV."""

import csv
from collections.abc import Sequence
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
    """Left: weight of a token against response length. Right: weight of a question against its pass rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    colours, styles = plt.get_cmap("tab10").colors, ("-", "--", ":", "-.")  # type: ignore[attr-defined]
    for number, c in enumerate(certificates):
        look = {"color": colours[number % 10], "linestyle": styles[number % 4], "linewidth": 1.8}
        mean = sum(c.token_weights) / len(c.token_weights)
        left.plot(range(1, BUDGET + 1), [w / mean for w in c.token_weights], marker="o", label=c.name, **look)
        right.plot(PASS_RATES, c.question_weights[GROUP_SIZE], label=c.name, **look)
    left.set(xlabel="response length", ylabel="weight of a token / its mean over lengths", ylim=(0, None))
    right.set(xlabel=f"pass rate p (G = {GROUP_SIZE})", ylabel="weight of a question, c(p) grad p", ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.25)
    right.legend(frameon=False, fontsize=8)
    figure.suptitle("What a token and a question count for; an unbiased objective is flat in both")
    figure.savefig(path, dpi=130)
    plt.close(figure)
