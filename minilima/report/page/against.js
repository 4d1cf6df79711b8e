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
    const column = columns[choice.value];
    let apart = 0;
    for (const row of document.querySelectorAll("tr[data-row]")) {
      const found = column[row.dataset.row];
      const [difference, p, shared] = ["difference", "p", "shared"].map((name) => row.querySelector(`td.${name}`));
      const known = found && found.note === undefined;
      difference.classList.toggle("soft", !known);
      if (!known) {
        fill(difference, null, found ? found.note : "compared with");
        fill(p, null);
        fill(shared, null);
        continue;
      }
      const interval = element("small", { class: "soft" }, found.bounds);
      fill(difference, found.value, `${signed(found.value)} `, interval);
      fill(p, found.p, found.p < 0.05 ? element("strong", {}, found.p.toFixed(4)) : found.p.toFixed(4), " ", element("small", { class: "soft" }, `McNemar ${found.mcnemar.toFixed(4)}`));
      const detects = found.detectable === null ? [] : [" ", element("small", { class: "soft" }, `detectable ${found.detectable.toFixed(1)}`)];
      fill(shared, found.prompts, found.prompts.toLocaleString("en"), ...detects);
      apart += found.p < 0.05;
    }
    document.getElementById("apart").textContent = apart;
    for (const place of document.querySelectorAll(".against")) place.textContent = labels[choice.value];
  });
});
