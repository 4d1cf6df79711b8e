// The page over all runs: asks its own server for the state, shows builds, a table that sorts, and comparisons of ticked runs.
"use strict";
const SECONDS_BUILDING = 2, SECONDS_IDLE = 10;
const chosen = [];
let shownRuns = "";

document.addEventListener("DOMContentLoaded", () => { refresh(); });

async function refresh() {
  let wait = SECONDS_IDLE;
  try {
    const state = await (await fetch("state.json")).json();
    showBuilds(state.builds);
    showRuns(state);
    showSweeps(state.sweeps);
    const busy = state.builds.filter((build) => !build.silent).length;
    document.getElementById("status").textContent = `${counted(state.runs.length, "finished run")}, ${counted(busy, "stage")} being built. Updated ${new Date().toLocaleTimeString()}.`;
    if (busy) wait = SECONDS_BUILDING;
  } catch {
    document.getElementById("status").textContent = "The server does not answer; minilima view has ended.";
  }
  setTimeout(refresh, 1000 * wait);
}

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const dollars = (usd) => (usd === null ? "not known" : `$${usd.toFixed(usd >= 0.1 || usd === 0 ? 2 : 4)}`);

function showBuilds(builds) {
  const cards = builds.map((build) => {
    const count = `${build.done.toLocaleString("en")}${build.total ? ` of ${build.total.toLocaleString("en")}` : ""} ${build.unit}`;
    const facts = [...build.pace, ...(build.usd === null ? [] : [`${dollars(build.usd)} spent`]), build.note].filter(Boolean);
    return element("section", { class: "card build" },
      element("h3", {}, `${build.role} of ${build.name} `, element("span", { class: "soft" }, build.entry)),
      build.silent ? element("p", { class: "soft" }, `No report for ${Math.round(build.silent_seconds / 60)} min: interrupted, or busy with one long step.`) : null,
      build.total ? element("progress", { max: build.total, value: build.done, "aria-label": count }) : null,
      element("p", {}, build.unit ? element("strong", {}, count) : null, facts.length ? `${build.unit ? " · " : ""}${facts.join(" · ")}` : ""),
      build.losses.length > 1 ? curve(build.losses) : null,
      build.replies.length ? element("details", {}, element("summary", {}, "The last replies in this folder"), ...build.replies.map((text) => element("p", { class: "text small words" }, text))) : null);
  });
  const open = [...document.querySelectorAll("#builds details")].map((item) => item.open);
  const list = document.getElementById("builds");
  list.replaceChildren(...(cards.length ? cards : [element("p", { class: "card" }, "Nothing is being built.")]));
  document.querySelectorAll("#builds details").forEach((item, index) => { item.open = Boolean(open[index]); });
}

function curve(points) {
  const [width, height, edge] = [480, 120, 6];
  const name = "http://www.w3.org/2000/svg";
  const [steps, losses] = [points.map((point) => point[0]), points.map((point) => point[1])];
  const [left, right, low, high] = [Math.min(...steps), Math.max(...steps), Math.min(...losses), Math.max(...losses)];
  const x = (step) => edge + ((step - left) / (right - left || 1)) * (width - 2 * edge);
  const y = (loss) => height - edge - ((loss - low) / (high - low || 1)) * (height - 2 * edge);
  const made = document.createElementNS(name, "svg");
  made.setAttribute("viewBox", `0 0 ${width} ${height}`);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `Training loss, now ${losses[losses.length - 1].toFixed(2)}`);
  const line = document.createElementNS(name, "polyline");
  line.setAttribute("points", points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "var(--tuned)");
  line.setAttribute("stroke-width", "1.6");
  made.append(line);
  return element("figure", {}, made, element("figcaption", { class: "small soft" }, `training loss, ${losses[0].toFixed(2)} to ${losses[losses.length - 1].toFixed(2)}`));
}

