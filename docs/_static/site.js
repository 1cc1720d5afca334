// From file:// a page may not read another page, so the search shows titles there, and excerpts elsewhere.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// The menu of versions: the same page of another version, or its first page where that has none of this name.
addEventListener("DOMContentLoaded", () => {
  const { here = "", pages = {} } = globalThis.gradlabVersions ?? {};
  if (Object.keys(pages).length < 2) return;
  const root = document.documentElement.dataset.content_root;
  for (const menu of document.querySelectorAll(".version-menu")) {
    const select = menu.querySelector("select");
    select.append(...Object.keys(pages).map((name) => new Option(name, name, name === here, name === here)));
    select.addEventListener("change", () => {
      const name = select.value;
      const page = pages[name].includes(menu.dataset.page) ? menu.dataset.page : "index";
      select.value = here; // as it stands if one comes back
      location.href = `${root}../${name}/${page}.html`;
    });
    menu.hidden = false;
  }
});

// A long table is sorted by a click on a column's name, and the other way round by a second one. Numbers come before
// words, and what is missing comes last.
const LONG = 10; // rows

function place(cell) {
  const text = cell?.textContent.trim() ?? "";
  if (text === "" || text === "—") return [2, 0, ""];
  const number = parseFloat(text.replaceAll("−", "-").replaceAll(",", ""));
  return /^[−+-]?[.\d]/.test(text) ? [0, number, text] : [1, 0, text];
}

function sortBy(table, head, column) {
  const falling = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const turn = falling ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [place(row.cells[column]), row]);
  rows.sort(([[a, x, s]], [[b, y, t]]) => {
    if (a === 2 || b === 2) return a - b;
    return turn * (a - b || x - y || s.localeCompare(t));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table, main table")) {
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    if (table.tBodies.length !== 1 || table.tBodies[0].rows.length < LONG) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortBy(table, head, column));
      head.append(button);
    });
  }
});
