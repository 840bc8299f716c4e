// The table on top, and what the runs were made of.

const SUMMARY_METRICS = [
  ["reward/mean", "reward"],
  ["accuracy", "accuracy"],
  ["eval/accuracy", "held-out accuracy"],
  ["length/mean", "length"],
  ["length/correct", "of correct"],
  ["length/incorrect", "of incorrect"],
  ["truncated", "truncated"],
];

function showOverview(section) {
  const known = SUMMARY_METRICS.filter(([name]) => metrics.some(run => run[name]));
  const rows = summary.arms.map((label, arm) => {
    const runs = armRuns(arm);
    const steps = [...new Set(runs.map(run => `${summary.runs[run].done}/${summary.runs[run].steps}`))].join(", ");
    const tokens = mean(runs.map(run => [...tokensBy(run).values()].at(-1)));
    return [
      el("span", {class: `key ${armColour(arm)}`}, el("span", {class: "dot"}), label), runs.length, steps, tokens,
      ...known.map(([name]) => move(windowMeans(arm, name, "start"), windowMeans(arm, name, "end"))),
    ];
  });
  section.append(el("p", {class: "lead"}, summary.finding));
  showHeadline(section);
  const unfinished = summary.runs.some(run => run.done < run.steps);
  section.append(
    table(["arm", "seeds", "steps", "tokens per run", ...known.map(([, title]) => title)], rows, {numeric: true, label: "Arms"}),
    el("p", {class: "hint"}, `Start → end, mean over seeds (${summary.windows}).`,
      unfinished ? " At least one run has not reached its last step." : ""));
  showEffects(section);
}

/** The two curves that the question of the paper is about, large. */
function showHeadline(section) {
  const grid = el("div", {class: "figures two"});
  metricFigure(grid, "length/incorrect", "Length of incorrect responses", true, undefined, 300);
  metricFigure(grid, "length/correct", "Length of correct responses", true, undefined, 300);
  if (grid.children.length) section.append(grid);
}

/** Tables of the end of the runs, each number with its interval over seeds. */
function showEffects(section) {
  const {arms, first, controls, unmatched} = summary.effects;
  if (summary.runs.length > summary.arms.length) {
    section.append(el("h3", {}, "At the end, with intervals"), table(["arm", "seeds", ...arms.heads], arms.rows, {numeric: true, label: "Intervals"}),
      el("p", {class: "hint"}, "Mean at the end; in brackets the 95 % interval over seeds, from 3 seeds on."));
  }
  if (first.rows.length) {
    section.append(el("h3", {}, `Minus ${summary.arms[0]}`), table(["arm", "minus", "seeds", ...first.heads], first.rows, {numeric: true, label: "Differences from the first arm"}),
      el("p", {class: "hint"}, "Difference of runs from the same seed, mean at the end; in brackets the 95 % interval over seeds, from 3 seeds on."));
  }
  if (controls.rows.length) {
    section.append(el("h3", {}, "Net of controls"), table(["arm", "net of control", "seeds", ...controls.heads], controls.rows, {numeric: true, label: "Net of controls"}),
      el("p", {class: "hint"}, "Arm minus its matched control, seed by seed, mean at the end; in brackets the 95 % interval over seeds, from 3 seeds on. Under shuffled labels accuracy is agreement with the wrong labels: read held-out accuracy."));
  }
  if (unmatched.length) {
    section.append(el("p", {class: "hint"}, `Controls without the run that they are matched to: ${unmatched.join(", ")}.`));
  }
}

function move(before, after) {
  return el("span", {class: "move"}, el("span", {class: "from"}, format(mean(before))), " → ", el("b", {}, format(mean(after))));
}

function showConfig(section) {
  if (summary.differences.length) {
    section.append(table(["key", ...summary.arms], summary.differences.map(({key, values}) => [el("code", {}, key), ...values]),
      {label: "Differences between the arms"}));
  } else {
    section.append(el("p", {class: "hint"}, summary.arms.length > 1 ? "No difference." : "One arm: nothing to compare."));
  }
  for (const run of summary.runs) {
    const facts = [["folder", run.folder], ["seed", run.seed], ["steps done", `${run.done} of ${run.steps}`], ...Object.entries(run.facts)];
    section.append(el("details", {class: "more"},
      el("summary", {}, el("span", {class: `dot ${armColour(run.arm)}`}), ` ${summary.arms[run.arm]}, seed ${run.seed}`),
      el("div", {class: "figures two"},
        table(["made by", ""], facts, {label: "Facts"}),
        table(["key", "value"], Object.entries(run.config).map(([key, value]) => [el("code", {}, key), value]), {label: "Config"}))));
  }
}
