// The run with which all others are compared, chosen in the table of a sweep.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const block = document.getElementById("rows");
  if (!block) return;
  const { choices } = JSON.parse(block.textContent);
  if (!choices) return;
  const { labels, chosen, columns } = choices;
  const choice = document.getElementById("against");
  labels.forEach((label, place) => choice.append(element("option", { value: place, selected: place === chosen }, label)));
  choice.closest("label").hidden = false;
  const signed = (value) => (value < 0 ? "" : "+") + value.toFixed(1);

  function fill(cell, value, ...content) {
    cell.dataset.value = value ?? "";
    cell.replaceChildren(...content);
  }

  choice.addEventListener("change", () => {
    let apart = 0;
    for (const row of document.querySelectorAll("tr[data-row]")) {
      // The run's own judge and set first, then the further ones, in the order of their columns.
      const [differences, values, [shared]] = ["difference", "p", "shared"].map((name) => row.querySelectorAll(`td.${name}`));
      columns.forEach((column, place) => {
        const found = column[choice.value][row.dataset.row];
        const known = found && found.note === undefined;
        differences[place].classList.toggle("soft", !known);
        if (!known) {
          fill(differences[place], null, found ? found.note : "compared with");
          fill(values[place], null);
          if (place === 0) fill(shared, null);
          return;
        }
        fill(differences[place], found.value, `${signed(found.value)} `, element("small", { class: "soft" }, found.bounds));
        const p = found.p < 0.05 ? element("strong", {}, found.p.toFixed(4)) : found.p.toFixed(4);
        fill(values[place], found.p, p, " ", element("small", { class: "soft" }, `McNemar ${found.mcnemar.toFixed(4)}`));
        if (place > 0) return;
        const detects = found.detectable === null ? [] : [" ", element("small", { class: "soft" }, `detectable ${found.detectable.toFixed(1)}`)];
        fill(shared, found.prompts, found.prompts.toLocaleString("en"), ...detects);
        apart += found.p < 0.05;
      });
    }
    document.getElementById("apart").textContent = apart;
    for (const place of document.querySelectorAll(".against")) place.textContent = labels[choice.value];
  });
});
