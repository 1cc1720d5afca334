// Puts live explorers in place of their pictures; lab-bundle.js and lab-given.js have been loaded before.
// A page that is opened from a folder may not load modules, so the front end comes as a text.
globalThis.gradlabLive = (async () => {
  const note = (root, error) => {
    const line = document.createElement("p");
    line.setAttribute("role", "status");
    line.textContent = `The live explorer does not run here: ${error.message ?? error}`;
    root.append(line);
  };

  // The live one is built beside the picture, which goes when all is well.
  const replace = async (place, mount) => {
    const root = document.createElement("div");
    root.className = "gradlab-live";
    place.prepend(root);
    try {
      const live = await mount(root);
      place.replaceChildren(root);
      return live;
    } catch (error) {
      root.remove();
      note(place, error);
    }
  };

  // What an explorer is given, with the start values of its cell, to which Reset returns; links lead to the first page.
  const root = document.documentElement.dataset.content_root;
  const page = root && new URL(`${root}index.html`, location.href).href;
  const givenAt = (name, start) => {
    const spec = gradlabGiven.explorers[name];
    const values = Object.entries(start).map(([key, value]) => [key, { ...spec.controls[key], start: value }]);
    const changed = { ...spec, controls: { ...spec.controls, ...Object.fromEntries(values) } };
    return { ...gradlabGiven, page, explorers: { ...gradlabGiven.explorers, [name]: changed } };
  };

  const lab = document.getElementById("gradlab-lab");
  const known = (place) => place.dataset.explorer in gradlabGiven.explorers;
  const places = [...document.querySelectorAll(".gradlab-place")].filter(known);
  if (!lab && !places.length) return;
  const url = URL.createObjectURL(new Blob([gradlabBundle], { type: "text/javascript" }));
  let web;
  try {
    web = await import(url);
  } catch (error) {
    note(lab ?? places[0].parentElement, error);
    return;
  } finally {
    URL.revokeObjectURL(url);
  }
  if (lab && web.mountLab) globalThis.gradlabLab = await replace(lab, (root) => web.mountLab(root, gradlabGiven));
  if (!web.mountExplorer) return;
  for (const place of places) {
    const { explorer, start } = place.dataset;
    const mount = (root) => web.mountExplorer(root, givenAt(explorer, JSON.parse(start)), explorer);
    await replace(place.closest(".cell_output"), mount);
  }
})();
