// Opens a page in Firefox and notes its problems: Playwright drives only its own Firefox.
// Files of this folder that use it are called as node FILE FIREFOX ADDRESS.
import { launch } from "puppeteer-core";

/** Gives `look` the page and prints, as JSON, what it returns; with `problems`: messages, errors, addresses from outside. */
export async function inFirefox(height, look) {
  const [executablePath, address] = process.argv.slice(2);
  const browser = await launch({ browser: "firefox", executablePath, headless: true });
  try {
    const page = await browser.newPage();
    const problems = [];
    page.on("console", (message) => problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("request", (request) => /^(file|blob|data):/.test(request.url()) || problems.push(request.url()));
    await page.setViewport({ width: 1280, height });
    await page.goto(address);
    console.log(JSON.stringify({ problems, ...(await look(page)) }));
  } finally {
    await browser.close();
  }
}
