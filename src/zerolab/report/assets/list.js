// A list of any length that holds only the rows in sight.

const ROW_HEIGHT = 58;
const SPARE_ROWS = 6;

/** options: {label, draw(item) -> [node], choose(item or undefined), open()}; returns {node, show(items), move(by), go(item)}. */
function virtualList(options) {
  const inner = el("div", {class: "rows"});
  const node = el("div", {class: "list", role: "listbox", tabindex: "0", "aria-label": options.label}, inner);
  const state = {items: [], at: -1};

  function render() {
    const first = Math.max(0, Math.floor(node.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const end = Math.min(state.items.length, Math.ceil((node.scrollTop + node.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
    inner.style.height = `${state.items.length * ROW_HEIGHT}px`;
    const rows = [];
    for (let i = first; i < end; i++) rows.push(row(i));
    inner.replaceChildren(...rows);
    if (state.at >= first && state.at < end) node.setAttribute("aria-activedescendant", `row-${state.at}`);
    else node.removeAttribute("aria-activedescendant");
  }

  function row(i) {
    const one = el("div", {
      id: `row-${i}`, class: "row", role: "option", "aria-selected": String(i === state.at), "aria-setsize": state.items.length,
      "aria-posinset": i + 1,
      onclick: () => {
        go(i);
        options.open();
      },
    }, options.draw(state.items[i]));
    one.style.top = `${i * ROW_HEIGHT}px`;
    return one;
  }

  function go(i) {
    if (!state.items.length) return;
    state.at = Math.max(0, Math.min(state.items.length - 1, i));
    const top = state.at * ROW_HEIGHT;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top + ROW_HEIGHT > node.scrollTop + node.clientHeight) node.scrollTop = top + ROW_HEIGHT - node.clientHeight;
    render();
    options.choose(state.items[state.at]);
  }

  node.addEventListener("scroll", render, {passive: true});
  new ResizeObserver(render).observe(node);
  return {
    node,
    move: by => go(state.at + by),
    go(item) {
      const i = state.items.indexOf(item);
      if (i >= 0) go(i);
    },
    show(items) {
      state.items = items;
      state.at = -1;
      node.scrollTop = 0;
      render();
      if (items.length) go(0);
      else options.choose(undefined);
    },
  };
}
