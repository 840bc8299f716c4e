// Numbers: how they read, where ticks stand, means over runs.

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Three digits or so, with a real minus sign. */
function format(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e4) text = String(value);
  else if (size >= 1e9) text = (value / 1e9).toPrecision(3) + "B";
  else if (size >= 1e6) text = (value / 1e6).toPrecision(3) + "M";
  else if (size >= 1e4) text = (value / 1e3).toPrecision(3) + "k";
  else if (size >= 100) text = value.toFixed(0);
  else if (size >= 10) text = value.toFixed(1);
  else if (size >= 1) text = value.toFixed(2);
  else if (size >= 0.01) text = value.toFixed(3);
  else if (size >= 0.0001) text = value.toFixed(4);
  else text = value.toExponential(1);
  return text.replace("-", "−");
}

/** Round values that cover [low, high] in about `count` steps. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 2.5, 5, 10].find(factor => factor * power >= raw * 0.999) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function tickText(value) {
  const rounded = Number(value.toPrecision(6));
  const size = Math.abs(rounded);
  if (size >= 1e6) return String(rounded / 1e6).replace("-", "−") + "M";
  if (size >= 1e4) return String(rounded / 1e3).replace("-", "−") + "k";
  return String(rounded).replace("-", "−");
}

function mean(values) {
  const known = values.filter(isNumber);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
}

/** Running mean over the points of a curve within half a window of each one; sparse points stay what they are. */
function smooth(curve, window) {
  let first = 0;
  let end = 0;
  return curve.map(({x}) => {
    while (curve[first].x < x - window / 2) first++;
    while (end < curve.length && curve[end].x <= x + window / 2) end++;
    return {x, y: mean(curve.slice(first, end).map(point => point.y))};
  });
}

/** Curves of several runs -> points {x, mean, low, high} at the x that all of them have. */
function band(curves) {
  const used = curves.filter(curve => curve.length);
  if (!used.length) return [];
  const tables = used.map(curve => new Map(curve.map(point => [point.x, point.y])));
  return used[0].filter(point => tables.every(table => table.has(point.x))).map(({x}) => {
    const ys = tables.map(table => table.get(x));
    return {x, mean: mean(ys), low: Math.min(...ys), high: Math.max(...ys)};
  });
}
