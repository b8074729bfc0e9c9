// The page's import rule: shared (components, lib, api) → features → app, and features do not know
// each other. It reads every source file's imports.
import { expect, test } from "vitest";

const sources = import.meta.glob<string>("./**/*.{ts,tsx}", {
  query: "?raw",
  import: "default",
  eager: true,
});

const FLOORS: Record<string, number> = { api: 0, components: 0, lib: 0, features: 1, app: 2 };

function breaches(path: string, source: string): string[] {
  const [, room = "", feature] = path.split("/");
  const floor = FLOORS[room];
  if (floor === undefined) return [`${path} is in none of the rooms`];
  const targets = [...source.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((m) => m[1] ?? "");
  return targets.flatMap((target) => {
    if (/^\.\.?\/.*\.\.\//.test(target) || target.startsWith("../")) {
      return [`${path} imports ${target}: write it from "@/"`];
    }
    const [at, targetRoom = "", targetFeature] = target.split("/");
    if (at !== "@") return [];
    const targetFloor = FLOORS[targetRoom];
    const isAllowed =
      targetFloor !== undefined &&
      targetFloor <= floor &&
      (room !== "features" || targetRoom !== "features" || targetFeature === feature);
    return isAllowed ? [] : [`${path} imports ${target}`];
  });
}

test("imports go from shared to features to app only", () => {
  const files = Object.entries(sources).filter(([path]) => !/^\.\/\w+\.test\.ts$/.test(path));
  expect(files.length).toBeGreaterThan(30);
  expect(files.flatMap(([path, source]) => breaches(path, source))).toEqual([]);
});

test("an import against the rule is found", () => {
  expect(breaches("./lib/x.ts", 'import { y } from "@/features/chat/y";')).toHaveLength(1);
  expect(breaches("./features/chat/x.ts", 'import { y } from "@/app/y";')).toHaveLength(1);
  expect(breaches("./features/chat/x.ts", 'import { y } from "@/features/models/y";')).toHaveLength(
    1,
  );
  expect(breaches("./lib/x.ts", 'import { y } from "../app/y";')).toHaveLength(1);
});
