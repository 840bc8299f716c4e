// The transcript reader: filters, list, detail, keys.

const RESPONSE_LINK = /^#response-(\d+)$/;

function showReader(section, store) {
  if (!store.size) {
    section.append(emptyPlot("these runs kept no transcripts (transcripts_per_step = 0)"));
    return;
  }
  const filter = {run: "", from: "", to: "", question: "", verdict: "all", reason: "", text: "", order: "step"};
  const detail = el("div", {class: "detail", id: "detail", tabindex: "-1", role: "region", "aria-label": "Response and its group"});
  const count = el("p", {class: "hint", id: "count", role: "status"});
  const list = virtualList({
    label: "Responses", draw: row => drawRow(store, row),
    choose: row => showDetail(detail, store, row, filter.text),
    open: () => {
      if (detail.getBoundingClientRect().top > innerHeight * 0.7) detail.scrollIntoView(); // below the list on a phone
    },
  });
  list.node.id = "responses";
  const apply = () => {
    const rows = store.select(filter);
    const thinned = summary.thinned > 1 ? ` (one group in ${summary.thinned} is in this file)` : "";
    count.textContent = `${rows.length.toLocaleString("en")} of ${store.size.toLocaleString("en")} responses${thinned}`;
    list.show(rows);
  };
  const set = (name, value) => {
    filter[name] = value;
    apply();
  };
  const controls = filterBar(store, filter, set);
  section.append(controls.node, count, el("div", {class: "reader"}, list.node, detail), keysHint());
  listenToKeys(section, list, detail, controls, () => set("text", ""));
  apply();
  followLink(store, list);
}

/** #response-17 in the address chooses a response; report.js scrolls there. */
function followLink(store, list) {
  const found = RESPONSE_LINK.exec(location.hash);
  if (found && Number(found[1]) < store.size) list.go(Number(found[1]));
}

function drawRow(store, row) {
  const kind = outcome(store.flags[row]);
  const again = reflectionCount(store.response[row]);
  return [
    el("div", {class: "row-head"},
      el("span", {class: `dot ${armColour(summary.runs[store.run[row]].arm)}`}), el("span", {class: `sign ${kind}`}, BADGES[kind].slice(0, 1)),
      el("span", {class: "row-step"}, `step ${store.step[row]}`), el("span", {class: "row-id"}, store.questionOf(row).id),
      again ? el("span", {class: "row-again", title: "words of self-reflection"}, `↻${again}`) : null,
      el("span", {class: "row-numbers"}, `${store.tokens[row]} tok · R ${format(store.reward[row])}`)),
    el("div", {class: "row-text"}, store.response[row].slice(0, 160)),
  ];
}

function filterBar(store, filter, set) {
  const field = (label, name, attributes) => {
    let waiting = 0;
    const input = el("input", {
      ...attributes, value: filter[name],
      oninput: event => {
        clearTimeout(waiting);
        const {value} = event.target;
        waiting = setTimeout(() => set(name, value), 120);
      },
    });
    return {input, node: el("label", {class: `control field-${name}`}, el("span", {}, label), input)};
  };
  const search = field("Search in responses", "text", {id: "search", type: "search", placeholder: "/ to search"});
  const question = field("Question", "question", {id: "question", type: "search", placeholder: "id or text"});
  const from = field("From step", "from", {id: "from", type: "number", min: 0, inputmode: "numeric"});
  const to = field("To step", "to", {id: "to", type: "number", min: 0, inputmode: "numeric"});
  const runs = summary.runs.map((run, i) => [i, `${summary.arms[run.arm]}, seed ${run.seed}`]);
  const reasons = [...store.words].sort().map(word => [word, word]);
  const pick = (id, control) => {
    control.querySelector("select").id = id;
    return control;
  };
  const node = el("div", {class: "filters", role: "search", "aria-label": "Filter responses"}, search.node, question.node,
    pick("verdict", choice("Verdict", Object.keys(VERDICTS).map(name => [name, name]), "all", value => set("verdict", value))),
    pick("reason", choice("Reason", [["", "any"], ...reasons], "", value => set("reason", value))),
    pick("run", choice("Run", [["", "all"], ...runs], "", value => set("run", value))),
    from.node, to.node,
    pick("order", choice("Order", Object.entries(ORDERS).map(([name, [text]]) => [name, text]), "step", value => set("order", value))));
  return {node, search: search.input};
}

function keysHint() {
  return el("p", {class: "hint keys"}, [["j", "k", "next and previous response"], ["/", "search"], ["Enter", "to the response"], ["Esc", "back"]]
    .map(keys => [...keys.slice(0, -1).map(key => el("kbd", {}, key)), ` ${keys.at(-1)}  `]));
}

function listenToKeys(section, list, detail, controls, clear) {
  const inside = () => section.contains(document.activeElement);
  const near = () => {
    const box = list.node.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0;
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    const onList = document.activeElement === list.node;
    const moves = {j: 1, k: -1, ...(onList ? {ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity} : {})};
    if (event.key === "Escape" && (inside() || typing)) {
      if (document.activeElement === controls.search) {
        controls.search.value = "";
        clear();
      }
      list.node.focus();
      list.node.scrollIntoView({block: "nearest"});
    } else if (typing) {
      if (event.key === "Enter" && document.activeElement === controls.search) list.node.focus();
      else return;
    } else if (event.key === "/") {
      controls.search.scrollIntoView({block: "center"});
      controls.search.focus();
    } else if (event.key === "Enter" && onList) {
      detail.focus();
      detail.scrollIntoView({block: "nearest"});
    } else if (event.key in moves && (inside() || near())) {
      list.move(moves[event.key]);
    } else return;
    event.preventDefault();
  });
}
