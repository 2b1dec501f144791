// What script can do is shown where there is script.

all(".script").forEach((element) => element.removeAttribute("hidden"));
drawSplits();
makeTablesSortable();
drawBars();
drawSweeps();
drawLayers();
drawGraph();
drawTimeline();

// Light and dark: as the system says, unless the reader says otherwise.
const root = document.documentElement;
const themes = ["as the system", "light", "dark"];
const button = byId("theme");
button.removeAttribute("hidden");
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme ?? themes[0]) + 1) % themes.length];
  if (next === themes[0]) delete root.dataset.theme;
  else root.dataset.theme = next;
  button.replaceChildren(`Theme: ${next}`);
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

let waiting = null;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 120);
});

// Paper is light and has a width of its own.
let theme;
addEventListener("beforeprint", () => {
  theme = root.dataset.theme;
  root.dataset.theme = "light";
  root.classList.add("printed");
  drawings.forEach(show);
});
addEventListener("afterprint", () => {
  root.classList.remove("printed");
  if (theme === undefined) delete root.dataset.theme;
  else root.dataset.theme = theme;
  redraw();
});

addEventListener("hashchange", () => openPlace(location.hash));
openPlace(location.hash);
