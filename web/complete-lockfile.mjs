// Completes package-lock.json after dependencies changed (`npm run lock`). Some registries do not
// serve the optional packages of platforms other than their users' own; npm then leaves them out of
// the lockfile, and `npm ci` refuses the lockfile it has written. They are described here from their
// names, without a digest, since nobody can install them from such a registry anyway.
import { readFileSync, writeFileSync } from "node:fs";

const SYSTEMS = ["aix", "android", "darwin", "freebsd", "linux", "openharmony", "win32"];
const PROCESSORS = ["arm", "arm64", "ia32", "ppc64", "riscv64", "s390x", "wasm32", "x64"];
const PATH = new URL("package-lock.json", import.meta.url);

const lock = JSON.parse(readFileSync(PATH, "utf8"));
const described = new Set(
  Object.keys(lock.packages).map((path) => path.split("node_modules/").at(-1)),
);
for (const { optionalDependencies = {}, dev } of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies)) {
    if (described.has(name)) continue;
    described.add(name);
    lock.packages[`node_modules/${name}`] = describe(name, version, dev);
    console.log(`described ${name} ${version}`);
  }
}
const paths = Object.keys(lock.packages).toSorted((a, b) => (a < b ? -1 : 1));
lock.packages = Object.fromEntries(paths.map((path) => [path, lock.packages[path]]));
writeFileSync(PATH, `${JSON.stringify(lock, null, 2)}\n`);

function describe(name, version, dev) {
  const words = name.split(/[-/]/);
  const os = SYSTEMS.filter((system) => words.includes(system));
  const cpu = PROCESSORS.filter((processor) => words.includes(processor));
  if (os.length + cpu.length === 0 || !/^\d/.test(version)) {
    throw new Error(`${name} ${version} is no exact package of one platform: describe it by hand.`);
  }
  return { version, ...(cpu.length && { cpu }), ...(dev && { dev }), optional: true, os };
}
