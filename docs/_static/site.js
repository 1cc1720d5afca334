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