function showRuns({ runs, settings, skipped }) {
  const now = JSON.stringify([runs, settings, skipped]);
  if (now === shownRuns) return;
  shownRuns = now;
  document.getElementById("table-card").hidden = !runs.length;
  document.getElementById("no-runs").hidden = Boolean(runs.length);
  const columns = ["run", ...settings, "win rate, %", "loss change, nats", "judged", "examples", "words", "USD", "time"];
  const headings = columns.map((title, index) => element("th", title === "win rate, %" ? { class: "number", "data-first": "falling", "aria-sort": "descending" } : index > settings.length ? { class: "number" } : {}, element("button", { type: "button" }, title)));
  document.getElementById("headings").replaceChildren(element("th", {}, element("span", { class: "small" }, "compare")), ...headings);
  document.getElementById("rows-of-runs").replaceChildren(...runs.map(row));
  wireHeadings(document.querySelector("#table-card table"));
  const block = document.getElementById("skipped");
  block.hidden = !skipped.length;
  block.querySelector("summary").textContent = `${counted(skipped.length, "run")} cannot be compared`;
  block.querySelector("ul").replaceChildren(...skipped.map((reason) => element("li", {}, reason)));
  const names = new Set(runs.map((run) => run.name));
  for (let index = chosen.length - 1; index >= 0; index--) if (!names.has(chosen[index])) chosen.splice(index, 1);
}

function row(run) {
  const box = element("input", { type: "checkbox", "aria-label": `compare ${run.name}` });
  box.checked = chosen.includes(run.name);
  box.addEventListener("change", () => {
    if (box.checked) chosen.push(run.name); else chosen.splice(chosen.indexOf(run.name), 1);
    compareChosen();
  });
  const cell = (value, ...content) => element("td", { "data-value": value ?? "", class: typeof value === "number" ? "number" : null }, ...content);
  const named = run.report ? element("a", { href: run.report.split("/").map(encodeURIComponent).join("/") }, run.name) : run.name;
  return element("tr", {},
    element("td", {}, box),
    cell(run.name, named, run.best ? " " : null, run.best ? element("span", { class: "tag won" }, "best") : null),
    ...run.settings.map((value) => cell(value, value)),
    cell(run.rate?.value, run.rate ? `${run.rate.value.toFixed(1)} ` : "not known", run.rate ? element("small", { class: "soft" }, run.rate.bounds) : null),
    cell(run.loss, run.loss === null ? "not known" : run.loss.toFixed(3)),
    cell(run.judged, `${run.judged}/${run.prompts}`),
    cell(run.examples, run.examples.toLocaleString("en")),
    cell(run.words, run.words.toFixed(0)),
    cell(run.usd, dollars(run.usd)),
    cell(run.seconds, run.time));
}

async function compareChosen() {
  const card = document.getElementById("comparison");
  card.hidden = chosen.length < 2;
  if (card.hidden) return;
  const asked = chosen.map((name) => `run=${encodeURIComponent(name)}`).join("&");
  const compared = await (await fetch(`compare.json?${asked}`)).json();
  if (compared.error) { card.replaceChildren(element("p", {}, compared.error)); return; }
  const signed = (value) => (value < 0 ? "" : "+") + value.toFixed(1);
  card.replaceChildren(
    element("h3", {}, "Compared with ", ...named(compared.against)),
    ...compared.rows.map((item) => element("p", {}, element("strong", {}, ...named(item)), ": ",
      item.difference === undefined ? item.note : `${signed(item.difference)} points, 95 % interval ${item.bounds}; p = ${item.p.toFixed(4)} (paired bootstrap, Holm), ${item.mcnemar.toFixed(4)} (McNemar); ${item.prompts} shared prompts. ${item.note}`)));
}

/** The run as its row calls it, and what sets it apart from the others that are compared. */
const named = (run) => [run.name, ...(run.label === run.name ? [] : [" ", element("span", { class: "soft" }, run.label)])];

function showSweeps(sweeps) {
  document.getElementById("sweeps-card").hidden = !sweeps.length;
  document.getElementById("no-sweeps").hidden = Boolean(sweeps.length);
  document.getElementById("rows-of-sweeps").replaceChildren(...sweeps.map((sweep) => element("tr", {},
    element("td", {}, sweep.report ? element("a", { href: sweep.report.split("/").map(encodeURIComponent).join("/") }, sweep.name) : sweep.name),
    element("td", { class: "number" }, `${sweep.done} of ${sweep.points}`))));
}
