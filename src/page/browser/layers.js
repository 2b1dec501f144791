// Figures over layers and modules of a merge or a capture, as a heat map and as a table.

const meanings = {
  "relative change": ["Relative change", "‖W − W̄‖ / ‖W̄‖: how far the merge is from the average of the models."],
  objective: [
    "Objective against the average's",
    "What the merge makes of the objective, over what the average makes of it. Under 1 is better.",
  ],
  "held-out objective": [
    "The same on held-out Grams",
    "As the objective, on Gram matrices that the merge did not see.",
  ],
  condition: ["Condition number", "Of the scaled system, estimated."],
  residual: ["Residual", "‖B − A X‖ / ‖B‖ of the scaled system."],
  error: [
    "Error over correction",
    "The error of the solution over the correction, of the rows that were checked in fp64.",
  ],
  rounding: ["Rounding over correction", "How much of the correction the rounding of the output type takes."],
  "cut eigenvalues": ["Cut eigenvalues", "Eigenvalues that fp32 Gram matrices cannot tell from zero."],
  "unseen features": ["Unseen features", "Features that no token ever had; they stay at the average."],
  alpha: ["α", "What the layer was solved with."],
  trace: ["Mean square of the input", "The trace of the Gram matrix over its width."],
  "first tokens": ["Share of first tokens", "How much of the trace the first tokens of sequences hold."],
};

function drawLayers() {
  const [of, figure] = [byId("layers-of"), byId("layers-figure")];
  if (!of) return;
  for (const kind of ["merge", "gram"]) {
    const group = data.layers.filter(({ stage }) => data.stages[stage].kind === kind);
    if (!group.length) continue;
    of.append(
      make(
        "optgroup",
        { label: kind === "merge" ? "Merges" : "Gram matrices" },
        group.map((layers) =>
          make(
            "option",
            { value: data.layers.indexOf(layers) },
            data.stages[layers.stage].name.replace(/^[^.]*\./, ""),
          ),
        ),
      ),
    );
  }
  const box = byId("layers-chart");
  const chosen = () => data.layers[Number(of.value)];
  const values = () => chosen().figures.find(({ name }) => name === figure.value) ?? chosen().figures[0];
  const drawing = chart(box, "", (palette) => layerOptions(palette, chosen(), values(), box.clientWidth));
  const fill = () => {
    const before = figure.value;
    figure.replaceChildren(...chosen().figures.map(({ name }) => make("option", { value: name }, meanings[name][0])));
    if (chosen().figures.some(({ name }) => name === before)) figure.value = before;
    update();
  };
  const update = () => {
    const layout = data.layouts[chosen().layout];
    const { name, values: found } = values();
    const layers = new Set(layout.places.map(([layer]) => layer).filter((layer) => layer !== null));
    box.style.maxWidth = `${columnsOf(layout).length * 96 + 240}px`;
    box.style.height = `${Math.max(1, rowsOf(layout).length) * 26 + 110}px`;
    const apart = layout.places.flatMap(([layer, module], i) =>
      layer === null && found[i] !== null ? [`${layout.modules[module]} ${short(found[i])}`] : [],
    );
    const facts = data.stages[chosen().stage].facts ?? {};
    const paths = Object.entries(facts.solver_paths ?? {})
      .map(([path, count]) => `${count} by ${path}`)
      .join(", ");
    byId("layers-caption").replaceChildren(
      meanings[name][1],
      apart.length ? ` Outside the layers: ${apart.join(", ")}.` : "",
      paths ? ` ${facts.layers_solved} systems were solved: ${paths}.` : "",
    );
    box.setAttribute(
      "aria-label",
      `${meanings[name][0]} of ${data.stages[chosen().stage].name}, ${layers.size} layers; the table below has the figures`,
    );
    byId("layers-table").replaceChildren(layerTable(layout, name, found));
    if (drawing.chart) show(drawing);
  };
  of.addEventListener("change", fill);
  figure.addEventListener("change", update);
  fill();
}

/** The modules that layers have, top to bottom. */
const rowsOf = (layout) =>
  layout.modules
    .map((_, module) => module)
    .filter((module) => layout.places.some(([layer, other]) => layer !== null && other === module));

