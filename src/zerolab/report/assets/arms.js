// Arms, their colours, and the metrics of their runs as curves.

const summary = readBlock("summary");
const metrics = []; // per run: {name: column over the logged steps}
const view = {window: 0, showRuns: false, x: "step", hidden: new Set()};
const redraws = [];

const FIXED_COLOURS = {grpo: 0, dr_grpo: 1}; // red and blue on every page
const COLOUR_NUMBERS = (() => {
  const fixed = summary.arms.map(label => FIXED_COLOURS[label]);
  const free = Array.from({length: summary.arms.length + 8}, (_, i) => i).filter(i => !fixed.includes(i % 8));
  return fixed.map(number => number ?? free.shift() ?? 0);
})();
const armColour = arm => `c${COLOUR_NUMBERS[arm] % 8}`;
const armRuns = arm => summary.runs.flatMap((run, i) => run.arm === arm ? [i] : []);
const visibleArms = () => summary.arms.map((_, arm) => arm).filter(arm => !view.hidden.has(arm));
const lastStep = () => Math.max(0, ...summary.runs.map(run => run.done));

function redrawAll() {
  for (const redraw of redraws) redraw();
}

/** Adds a figure that follows the view. */
function addFigure(host, spec) {
  const node = figure(spec);
  redraws.push(node.redraw);
  host.append(node);
  return node;
}

/** [{x: step, y}] of a run where the metric was measured. */
function curveOf(run, name) {
  const column = metrics[run][name] ?? [];
  return column.flatMap((y, i) => isNumber(y) ? [{x: metrics[run].step[i], y}] : []);
}

/** Tokens sampled up to and with each step of a run. */
function tokensBy(run) {
  let sum = 0;
  const counts = metrics[run]["rollout/tokens"] ?? [];
  return new Map((metrics[run].step ?? []).map((step, i) => [step, sum += counts[i] ?? 0]));
}

/** The visible arms' curves of a metric, against steps or tokens. */
function armSeries(name, x = view.x) {
  return visibleArms().map(arm => {
    const runs = armRuns(arm);
    const curves = runs.map(run => smooth(curveOf(run, name), view.window));
    const points = band(curves);
    const one = {label: summary.arms[arm], colour: armColour(arm), points, runs: curves};
    return x === "step" ? one : againstTokens(one, runs.map(tokensBy));
  });
}

/** A mean over seeds stands at the mean number of tokens that they had sampled by that step. */
function againstTokens(one, tables) {
  return {
    ...one,
    points: one.points.map(point => ({...point, x: mean(tables.map(table => table.get(point.x)))})),
    runs: one.runs.map((curve, i) => curve.map(point => ({x: tables[i].get(point.x), y: point.y}))),
  };
}

/** CSV of metrics: one line per run and step, empty where nothing was measured. */
function metricRows(names) {
  const rows = [["arm", "run", "seed", "step", "tokens_so_far", ...names]];
  summary.runs.forEach((run, i) => {
    const tokens = tokensBy(i);
    (metrics[i].step ?? []).forEach((step, k) => rows.push(
      [summary.arms[run.arm], run.folder, run.seed, step, tokens.get(step), ...names.map(name => metrics[i][name]?.[k])]));
  });
  return rows;
}

/** Buttons that show and hide arms. */
function legend() {
  return el("div", {class: "legend", role: "group", "aria-label": "Arms"}, summary.arms.map((label, arm) => el("button", {
    type: "button", class: `key ${armColour(arm)}`, "aria-pressed": "true",
    onclick: event => {
      if (view.hidden.has(arm)) view.hidden.delete(arm);
      else view.hidden.add(arm);
      event.currentTarget.setAttribute("aria-pressed", String(!view.hidden.has(arm)));
      redrawAll();
    },
  }, el("span", {class: "dot"}), label, el("small", {}, ` ${armRuns(arm).length} seed${armRuns(arm).length > 1 ? "s" : ""}`))));
}

/** Mean of a metric over a window of the steps ("start", "end" or "whole run"), one number per run of an arm. */
function windowMeans(arm, name, window) {
  return armRuns(arm).map(run => {
    const [from, to] = summary.runs[run].windows[window];
    return mean(curveOf(run, name).filter(point => point.x >= from && point.x <= to).map(point => point.y));
  });
}
