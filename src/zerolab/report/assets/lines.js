// A chart of lines with bands.

const LINE_MARGIN = {left: 44, right: 10, top: 20, bottom: 34};

/**
 * series: [{label, colour, dashed, points: [{x, mean, low, high}], runs: [[{x, y}]], banded}]; low and high are drawn
 * where there are several runs or `banded` says so.
 * options: {width, height, xLabel, yLabel (the unit), zero, range: [low, high], label, showRuns}
 */
function lineChart(series, options) {
  const shown = series.filter(one => one.points.length);
  if (!shown.length) return emptyPlot("not measured in these runs");
  const {width, height = 210} = options;
  const area = {
    left: LINE_MARGIN.left, right: width - LINE_MARGIN.right, top: LINE_MARGIN.top, bottom: height - LINE_MARGIN.bottom,
    height,
  };
  const xs = [...new Set(shown.flatMap(one => one.points.map(point => point.x)))].sort((a, b) => a - b);
  const [low, high] = options.range ?? extent(valuesOf(shown, options.showRuns), options.zero);
  const x = linear(xs[0], xs.at(-1), area.left, area.right);
  const y = linear(low, high, area.bottom, area.top);
  const cross = svg("line", {class: "cross", y1: area.top, y2: area.bottom, visibility: "hidden"});
  const points = svg("g", {});
  const drawing = svg("svg", {width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"},
    yAxis(area, y, low, high, options.yLabel), xAxis(area, x, xs, options.xLabel, width),
    shown.map(one => drawSeries(one, x, y, options.showRuns)), cross, points);
  const host = el("div", {class: "chart", tabindex: "0", role: "group", "aria-label": describe(shown, options)}, drawing);
  watch(host, {xs, x, y, area, cross, points, shown, options});
  return host;
}

function valuesOf(shown, showRuns) {
  const values = shown.flatMap(one => one.points.flatMap(point => [point.low, point.high, point.mean]));
  return showRuns ? values.concat(shown.flatMap(one => one.runs.flatMap(run => run.map(point => point.y)))) : values;
}

function xAxis(area, x, xs, label, width) {
  const marks = xs.length > 1 ? ticks(xs[0], xs.at(-1), Math.max(4, Math.floor(width / 80))) : xs;
  return [
    svg("line", {class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom}),
    ...marks.map(value => svg("text", {class: "tick", x: x(value), y: area.bottom + 15, "text-anchor": "middle"}, tickText(value))),
    svg("text", {class: "axis-label", x: (area.left + area.right) / 2, y: area.height - 3, "text-anchor": "middle"}, label),
  ];
}

function path(points, x, y) {
  let pen = "M";
  let text = "";
  for (const point of points) {
    if (!isNumber(point.y)) {
      pen = "M";
      continue;
    }
    text += `${pen}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

function drawSeries(one, x, y, showRuns) {
  const high = one.points.map(point => `${x(point.x).toFixed(1)} ${y(point.high).toFixed(1)}`);
  const low = one.points.map(point => `${x(point.x).toFixed(1)} ${y(point.low).toFixed(1)}`).reverse();
  const line = one.points.map(point => ({x: point.x, y: point.mean}));
  return svg("g", {class: one.colour},
    one.banded || one.runs.length > 1 ? svg("path", {class: "band", d: `M${[...high, ...low].join("L")}Z`}) : null,
    showRuns ? one.runs.map(run => svg("path", {class: "thin", d: path(run, x, y)})) : null,
    svg("path", {class: one.dashed ? "line dashed" : "line", d: path(line, x, y)}),
    one.points.length < 16
      ? line.map(point => svg("circle", {class: "point", cx: x(point.x), cy: y(point.y), r: 2.6})) : null);
}

function describe(shown, options) {
  const ends = shown.map(one => `${one.label} from ${format(one.points[0].mean)} to ${format(one.points.at(-1).mean)}`);
  return `${options.label}: ${ends.join("; ")}. Left and right arrow keys read the values.`;
}

/** Values at the x nearest to the pointer, or moved along by the arrow keys. */
function watch(host, chart) {
  let at = -1;
  const show = index => {
    at = Math.max(0, Math.min(chart.xs.length - 1, index));
    const value = chart.xs[at];
    const here = chart.shown.map(one => [one, one.points.find(point => point.x === value)]).filter(([, point]) => point);
    const place = chart.x(value);
    chart.cross.setAttribute("x1", place);
    chart.cross.setAttribute("x2", place);
    chart.cross.setAttribute("visibility", "visible");
    chart.points.replaceChildren(...here.map(([one, point]) =>
      svg("g", {class: one.colour}, svg("circle", {class: "point", cx: place, cy: chart.y(point.mean), r: 3.5}))));
    const lines = here.map(([one, point]) => [one.colour, one.label, one.banded || one.runs.length > 1
      ? `${format(point.mean)} (${format(point.low)} to ${format(point.high)})` : format(point.mean)]);
    const heading = `${chart.options.xLabel} ${format(value)}`;
    placeTip(host, tooltip(heading, lines), place, (chart.area.top + chart.area.bottom) / 2);
    return `${heading}: ${lines.map(([, label, text]) => `${label} ${text}`).join(", ")}`;
  };
  const hide = () => {
    host.querySelector(".tip")?.remove();
    chart.cross.setAttribute("visibility", "hidden");
    chart.points.replaceChildren();
  };
  host.addEventListener("pointermove", event => {
    const where = event.clientX - host.getBoundingClientRect().left;
    let best = 0;
    chart.xs.forEach((value, i) => {
      if (Math.abs(chart.x(value) - where) < Math.abs(chart.x(chart.xs[best]) - where)) best = i;
    });
    show(best);
  });
  host.addEventListener("pointerleave", hide);
  host.addEventListener("blur", hide);
  host.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (move) {
      event.preventDefault();
      announce(show(at < 0 ? (move > 0 ? 0 : chart.xs.length - 1) : at + move));
    } else if (event.key === "Escape") hide();
  });
}
