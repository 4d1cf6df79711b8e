// Tables whose headings sort them; cells sort by data-value, numbers as numbers, what is not known always last.
"use strict";
document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("table.sortable").forEach(wireHeadings));

function wireHeadings(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const falls = heading.getAttribute("aria-sort") === "ascending" || (heading.dataset.first === "falling" && !heading.hasAttribute("aria-sort"));
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
      table.tBodies[0].append(...sorted([...table.tBodies[0].rows], column, falls));
    });
  });
}

function sorted(rows, column, falls) {
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (one, other) => {
    const [first, second] = [value(one), value(other)];
    if (first === "" || second === "") return (first === "") - (second === "");
    const difference = Number(first) - Number(second);
    const found = Number.isNaN(difference) ? first.localeCompare(second) : difference;
    return falls ? -found : found;
  };
  return rows.sort(order);
}
