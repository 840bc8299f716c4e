// A response beside the others of its group.

const BADGES = {correct: "✓ correct", incorrect: "✗ incorrect", truncated: "✂ truncated"};

const SHORT_TEXT = 500; // a group of short responses fits in rows, long ones stand in columns that scroll

function badge(flags) {
  const kind = outcome(flags);
  return el("span", {class: `badge ${kind}`}, BADGES[kind]);
}

/** Question, answers, prompt, and the group's responses side by side; the chosen one first in sight. */
function showDetail(host, store, row, search) {
  if (row === undefined) {
    host.replaceChildren(emptyPlot("no response matches"));
    return;
  }
  const question = store.questionOf(row);
  const group = store.groupOf(row);
  const solved = group.filter(one => outcome(store.flags[one]) === "correct").length;
  const run = summary.runs[store.run[row]];
  const short = group.every(one => store.response[one].length < SHORT_TEXT);
  const cards = el("div", {class: short ? "cards wrapped" : "cards"}, group.map(one => card(store, one, one === row, search)));
  host.parentElement.classList.toggle("wide", !short); // long responses get the width of the page
  host.replaceChildren(
    el("header", {},
      el("button", {type: "button", class: "back", onclick: () => byId("responses").scrollIntoView({block: "center"})}, "↑ List"),
      el("a", {class: "link", href: `#response-${row}`, title: "Address of this response in this file"}, "Link"),
      el("p", {class: "where"}, el("span", {class: `dot ${armColour(run.arm)}`}),
        ` ${summary.arms[run.arm]}, seed ${run.seed}, step ${store.step[row]}, ${question.id}`),
      el("p", {class: "question"}, question.text),
      el("p", {class: "gold"}, el("span", {}, question.answers.length > 1 ? "Any of: " : "Answer: "),
        question.answers.map((text, i) => [i ? ", " : null, el("code", {}, text)]),
        el("span", {class: "solved"}, `${solved} of ${group.length} solved`)),
      el("details", {class: "more"}, el("summary", {}, "Prompt as the model saw it"), el("pre", {}, question.prompt))),
    cards);
  const chosen = cards.querySelector(".chosen");
  cards.scrollLeft = Math.max(0, chosen.offsetLeft - cards.offsetLeft - 12);
}

function card(store, row, chosen, search) {
  const flags = store.flags[row];
  const extracted = store.extracted[row];
  const facts = [
    ["reward", format(store.reward[row])], ["tokens", String(store.tokens[row])], ["graded", store.reasonOf(row)],
    ["extracted", extracted ?? "nothing"], ...Object.entries(store.parts[row] ?? {}).map(([name, value]) => [name, format(value)]),
  ];
  if (!(flags & ENTERS)) facts.push(["update", "left out by the truncation policy"]);
  if (flags & TRUNCATED && flags & CORRECT) facts.push(["note", "right, but not finished within the budget"]);
  return el("article", {class: chosen ? "card chosen" : "card", "aria-current": chosen ? "true" : null},
    el("div", {class: "card-head"}, el("span", {class: "sample"}, `#${store.sample[row]}`), badge(flags)),
    el("dl", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("pre", {class: "response", dir: "auto"}, marked(store.response[row], extracted, search, Boolean(flags & CORRECT))));
}
