// Moves the pointer in Firefox to a place that the page names, and prints what there is to compare.
// tests/test_web_browser.py calls it.
import { inFirefox } from "./in_firefox.mjs";

await inFirefox(900, async (page) => {
  await page.waitForFunction("document.body.dataset.ready === 'yes'");
  const [x, y] = await page.evaluate(() => {
    const box = document.querySelectorAll(".gl-plot")[1].querySelector("canvas").getBoundingClientRect();
    return [box.x + (6.5 * box.width) / 20, box.y + (7.5 * box.height) / 20];
  });
  await page.mouse.move(x, y);
  const readings = await page.$$eval(".gl-plot output", (all) => all.map((one) => one.textContent));
  const utility = await page.evaluate(() =>
    Object.values(trained).map((steps) => lab.metricsOf([steps.at(-1)], world)[0].utility),
  );
  const pool = await page.evaluate(async () => {
    const pool = new lab.Pool(2);
    const [, logp] = await Promise.all([pool.train(job("DPO")), pool.train(job("bDPO"))]);
    pool.close();
    return logp.every((value, at) => value === trained.bDPO[Math.floor(at / 400)][at % 400]);
  });
  await page.focus(".gl-plot:nth-of-type(3)");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const typed = await page.$$eval(".gl-plot output", (all) => all.map((one) => one.textContent));
  return { readings, utility, pool, typed };
});
