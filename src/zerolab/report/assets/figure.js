// What every figure has: a title, a plot that follows the width of its place, values under the pointer, its data as CSV.

/**
 * A figure. `draw(width)` returns {node, readout(x) or null}; it is called again when the width or the data changes.
 * spec: {title, note, file, rows() -> cells for the CSV, height, draw}
 */
function figure(spec) {
  const plot = el("div", {class: "plot"});
  const caption = el("figcaption", {}, el("span", {class: "figure-title"}, spec.title),
    spec.note ? el("span", {class: "figure-note"}, spec.note) : null,
    el("button", {
      type: "button", class: "quiet csv", "aria-label": `Data of ${spec.title} as CSV`,
      onclick: () => download(`${spec.file}.csv`, toCsv(spec.rows())),
    }, "CSV"));
  const node = el("figure", {}, caption, plot);
  let width = 0;
  const redraw = () => {
    if (width > 0) plot.replaceChildren(spec.draw(width));
  };
  new ResizeObserver(entries => {
    const now = Math.floor(entries[0].contentRect.width);
    if (now !== width) {
      width = now;
      redraw();
    }
  }).observe(plot);
  node.redraw = redraw;
  return node;
}

function emptyPlot(text) {
  return el("p", {class: "empty"}, text);
}

/** Left axis with grid lines and its unit on top. */
function yAxis(area, scale, low, high, unit) {
  const parts = ticks(low, high, area.height < 140 ? 3 : 4).map(value => [
    svg("line", {class: value === 0 ? "grid zero" : "grid", x1: area.left, x2: area.right, y1: scale(value), y2: scale(value)}),
    svg("text", {class: "tick", x: area.left - 6, y: scale(value) + 4, "text-anchor": "end"}, tickText(value)),
  ]);
  const label = unit ? [svg("text", {class: "axis-label", x: 2, y: area.top - 8}, unit)] : [];
  return [...parts.flat(), ...label];
}

function linear(from, to, start, end) {
  const span = to - from || 1;
  return value => start + (value - from) / span * (end - start);
}

/** Low and high of values with a little air; 0 is an end where all have one sign and `zero` asks for it. */
function extent(values, zero) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!isNumber(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (zero) {
    low = Math.min(low, 0);
    high = Math.max(high, 0);
  }
  if (low === high) return [low - (zero && low === 0 ? 0 : Math.abs(low) * 0.1), high + (Math.abs(high) * 0.1 || 1)];
  const air = (high - low) * 0.06;
  return [zero && low === 0 ? 0 : low - air, zero && high === 0 ? 0 : high + air];
}

/** Lines of text beside the pointer: [colour class or null, label, value]. */
function tooltip(heading, lines) {
  return el("div", {class: "tip"}, el("strong", {}, heading), lines.map(([colour, label, value]) =>
    el("div", {class: "tip-line"}, el("span", {class: `dot ${colour ?? ""}`}), el("span", {class: "tip-label"}, label),
      el("span", {class: "tip-value"}, value))));
}

/** Puts a tooltip at x, y of its plot, inside of it. */
function placeTip(host, tip, x, y) {
  host.querySelector(".tip")?.remove();
  host.append(tip);
  const left = x + 14 + tip.offsetWidth > host.clientWidth ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(0, Math.min(left, host.clientWidth - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
}
