// Score against a swept number: a line for each task and entry. Columns of another unit have a panel of their own.

function drawSweeps() {
  all("[data-sweep]").forEach((panels) => {
    const [table, place] = panels.dataset.sweep.split("-").map(Number);
    const shown = data.tables[table];
    const sweep = shown.sweeps[place];
    const units = [...new Set(shown.columns.map((column) => column.unit))];
    units.forEach((unit) => {
      const columns = shown.columns.map((_, j) => j).filter((j) => shown.columns[j].unit === unit);
      const lines = columns
        .flatMap((j) => sweep.lines.map((line) => ({ ...line, column: j })))
        .filter((line) => line.points.filter(([, , row]) => valueOf(shown, row, line.column)).length > 1);
      if (!lines.length) return;
      const box = make("div", { class: "chart tall" });
      const title =
        columns.length === 1 ? shown.columns[columns[0]].label : columns.map((j) => shown.columns[j].label).join(", ");
      panels.append(
        make("div", { class: "panel wide-panel" }, make("h5", {}, title), box, sweepTable(shown, sweep, columns)),
      );
      chart(
        box,
        `${title} against ${sweep.key}; the table below has the figures`,
        (palette) => sweepOptions(palette, shown, sweep, columns, lines),
        ({ data: point }) => point?.row !== undefined && openCell(table, point.row, point.column),
      );
    });
  });
}

/** The number that stands in a cell: measured, or else published. */
function valueOf(shown, row, column) {
  const cell = shown.cells[row][column];
  return cell.value !== undefined ? cell : cell.published;
}

/** The figures of a chart as a table. */
function sweepTable(shown, sweep, columns) {
  const head = make(
    "tr",
    {},
    [sweep.key, "", ...columns.map((j) => shown.columns[j].label)].map((name) => make("th", { scope: "col" }, name)),
  );
  const rows = sweep.lines.flatMap((line) =>
    line.points.map(([, spelling, row]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, spelling),
        make("td", {}, line.label),
        columns.map((j) => make("td", {}, valueOf(shown, row, j)?.text ?? "—")),
      ),
    ),
  );
  return make(
    "details",
    {},
    make("summary", {}, "The same as a table"),
    make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, rows))),
  );
}

/** A whisker of a point. */
function upright(colour) {
  return (params, api) => {
    const [x, low, high] = [api.value(0), api.value(1), api.value(2)];
    const [at, bottom] = api.coord([x, low]);
    const [, top] = api.coord([x, high]);
    const style = { stroke: colour, lineWidth: 1.2, opacity: 0.75 };
    const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
    return {
      type: "group",
      silent: true,
      children: [line(at, bottom, at, top), line(at - 4, bottom, at + 4, bottom), line(at - 4, top, at + 4, top)],
    };
  };
}

const symbols = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect"];

