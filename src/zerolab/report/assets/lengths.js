// Histograms of response length, one row per arm, one scale for all.

const OUTCOMES = [["correct", "good"], ["incorrect", "bad"], ["truncated", "cut"]];

function showLengths(section) {
  const found = summary.histograms;
  const total = one => one.edges.slice(1).map((_, i) => OUTCOMES.reduce((sum, [kind]) => sum + one.counts[kind][i], 0));
  const shares = counts => {
    const sum = total({edges: counts.edges, counts: counts.of}).reduce((a, b) => a + b, 0);
    return {sum, of: Object.fromEntries(OUTCOMES.map(([kind]) => [kind, counts.of[kind].map(n => sum ? n / sum : 0)]))};
  };
  const panels = found.flatMap((one, arm) => Object.entries(one.counts).map(([window, of]) =>
    ({arm, window, edges: one.edges, of, ...{shares: shares({edges: one.edges, of})}})));
  if (!panels.some(panel => panel.shares.sum)) {
    section.append(emptyPlot("these runs kept no transcripts (transcripts_per_step = 0)"));
    return;
  }
  const top = Math.max(...panels.flatMap(panel => panel.edges.slice(1).map((_, i) =>
    OUTCOMES.reduce((sum, [kind]) => sum + panel.shares.of[kind][i], 0))));
  section.append(el("div", {class: "legend"}, OUTCOMES.map(([kind, colour]) =>
    el("span", {class: `key ${colour}`}, el("span", {class: "dot"}), kind))));
  const grid = el("div", {class: "figures two"});
  section.append(grid);
  for (const panel of panels) lengthFigure(grid, panel, top);
}

function lengthFigure(host, panel, top) {
  const label = `${summary.arms[panel.arm]}, ${panel.window}`;
  const bins = panel.edges.slice(1).map((end, i) => end - panel.edges[i] > 1 ? `${panel.edges[i] + 1}–${end}` : String(end));
  addFigure(host, {
    title: label, note: `${panel.shares.sum} responses`, file: `lengths-${panel.arm}-${panel.window.replace(" ", "-")}`,
    rows: () => [["arm", "window", "from_tokens", "to_tokens", ...OUTCOMES.map(([kind]) => kind)],
      ...bins.map((_, i) => [summary.arms[panel.arm], panel.window, panel.edges[i] + 1, panel.edges[i + 1],
        ...OUTCOMES.map(([kind]) => panel.of[kind][i])])],
    draw: width => barChart(bins, OUTCOMES.map(([kind, colour]) => ({label: kind, colour, values: panel.shares.of[kind]})),
      {width, height: 180, xLabel: "tokens", yLabel: "share of responses", stacked: true, top, label: `Lengths of ${label}`}),
  });
}
