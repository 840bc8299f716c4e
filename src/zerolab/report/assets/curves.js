// The paper's five curves, accuracy against tokens, and any other metric that was logged.

const PANELS = [
  ["reward/mean", "Reward", true],
  ["eval/accuracy", "Held-out accuracy", false],
  ["accuracy", "Accuracy in training", false],
  ["length/mean", "Response length", true],
  ["truncated", "Truncated responses", false],
];
const SHARES = [0, 1]; // the scale of every share, so that figures compare

/** The unit of a metric, by its name or by the pattern that it falls under. */
function unitOf(name) {
  const found = summary.units.find(([known]) => known === name || (known.endsWith("*") && name.startsWith(known.slice(0, -1))));
  return found?.[1] ?? "";
}

const isMeasured = name => metrics.some(run => run[name]?.some(isNumber));

function metricNames() {
  const names = new Set(metrics.flatMap(run => Object.keys(run)));
  names.delete("step");
  return [...names].sort();
}

/** Draws nothing for a metric that no run has measured. */
function metricFigure(host, name, title, zero, x = () => view.x, height = 210) {
  if (!isMeasured(name)) return null;
  const unit = unitOf(name);
  return addFigure(host, {
    title, file: title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-"),
    rows: () => metricRows([name]),
    draw: width => lineChart(armSeries(name, x()), {
      width, height, zero, label: title, yLabel: unit, range: unit === "share" ? SHARES : undefined, xLabel: x() === "step" ? "step" : "tokens sampled", showRuns: view.showRuns,
    }),
  });
}

function showCurves(section) {
  const smoothing = [[0, "none"], [5, "5 steps"], [10, "10 steps"], [25, "25 steps"]];
  view.window = lastStep() >= 60 ? 5 : 0;
  section.append(el("div", {class: "controls"}, legend(),
    choice("Running mean", smoothing, view.window, value => { view.window = Number(value); redrawAll(); }),
    choice("Against", [["step", "steps"], ["tokens", "tokens sampled"]], "step", value => { view.x = value; redrawAll(); }),
    toggle("Single seeds", false, on => { view.showRuns = on; redrawAll(); })));
  const grid = el("div", {class: "figures"});
  section.append(grid);
  for (const [name, title, zero] of PANELS) metricFigure(grid, name, title, zero);
  const evaluated = metrics.some(run => run["eval/accuracy"]);
  metricFigure(grid, evaluated ? "eval/accuracy" : "accuracy",
    `${evaluated ? "Held-out accuracy" : "Accuracy in training"} against tokens`, false, () => "tokens");
  section.append(anyMetric());
}

/** One more figure, for a metric of the reader's choice. */
function anyMetric() {
  const names = metricNames();
  const host = el("div", {class: "figures one"});
  const state = {name: names.includes("entropy") ? "entropy" : names[0]};
  addFigure(host, {
    title: "Any metric", file: "metric", rows: () => metricRows([state.name]),
    draw: width => lineChart(armSeries(state.name), {
      width, height: 240, zero: false, label: state.name, showRuns: view.showRuns, yLabel: unitOf(state.name),
      range: unitOf(state.name) === "share" ? SHARES : undefined,
      xLabel: view.x === "step" ? "step" : "tokens sampled",
    }),
  });
  const pick = choice("Metric", names.map(name => [name, name]), state.name, value => {
    state.name = value;
    redrawAll();
  });
  return el("details", {class: "more"}, el("summary", {}, "Every other metric"), el("div", {class: "controls"}, pick), host);
}
