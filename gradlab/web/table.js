// A table with proper headings. If a row can be chosen, its heading is a button. All text is inserted as text.
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "gradlab-table";
  box.tabIndex = 0; // so that keys can scroll it
  box.setAttribute("role", "region");
  el.append(box);
  // JupyterLab looks for this on the focused element itself; else "d d" would delete the cell.
  el.addEventListener("focusin", ({ target }) => (target.dataset.lmSuppressShortcuts = "true"));

  const cell = (kind, text, scope) => {
    const made = document.createElement(kind);
    if (scope) made.scope = scope;
    made.textContent = text;
    return made;
  };

  const heading = (text, index) => {
    const made = cell("th", "", "row");
    if (!model.get("selectable")) {
      made.textContent = text;
      return made;
    }
    const button = cell("button", text);
    button.addEventListener("click", () => {
      model.set("chosen", index);
      model.save_changes();
    });
    made.append(button);
    return made;
  };

  const mark = () => {
    const chosen = model.get("chosen");
    box.querySelectorAll("tbody tr").forEach((row, index) => {
      row.toggleAttribute("data-chosen", index === chosen);
      row.querySelector("button")?.setAttribute("aria-pressed", String(index === chosen));
    });
    const row = box.querySelector("tr[data-chosen]");
    const seen = row && row.offsetTop >= box.scrollTop && row.offsetTop + row.offsetHeight <= box.scrollTop + box.clientHeight;
    if (row && !seen) box.scrollTop = row.offsetTop - 40;
  };

  const draw = () => {
    const table = document.createElement("table");
    const caption = table.createCaption();
    caption.textContent = model.get("caption");
    box.setAttribute("aria-label", model.get("caption"));
    const head = model.get("head");
    const top = table.createTHead().insertRow();
    head.forEach((text) => top.append(cell("th", text, "col")));
    const body = table.createTBody();
    model.get("rows").forEach((texts, index) => {
      const row = body.insertRow();
      texts.forEach((text, place) => {
        const made = place ? cell("td", text) : heading(text, index);
        if (head[place] === "word") made.dataset.word = text;
        row.append(made);
      });
    });
    box.replaceChildren(table);
    mark();
  };

  const again = "change:caption change:head change:rows change:selectable";
  model.on(again, draw);
  model.on("change:chosen", mark);
  draw();
  return () => {
    model.off(again, draw);
    model.off("change:chosen", mark);
  };
}

export default { render };
