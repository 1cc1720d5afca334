// Opens the lab's page in Firefox, drags a policy, and prints what there is to compare.
// node test/firefox_lab.mjs FIREFOX ADDRESS; tests/test_lab_page.py calls it.
import { launch } from "puppeteer-core";

const [executablePath, address] = process.argv.slice(2);
const browser = await launch({ browser: "firefox", executablePath, headless: true });
try {
  const page = await browser.newPage();
  const problems = [];
  page.on("console", (message) => problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => /^(file|blob|data):/.test(request.url()) || problems.push(request.url()));
  await page.setViewport({ width: 1280, height: 800 });
  await page.goto(address);
  await page.waitForSelector(".gl-lab");
  const ready = () => globalThis.gradlabLab && gradlabLab.grid.element.ariaBusy === "false";
  while (!(await page.evaluate(ready))) await new Promise((done) => setTimeout(done, 50));
  const numbers = await page.evaluate(() => gradlabLab.grid.numbers());
  await page.evaluate(() => gradlabLab.history.set({ view: "pair", "pair.guess": "shown" }));
  const [x, y] = await page.evaluate(() => {
    const box = document.querySelector("[aria-label='policy']").getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  });
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x - 60, y - 20, { steps: 4 });
  await page.mouse.up();
  const dragged = await page.evaluate(() => gradlabLab.history.state["pair.win"]);
  await page.keyboard.down("Control");
  await page.keyboard.press("z");
  await page.keyboard.up("Control");
  const undone = await page.evaluate(() => gradlabLab.history.state["pair.win"]);
  console.log(JSON.stringify({ problems, numbers, dragged, undone }));
} finally {
  await browser.close();
}
