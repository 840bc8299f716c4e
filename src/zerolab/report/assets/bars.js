// Bars: groups side by side, or one bar a bin with its classes stacked.

/**
 * categories: [text]; series: [{label, colour, values: [number], low, high}] with one value per category.
 * options: {width, height, xLabel, yLabel (the unit), stacked, top, label, reference}
 */
function barChart(categories, series, options) {
  const shown = series.filter(one => one.values.some(isNumber));
  if (!shown.length) return emptyPlot("not measured in these runs");
  const {width, height = 210} = options;
  const area = {left: 44, right: width - 8, top: 20, bottom: height - 34, height};
  const [low, high] = barRange(categories, shown, options);
  const y = linear(low, high, area.bottom, area.top);
  const step = (area.right - area.left) / categories.length;
  const every = Math.ceil(categories.length / Math.max(3, Math.floor(width / 62)));
  const labels = categories.map((text, i) => i % every ? null : svg("text", {
    class: "tick", x: area.left + (i + 0.5) * step, y: area.bottom + 15, "text-anchor": "middle",
  }, text));
  const bars = categories.map((_, i) => options.stacked ? stack(shown, i, area.left + i * step, step, y)
    : sideBySide(shown, i, area.left + i * step, step, y));
  const drawing = svg("svg", {width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"},
    yAxis(area, y, low, high, options.yLabel), bars.flat(), labels,
    isNumber(options.reference)
      ? svg("line", {class: "reference", x1: area.left, x2: area.right, y1: y(options.reference), y2: y(options.reference)}) : null,
    svg("line", {class: "axis", x1: area.left, x2: area.right, y1: y(Math.max(low, 0)), y2: y(Math.max(low, 0))}),
    svg("text", {class: "axis-label", x: (area.left + area.right) / 2, y: height - 3, "text-anchor": "middle"}, options.xLabel));
  const text = categories.map((name, i) =>
    `${name}: ${shown.map(one => `${one.label} ${format(one.values[i])}`).join(", ")}`).join("; ");
  const host = el("div", {class: "chart", tabindex: "0", role: "img", "aria-label": `${options.label}. ${text}`}, drawing);
  host.addEventListener("pointermove", event => {
    const where = event.clientX - host.getBoundingClientRect().left;
    const i = Math.max(0, Math.min(categories.length - 1, Math.floor((where - area.left) / step)));
    placeTip(host, tooltip(categories[i], shown.map(one => [one.colour, one.label, barText(one, i)])),
      area.left + (i + 0.5) * step, height / 2);
  });
  host.addEventListener("pointerleave", () => host.querySelector(".tip")?.remove());
  return host;
}

function barText(one, i) {
  const range = one.low && isNumber(one.low[i]) && one.low[i] !== one.high[i];
  return range ? `${format(one.values[i])} (${format(one.low[i])} to ${format(one.high[i])})` : format(one.values[i]);
}

function barRange(categories, shown, options) {
  if (options.stacked) {
    const sums = categories.map((_, i) => shown.reduce((sum, one) => sum + (one.values[i] || 0), 0));
    return extent([0, ...sums, options.top ?? 0], true);
  }
  if (options.top) return [0, options.top];
  return extent([...shown.flatMap(one => [...one.values, ...(one.high ?? []), ...(one.low ?? [])]), options.reference], true);
}

function rect(left, right, from, to) {
  return svg("rect", {
    class: "bar", x: left.toFixed(1), width: Math.max(1, right - left).toFixed(1), y: Math.min(from, to).toFixed(1),
    height: Math.max(0.5, Math.abs(to - from)).toFixed(1),
  });
}

function sideBySide(shown, i, left, step, y) {
  const each = step * 0.8 / shown.length;
  return shown.map((one, k) => {
    const start = left + step * 0.1 + k * each;
    if (!isNumber(one.values[i])) return null;
    const middle = start + each / 2;
    const range = one.low && isNumber(one.low[i]) && one.low[i] !== one.high[i]
      ? svg("line", {class: "whisker", x1: middle, x2: middle, y1: y(one.low[i]), y2: y(one.high[i])}) : null;
    return svg("g", {class: one.colour}, rect(start + 0.5, start + each - 0.5, y(0), y(one.values[i])), range);
  });
}

function stack(shown, i, left, step, y) {
  let sum = 0;
  return shown.filter(one => one.values[i]).map(one => {
    const from = sum;
    sum += one.values[i];
    return svg("g", {class: one.colour}, rect(left + 0.5, left + step - 0.5, y(from), y(sum)));
  });
}
