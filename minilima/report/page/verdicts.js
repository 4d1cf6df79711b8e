// The browser of verdicts: filters, sorts and searches rows from the page's data block, and shows ten at a time, as text.
"use strict";
const PAGE = 10;

document.addEventListener("DOMContentLoaded", () => {
  const rows = JSON.parse(document.getElementById("rows").textContent);
  rows.forEach((row, place) => { row.place = place; row.gain = row.tuned.words - row.base.words; });
  const at = (id) => document.getElementById(id);
  const names = { tuned: "tuned", base: at("browser").dataset.other };
  const start = { outcome: "all", flipped: false, split: false, cut: false, length: "any", set: "", category: "", words: "", sort: "place" };
  let wanted = { ...start, ...fromAddress() };
  let page = 0;
  let everything = false;
  let found = rows;

  const SORTS = {
    place: (row) => row.place,
    preference: (row) => row.preference ?? Infinity,
    "preference-down": (row) => -(row.preference ?? -Infinity),
    gain: (row) => -row.gain,
    "gain-down": (row) => row.gain,
    tuned: (row) => -row.tuned.words,
    instruction: (row) => -row.instruction.length,
  };

  /** The filters that the address names, as in report.html#answers?outcome=lost&words=moon; nothing else is taken from it. */
  function fromAddress() {
    const named = new URLSearchParams(location.hash.split("?")[1] ?? "");
    const known = [...named].filter(([name, value]) => name in start && allowed(name, value));
    return Object.fromEntries(known.map(([name, value]) => [name, typeof start[name] === "boolean" ? value === "true" : value]));
  }

  function allowed(name, value) {
    if (["flipped", "split", "cut"].includes(name)) return at(name) !== null;
    if (name === "outcome") return [...at("outcomes").children].some((button) => button.dataset.outcome === value);
    return name === "words" || [...(at(name)?.options ?? [])].some((option) => option.value === value);
  }

  function intoAddress() {
    const changed = Object.entries(wanted).filter(([name, value]) => value !== start[name]);
    const address = changed.length ? `#answers?${new URLSearchParams(changed)}` : location.hash.split("?")[0];
    history.replaceState(null, "", address || location.pathname + location.search);
  }

  function haystack(row) {
    row.haystack ??= [row.id, row.instruction, row.tuned.text, row.base.text, row.reference, row.words, ...(row.judges ?? []).map((judge) => judge.words)].join("\n").toLowerCase();
    return row.haystack;
  }

  function fits(row) {
    const sides = { any: true, tuned: row.gain > 0, base: row.gain < 0, equal: row.gain === 0 };
    return (wanted.outcome === "all" || row.outcome === wanted.outcome)
      && (!wanted.flipped || row.flipped) && (!wanted.split || row.split) && (!wanted.cut || row.tuned.cut || row.base.cut)
      && sides[wanted.length] && (!wanted.set || row.set === wanted.set) && (!wanted.category || row.category === wanted.category)
      && (!wanted.words || haystack(row).includes(wanted.words));
  }

  function update(change) {
    wanted = { ...wanted, ...change };
    const key = SORTS[wanted.sort];
    found = rows.filter(fits).sort((one, other) => key(one) - key(other) || one.place - other.place);
    page = 0;
    intoAddress();
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const pairs = (everything ? found : found.slice(page * PAGE, (page + 1) * PAGE)).map(pair);
    at("pairs").replaceChildren(...pairs);
    const place = everything ? "" : ` · page ${page + 1} of ${pages}`;
    at("status").textContent = found.length ? `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${place}` : "Nothing matches.";
    for (const id of ["previous", "previous-below"]) at(id).disabled = page === 0;
    for (const id of ["next", "next-below"]) at(id).disabled = page === pages - 1;
    for (const button of at("outcomes").children) button.setAttribute("aria-pressed", String(button.dataset.outcome === wanted.outcome));
    for (const id of ["length", "set", "category", "sort"]) if (at(id)) at(id).value = wanted[id];
    if (at("words").value.trim().toLowerCase() !== wanted.words) at("words").value = wanted.words;
    for (const id of ["flipped", "split", "cut"]) at(id)?.setAttribute("aria-pressed", String(wanted[id]));
  }

  function turn(by) {
    const before = page;
    page += by;
    show();
    if (page !== before) at("answers").scrollIntoView();
  }

  const text = (content) => shownText(content, everything);

  function answer(row, whose) {
    return element("div", { class: whose }, element("h3", {}, names[whose], element("small", {}, lengthOf(row[whose]))), ...text(row[whose].text));
  }

  function pair(row) {
    const tags = element("div", { class: "tags" });
    if (row.category) tags.append(element("span", { class: "tag" }, row.category));
    if (row.set) tags.append(element("span", { class: "tag" }, row.set));
    if (row.flipped) tags.append(element("span", { class: "tag" }, "flipped"));
    if (row.split) tags.append(element("span", { class: "tag" }, "judges disagree"));
    const partly = row.preference != null && !Number.isInteger(2 * row.preference);
    const weight = partly ? ` ${(row.preference - 1).toFixed(2)}` : "";
    tags.append(element("span", { class: `tag ${row.outcome}`, title: partly && `0: surely ${names.base}, 1: surely tuned` }, row.outcome + weight));
    const made = element("article", { class: "card pair", tabindex: "-1", "data-id": row.id },
      element("div", { class: "top" }, element("div", {}, ...text(row.instruction)), tags),
      element("div", { class: "answers" }, answer(row, "tuned"), answer(row, "base")));
    if (row.reference) made.append(element("div", { class: "words reference" }, element("b", {}, "reference answer of the set"), ...text(row.reference)));
    for (const judge of row.judges ?? []) {
      const verdict = element("span", { class: `tag ${judge.outcome}` }, judge.outcome);
      made.append(element("div", { class: "words" }, element("b", {}, judge.name, " ", verdict), ...text(judge.words)));
    }
    if (row.words && !row.judges) made.append(element("div", { class: "words" }, element("b", {}, "the judge"), ...text(row.words)));
    return made;
  }

  function step(by) {
    const pairs = [...at("pairs").children];
    const here = pairs.indexOf(document.activeElement.closest?.(".pair"));
    const next = pairs[here < 0 ? 0 : here + by];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  at("outcomes").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) update({ outcome: button.dataset.outcome });
  });
  for (const id of ["flipped", "split", "cut"]) at(id)?.addEventListener("click", () => update({ [id]: !wanted[id] }));
  for (const id of ["length", "set", "category", "sort"]) at(id)?.addEventListener("change", (event) => update({ [id]: event.target.value }));
  at("words").addEventListener("input", (event) => update({ words: event.target.value.trim().toLowerCase() }));
  at("reset").addEventListener("click", () => {
    for (const id of ["length", "set", "category", "sort", "words"]) if (at(id)) at(id).value = start[id];
    update(start);
  });
  for (const [id, by] of [["previous", -1], ["previous-below", -1], ["next", 1], ["next-below", 1]]) at(id).addEventListener("click", () => turn(by));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const acts = { "/": () => at("words").focus(), j: () => step(1), k: () => step(-1), n: () => turn(1), p: () => turn(-1) };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
  const paper = (whether) => { everything = whether; show(); };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  addEventListener("hashchange", () => update({ ...start, ...fromAddress() }));
  update({});
  if (location.hash.startsWith("#answers?")) at("answers").scrollIntoView();
});
