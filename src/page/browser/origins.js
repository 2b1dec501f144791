// Where a number comes from, and what is known of a stage: a dialog, as `mergelab explain --cell` and `mergelab show`
// print it.

const dialog = byId("origin");

function open(title, place, ...content) {
  const close = make("button", { type: "button", class: "quiet", "aria-label": "Close" }, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(
    make("div", { class: "dialog-head" }, make("h2", { id: "origin-title" }, title), close),
    ...content.filter(Boolean),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", place);
}

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

/** Pairs of a name and what stands beside it. */
function pairs(...lines) {
  return make(
    "dl",
    { class: "pairs" },
    lines
      .filter((line) => line && line[1] !== null && line[1] !== undefined && line[1] !== "")
      .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

const code = (text) => make("code", {}, text);

/** A text to be copied. */
function command(text) {
  const copy = make("button", { type: "button", class: "quiet copy" }, "Copy");
  copy.addEventListener("click", () => {
    navigator.clipboard?.writeText(text).then(
      () => copy.replaceChildren("Copied"),
      () => {},
    );
  });
  return make("div", { class: "command" }, make("pre", { tabindex: "0" }, text), navigator.clipboard ? copy : null);
}

const link = (place) => make("a", { href: `#stage-${place}` }, data.stages[place].name);

function heading(text) {
  return make("h3", {}, text);
}

/** The stages that one rests on, nearest first. */
function before(place) {
  const found = new Set();
  const wanted = [...data.stages[place].needs];
  while (wanted.length) {
    const next = wanted.pop();
    if (!found.has(next)) {
      found.add(next);
      wanted.push(...data.stages[next].needs);
    }
  }
  return [...found].sort((one, other) => other - one);
}

/** The digest of each part of the model that an evaluation reads. */
function modelOf(place) {
  const roles = data.stages[place].needs.map((need) => data.stages[need]).find((stage) => stage.roles);
  if (!roles) return [];
  return [
    heading(`The model: ${roles.name}`),
    pairs(...Object.entries(roles.roles).map(([role, digest]) => [role, code(digest)])),
  ];
}

/** What is known of a stage. */
function stageParts(place) {
  const stage = data.stages[place];
  const made = stage.digest !== undefined;
  const parts = [
    pairs(
      ["stage", link(place)],
      ["state", words[stage.state] + (stage.reason ? `: ${stage.reason}` : "")],
      ["key", stage.key && code(stage.key)],
      ["digest", made && code(stage.digest)],
      [
        "made",
        made &&
          `${moment(stage.started)} to ${moment(stage.ended)} UTC on ${stage.host}${stage.device ? `, ${stage.device}` : ""}`,
      ],
      ["took", stage.seconds !== undefined && seconds(stage.seconds)],
      ["peak memory", stage.memory && bytes(stage.memory)],
      ["commit", stage.commit && make("span", {}, code(stage.commit), stage.dirty ? ", with changes" : "")],
      ["files in", made && stage.files.length > 0 && code(stage.place)],
    ),
  ];
  if (stage.warnings)
    parts.push(
      heading("Warnings"),
      make(
        "ul",
        {},
        stage.warnings.map((warning) => make("li", {}, warning)),
      ),
    );
  if (stage.command) parts.push(heading("Command"), command(stage.command));
  if (stage.kind === "eval") parts.push(...modelOf(place));
  else if (stage.roles)
    parts.push(heading("Digests"), pairs(...Object.entries(stage.roles).map(([role, digest]) => [role, code(digest)])));
  if (made && stage.files.length) {
    const rows = stage.files.map(([path, size]) =>
      make("tr", {}, make("th", { scope: "row" }, code(path)), make("td", {}, bytes(size))),
    );
    parts.push(
      make(
        "details",
        {},
        make("summary", {}, `${stage.files.length} files`),
        make("table", {}, make("tbody", {}, rows)),
      ),
    );
  }
  const parameters = stage.parameters && Object.keys(stage.parameters).length > 0;
  if (parameters || stage.facts) {
    parts.push(
      make(
        "details",
        {},
        make("summary", {}, "What decided it, and what was reported"),
        parameters ? make("pre", {}, JSON.stringify(stage.parameters, null, 2)) : null,
        stage.facts ? make("pre", {}, JSON.stringify(stage.facts, null, 2)) : null,
      ),
    );
  }
  if (made) {
    const versions = Object.entries(data.versions[stage.versions]);
    parts.push(make("details", {}, make("summary", {}, "Versions"), pairs(...versions)));
  }
  const rests = before(place);
  if (rests.length) {
    const rows = rests.map((need) => {
      const { digest, ended } = data.stages[need];
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, link(need)),
        make("td", {}, code((digest ?? "—").slice(0, 12))),
        make("td", {}, ended ? moment(ended) : "—"),
      );
    });
    const head = make(
      "tr",
      {},
      ["Stage", "Digest", "Made (UTC)"].map((name) => make("th", { scope: "col" }, name)),
    );
    parts.push(heading("Rests on"), make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
  }
  return parts;
}

function openStage(place) {
  const stage = data.stages[place];
  if (!stage) return;
  open(
    stage.name,
    `#stage-${place}`,
    ...stageParts(place),
    heading("More"),
    command(`mergelab show ${stage.name} ${data.file}`),
  );
}

/** The stages that stand together in the picture of the graph. */
function openGroup(group) {
  const members = data.stages.flatMap((stage, place) => (stage.group === group ? [place] : []));
  if (!members.length) return;
  const rows = members.map((place) => {
    const { state, seconds: took } = data.stages[place];
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, link(place)),
      make("td", {}, words[state]),
      make("td", {}, took === undefined ? "—" : seconds(took)),
    );
  });
  const head = make(
    "tr",
    {},
    ["Stage", "State", "Took"].map((name) => make("th", { scope: "col" }, name)),
  );
  open(
    `${data.groups[group]}: ${members.length} stages`,
    `#group-${group}`,
    make("table", {}, make("thead", {}, head), make("tbody", {}, rows)),
  );
}

/** One figure with what belongs to it; `printed` is what the table shows of it, where it shows this one alone. */
function figureParts(figure, printed) {
  const error = figure.error === undefined ? "" : ` ± ${short(figure.error)}`;
  const own = `${figure.value}${error}`;
  const better = figure.higher === undefined ? null : figure.higher ? "higher is better" : "lower is better";
  const said = [
    figure.metric + (figure.filter ? ` (${figure.filter})` : ""),
    better,
    figure.shots === undefined ? null : `${figure.shots}-shot`,
    figure.samples === undefined ? null : `${figure.samples} samples`,
  ]
    .filter(Boolean)
    .join(", ");
  return [
    make(
      "p",
      { class: "figure" },
      make("strong", {}, printed ?? own),
      ` ${figure.source}${printed && printed !== own ? `, ${own} on the metric's own scale` : ""}`,
      make("br"),
      make("span", { class: "remark" }, `${figure.model} on ${figure.task}: ${said}`),
    ),
    figure.citation
      ? make("p", {}, `Published, not measured here: ${figure.citation}${figure.note ? `; ${figure.note}` : ""}`)
      : null,
  ];
}

function openCell(table, row, column) {
  const shown = data.tables[table];
  const cell = shown?.cells[row]?.[column];
  if (!cell) return;
  const figures = cell.from.map((place) => data.figures[place]);
  const parts = figures.flatMap((figure) => {
    const printed = figure.source === "published" ? cell.published?.text : cell.text;
    const own = figureParts(
      figure,
      figures.filter(({ source }) => source === figure.source).length === 1 ? printed : undefined,
    );
    const stage = figure.stage === undefined ? null : data.stages[figure.stage];
    if (!stage) return own.concat(figure.key ? [pairs(["key", code(figure.key)])] : []);
    const keyIsAnother = figure.key && stage.key !== figure.key;
    return own.concat(
      keyIsAnother ? [pairs(["measured with key", code(figure.key)])] : [],
      figures.length > 1
        ? [make("details", {}, make("summary", {}, stage.name), ...stageParts(figure.stage))]
        : stageParts(figure.stage),
    );
  });
  if (cell.missing) parts.unshift(make("p", {}, cell.missing));
  if (figures.length > 1)
    parts.unshift(make("p", {}, `${cell.text || "This cell"} is made of ${figures.length} figures.`));
  const names = [quoted(shown.rows[row].model), column + 1];
  const more = [
    `mergelab explain ${data.file} --cell ${quoted(shown.name)} ${(shown.turned ? names.reverse() : names).join(" ")}`,
  ];
  for (const figure of figures) {
    const stage = figure.stage === undefined ? null : data.stages[figure.stage];
    if (stage?.files?.some(([path]) => path === "samples.jsonl.gz"))
      more.push(`mergelab samples ${stage.name} ${data.file}`);
  }
  open(
    `${shown.rows[row].label} · ${shown.columns[column].label}`,
    `#cell-${table}-${row}-${column}`,
    ...parts,
    heading("More"),
    command(more.join("\n")),
  );
}

/** A word as a shell takes it. */
function quoted(word) {
  return /^[\w.+/=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Opens what an address names, such as `#cell-0-3-1`. */
function openPlace(hash) {
  const stage = /^#stage-(\d+)$/.exec(hash);
  const cell = /^#cell-(\d+)-(\d+)-(\d+)$/.exec(hash);
  const group = /^#group-(\d+)$/.exec(hash);
  if (stage) openStage(Number(stage[1]));
  if (group) openGroup(Number(group[1]));
  if (cell) openCell(...cell.slice(1).map(Number));
  return Boolean(stage || cell || group);
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-cell], a[href^='#stage-'], a[href^='#group-']");
  if (!opener) return;
  event.preventDefault();
  openPlace(opener.dataset.cell ? `#cell-${opener.dataset.cell}` : opener.getAttribute("href"));
});
