"use strict";
// Tables are complete without this; it only puts their rows into another order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      const text = (row) => row.cells[column].textContent.trim();
      const number = (row) => {
        const found = text(row).replace(/\u2212/g, "-").replace(/,/g, "").match(/^-?\+?[\d.]+(e-?\d+)?/i);
        return found ? Number(found[0].replace("+", "")) : NaN;
      };
      const rows = Array.from(body.rows);
      const byNumber = head.dataset.as !== "text" && head.dataset.as !== undefined;
      rows.sort((first, second) => {
        if (!byNumber) return (down ? -1 : 1) * text(first).localeCompare(text(second));
        const a = number(first), b = number(second);
        // What is missing stays at the end, whichever way round.
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return down ? b - a : a - b;
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
