"""The report in a real browser: what a reader sees, types and presses, and what hostile text cannot do."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import metric_row, response, write_run

from zerolab.claims.report import page as claims_page
from zerolab.phrases import PHRASES, find_phrases, javascript_pattern
from zerolab.report.arms import read_run
from zerolab.report.html_report import build_report
from zerolab.report.page import Figure, Section, Series, Table, figures_page

webdriver = pytest.importorskip("selenium.webdriver", reason="the extra [browser] is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with its chromedriver on this machine")

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update
--disable-sync --no-first-run --disable-dev-shm-usage"""
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Right": "\ue014", "Down": "\ue015"}
HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"><b>bold</b>"
MANY = 50_000
WAIT_SECONDS = 20
READY = "document.documentElement.dataset.ready === 'true'"
RESULTS = Path(__file__).resolve().parents[2] / "results"


class Browser:
    """One page at a time."""

    def __init__(self, profile: Path):
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = BROWSER
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})

    def open(self, page: Path, width: int = 1280, dark: bool = False, ready: str = READY) -> None:
        self.size(width)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        self.driver.get(page.as_uri())
        self.until(ready)

    def size(self, width: int) -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code.strip()}", *arguments)

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.js(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.03)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(KEYS.get(key, key))

    def choose(self, select: str, value: str) -> None:
        self.js(
            "(() => { const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change', {bubbles: true})); })()",
            select,
            value,
        )

    def type(self, field: str, text: str) -> None:
        self.js(
            "(() => { const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('input', {bubbles: true})); })()",
            field,
            text,
        )

    def shown(self) -> list[str]:
        """Texts of the rows in sight, top to bottom."""
        return self.js("[...document.querySelectorAll('#responses .row-text')].map(row => row.textContent)")

    def expect(self, *texts: str) -> None:
        quoted = json.dumps(list(texts))
        rows = "JSON.stringify([...document.querySelectorAll('#responses .row-text')].map(r => r.textContent))"
        self.until(f"{rows} === JSON.stringify({quoted})")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms with two seeds each; the first run has four responses to one question, and a hostile group."""
    root = tmp_path_factory.mktemp("runs")
    texts = [
        response(1, "Wait, let me check: \\boxed{2}", 0, correct=True, reason="correct", extracted="2", reward=1.0),
        response(1, "short", 1, reason="unformatted", formatted=False),
        response(1, "cut off in the middle of a", 2, finish_reason="length", correct=True, enters=False, tokens=64),
        response(1, "it is \\boxed{3}", 3, extracted="3", parts={"correctness": 0.0, "format": 0.5}, reward=0.5),
        response(
            7,
            HOSTILE,
            0,
            question=HOSTILE,
            question_id="<i>q</i>",
            answers=[HOSTILE],
            prompt=HOSTILE,
            extracted=HOSTILE,
        ),
    ]
    folders = []
    for preset in ("grpo", "dr_grpo"):
        for seed in (0, 1):
            drift = (seed + 1) * (preset == "grpo")
            rows = [
                metric_row(
                    step,
                    10 + step * drift,
                    **{"bias/length_normaliser/incorrect": drift, "bias/question_weight/40-60": 1 + drift},
                    **({"eval/accuracy": step / 40} if step % 10 == 0 else {}),
                )
                for step in range(21)
            ]
            responses = texts if (preset, seed) == ("grpo", 0) else ()
            changes = [f"objective={preset}", f"seed={seed}", "steps=20"]
            folders.append(write_run(root / f"{preset}{seed}", rows, responses, changes=changes))
    file = root / "report.html"
    file.write_text(build_report([read_run(folder) for folder in folders]))
    return file


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    rows = (
        response(
            i // 256, f"response {i} " + "so " * (i % 90), i % 8, group=i // 8 % 32, tokens=i % 97, extracted=str(i)
        )
        for i in range(MANY)
    )
    folder = write_run(root / "run", [metric_row(step) for step in range(196)], rows)
    (root / "report.html").write_text(build_report([read_run(folder)], MANY))
    return root / "report.html"


def test_hostile_text_is_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.choose("order", "latest")
    browser.until("document.querySelector('.question').textContent.includes('script')")
    assert browser.js("document.querySelector('.question').textContent") == HOSTILE
    assert browser.js("document.querySelector('.response').textContent") == HOSTILE
    assert browser.js("document.querySelector('.gold code').textContent") == HOSTILE
    assert browser.js("document.querySelectorAll('main img, main b.bold, main script').length") == 0
    assert browser.js("document.title") == "grpo / dr_grpo"
    assert browser.complaints() == []


def test_a_script_that_is_not_ours_does_not_run(browser: Browser, page: Path) -> None:
    """The policy of the page holds even where markup got in."""
    browser.open(page)
    browser.js(
        "(() => { const s = document.createElement('script'); s.textContent = \"document.title = 'hacked'\";"
        "document.body.append(s); const d = document.createElement('div');"
        "d.innerHTML = \"<img src='x' onerror='document.title = 1'>\"; document.body.append(d); })()"
    )
    time.sleep(0.2)
    assert browser.js("document.title") == "grpo / dr_grpo"
    assert any("Content Security Policy" in line for line in browser.complaints())


WAIT_ROW = "Wait, let me check: \\boxed{2}"
CUT_ROW = "cut off in the middle of a"
BOX_ROW = "it is \\boxed{3}"


def test_filters_order_and_search_leave_the_right_rows(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.expect(WAIT_ROW, "short", CUT_ROW, BOX_ROW, HOSTILE)
    for field, value, rows in (
        ("verdict", "correct", [WAIT_ROW]),
        ("verdict", "incorrect", ["short", CUT_ROW, BOX_ROW, HOSTILE]),
        ("verdict", "truncated", [CUT_ROW]),
        ("reason", "unformatted", ["short"]),
        ("order", "longest", [HOSTILE, CUT_ROW, WAIT_ROW, BOX_ROW, "short"]),
        ("order", "best", [WAIT_ROW, BOX_ROW, "short", CUT_ROW, HOSTILE]),
        ("run", "1", []),
    ):
        browser.choose(field, value)
        browser.expect(*rows)
        browser.choose(field, {"verdict": "all", "order": "step"}.get(field, ""))
    for field, value, rows in (
        ("search", "BOXED{", [WAIT_ROW, BOX_ROW]),
        ("search", ".*", []),
        ("question", "<I>", [HOSTILE]),
        ("from", "2", [HOSTILE]),
        ("to", "6", [WAIT_ROW, "short", CUT_ROW, BOX_ROW]),
    ):
        browser.type(field, value)
        browser.expect(*rows)
        browser.type(field, "")
    browser.expect(WAIT_ROW, "short", CUT_ROW, BOX_ROW, HOSTILE)


def test_the_group_stands_side_by_side_with_its_marks(browser: Browser, page: Path) -> None:
    browser.open(page)
    cards = browser.js("[...document.querySelectorAll('.card')].map(card => card.textContent)")
    assert len(cards) == 4
    assert "✓ correct" in cards[0]
    assert "✂ truncated" in cards[2]
    assert "left out by the truncation policy" in cards[2]
    assert "right, but not finished" in cards[2]
    assert "format0.5" in cards[3]
    marks = browser.js("[...document.querySelectorAll('.card mark')].map(m => [m.className, m.textContent])")
    words = [["reflection", WAIT_ROW[hit.start : hit.end]] for hit in find_phrases(WAIT_ROW, "wide")]
    assert [word for _, word in words] == ["Wait", "let me check"]
    assert marks == [*words, ["answer right", "2"], ["answer wrong", "3"]]
    assert browser.js("document.querySelector('.gold').textContent") == "Answer: 21 of 4 solved"


def test_words_of_self_reflection_are_those_of_the_analysis(browser: Browser, page: Path) -> None:
    texts = [form.rstrip("!") + "," for phrase in PHRASES for form in phrase.forms]
    texts += ["await", "\\\\recheck", "über-think éwait, x", "waiting", "re\u2010check", "hmm", "Hmm\nso", "hold on"]
    browser.open(page)
    code = (
        "arguments[1].map(text => [...text.matchAll(new RegExp(arguments[0], 'giu'))].map(m => [m.index, m[0].length]))"
    )
    found = browser.js(code, javascript_pattern("wide"), texts)
    assert found == [[[h.start, h.end - h.start] for h in find_phrases(text, "wide")] for text in texts]


def test_the_reader_works_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.getElementById('responses').focus()")
    browser.press("j", "j", "k")
    assert browser.js("document.querySelector('[aria-selected=true] .row-text').textContent") == "short"
    assert browser.js("document.querySelector('.card.chosen .sample').textContent") == "#1"
    active = "document.getElementById('responses').getAttribute('aria-activedescendant')"
    assert browser.js(f"document.getElementById({active}).getAttribute('aria-posinset')") == "2"
    browser.press("Enter")
    assert browser.js("document.activeElement.id") == "detail"
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Escape")
    assert browser.js("document.activeElement.id") == "responses"
    browser.press("/")
    assert browser.js("document.activeElement.id") == "search"
    browser.press("m", "i", "d", "d", "l", "e")
    browser.expect(CUT_ROW)
    browser.press("Escape")
    browser.expect(WAIT_ROW, "short", CUT_ROW, BOX_ROW, HOSTILE)
    assert browser.js("document.getElementById('search').value") == ""


def test_a_link_leads_to_its_response(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.getElementById('responses').focus()")
    browser.press("j", "j")
    address = browser.js("document.querySelector('.link').href")
    browser.driver.get("about:blank")
    browser.driver.get(address)
    browser.until("document.documentElement.dataset.ready === 'true'")
    assert browser.js("document.querySelector('[aria-selected=true] .row-text').textContent") == CUT_ROW
    assert 0 <= browser.js("document.getElementById('transcripts').getBoundingClientRect().top") < 200
    for wrong in ("#response-99", "#response-x", "#nothing"):
        browser.driver.get("about:blank")
        browser.driver.get(page.as_uri() + wrong)
        browser.until("document.documentElement.dataset.ready === 'true'")
        assert browser.js("document.querySelector('.card.chosen .sample').textContent") == "#0"


def test_on_a_phone_a_tap_leads_to_the_response_and_back(browser: Browser, page: Path) -> None:
    browser.open(page, 360)
    browser.js("document.getElementById('responses').scrollIntoView({behavior: 'instant'})")
    top = "document.getElementById('detail').getBoundingClientRect().top"
    browser.js("document.documentElement.style.scrollBehavior = 'auto'")
    browser.js("document.getElementById('responses').style.height = '760px'")  # the response is out of sight
    browser.js("document.getElementById('row-1').click()")
    browser.until(f"Math.abs({top}) < 100")
    assert browser.js("document.querySelector('.card.chosen .sample').textContent") == "#1"
    browser.js("document.querySelector('.back').click()")
    browser.until(f"{top} > 300")


def test_curves_are_means_over_seeds_with_their_range_and_their_data(browser: Browser, page: Path) -> None:
    browser.open(page)
    chart = "[...document.querySelectorAll('.chart')].find(c => c.ariaLabel.startsWith('Length of incorrect'))"
    browser.js(f"{chart}.focus()")
    browser.press("Right", "Right")  # steps 0 and 1: 1 + 10 + (1, 2) under GRPO
    assert browser.js("document.getElementById('announce').textContent") == (
        "step 1: grpo 12.5 (12 to 13), dr_grpo 11 (11 to 11)"
    )
    browser.js(  # a running mean over 5 steps: at the ends the mean of 3 points
        "[...document.querySelectorAll('#curves select')].slice(0, 1).forEach(s => {"
        "s.value = '5'; s.dispatchEvent(new Event('change', {bubbles: true})); })"
    )
    browser.until(f"{chart}.ariaLabel.includes('grpo from 12.5 to 39.5')")
    held_out = "[...document.querySelectorAll('.chart')].find(c => c.ariaLabel.startsWith('Held-out accuracy:'))"
    assert " grpo from 0 to 0.500" in browser.js(f"{held_out}.ariaLabel")  # points 10 steps apart stay as they are
    browser.js(
        "(() => { const make = URL.createObjectURL; URL.createObjectURL = blob => {"
        "blob.text().then(text => { window.saved = text; }); return make.call(URL, blob); }; })()"
    )
    browser.js("document.querySelector('[aria-label=\"Data of Held-out accuracy as CSV\"]').click()")
    browser.until("window.saved !== undefined")
    lines = browser.js("window.saved").splitlines()
    assert lines[0] == "arm,run,seed,step,tokens_so_far,eval/accuracy"
    assert len(lines) == 1 + 4 * 21
    assert lines[21].endswith(",0,20,2100,0.5")
    browser.js("document.querySelector('.legend .key').click()")
    browser.until(f"!{chart}.ariaLabel.includes(' grpo from') && {chart}.ariaLabel.includes('dr_grpo from')")


def test_what_no_run_has_measured_is_not_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.js("[...document.querySelectorAll('#overview .empty, #curves .empty, #bias .empty')].length") == 0


def test_every_axis_has_its_unit_and_shares_have_one_scale(browser: Browser, page: Path) -> None:
    browser.open(page)
    texts = browser.js(
        "[...document.querySelectorAll('#overview figure, #curves figure')].map(figure =>"
        " [...figure.querySelectorAll('.axis-label')].map(label => label.textContent))"
    )
    assert len(texts) > 3
    assert all(len([text for text in labels if text]) == 2 for labels in texts if labels)
    scales = browser.js(
        "[...document.querySelectorAll('#curves figure')].filter(f => [...f.querySelectorAll('.axis-label')]"
        ".some(l => l.textContent === 'share')).map(f => [...f.querySelectorAll('.tick')].map(t => t.textContent))"
    )
    assert scales
    assert all({"0", "1"} <= set(ticks) for ticks in scales)


def test_the_bias_meter_shows_each_arm(browser: Browser, page: Path) -> None:
    browser.open(page)
    labels = browser.js("[...document.querySelectorAll('#bias .chart')].map(chart => chart.ariaLabel)")
    (pressure,) = [text for text in labels if text.startswith("Incorrect: what the loss adds")]
    assert "grpo from 1.50 to 1.50" in pressure
    assert "dr_grpo from 0 to 0" in pressure
    (weight,) = [text for text in labels if text.startswith("Weight of a question")]
    assert "40–60: grpo 2.50, dr_grpo 1" in weight


def test_fifty_thousand_responses_leave_a_small_page(browser: Browser, large_page: Path) -> None:
    browser.open(large_page)
    nodes = "document.querySelectorAll('#responses *').length"
    assert browser.js("document.getElementById('count').textContent") == "50,000 of 50,000 responses"
    assert browser.js(nodes) < 400
    browser.js("(() => { const list = document.getElementById('responses'); list.scrollTop = list.scrollHeight; })()")
    browser.until("[...document.querySelectorAll('.row-text')].at(-1).textContent.startsWith('response 49999 ')")
    assert browser.js(nodes) < 400
    browser.type("search", "response 43210 ")
    browser.until("document.querySelectorAll('.row-text').length === 1")
    assert browser.js("document.querySelectorAll('.card').length") == 8
    browser.type("search", "")
    browser.choose("order", "longest")
    browser.until("document.querySelector('.row-text').textContent.startsWith('response 96 ')")
    assert browser.js("document.querySelectorAll('*').length") < 3000
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of figures and tables as values."""
    seeds = Series(HOSTILE, [1.0, float("nan"), 3.0], low=[0.5, None, 2.0], high=[1.5, None, 4.0])
    items = [
        Figure("first", "Accuracy", "lines", [0, 10, 20], [seeds, Series("b", [2, 2, 2])], x_label="step"),
        Figure("first", "Weights", "bars", ["short", "long"], [Series("b", [1, 0.5], colour=3)], reference=1.0),
        Table("second", "Verdicts", ["claim", "gap"], [["L1", 0.123456], [HOSTILE, None]]),
    ]
    file = tmp_path_factory.mktemp("plain") / "page.html"
    file.write_text(figures_page("Claims", "a page", [Section("first", "One"), Section("second", "Two")], items))
    return file


