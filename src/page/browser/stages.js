// The graph of stages, and when each ran.

/** Width of a node for its two lines. */
const nodeWidth = (text, remark) => Math.min(230, Math.max(110, text.length * 6.8 + 26, remark.length * 5.9 + 26));

/** What a node says of its stages: how many, of which kind, and how long they took or what they wait for. */
function remarkOf(members) {
  const stages = members.map((place) => data.stages[place]);
  const done = stages.filter((stage) => stage.digest !== undefined).length;
  const state = done === stages.length ? "up-to-date" : stages.some((stage) => stage.state === "run") ? "run" : "waits";
  const took = stages.reduce((sum, stage) => sum + (stage.seconds ?? 0), 0);
  const what = stages.length > 1 ? `${stages.length} × ${stages[0].kind}` : stages[0].kind;
  return {
    state,
    remark: `${what} · ${done === stages.length ? seconds(took) : done ? `${done} up to date` : words[state]}`,
  };
}

function drawGraph() {
  const home = byId("graph");
  const members = data.groups.map(() => []);
  data.stages.forEach((stage, place) => members[stage.group].push(place));
  const graph = new charts.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 10, ranksep: 52, marginx: 8, marginy: 14 });
  graph.setDefaultEdgeLabel(() => ({}));
  data.groups.forEach((label, group) => {
    // The colour and the second line say the kind already.
    const text = cut(label.slice(label.indexOf(".") + 1), 30);
    graph.setNode(String(group), { label: text, width: nodeWidth(text, remarkOf(members[group]).remark), height: 38 });
  });
  const edges = new Set(
    data.stages.flatMap((stage) => stage.needs.map((need) => `${data.stages[need].group} ${stage.group}`)),
  );
  for (const edge of edges) {
    const [from, to] = edge.split(" ");
    if (from !== to) graph.setEdge(from, to);
  }
  charts.layout(graph);
  const { width, height } = graph.graph();
  // A little too wide is made a little smaller; what is much wider is scrolled.
  const style = `width:100%;max-width:${Math.ceil(width)}px;min-width:${Math.ceil(width * 0.75)}px`;
  const svg = draw("svg", {
    viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`,
    style,
    class: "graph",
    role: "group",
    "aria-label": `${data.stages.length} stages in ${data.groups.length} nodes`,
  });
  for (const { v, w } of graph.edges()) {
    svg.append(
      draw("path", {
        d: curve(graph.node(v), graph.edge({ v, w }).points, graph.node(w)),
        class: "edge",
        "data-from": v,
        "data-to": w,
      }),
    );
  }
  data.groups.forEach((label, group) => svg.append(node(graph.node(String(group)), label, group, members[group])));
  // A node shows what it reads and who reads it.
  const light = (group, on) =>
    all(".edge", svg).forEach((edge) =>
      edge.classList.toggle("lit", on && [edge.dataset.from, edge.dataset.to].includes(group)),
    );
  all("a", svg).forEach((anchor) => {
    for (const event of ["mouseenter", "focus"])
      anchor.addEventListener(event, () => light(anchor.dataset.group, true));
    for (const event of ["mouseleave", "blur"])
      anchor.addEventListener(event, () => light(anchor.dataset.group, false));
  });
  home.append(svg);
  home.before(legend());
}

/** What the colours of the graph and the timeline stand for. */
function legend() {
  const present = Object.keys(kinds).filter((kind) => data.stages.some((stage) => stage.kind === kind));
  return make(
    "p",
    { class: "legend remark" },
    present.map((kind) => make("span", {}, make("span", { class: `dot ${kinds[kind]}` }), kind)),
  );
}

/** From the right side of a node to the left side of another, through the places that the layout keeps free. */
function curve(from, points, to) {
  // Between neighbours nothing is in the way.
  const between = points.length > 3 ? points.slice(1, -1) : [];
  const way = [{ x: from.x + from.width / 2, y: from.y }, ...between, { x: to.x - to.width / 2, y: to.y }];
  const piece = (point, i) => {
    const middle = (way[i].x + point.x) / 2;
    return `C ${middle} ${way[i].y} ${middle} ${point.y} ${point.x} ${point.y}`;
  };
  return `M ${way[0].x} ${way[0].y} ${way.slice(1).map(piece).join(" ")}`;
}

function node({ x, y, width, height, label: text }, label, group, members) {
  const { state, remark } = remarkOf(members);
  const anchor = draw("a", {
    href: members.length > 1 ? `#group-${group}` : `#stage-${members[0]}`,
    class: `node ${state} ${data.stages[members[0]].kind}`,
    "data-group": String(group),
    "aria-label": `${label}: ${words[state]}, ${remark}`,
  });
  const [left, top] = [x - width / 2, y - height / 2];
  anchor.append(
    draw("title", {}, `${label}: ${remark}`),
    draw("rect", { x: left, y: top, width, height, rx: 6 }),
    draw("rect", { x: left, y: top, width: 5, height, rx: 2.5, class: "kind" }),
    draw("text", { x: left + 14, y: y - 3 }, text),
    draw("text", { x: left + 14, y: y + 11, class: "small" }, remark),
  );
  return anchor;
}

