// The answers of several runs to one prompt, beside each other: chosen runs, a search, a category, prompts on which verdicts differ.
"use strict";
const PROMPTS_SHOWN = 10;
const BRIEF = 160; // characters

document.addEventListener("DOMContentLoaded", () => {
  const beside = JSON.parse(document.getElementById("rows")?.textContent ?? "{}").beside;
  if (!beside) return;
  const { labels, opponents, rows } = beside;
  const at = (id) => document.getElementById(id);
  const start = { words: "", category: "", only: "", runs: labels.slice(0, 3).map((_, number) => number).join() };
  let wanted = { ...start, ...fromAddress() };
  let page = 0;
  let everything = false;
  const shownRuns = () => wanted.runs.split(",").filter(Boolean).map(Number);

  labels.forEach((label, number) => {
    const button = element("button", { type: "button", "data-run": number }, label);
    button.addEventListener("click", () => {
      const others = shownRuns().filter((other) => other !== number);
      const runs = others.length < shownRuns().length ? others : [...others, number].sort((one, other) => one - other);
      if (runs.length) update({ runs: runs.join() });
    });
    at("runs-shown").append(button);
  });
  const categories = [...new Set(rows.map((row) => row.category))].filter(Boolean).sort();
  at("category").append(...categories.map((name) => element("option", {}, name)));
  at("category").closest("label").hidden = categories.length < 2;

  /** The filters that the address names, as in sweep.html#answers?only=differ&runs=0,2; nothing else is taken from it. */
  function fromAddress() {
    const named = new URLSearchParams(location.hash.split("?")[1] ?? "");
    return Object.fromEntries([...named].filter(([name, value]) => Object.hasOwn(start, name) && allowed(name, value)));
  }

  function allowed(name, value) {
    if (name === "runs") return value !== "" && value.split(",").every((number) => labels[number] !== undefined);
    if (name === "category") return rows.some((row) => row.category === value);
    return name === "words" || [...at("only").options].some((option) => option.value === value);
  }

  function intoAddress() {
    const changed = Object.entries(wanted).filter(([name, value]) => value !== start[name]);
    const address = changed.length ? `#answers?${new URLSearchParams(changed)}` : location.hash.split("?")[0];
    history.replaceState(null, "", address || location.pathname + location.search);
  }

  function fits(row) {
    const runs = shownRuns().map((number) => row.runs[number]).filter(Boolean);
    const text = [row.id, row.instruction, row.reference, row.base?.text, ...runs.map((run) => run.text)].join("\n").toLowerCase();
    return (!wanted.category || row.category === wanted.category) && text.includes(wanted.words)
      && (wanted.only !== "differ" || new Set(runs.map((run) => run.outcome)).size > 1);
  }

  function update(change) {
    wanted = { ...wanted, ...change };
    page = 0;
    intoAddress();
    show();
  }

  function show() {
    const found = rows.filter(fits);
    const pages = Math.max(1, Math.ceil(found.length / PROMPTS_SHOWN));
    page = Math.min(Math.max(page, 0), pages - 1);
    at("prompts").replaceChildren(...(everything ? found : found.slice(page * PROMPTS_SHOWN, (page + 1) * PROMPTS_SHOWN)).map(card));
    const place = everything ? "" : ` · page ${page + 1} of ${pages}`;
    at("status").textContent = found.length ? `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${place}` : "Nothing matches.";
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
    for (const button of at("runs-shown").children) button.setAttribute("aria-pressed", String(shownRuns().includes(Number(button.dataset.run))));
    for (const id of ["category", "only"]) at(id).value = wanted[id];
    if (at("words").value.trim().toLowerCase() !== wanted.words) at("words").value = wanted.words;
  }

  function answer(name, made, side, ...below) {
    const verdict = made.outcome ? element("span", { class: `tag ${made.outcome}` }, made.outcome) : null;
    return element("div", { class: side }, element("h3", {}, name, element("small", {}, lengthOf(made)), " ", verdict), ...shownText(made.text, everything), ...below);
  }

  /** What the judge said of a run's answer: closeness to the reference answer in full, an explanation when it is asked for. */
  function said(words) {
    if (!words) return null;
    if (words.length <= BRIEF) return element("p", { class: "small soft said" }, words);
    return element("details", { class: "small", open: everything }, element("summary", {}, "the judge"), ...shownText(words, everything));
  }

  function card(row) {
    const columns = shownRuns().filter((number) => row.runs[number]).map((number) => {
      const run = row.runs[number];
      const other = run.against && element("details", { class: "small", open: everything }, element("summary", {}, `compared with (${opponents[number]})`), ...shownText(run.against.text, everything));
      return answer(labels[number], run, "tuned", said(run.said), other ?? null);
    });
    if (row.base) columns.push(answer(opponents[shownRuns()[0]], row.base, "base", null));
    const made = element("article", { class: "card pair", "data-id": row.id },
      element("div", { class: "top" }, element("div", {}, ...shownText(row.instruction, everything)), element("div", { class: "tags" }, row.category ? element("span", { class: "tag" }, row.category) : null)),
      element("div", { class: "answers several" }, ...columns));
    if (row.reference) made.append(element("div", { class: "words reference" }, element("b", {}, "reference answer of the set"), ...shownText(row.reference, everything)));
    return made;
  }

  for (const id of ["category", "only"]) at(id).addEventListener("change", (event) => update({ [id]: event.target.value }));
  at("words").addEventListener("input", (event) => update({ words: event.target.value.trim().toLowerCase() }));
  at("reset").addEventListener("click", () => update(start));
  for (const [id, by] of [["previous", -1], ["next", 1]]) at(id).addEventListener("click", () => { page += by; show(); at("answers").scrollIntoView(); });
  addEventListener("beforeprint", () => { everything = true; show(); });
  addEventListener("afterprint", () => { everything = false; show(); });
  addEventListener("hashchange", () => update({ ...start, ...fromAddress() }));
  update({});
  if (location.hash.startsWith("#answers?")) at("answers").scrollIntoView();
});