def test_figures_and_tables_as_values_become_a_page(browser: Browser, plain_page: Path) -> None:
    for width in (360, 1280):
        browser.open(plain_page, width)
        browser.until("document.querySelectorAll('#first .chart').length === 2")
        assert browser.js(OVERFLOW) == 0
    lines, bars = browser.js("[...document.querySelectorAll('.chart')].map(chart => chart.ariaLabel)")
    assert lines.startswith(f"Accuracy: {HOSTILE} from 1 to 3; b from 2 to 2.")
    assert bars == "Weights. short: b 1; long: b 0.500"
    assert browser.js("[...document.querySelectorAll('#second td')].map(cell => cell.textContent)") == ["0.123", ""]
    browser.js("document.querySelector('.chart').focus()")
    browser.press("Right")
    assert browser.js("document.getElementById('announce').textContent") == f"step 0: {HOSTILE} 1 (0.500 to 1.50), b 2"
    assert browser.js(CONTRAST)[0] == []
    assert browser.js("document.title") == "Claims"
    assert browser.complaints() == []


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_reaches_beyond_the_screen(width: int, browser: Browser, page: Path) -> None:
    browser.open(page, width)
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.choose("order", "latest")  # the hostile question, a long line
    time.sleep(0.2)
    assert browser.js(OVERFLOW) == 0


