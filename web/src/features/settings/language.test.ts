import { expect, test } from "vitest";
import { matchLanguage } from "./language";

test.each([
  [["zh-CN", "en"], "zh-CN"],
  [["zh-Hant-TW"], "zh-CN"],
  [["fr", "zh"], "zh-CN"],
  [["en-GB", "zh"], "en"],
  [["fr", "de"], "en"],
  [[], "en"],
])("a browser that prefers %j reads %s", (preferred, language) => {
  expect(matchLanguage(preferred)).toBe(language);
});
