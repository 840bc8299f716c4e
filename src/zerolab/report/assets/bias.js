// The bias meter: length pressure by part, what questions count for, and what clipping and cuts do to long responses.

const PRESSURES = [["reward", "what pays"], ["normaliser", "what the loss adds"]].flatMap(([part, meaning]) =>
  [["all", "All responses"], ["correct", "Correct"], ["incorrect", "Incorrect"]].map(([kind, title]) =>
    [`bias/length_${part}/${kind}`, `${title}: ${meaning}`]));
const PASS_RATES = ["00-20", "20-40", "40-60", "60-80", "80-100"];
const QUARTERS = ["00-25", "25-50", "50-75", "75-100"];
const BUCKETS = [
  ["bias/question_weight/", PASS_RATES, "Weight of a question", "pass rate in %", 1],
  ["bias/question_share/", PASS_RATES, "Share of all advantage", "pass rate in %"],
  ["bias/responses/", QUARTERS, "Share of responses", "length in % of the budget"],
  ["bias/truncated/", QUARTERS, "Truncated responses", "length in % of the budget"],
  ["bias/clipped/", QUARTERS, "Clipped tokens", "length in % of the budget"],
  ["mismatch/removed/", QUARTERS, "Importance weight removed", "length in % of the budget"],
];

function showBias(section) {
  if (!metricNames().some(name => name.startsWith("bias/"))) {
    section.append(emptyPlot("these runs logged no bias metrics"));
    return;
  }
  section.append(readingNote());
  const lines = el("div", {class: "figures"});
  section.append(lines);
  for (const [name, title] of PRESSURES) pressureFigure(lines, name, title);
  const state = {window: "end"};
  section.append(el("h3", {}, "By pass rate and by length"), el("div", {class: "controls"},
    choice("Mean over", Object.keys(summary.runs[0].windows).map(name => [name, `the ${name}`]), state.window, value => {
      state.window = value;
      redrawAll();
    })));
  const bars = el("div", {class: "figures"});
  section.append(bars);
  for (const bucket of BUCKETS) bucketFigure(bars, bucket, state);
}

function readingNote() {
  return el("ul", {class: "reading"},
    el("li", {}, "All responses pushed longer by what pays: growth is what the reward asks for."),
    el("li", {}, "Incorrect responses pushed longer by what the loss adds: an artefact of its normaliser."),
    el("li", {}, "Under a reward of 0 or 1 all incorrect responses to a question earn the same, so that nothing pays among them."));
}

/** All of them share one scale, so that their sizes compare. */
function pressureFigure(host, name, title) {
  if (!isMeasured(name)) return;
  addFigure(host, {
    title, file: name.replaceAll("/", "-"), rows: () => metricRows([name]),
    draw: width => {
      const all = PRESSURES.flatMap(([other]) => armSeries(other));
      const values = all.flatMap(one => one.points.flatMap(point => [point.low, point.high]));
      return lineChart(armSeries(name), {
        width, height: 190, range: extent(values, true), label: title, yLabel: unitOf(name), showRuns: view.showRuns,
        xLabel: view.x === "step" ? "step" : "tokens sampled",
      });
    },
  });
}

function bucketFigure(host, [prefix, names, title, xLabel, reference], state) {
  if (!names.some(name => isMeasured(prefix + name))) return;
  const unit = unitOf(`${prefix}*`);
  const values = arm => {
    return names.map(name => windowMeans(arm, prefix + name, state.window));
  };
  addFigure(host, {
    title, file: title.toLowerCase().replaceAll(" ", "-"), rows: () => metricRows(names.map(name => prefix + name)),
    draw: width => barChart(names.map(name => name.replace(/^0(?=\d)/, "").replace("-", "–")), visibleArms().map(arm => {
      const seeds = values(arm).map(list => list.filter(isNumber));
      return {
        label: summary.arms[arm], colour: armColour(arm), values: seeds.map(mean),
        low: seeds.map(list => Math.min(...list)), high: seeds.map(list => Math.max(...list)),
      };
    }), {width, height: 200, xLabel, yLabel: unit, top: unit === "share" ? 1 : undefined, label: title, reference}),
  });
}
