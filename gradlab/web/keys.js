// Buttons with one key each; a key works anywhere in the explorer except in fields, on sliders and on charts.
const FIELDS = "input, textarea, select, [contenteditable='true'], [role='slider'], .gl-plot";
const RESTING = `${FIELDS}, button, a, summary`;

function render({ model, el }) {
  const bar = document.createElement("div");
  bar.className = "gradlab-keys";
  bar.tabIndex = 0;
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "answer with keys");
  const actions = model.get("actions");
  // The token says what was on the screen; an answer with another token does not count.
  const act = (name) => model.send({ act: name, token: model.get("token") });
  for (const { name, label, keys } of actions) {
    const button = document.createElement("button");
    button.textContent = label;
    button.className = "jupyter-button lm-Widget";
    button.dataset.act = name;
    button.setAttribute("aria-keyshortcuts", keys.join(" "));
    button.addEventListener("click", ({ detail }) => detail < 2 && act(name)); // a double click answers once
    bar.append(button);
  }
  el.append(bar);
  // JupyterLab looks for this on the focused element itself; else "d d" would delete the cell.
  el.addEventListener("focusin", ({ target }) => (target.dataset.lmSuppressShortcuts = "true"));

  const press = (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest("button")) return event.preventDefault(); // held
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.closest(FIELDS)) return;
    const found = actions.find(({ keys }) => keys.includes(event.key));
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    act(found.name);
  };
  const rest = (event) => {
    if (!event.target.closest(RESTING)) bar.focus({ preventScroll: true });
  };
  let explorer = null;
  let waiting = null;
  const begin = () => {
    explorer = el.closest(".gradlab-explorer");
    if (!explorer) return void (waiting = requestAnimationFrame(begin));
    explorer.querySelector(".gradlab-pair")?.parentElement.setAttribute("aria-live", "polite");
    explorer.addEventListener("keydown", press);
    explorer.addEventListener("click", rest);
  };
  begin();
  return () => {
    if (waiting !== null) cancelAnimationFrame(waiting);
    explorer?.removeEventListener("keydown", press);
    explorer?.removeEventListener("click", rest);
  };
}

export default { render };