function sweepOptions(palette, shown, sweep, columns, lines) {
  const manyColumns = columns.length > 1;
  const name = (line) => {
    const column = shown.columns[line.column].label;
    return sweep.lines.length === 1 ? column : manyColumns ? `${column}: ${line.label}` : line.label;
  };
  const colour = (line) =>
    palette.series[
      (manyColumns ? columns.indexOf(line.column) : sweep.lines.findIndex((one) => one.label === line.label)) %
        palette.series.length
    ];
  const symbol = (line) =>
    symbols[
      Math.max(
        0,
        sweep.lines.findIndex((one) => one.label === line.label),
      ) % symbols.length
    ];
  const xs = sweep.lines.flatMap((line) => line.points.map(([x]) => x));
  const wide = isWide(xs);
  const merges = sweep.others.filter((row) => shown.rows[row].merge);
  // Lines of other merges that are close to each other share one name.
  const seen = columns
    .flatMap((j) => shown.cells.map((_, row) => valueOf(shown, row, j)?.value))
    .filter((value) => value !== undefined);
  const close = (Math.max(...seen) - Math.min(...seen)) * 0.04;
  const names = [];
  const label = (value, said) => {
    const near = names.find((one) => Math.abs(one.value - value) <= close);
    if (near) {
      if (!near.said.includes(said)) near.said.push(said);
      return "";
    }
    names.push({ value, said: [said] });
    return names.length - 1;
  };
  const named = new Set();
  const series = lines.flatMap((line) => {
    const points = line.points.map(([x, spelling, row]) => ({
      row,
      column: line.column,
      spelling,
      found: valueOf(shown, row, line.column),
      value: [x, valueOf(shown, row, line.column)?.value ?? null],
    }));
    // A row that no sweep has is one line for each column, whichever entries are swept.
    const references = named.has(line.column)
      ? []
      : merges.filter((row) => valueOf(shown, row, line.column)).slice(0, 3);
    named.add(line.column);
    const across = {
      silent: true,
      symbol: "none",
      lineStyle: { type: "dashed", width: 1.2, color: manyColumns ? colour(line) : palette.faint },
      label: {
        position: "end",
        distance: 5,
        fontSize: 11,
        color: palette.faint,
        formatter: ({ name: place }) => (place === "" ? "" : cut(names[Number(place)].said.join(", "), 24)),
      },
      data: references.map((row) => {
        const { value } = valueOf(shown, row, line.column);
        return { yAxis: value, name: String(label(value, shown.rows[row].label)) };
      }),
    };
    const errors = points
      .filter(({ found }) => found?.error > 0)
      .map(({ value: [x, y], found }) => [x, y - found.error, y + found.error]);
    return [
      {
        type: "line",
        name: name(line),
        data: points,
        symbol: symbol(line),
        symbolSize: 8,
        connectNulls: false,
        lineStyle: { width: 2 },
        color: colour(line),
        cursor: "pointer",
        markLine: across,
      },
      {
        type: "custom",
        name: name(line),
        data: errors,
        renderItem: upright(colour(line)),
        silent: true,
        tooltip: { show: false },
        color: colour(line),
        encode: { x: 0, y: [1, 2] },
      },
    ];
  });
  const spellings = new Map(sweep.lines.flatMap((line) => line.points.map(([x, spelling]) => [x, spelling])));
  const between = xs.length ? (Math.max(...xs) - Math.min(...xs)) * 0.06 : 0;
  const reach = wide ? {} : { min: Math.min(...xs) - between, max: Math.max(...xs) + between };
  return {
    ...common(palette),
    legend: {
      show: lines.length > 1,
      top: 0,
      left: 0,
      icon: "roundRect",
      itemWidth: 14,
      itemHeight: 4,
      textStyle: { color: palette.ink, fontSize: 12 },
      data: lines.map(name),
      selectedMode: "multiple",
    },
    grid: {
      left: 52,
      right: 16 + Math.max(0, ...names.map(({ said }) => cut(said.join(", "), 24).length)) * 6.1,
      top: 34 + 18 * Math.floor(lines.map(name).join("").length / 110),
      bottom: 44,
    },
    xAxis: numbers(palette, {
      type: wide ? "log" : "value",
      name: sweep.key,
      nameLocation: "middle",
      nameGap: 28,
      splitLine: { show: false },
      axisLine: { show: true, lineStyle: { color: palette.faint } },
      axisTick: { show: true, customValues: [...spellings.keys()], lineStyle: { color: palette.faint } },
      axisLabel: {
        color: palette.ink,
        fontSize: 12,
        hideOverlap: true,
        customValues: [...spellings.keys()],
        formatter: (x) => spellings.get(x) ?? short(x),
      },
      ...reach,
    }),
    yAxis: numbers(palette, { scale: true, axisLabel: { color: palette.faint, fontSize: 11, formatter: short } }),
    tooltip: {
      ...common(palette).tooltip,
      trigger: "axis",
      axisPointer: { type: "line", lineStyle: { color: palette.faint } },
      formatter: (found) => {
        const points = found.filter((one) => one.seriesType === "line" && one.data.found);
        if (!points.length) return "";
        return tip(
          `${sweep.key} = ${points[0].data.spelling}`,
          points.map((one) => [one.seriesName, one.data.found.text, one.color]),
        );
      },
    },
    series,
  };
}
