// What is marked in a response: words of self-reflection, the extracted answer, what was searched for.

function escapePattern(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

const REFLECTION = new RegExp(summary.reflection, "giu");

function reflectionCount(text) {
  return [...text.matchAll(REFLECTION)].length;
}

/** [from, to] of the extracted answer: its last occurrence in a box, else its last occurrence; null where there is none. */
function answerSpan(text, extracted) {
  if (!extracted) return null;
  const boxed = text.lastIndexOf(`boxed{${extracted}`);
  const from = boxed >= 0 ? boxed + "boxed{".length : text.lastIndexOf(extracted);
  return from < 0 ? null : [from, from + extracted.length];
}

/** The text as nodes with marks; where two overlap, the first in this order wins: answer, search, reflection. */
function marked(text, extracted, search, right) {
  const spans = [];
  const add = (from, to, kind) => {
    if (to > from && !spans.some(span => from < span.to && span.from < to)) spans.push({from, to, kind});
  };
  const answer = answerSpan(text, extracted);
  if (answer) add(...answer, right ? "answer right" : "answer wrong");
  if (search.trim()) {
    let count = 0;
    for (const match of text.matchAll(new RegExp(escapePattern(search.trim()), "giu"))) {
      if (++count > 500) break;
      add(match.index, match.index + match[0].length, "found");
    }
  }
  for (const match of text.matchAll(REFLECTION)) add(match.index, match.index + match[0].length, "reflection");
  spans.sort((a, b) => a.from - b.from);
  const nodes = [];
  let at = 0;
  for (const {from, to, kind} of spans) {
    nodes.push(document.createTextNode(text.slice(at, from)), el("mark", {class: kind, title: MARK_TITLES[kind]}, text.slice(from, to)));
    at = to;
  }
  nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}

const MARK_TITLES = {"answer right": "extracted answer, right", "answer wrong": "extracted answer, wrong", found: "search", reflection: "word of self-reflection"};