/** So long without any stage begins a new part of the timeline. */
const BREAK = 5 * 60 * 1000;

/** Stages that ran, in parts without long breaks, each with its slots: as many as ran at once. */
function timelineParts() {
  const ran = data.stages
    .map((stage, place) => ({
      place,
      from: Date.parse(stage.started),
      to: Date.parse(stage.ended),
      kind: stage.kind,
      name: stage.name,
    }))
    .filter(({ from, to }) => Number.isFinite(from) && Number.isFinite(to))
    .sort((one, other) => one.from - other.from || one.place - other.place);
  const parts = [];
  for (const run of ran) {
    const last = parts.at(-1);
    if (!last || run.from - last.to > BREAK) parts.push({ from: run.from, to: run.to, runs: [], slots: [] });
    const part = parts.at(-1);
    part.to = Math.max(part.to, run.to);
    let slot = part.slots.findIndex((free) => free <= run.from);
    if (slot < 0) slot = part.slots.push(0) - 1;
    part.slots[slot] = run.to;
    part.runs.push({ ...run, slot });
  }
  return parts;
}

function drawTimeline() {
  const home = byId("timeline");
  if (!home) return;
  for (const part of timelineParts()) {
    const box = make("div", { class: "chart" });
    box.style.height = `${part.slots.length * 26 + 44}px`;
    const title = `${moment(new Date(part.from).toISOString())}, ${seconds((part.to - part.from) / 1000)}, ${part.runs.length} stage${part.runs.length === 1 ? "" : "s"}`;
    home.append(make("div", { class: "panel" }, make("h5", {}, title), box));
    chart(
      box,
      `When stages ran: ${title}; the table of stages has each one's time`,
      (palette) => timelineOptions(palette, part),
      ({ dataIndex }) => openStage(part.runs[dataIndex].place),
    );
  }
}

function timelineOptions(palette, part) {
  const spare = Math.max(1, part.to - part.from) * 0.01;
  const bar = (params, api) => {
    const [x, y] = api.coord([api.value(0), api.value(2)]);
    const [end] = api.coord([api.value(1), api.value(2)]);
    const run = part.runs[params.dataIndex];
    const width = Math.max(2, end - x);
    const fits = width > 48;
    const shape = { x, y: y - 10, width, height: 20, r: 3 };
    const text = fits
      ? {
          type: "text",
          style: {
            text: run.name,
            x: x + 6,
            y,
            fill: palette.card,
            fontFamily: palette.font,
            fontSize: 11,
            textVerticalAlign: "middle",
            width: width - 10,
            overflow: "truncate",
            ellipsis: "…",
          },
          silent: true,
        }
      : null;
    return {
      type: "group",
      children: [
        { type: "rect", shape, style: { fill: palette.kinds[run.kind], stroke: palette.card, lineWidth: 1 } },
        text,
      ].filter(Boolean),
    };
  };
  return {
    ...common(palette),
    grid: { left: 8, right: 12, top: 4, bottom: 26 },
    xAxis: {
      type: "time",
      min: part.from - spare,
      max: part.to + spare,
      splitLine: { show: true, lineStyle: { color: palette.line } },
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: {
        color: palette.faint,
        fontSize: 11,
        hideOverlap: true,
        formatter: (time) => new Date(time).toISOString().slice(11, 19),
      },
    },
    yAxis: { type: "category", inverse: true, data: part.slots.map((_, slot) => slot), show: false },
    dataZoom: [{ type: "inside", filterMode: "weakFilter", zoomOnMouseWheel: "ctrl" }],
    tooltip: {
      ...common(palette).tooltip,
      formatter: ({ dataIndex }) => {
        const { place, kind, name } = part.runs[dataIndex];
        const stage = data.stages[place];
        return tip(name, [
          ["took", seconds(stage.seconds ?? 0)],
          ["from", moment(stage.started)],
          ["to", moment(stage.ended)],
          ["kind", kind, palette.kinds[kind]],
        ]);
      },
    },
    series: [
      {
        type: "custom",
        renderItem: bar,
        data: part.runs.map(({ from, to, slot }) => [from, to, slot]),
        encode: { x: [0, 1], y: 2 },
        cursor: "pointer",
      },
    ],
  };
}

/** How many documents each model gets right, as a bar. */
function drawSplits() {
  all("[data-split]").forEach((bar) => {
    const counts = bar.dataset.split.split(" ").map(Number);
    bar.append(
      ...counts.map((count, i) => {
        const piece = make("span", { class: `piece p${i}` });
        piece.style.flexGrow = String(count);
        return piece;
      }),
    );
  });
}
