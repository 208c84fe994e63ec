"use strict";
for (const [name, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent))) {
  Plotly.newPlot(`plot-${name}`, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

// A click on a head sorts, a second one turns the order, a third gives back the order of the file.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const next = { "": "down", down: "up", up: "" };
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return column === 0 ? cell.textContent : null;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return 0;
    return typeof a === "string" ? a.localeCompare(b) : a - b;
  };
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const order = next[head.dataset.order ?? ""];
    heads.forEach((other) => { delete other.dataset.order; });
    if (order) head.dataset.order = order;
    const sign = order === "up" ? 1 : -1;
    const empty = (row) => key(row, column) === null;
    const rows = order
      ? [...original.filter((row) => !empty(row)).sort((a, b) => sign * compare(key(a, column), key(b, column))),
         ...original.filter(empty)]
      : original;
    rows.forEach((row) => body.append(row));
  }));
}
