// Figures and tables that stand in the block "figures", put into their sections; neighbours share a row where it is wide.

function showFigures(items) {
  for (const item of items) {
    const section = byId(item.section);
    if (item.kind === "table") {
      section.append(el("h3", {}, item.title), table(item.head, item.rows, {label: item.title}));
      continue;
    }
    let grid = section.lastElementChild;
    if (!grid?.classList.contains("figures")) section.append(grid = el("div", {class: "figures"}));
    grid.append(plainFigure(item));
  }
}

function plainFigure(item) {
  const node = figure({
    title: item.title, note: item.note, file: item.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-"),
    rows: () => itemRows(item),
    draw: width => item.kind === "lines" ? drawLines(item, width) : barChart(item.x.map(String), item.series, {
      width, xLabel: item.xLabel, label: item.title, reference: item.reference,
    }),
  });
  node.append(el("div", {class: "legend"}, item.series.map(one =>
    el("span", {class: `key ${one.colour}`}, el("span", {class: "dot"}), one.label))));
  return node;
}

function drawLines(item, width) {
  const series = item.series.map(one => {
    const points = item.x.map((x, i) => ({x, mean: one.values[i], low: (one.low ?? one.values)[i], high: (one.high ?? one.values)[i]}))
      .filter(point => isNumber(point.mean));
    return {label: one.label, colour: one.colour, points, runs: [], banded: Boolean(one.low)};
  });
  return lineChart(series, {width, xLabel: item.xLabel, zero: item.zero, label: item.title});
}

function itemRows(item) {
  const names = item.series.flatMap(one => [one.label, ...(one.low ? [`${one.label} low`, `${one.label} high`] : [])]);
  return [[item.xLabel || "x", ...names], ...item.x.map((x, i) => [x, ...item.series.flatMap(one =>
    [one.values[i], ...(one.low ? [one.low[i], one.high[i]] : [])])])];
}

if (byId("figures")) {
  showFigures(readBlock("figures"));
  document.documentElement.dataset.ready = "true";
}
