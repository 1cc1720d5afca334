// Rates a few items on a rater's page in Firefox, opens it again and goes on; prints what the browser kept.
// tests/test_rating_browser.py calls it.
import { inFirefox } from "./in_firefox.mjs";

await inFirefox(800, async (page) => {
  const begin = async () => {
    await (await page.waitForSelector(".gl-rating input[type=checkbox]")).click();
    await (await page.waitForSelector(".gl-rating .gl-screen button.gl-main:enabled")).click();
  };
  await begin();
  for (const key of ["ArrowLeft", "ArrowRight", "ArrowLeft", "Backspace", "ArrowDown"]) await page.keyboard.press(key);
  await page.waitForSelector('.gl-rating[data-done="3"]');
  await page.reload();
  const again = await (await page.waitForSelector(".gl-rating")).evaluate((form) => form.dataset.done);
  await begin();
  await (await page.waitForSelector("[data-choice=left]")).click();
  await page.waitForSelector('.gl-rating[data-done="4"]');
  const kept = await page.evaluate(() => Object.entries(localStorage).find(([name]) => name.startsWith("gradlab study"))[1]);
  return { again, kept };
});
