// Shows a PNG that Python sends; data-frame counts the pictures that are really on the screen.
function render({ model, el }) {
  const image = document.createElement("img");
  image.className = "gradlab-picture";
  image.dataset.frame = "0";
  let shown = null;
  const draw = () => {
    const png = model.get("png");
    if (!png || png.byteLength === 0) return;
    const url = URL.createObjectURL(new Blob([png], { type: "image/png" }));
    const former = shown;
    shown = url;
    image.src = url;
    image.decode().catch(() => {}).then(() => {
      if (former) URL.revokeObjectURL(former);
      if (shown === url) image.dataset.frame = String(Number(image.dataset.frame) + 1);
    });
  };
  const describe = () => {
    image.alt = model.get("alt");
    image.style.width = `${model.get("width")}px`;
  };
  model.on("change:png", draw);
  model.on("change:alt change:width", describe);
  describe();
  draw();
  el.append(image);
  return () => {
    model.off("change:png", draw);
    model.off("change:alt change:width", describe);
    if (shown) URL.revokeObjectURL(shown);
  };
}

export default { render };
