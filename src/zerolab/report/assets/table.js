// Tables of plain cells; a cell is text, a number or a node.

/** head: [text]; rows: [[cell]]; the first column heads its row. */
function table(head, rows, options = {}) {
  const cell = value => isNumber(value) ? format(value) : value;
  return el("div", {class: "table-wrap", tabindex: "0", role: "region", "aria-label": options.label ?? "Table"},
    el("table", {},
      el("thead", {}, el("tr", {}, head.map((text, i) => el("th", {scope: "col", class: i && options.numeric ? "number" : null}, text)))),
      el("tbody", {}, rows.map(row => el("tr", {}, row.map((value, i) => i
        ? el("td", {class: options.numeric ? "number" : null}, cell(value)) : el("th", {scope: "row"}, cell(value))))))));
}
