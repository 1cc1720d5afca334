// Bundles src/index.ts into gradlab.js, and writes the licences of the packages that are in it; and src/rating.ts into
// rating.js, which has no packages: a classic script that a page may have inside it, with all names in gradlabRating.
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

const rating = await build({
  ...common,
  entryPoints: ["src/rating.ts"],
  outfile: join(folder, "rating.js"),
  format: "iife",
  globalName: "gradlabRating",
  banner: { js: "// Built from src/rating.ts by `make web`." },
  metafile: true,
});
const foreign = partsOf(rating.metafile).filter(([file]) => file.startsWith("node_modules/"));
if (foreign.length) throw new Error(`rating.js must have no packages in it, got ${foreign.map(([file]) => file).join(", ")}`);

/** The files in what was built, each with its bytes there, where there are some. */
function partsOf({ outputs }) {
  return Object.values(outputs).flatMap(({ inputs }) => Object.entries(inputs)).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
}

const packages = new Set();
for (const [file] of partsOf(metafile)) {
  const found = file.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) packages.add(found[1]);
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
