// Buttons that copy or save results; names for controls that have none; and no notebook shortcuts inside an explorer.
const KINDS = {
  python: { label: "Copy as Python", title: "Copy code that computes what is shown" },
  csv: { label: "CSV", title: "Save the numbers shown", type: "text/csv" },
  png: { label: "PNG", title: "Save the picture shown", type: "image/png" },
};

const FOCUSABLE = "button, select, input, textarea, summary, a, .noUi-handle, [tabindex], [contenteditable]";

function nameControls(explorer) {
  // On the focused element itself, since that is where JupyterLab looks first.
  explorer.querySelectorAll(FOCUSABLE).forEach((one) => (one.dataset.lmSuppressShortcuts = "true"));
  for (const row of explorer.querySelectorAll(".widget-inline-hbox")) {
    const label = row.querySelector(".widget-label")?.textContent.trim();
    if (!label) continue;
    // The number beside a slider cannot be typed in; screen readers say that number, not the stop's index.
    const readout = row.querySelector(".widget-readout");
    if (readout?.isContentEditable) readout.contentEditable = "false";
    row.querySelectorAll(".noUi-handle").forEach((handle) => {
      handle.setAttribute("aria-label", label);
      if (readout && handle.getAttribute("aria-valuetext") !== readout.textContent) {
        handle.setAttribute("aria-valuetext", readout.textContent);
      }
    });
  }
  // Screen readers watch the element that stays, not the text that changes.
  explorer.querySelector(".gradlab-status")?.parentElement.setAttribute("role", "status");
}

function save(name, bytes, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function render({ model, el }) {
  const bar = document.createElement("div");
  bar.className = "gradlab-tools";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  let asked = false; // every view of the explorer gets the answer, but only one view asked
  for (const [kind, { label, title }] of Object.entries(KINDS)) {
    const button = document.createElement("button");
    button.textContent = label;
    button.title = title;
    button.className = "jupyter-button lm-Widget";
    button.dataset.kind = kind;
    button.addEventListener("click", () => {
      asked = true;
      model.send({ want: kind });
    });
    bar.append(button);
  }
  bar.append(said);
  el.append(bar);

  const receive = async (message, buffers) => {
    if (!asked) return;
    asked = false;
    if (message.error) {
      said.textContent = message.error;
      return;
    }
    const name = `${model.get("name")}.${message.kind}`;
    if (message.kind !== "python") {
      save(name, buffers[0], KINDS[message.kind].type);
      said.textContent = `saved as ${name}`;
      return;
    }
    try {
      await navigator.clipboard.writeText(new TextDecoder().decode(buffers[0]));
      said.textContent = "copied";
    } catch {
      said.textContent = "the browser does not let a page copy; use explorer.as_python()";
    }
  };
  model.on("msg:custom", receive);

  let watcher = null;
  const begin = () => {
    const explorer = el.closest(".gradlab-explorer");
    if (!explorer) return void (watcher = requestAnimationFrame(begin));
    explorer.setAttribute("role", "group");
    explorer.setAttribute("aria-label", `${model.get("name")} explorer`);
    nameControls(explorer);
    watcher = new MutationObserver(() => nameControls(explorer));
    watcher.observe(explorer, { childList: true, subtree: true });
  };
  begin();
  return () => {
    model.off("msg:custom", receive);
    if (typeof watcher === "number") cancelAnimationFrame(watcher);
    else watcher?.disconnect();
  };
}

export default { render };
