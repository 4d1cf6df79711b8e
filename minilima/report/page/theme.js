// Light, dark, or as the system has it; remembered where the browser lets a file remember anything.
"use strict";
const THEMES = ["auto", "light", "dark"];
const root = document.documentElement;
function remembered() {
  try { return localStorage.getItem("minilima-theme"); } catch { return null; }
}
function useTheme(theme) {
  root.dataset.theme = theme;
  try { localStorage.setItem("minilima-theme", theme); } catch { /* a page on disk may have no storage */ }
}
useTheme(THEMES.includes(remembered()) ? remembered() : "auto");

/** An element with its attributes and children; strings become text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** What is folded is unfolded on paper. */
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const item of unfolded) item.open = true;
});
addEventListener("afterprint", () => { for (const item of unfolded) item.open = false; });

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const tell = () => {
    button.textContent = `Theme: ${root.dataset.theme}`;
    button.title = "Change the colours: automatic, light or dark";
  };
  const wide = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      const says = box.firstElementChild?.classList.contains("sideways");
      if (scrolls && !says) box.prepend(element("p", { class: "sideways" }, "This table is wide: scroll it sideways to see all columns."));
      if (!scrolls && says) box.firstElementChild.remove();
      box.tabIndex = scrolls ? 0 : -1;
    }
  };
  addEventListener("resize", wide);
  new MutationObserver(wide).observe(document.getElementById("main"), { childList: true, subtree: true });
  wide();
  button.hidden = false;
  button.addEventListener("click", () => {
    useTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
    tell();
  });
  tell();
});
