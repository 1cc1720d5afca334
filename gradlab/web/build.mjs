// Bundles src/index.ts into one file, and writes the licences of the packages that are in it.
// node build.mjs [FOLDER]: default is this folder. `make web` calls it.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ?? here;
const common = { absWorkingDir: here, bundle: true, minify: true, target: "es2022" };

// `import code from "./worker.ts?code"`: another file, bundled, as text, from which a page makes workers.
const asCode = {
  name: "code",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\?code$/ }, ({ path, resolveDir }) => ({
      path: relative(here, join(resolveDir, path.slice(0, -5))), namespace: "code",
    }));
    onLoad({ filter: /.*/, namespace: "code" }, async ({ path }) => {
      const { outputFiles } = await build({ ...common, entryPoints: [path], format: "iife", write: false });
      return { contents: outputFiles[0].text, loader: "text" };
    });
  },
};

const { metafile } = await build({
  ...common,
  entryPoints: ["src/index.ts"],
  outfile: join(folder, "gradlab.js"),
  format: "esm",
  plugins: [asCode],
  loader: { ".css": "text" },
  legalComments: "none", // the licences stand in full in the other file
  banner: { js: "// Built from src/ by `make web`; licences of others' code: gradlab.licenses.txt." },
  metafile: true,
});

const packages = new Set();
const parts = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
for (const [file, { bytesInOutput }] of parts) {
  const found = file.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found && bytesInOutput > 0) packages.add(found[1]);
}
if (!packages.size) throw new Error("node_modules must be a folder, not a link: the packages' licences are found by its name");
const notices = [...packages].sort().map((name) => {
  const at = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(at, "package.json"), "utf8"));
  const file = readdirSync(at).find((one) => /^licen[cs]e/i.test(one));
  if (!file) throw new Error(`${name} ${version} must bring its licence as a file`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(at, file), "utf8").trim()}\n`;
});
const rule = `\n${"-".repeat(80)}\n\n`;
const head = "gradlab.js contains code of these packages. gradlab's own licence is in LICENSE.\n";
writeFileSync(join(folder, "gradlab.licenses.txt"), [head, ...notices].join(rule));
