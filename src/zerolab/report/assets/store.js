// The responses as columns, and which rows a choice of filters and an order leave.

const CORRECT = 1;
const TRUNCATED = 2;
const FORMATTED = 4;
const ENTERS = 8;

const VERDICTS = {
  all: () => true,
  correct: flags => (flags & CORRECT) > 0 && !(flags & TRUNCATED),
  incorrect: flags => !(flags & CORRECT) || (flags & TRUNCATED) > 0,
  truncated: flags => (flags & TRUNCATED) > 0,
};

function outcome(flags) {
  return flags & TRUNCATED ? "truncated" : flags & CORRECT ? "correct" : "incorrect";
}

function makeStore(columns) {
  const size = columns.response.length;
  const rows = Uint32Array.from({length: size}, (_, i) => i);
  return {
    ...columns, size,
    questionOf: row => columns.questions[columns.question[row]],
    reasonOf: row => columns.words[columns.reason[row]],
    groupOf: row => groupOf(columns, row),
    select: filter => sortRows(columns, rows.filter(matcher(columns, filter)), filter.order),
  };
}

/** filter: {run, from, to, question, verdict, reason, text}; "" means any. */
function matcher(columns, filter) {
  const tests = [];
  const verdict = VERDICTS[filter.verdict] ?? VERDICTS.all;
  if (verdict !== VERDICTS.all) tests.push(row => verdict(columns.flags[row]));
  if (filter.run !== "") tests.push(row => columns.run[row] === Number(filter.run));
  if (filter.from !== "") tests.push(row => columns.step[row] >= Number(filter.from));
  if (filter.to !== "") tests.push(row => columns.step[row] <= Number(filter.to));
  if (filter.reason !== "") tests.push(row => columns.words[columns.reason[row]] === filter.reason);
  if (filter.question.trim() !== "") {
    const pattern = patternOf(filter.question);
    const asked = new Set(columns.questions.flatMap((q, i) => pattern.test(q.id) || pattern.test(q.text) ? [i] : []));
    tests.push(row => asked.has(columns.question[row]));
  }
  if (filter.text.trim() !== "") {
    const pattern = patternOf(filter.text);
    tests.push(row => pattern.test(columns.response[row]));
  }
  return row => tests.every(test => test(row));
}

/** The text itself, in any case. */
function patternOf(text) {
  return new RegExp(escapePattern(text.trim()), "iu");
}

const ORDERS = {
  step: ["earliest first", "step", 1],
  latest: ["latest first", "step", -1],
  longest: ["longest first", "tokens", -1],
  shortest: ["shortest first", "tokens", 1],
  best: ["highest reward first", "reward", -1],
  worst: ["lowest reward first", "reward", 1],
};

/** Equal rows keep their order. */
function sortRows(columns, rows, order) {
  const [, name, sign] = ORDERS[order];
  const key = columns[name];
  return rows.sort((a, b) => sign * (key[a] - key[b]) || a - b);
}

/** Rows of the group that a response belongs to: neighbours with the same run, step and number. */
function groupOf(columns, row) {
  const same = other => ["run", "step", "group", "question"].every(name => columns[name][other] === columns[name][row]);
  let first = row;
  let end = row + 1;
  while (first > 0 && same(first - 1)) first--;
  while (end < columns.response.length && same(end)) end++;
  return Array.from({length: end - first}, (_, i) => first + i);
}
