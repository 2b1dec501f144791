// Bars: a panel for each column, a bar for each row, whiskers of one standard error, and the value as the table prints
// it. What others published is hollow and dashed, and stands under what was measured for the same row. A column of
// powers of ten has a logarithmic axis, on which there is no 0 for a bar to begin at: its values are points.

/** Height of a bar, and of a row around its bars. */
const BAR = 13;
const rowHeight = (cells) => (cells.some((cell) => cell.published && cell.value !== undefined) ? 36 : 23);

function drawBars() {
  all("[data-bars]").forEach((panels) => {
    const table = Number(panels.dataset.bars);
    const shown = data.tables[table];
    shown.columns.forEach((column, j) => {
      const cells = shown.cells.map((row) => row[j]);
      if (cells.every((cell) => cell.value === undefined && !cell.published)) return;
      const box = make("div", { class: "chart" });
      box.style.height = `${cells.length * rowHeight(cells) + 34}px`;
      panels.append(
        make(
          "div",
          { class: "panel" },
          make("h5", {}, column.label, column.note ? make("small", {}, ` ${column.note}`) : null),
          box,
        ),
      );
      const said = shown.rows.map((row, i) => `${row.label} ${cells[i].text || cells[i].published?.text || "—"}`);
      chart(
        box,
        `${column.label}: ${said.join("; ")}`,
        (palette) => barOptions(palette, shown, cells, box.clientWidth, column.powers),
        ({ dataIndex }) => openCell(table, dataIndex, j),
      );
    });
  });
}

/** One row: its bars with whiskers and values, or why there is none. */
function bars(palette, shown, cells, wide) {
  const text = (x, y, words, more) => ({
    type: "text",
    style: {
      text: words,
      x,
      y,
      fill: palette.ink,
      fontFamily: palette.font,
      fontSize: 11.5,
      textVerticalAlign: "middle",
      ...more,
    },
  });
  return (params, api) => {
    const i = api.value(0);
    const cell = cells[i];
    const middle = api.coord([wide ?? 0, i])[1];
    const zero = api.coord([wide ?? 0, i])[0];
    if (cell.missing) return text(zero + 5, middle, cut(`— ${cell.missing}`, 34), { fill: palette.faint });
    const drawn = [
      cell.value === undefined ? null : [cell, false],
      cell.published ? [cell.published, true] : null,
    ].filter(Boolean);
    const children = drawn.flatMap(([{ value, error = 0, text: words }, isPublished], k) => {
      const y = middle + (k - (drawn.length - 1) / 2) * (BAR + 2);
      const [end] = api.coord([value, i]);
      const [low] = api.coord([wide ? Math.max(wide, value - error) : value - error, i]);
      const [high] = api.coord([value + error, i]);
      const style = isPublished
        ? { fill: "transparent", stroke: palette.faint, lineDash: [4, 3], lineWidth: 1.2 }
        : { fill: shown.rows[i].merge ? palette.accent : palette.model };
      const stroke = { stroke: palette.ink, lineWidth: 1.2 };
      const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: stroke });
      const whisker =
        error > 0 ? [line(low, y, high, y), line(low, y - 3.5, low, y + 3.5), line(high, y - 3.5, high, y + 3.5)] : [];
      const weight = cell.best && !isPublished ? "bold" : "normal";
      const mark = wide
        ? { type: "circle", shape: { cx: end, cy: y, r: 4.5 }, style }
        : {
            type: "rect",
            shape: {
              x: Math.min(zero, end),
              y: y - BAR / 2,
              width: Math.max(1, Math.abs(end - zero)),
              height: BAR,
              r: 2,
            },
            style,
          };
      return [
        mark,
        ...whisker,
        text(Math.max(zero, high) + 7, y, words, {
          fontWeight: weight,
          fill: isPublished ? palette.faint : palette.ink,
        }),
      ];
    });
    return { type: "group", children };
  };
}

function barOptions(palette, shown, cells, width, powers) {
  const drawn = cells.flatMap((cell) => [cell, cell.published ?? {}]).filter(({ value }) => value !== undefined);
  const most = Math.max(0, ...drawn.map(({ value, error = 0 }) => value + error));
  const least = Math.min(0, ...drawn.map(({ value, error = 0 }) => value - error));
  const values = drawn.map(({ value }) => value);
  const wide = powers && isWide(values) ? 10 ** Math.floor(Math.log10(Math.min(...values))) : null;
  const longest = Math.max(...shown.rows.map((row) => row.label.length));
  const labels = Math.min(longest * 6.7 + 4, 260, width * 0.46);
  const base = common(palette);
  return {
    ...base,
    grid: {
      left: labels + 10,
      right: 14 + Math.max(...drawn.map(({ text }) => text.length)) * 6.6,
      top: 2,
      bottom: 24,
    },
    xAxis: numbers(palette, {
      ...(wide
        ? { type: "log", min: wide, max: 10 ** Math.ceil(Math.log10(most)) }
        : { min: least, max: most > 0 ? most : 1 }),
      axisLabel: {
        color: palette.faint,
        fontSize: 11,
        hideOverlap: true,
        showMinLabel: least === 0,
        showMaxLabel: wide ? null : false,
        formatter: short,
      },
    }),
    yAxis: {
      type: "category",
      inverse: true,
      data: shown.rows.map((row) => row.label),
      axisTick: { show: false },
      axisLine: { onZero: true, lineStyle: { color: palette.faint } },
      axisLabel: { color: palette.ink, fontSize: 12, width: labels, overflow: "truncate", interval: 0 },
    },
    tooltip: {
      ...base.tooltip,
      trigger: "axis",
      axisPointer: { type: "shadow", shadowStyle: { color: palette.line, opacity: 0.45 } },
      formatter: ([{ dataIndex }]) => {
        const { text, published, missing } = cells[dataIndex];
        return tip(shown.rows[dataIndex].label, [
          text && ["measured", text],
          published && ["published", published.text],
          missing && ["—", missing],
        ]);
      },
    },
    // The row goes along as a value: echarts hands over nothing else of a category.
    series: [
      {
        type: "custom",
        data: cells.map((cell, i) => [i, cell.value ?? cell.published?.value ?? 0]),
        encode: { x: 1, y: 0 },
        renderItem: bars(palette, shown, cells, wide),
        cursor: "pointer",
        clip: false,
      },
    ],
  };
}
