// Long texts of models: shown in part until they are asked for, and whole on paper.
"use strict";
const SHOWN_CHARACTERS = 1500;

function shownText(content, whole) {
  const box = element("div", { class: "text", dir: "auto" }, content);
  if (whole || content.length <= SHOWN_CHARACTERS) return [box];
  box.textContent = content.slice(0, SHOWN_CHARACTERS) + " …";
  const more = element("button", { type: "button", class: "more" }, `Show all ${content.length.toLocaleString("en")} characters`);
  more.addEventListener("click", () => { box.textContent = content; more.remove(); });
  return [box, more];
}

function lengthOf({ words, cut }) {
  return `${words.toLocaleString("en")} ${words === 1 ? "word" : "words"}${cut ? ", cut at the token limit" : ""}`;
}
