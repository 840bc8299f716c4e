"""The figure of an experiment says what was found, and nothing in it lies over anything else."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.colors import to_hex, to_rgb

from zerolab.claims.figure import THEMES, axis_limits, draw_figures, draw_findings, title
from zerolab.claims.ledger import protocols
from zerolab.claims.protocol import Protocol, Row
from zerolab.claims.report import page
from zerolab.claims.results import judge_again, read_table, write_table
from zerolab.claims.verdict import findings

matplotlib.use("Agg")
RESULTS = Path(__file__).resolve().parents[2] / "results" / "laptop"


def ran() -> Iterator[Any]:
    for protocol in protocols():
        if (RESULTS / protocol.id / "figure.png").is_file():
            yield pytest.param(protocol, read_table(RESULTS / protocol.id / "cells.csv"), id=protocol.id)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draws and gives the figure before it is closed."""
    import matplotlib.pyplot as plt

    def draw(protocol: Protocol, table: list[Row], folder: Path, theme: str = "") -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(plt, "close", lambda figure: None)
            draw_findings(protocol, table, folder / "figure.png", THEMES[theme])
        plt.gcf().canvas.draw()
        return plt.gcf()

    yield draw
    plt.close("all")


@pytest.mark.parametrize(("protocol", "table"), ran())
def test_no_words_overlap_and_all_lie_within_the_figure(
    protocol: Protocol, table: list[Row], tmp_path: Path, drawn: Any
) -> None:
    figure = drawn(protocol, table, tmp_path)
    words = [t for axis in figure.axes for t in (*axis.get_yticklabels(), *axis.texts, axis.xaxis.label)]
    words = [t for t in (*figure.texts, *words) if t.get_text()]
    boxes = [t.get_window_extent() for t in words]
    for (a, first), (b, second) in itertools.combinations(zip(boxes, words, strict=True), 2):
        assert not a.shrunk(0.98, 0.8).overlaps(b.shrunk(0.98, 0.8)), (first.get_text(), second.get_text())
    for box, word in zip(boxes, words, strict=True):
        assert box.x0 >= 0, word.get_text()
        assert box.x1 <= figure.bbox.x1, word.get_text()


def test_the_title_states_the_finding_and_the_verdict() -> None:
    [protocol] = [p for p in protocols() if p.id == "L1.policy"]
    rows = [
        {"condition": "reference", "arm": arm, "seed": seed, "incorrect_end": end + seed}
        for arm, end in (("grpo", 25), ("dr_grpo", 8))
        for seed in range(3)
    ]
    text = title(protocol, findings(protocol, rows))
    assert "GRPO minus Dr. GRPO: 17 tokens" in text
    assert "L1.policy (planted): underpowered" in text


@pytest.mark.parametrize("theme", THEMES)
def test_grpo_is_red_and_dr_grpo_blue_on_a_ground_of_the_theme(theme: str, tmp_path: Path, drawn: Any) -> None:
    [protocol] = [p for p in protocols() if p.id == "L1.policy"]
    figure = drawn(protocol, read_table(RESULTS / protocol.id / "cells.csv"), tmp_path, theme)
    axis = figure.axes[0]
    labels = [label.get_text().replace("\n", " ") for label in axis.get_yticklabels()]
    for text, strongest in (("incorrect answers grow under GRPO", 0), ("they do not under Dr. GRPO", 2)):
        place = next(k for k, label in enumerate(labels) if label.startswith(text))
        [mean] = [line for line in axis.lines if line.get_marker() == "o" and line.get_ydata()[0] == place]
        red, _, blue = to_rgb(mean.get_color())
        assert (red > blue) == (strongest == 0)
    regions = {to_hex(bar.get_facecolor()) for bar in axis.patches}
    assert regions == {THEMES[theme]["region"]}


def test_an_axis_shows_all_numbers_and_near_borders_and_no_infinity() -> None:
    inf = float("inf")
    low, high = axis_limits([([3.0, 2.0, 4.0], [5.0, inf]), ([1.0, float("nan")], [-inf, 100.0])])
    assert low < 0 < 5 < high < 10


def test_a_table_without_a_measured_statement_has_no_figure_and_an_old_one_is_removed(tmp_path: Path) -> None:
    [protocol] = [p for p in protocols() if p.id == "B4.accuracy"]
    (tmp_path / "figure.png").touch()
    draw_figures(protocol, [{"kind": "textbook", "seed": 0, "within_difference": 0.1}], tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_the_page_draws_every_interval_in_the_colours_of_the_reader_s_theme(tmp_path: Path) -> None:
    [protocol] = [p for p in protocols() if p.id == "L1.policy"]
    folder = tmp_path / "laptop" / protocol.id
    folder.mkdir(parents=True)
    write_table(folder / "cells.csv", read_table(RESULTS / protocol.id / "cells.csv"))
    (folder / "verdict.json").write_text((RESULTS / protocol.id / "verdict.json").read_text())
    record = judge_again(folder, protocol)
    assert record is not None
    text = page(tmp_path)
    assert text.count('<svg class="strip') == len(record["statements"])
    assert 'class="strip arm0"' in text
    assert "style=" not in text.split("</style>")[1], "the policy of the page allows no style in markup"
    assert 'data-label="replicates">8 seeds' in text
    assert "max-width: 720px" in text
