// Drags a policy on the lab's page in Firefox, and prints what there is to compare.
// tests/test_lab_page.py calls it.
import { inFirefox } from "./in_firefox.mjs";

await inFirefox(800, async (page) => {
  await page.waitForSelector(".gl-lab");
  const ready = () => globalThis.gradlabLab?.shells.grid?.element.ariaBusy === "false";
  while (!(await page.evaluate(ready))) await new Promise((done) => setTimeout(done, 50));
  const numbers = await page.evaluate(() => gradlabLab.shells.grid.view.numbers());
  await page.evaluate(() => gradlabLab.open("pair").history.set({ guess: "shown" }));
  const drawn = () => document.querySelector("[aria-label='policy']") !== null;
  while (!(await page.evaluate(drawn))) await new Promise((done) => setTimeout(done, 50));
  const [x, y] = await page.evaluate(() => {
    const box = document.querySelector("[aria-label='policy']").getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  });
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x - 60, y - 20, { steps: 4 });
  await page.mouse.up();
  const dragged = await page.evaluate(() => gradlabLab.shells.pair.history.state.win);
  await page.keyboard.down("Control");
  await page.keyboard.press("z");
  await page.keyboard.up("Control");
  const undone = await page.evaluate(() => gradlabLab.shells.pair.history.state.win);
  return { numbers, dragged, undone };
});
