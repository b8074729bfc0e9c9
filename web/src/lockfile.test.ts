// What the committed lockfile promises: `npm ci` accepts it, and it names no registry.
// Made by `npm run lock`.
import { expect, test } from "vitest";
import text from "../package-lock.json?raw";

interface Entry {
  readonly version?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const packages = Object.entries((JSON.parse(text) as { packages: Record<string, Entry> }).packages);

test("every optional platform package is described, so that npm ci accepts the lockfile", () => {
  const described = new Set(
    packages
      .filter(([, { version }]) => version)
      .map(([path]) => path.split("node_modules/").at(-1)),
  );
  const named = packages.flatMap(([, entry]) => Object.keys(entry.optionalDependencies ?? {}));
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((name) => !described.has(name))).toEqual([]);
});

test("the lockfile names no registry and no machine's path", () => {
  expect(text).not.toMatch(/"resolved"|registry\.|file:/);
});