CONTRAST = """
(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const text = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
    const box = node.getBoundingClientRect();
    if (!text || box.width < 2 || /^(SCRIPT|STYLE|OPTION)$/.test(node.tagName)) continue;
    const style = getComputedStyle(node);
    const pair = [light(parse(node.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(ground(node))];
    const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
    if (ratio < 4.5) poor.push([node.tagName, node.className.baseVal ?? node.className, text.slice(0, 30), ratio]);
  }
  return [poor, getComputedStyle(document.body).backgroundColor];
})()
"""


def test_text_has_contrast_in_light_and_dark_by_system_and_by_button(browser: Browser, page: Path) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        for _ in range(2):
            poor, ground = browser.js(CONTRAST)
            assert poor == []
            grounds.append(ground)
            browser.js("document.getElementById('theme').click()")
    light, dark_ground = grounds[:2]
    assert grounds == [light, dark_ground, dark_ground, light]
    assert light != dark_ground


@pytest.mark.parametrize("dark", [False, True])
def test_the_claims_page_is_legible_on_a_phone_with_figures_of_its_theme(
    dark: bool, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "claims.html").write_text(claims_page(RESULTS), encoding="utf-8")
    browser.open(tmp_path / "claims.html", 360, dark, ready="document.readyState === 'complete'")
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.js(OVERFLOW) == 0
    assert browser.js(CONTRAST)[0] == []
    sizes = browser.js("[...document.querySelectorAll('main *')].map(n => parseFloat(getComputedStyle(n).fontSize))")
    assert min(sizes) >= 11
    widths = browser.js("[...document.querySelectorAll('.strip')].map(strip => strip.getBoundingClientRect().width)")
    assert min(widths) > 250, "a strip is as wide as the screen"
    shown = browser.js("[...document.images].filter(i => i.getBoundingClientRect().width).map(i => i.className)")
    assert shown
    assert set(shown) == {f"figure on-{'dark' if dark else 'light'}"}
    assert browser.complaints() == []


def test_the_check_of_contrast_can_fail(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.querySelector('h2').style.color = '#bbb'")
    poor, _ = browser.js(CONTRAST)
    assert [row[0] for row in poor] == ["H2"]
