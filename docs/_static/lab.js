// Puts live explorers in place of their pictures; lab-bundle.js and lab-given.js have been loaded before.
// A page that is opened from a folder may not load modules, so the front end comes as a text.
(async () => {
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

  const lab = document.getElementById("gradlab-lab");
  const places = [...document.querySelectorAll(".gradlab-place")].filter((place) => place.dataset.explorer in gradlabGiven);
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
    const { explorer, state } = place.dataset;
    const mount = (root) => web.mountExplorer(root, gradlabGiven, explorer, JSON.parse(state));
    await replace(place.closest(".cell_output"), mount);
  }
})();
