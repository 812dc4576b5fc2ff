// Builds the page into src/affekt/serving/page/: scripts in one file each, the runtime of onnxruntime-web compressed, and the
// licenses of everything that is in them.

import { build } from "esbuild";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const OUTPUT = new URL("../src/affekt/serving/page/", import.meta.url);
const RUNTIME = "ort-wasm-simd-threaded.wasm";
const PACKAGES = {
  "onnxruntime-web": "licenses/onnxruntime-web.txt", // its package has no license file
  "wavesurfer.js": "node_modules/wavesurfer.js/LICENSE",
  mediabunny: "node_modules/mediabunny/LICENSE",
  comlink: "node_modules/comlink/LICENSE",
};

const here = (path) => new URL(path, import.meta.url);
const output = (name) => new URL(name, OUTPUT);

await rm(OUTPUT, { recursive: true, force: true });
await mkdir(OUTPUT, { recursive: true });
await build({
  entryPoints: ["src/app.js", "src/worker.js", "src/capture.worklet.js"].map((path) => here(path).pathname),
  outdir: OUTPUT.pathname,
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  minify: true,
  legalComments: "none",
  logLevel: "warning",
  external: ["node:*", "module", "fs", "path", "worker_threads"],
});
for (const name of ["index.html", "style.css", "icon.svg"]) await copyFile(here(`static/${name}`), output(name));
const runtime = await readFile(here(`node_modules/onnxruntime-web/dist/${RUNTIME}`));
await writeFile(output(`${RUNTIME}.gz`), gzipSync(runtime, { level: 9 }));
await writeFile(output("notices.txt"), await notices());

async function notices() {
  const parts = ["This page contains the following packages from https://www.npmjs.com, with these licenses."];
  for (const name of Object.keys(PACKAGES)) {
    const { version, license, homepage } = JSON.parse(await readFile(here(`node_modules/${name}/package.json`), "utf8"));
    const text = (await readFile(here(PACKAGES[name]), "utf8")).trim();
    const source = homepage ?? `https://www.npmjs.com/package/${name}`;
    parts.push(`${name} ${version} (${license}), ${source}\n\n${text}`);
  }
  return `${parts.join(`\n\n${"=".repeat(80)}\n\n`)}\n`;
}
