// Tables that are sorted by their headings: once, the other way round, and as they were.

/** What a cell is sorted by: the number that it says, else its text; null where there is nothing. */
function rank(cell, numbersOf) {
  const said = numbersOf(cell) ?? cell.dataset.sort;
  if (said !== undefined) return said === null || said === "" ? null : said;
  return cell.textContent.trim();
}

function compare(one, other) {
  const numeric = [one, other].every(
    (value) => typeof value === "number" || (value !== "" && Number.isFinite(Number(value))),
  );
  return numeric ? Number(one) - Number(other) : String(one).localeCompare(String(other), undefined, { numeric: true });
}

/** Makes the headings of a table sort it. `higherFirst` says of a column which way the first press sorts. */
function sortable(table, numbersOf, higherFirst) {
  const body = table.tBodies[0];
  const asWritten = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", class: "sort" });
    const arrow = make("span", { class: "arrow", "aria-hidden": "true" });
    // A heading that leads elsewhere goes on doing so: the button stands beside it.
    if (head.querySelector("a")) {
      button.append(make("span", { class: "unseen" }, `Sort by ${head.textContent}`));
    } else {
      button.append(...head.childNodes);
    }
    button.insertBefore(arrow, button.querySelector("small"));
    head.append(button);
    const first = higherFirst(column) ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? null : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let rows = asWritten;
      if (next) {
        head.setAttribute("aria-sort", next);
        const of = new Map(asWritten.map((row) => [row, rank(row.cells[column], numbersOf)]));
        rows = [...asWritten].sort((one, other) => {
          const [a, b] = [of.get(one), of.get(other)];
          // What is not there comes last either way.
          if (a === null || b === null) return (a === null) - (b === null);
          return next === "ascending" ? compare(a, b) : compare(b, a);
        });
      }
      body.append(...rows);
    });
  });
}

function makeTablesSortable() {
  all("article.table").forEach((article) => {
    const shown = data.tables[Number(article.dataset.table)];
    const places = new Map();
    const table = article.querySelector("table");
    [...table.tBodies[0].rows].forEach((line, i) =>
      [...line.cells].slice(1).forEach((cell, j) => {
        const [row, head] = shown.turned ? [j, i] : [i, j];
        const [column, compares] = shown.heads[head];
        if (!compares) places.set(cell, shown.cells[row][column]);
      }),
    );
    // How far two values are apart begins with the number.
    const apart = (cell) => (cell.cellIndex > 0 ? parseFloat(cell.textContent.replace("−", "-")) : NaN);
    const number = (cell) => {
      const found = places.get(cell);
      if (found) return found.value ?? found.published?.value ?? null;
      return Number.isFinite(apart(cell)) ? apart(cell) : undefined;
    };
    const isHigherFirst = (place) => {
      if (place === 0 || shown.turned) return place > 0;
      return shown.columns[shown.heads[place - 1][0]].higher !== false;
    };
    sortable(table, number, isHigherFirst);
  });
  all("table.sorted").forEach((table) =>
    sortable(
      table,
      () => undefined,
      () => false,
    ),
  );
}
