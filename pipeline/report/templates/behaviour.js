"use strict";
// The page is complete without this script; it adds pausing, the theme, finding and sorting.
(() => {
  const one = (id) => document.getElementById(id);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const motion = one("motion");
  const sources = [...document.querySelectorAll("source.motion")];
  let isMoving = !calm.matches;
  const move = (state) => {
    isMoving = state;
    for (const source of sources) source.media = isMoving ? "all" : "not all";
    motion.textContent = isMoving ? "Pause motion" : "Play motion";
    motion.setAttribute("aria-pressed", String(!isMoving));
  };
  if (sources.length) {
    motion.hidden = false;
    move(isMoving);
    motion.addEventListener("click", () => move(!isMoving));
    calm.addEventListener("change", () => move(!calm.matches));
  }

  const theme = one("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
  });

  const cards = [...document.querySelectorAll(".card")];
  const arrange = one("arrange");
  if (cards.length > 1) arrange.hidden = false;
  arrange.addEventListener("submit", (event) => event.preventDefault());
  const shown = one("shown");
  const text = shown.textContent;
  one("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const card of cards) card.hidden = !card.dataset.name.includes(wanted);
    shown.textContent = wanted ? `${cards.filter((card) => !card.hidden).length} match` : text;
  });
  const property = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  one("sort").addEventListener("change", (event) => {
    const isRising = event.target.value.startsWith("-");
    const name = property(event.target.value.replace("-", ""));
    const value = (card) => (name in card.dataset ? Number(card.dataset[name]) : isRising ? Infinity : -Infinity);
    const sorted = name ? [...cards].sort((a, b) => (isRising ? value(a) - value(b) : value(b) - value(a))) : cards;
    one("cards").append(...sorted);
  });
})();
