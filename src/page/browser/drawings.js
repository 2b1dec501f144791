// Charts: each is drawn when it comes into sight, anew when the colours change, and at the width of paper to be
// printed.

const drawings = [];

/** The colours of the page, which follow the reader's light or dark setting. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    ink: of("--ink"),
    faint: of("--faint"),
    line: of("--line"),
    card: of("--card"),
    accent: of("--accent"),
    model: of("--model"),
    series: ["--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7", "--s8"].map(of),
    ramp: ["--r1", "--r2", "--r3", "--r4", "--r5"].map(of),
    font: getComputedStyle(document.body).fontFamily,
    kinds: Object.fromEntries(Object.keys(kinds).map((kind) => [kind, of(`--${kinds[kind]}`)])),
  };
}

/** The colour of each kind of stage, by the name of its variable. */
const kinds = {
  model: "s6",
  adapter: "s6",
  data: "s5",
  command: "s8",
  gram: "s3",
  fisher: "s3",
  merge: "s1",
  eval: "s2",
  table: "s4",
};

/** A chart in an element: `options` gives what echarts draws, for the colours; `click` takes what was clicked. */
function chart(element, label, options, click) {
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  const drawing = { element, options, click, chart: null };
  drawings.push(drawing);
  sight.observe(element);
  return drawing;
}

function show(drawing) {
  if (!drawing.chart) {
    drawing.chart = charts.init(drawing.element, null, { renderer: "svg" });
    if (drawing.click) drawing.chart.on("click", drawing.click);
  }
  if (
    drawing.chart.getWidth() !== drawing.element.clientWidth ||
    drawing.chart.getHeight() !== drawing.element.clientHeight
  ) {
    drawing.chart.resize();
  }
  drawing.chart.setOption({ animation: false, ...drawing.options(colours()) }, true);
  // At once: paper does not wait for the next frame.
  drawing.chart.getZr().flush();
}

const sight = new IntersectionObserver(
  (seen) => {
    for (const { target, isIntersecting } of seen) {
      const drawing = drawings.find(({ element }) => element === target);
      if (isIntersecting && drawing && !drawing.chart) show(drawing);
    }
  },
  { rootMargin: "400px" },
);

/** All that is drawn once more. */
function redraw() {
  drawings.filter((drawing) => drawing.chart).forEach(show);
}

/** A text beside the pointer: lines of a name and a value. */
function tip(title, lines) {
  const rows = lines.filter(Boolean).map(([name, value, colour]) => {
    const dot = colour ? make("span", { class: "dot", style: `background:${colour}` }) : null;
    return make("div", { class: "tip-line" }, make("span", {}, dot, name), make("strong", {}, value));
  });
  return make("div", { class: "tip" }, make("div", { class: "tip-title" }, title), rows);
}

/** What all charts share. */
function common(palette) {
  return {
    // Texts are measured before they are drawn, for which the fonts have to be known.
    textStyle: { fontFamily: palette.font, color: palette.ink },
    tooltip: {
      confine: true,
      backgroundColor: palette.card,
      borderColor: palette.line,
      textStyle: { color: palette.ink, fontSize: 12 },
      extraCssText: "box-shadow:0 4px 16px rgba(0,0,0,.16);border-radius:6px;max-width:26rem;white-space:normal",
    },
  };
}

/** An axis of numbers. */
function numbers(palette, more = {}) {
  return {
    type: "value",
    axisLine: { show: false },
    axisTick: { show: false },
    splitNumber: 4,
    axisLabel: { color: palette.faint, fontSize: 11, hideOverlap: true },
    splitLine: { lineStyle: { color: palette.line } },
    nameTextStyle: { color: palette.faint, fontSize: 12 },
    ...more,
  };
}

/** Whether values go over so many powers of ten that the small ones would fall together. */
function isWide(values) {
  const found = values.filter((value) => value !== null);
  return found.length > 0 && Math.min(...found) > 0 && Math.max(...found) / Math.min(...found) >= 50;
}