const columnsOf = (layout) =>
  [...new Set(layout.places.map(([layer]) => layer).filter((layer) => layer !== null))].sort((a, b) => a - b);

function layerTable(layout, name, values) {
  const [rows, columns] = [rowsOf(layout), columnsOf(layout)];
  const of = new Map(layout.places.map(([layer, module], i) => [`${layer} ${module}`, values[i]]));
  const head = make(
    "tr",
    {},
    make("th", { scope: "col" }, "Module"),
    columns.map((layer) => make("th", { scope: "col" }, String(layer))),
  );
  const body = rows.map((module) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, layout.modules[module]),
      columns.map((layer) => make("td", {}, short(of.get(`${layer} ${module}`)))),
    ),
  );
  return make(
    "table",
    {},
    make("caption", {}, `${meanings[name][0]} by module and layer`),
    make("thead", {}, head),
    make("tbody", {}, body),
  );
}

/** A figure's values in all stages that have it. */
function everywhere(name) {
  return data.layers
    .flatMap(({ figures }) => figures.filter((figure) => figure.name === name).flatMap(({ values }) => values))
    .filter((value) => value !== null);
}

function layerOptions(palette, chosen, { name, values }, width) {
  const layout = data.layouts[chosen.layout];
  const [rows, columns] = [rowsOf(layout), columnsOf(layout)];
  const range = everywhere(name);
  const wide = isWide(range);
  const scale = wide ? Math.log10 : (value) => value;
  const ends = range.length ? [scale(Math.min(...range)), scale(Math.max(...range))] : [0, 1];
  const cells = layout.places.flatMap(([layer, module], i) =>
    layer === null || values[i] === null
      ? []
      : [{ value: [columns.indexOf(layer), rows.indexOf(module), scale(values[i])], real: values[i] }],
  );
  const said = (value) => short(wide ? 10 ** value : value);
  const longest = Math.max(4, ...rows.map((module) => layout.modules[module].length));
  const left = Math.min(230, longest * 7 + 14);
  // Where a cell is wide enough it says its value, in a colour that can be read on it.
  const says = (width - left - 12) / columns.length >= 46;
  const share = (value) => (scale(value) - ends[0]) / (ends[1] - ends[0] || 1);
  const label = (value) => ({
    show: says,
    fontSize: 11,
    color: share(value) > 0.5 ? palette.card : palette.ink,
    formatter: () => short(value),
  });
  cells.forEach((cell) => {
    cell.label = label(cell.real);
  });
  return {
    ...common(palette),
    grid: { left, right: 12, top: 8, bottom: 96 },
    xAxis: {
      type: "category",
      data: columns,
      name: "layer",
      nameLocation: "middle",
      nameGap: 26,
      nameTextStyle: { color: palette.faint, fontSize: 12 },
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { color: palette.ink, fontSize: 11, hideOverlap: true },
    },
    yAxis: {
      type: "category",
      inverse: true,
      data: rows.map((module) => layout.modules[module]),
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { color: palette.ink, fontSize: 12, width: 216, overflow: "truncate", interval: 0 },
    },
    visualMap: {
      type: "continuous",
      min: ends[0],
      max: ends[1] > ends[0] ? ends[1] : ends[0] + 1,
      calculable: false,
      orient: "horizontal",
      left: "center",
      bottom: 0,
      itemWidth: 12,
      itemHeight: 180,
      text: [said(ends[1]), said(ends[0])],
      textStyle: { color: palette.ink, fontSize: 12 },
      inRange: { color: palette.ramp },
      formatter: said,
    },
    tooltip: {
      ...common(palette).tooltip,
      formatter: ({ data: cell }) =>
        tip(`layer ${columns[cell.value[0]]}, ${layout.modules[rows[cell.value[1]]]}`, [
          [meanings[name][0], short(cell.real)],
        ]),
    },
    series: [
      {
        type: "heatmap",
        data: cells,
        itemStyle: { borderColor: palette.card, borderWidth: 1.5, borderRadius: 3 },
        emphasis: { itemStyle: { borderColor: palette.ink, borderWidth: 1.5 } },
      },
    ],
  };
}
