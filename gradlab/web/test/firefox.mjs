// Opens a page in Firefox, moves the pointer to a place that the page names, and prints what there is to compare.
// node test/firefox.mjs FIREFOX ADDRESS; tests/test_web_browser.py calls it. Playwright drives only its own Firefox.
import { launch } from "puppeteer-core";

const [executablePath, address] = process.argv.slice(2);
const browser = await launch({ browser: "firefox", executablePath, headless: true });
try {
  const page = await browser.newPage();
  const problems = [];
  page.on("console", (message) => problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => /^(file|blob|data):/.test(request.url()) || problems.push(request.url()));
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(address);
  await page.waitForFunction("document.body.dataset.ready === 'yes'");
  const [x, y] = await page.evaluate(() => {
    const box = document.querySelectorAll(".gl-plot")[1].querySelector("canvas").getBoundingClientRect();
    return [box.x + (6.5 * box.width) / 20, box.y + (7.5 * box.height) / 20];
  });
  await page.mouse.move(x, y);
  const readings = await page.$$eval(".gl-plot output", (all) => all.map((one) => one.textContent));
  const utility = await page.evaluate(() =>
    Object.values(trained).map((steps) => lab.metrics.expectedUtility(steps.at(-1), world.utility, world.responses)),
  );
  const [pool, times] = await page.evaluate(async () => {
    const pool = new lab.Pool(2);
    const logp = await pool.train(job("bDPO"));
    const times = [];
    for (let turn = 0; turn < 20; turn++) {
      const began = performance.now();
      await Promise.all([pool.train(job("DPO")), pool.train(job("bDPO"))]);
      times.push(performance.now() - began);
    }
    pool.close();
    return [logp.every((value, at) => value === trained.bDPO[Math.floor(at / 400)][at % 400]), times];
  });
  await page.focus(".gl-plot:nth-of-type(3)");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const typed = await page.$$eval(".gl-plot output", (all) => all.map((one) => one.textContent));
  console.log(JSON.stringify({ problems, readings, utility, pool, times, typed }));
} finally {
  await browser.close();
}
