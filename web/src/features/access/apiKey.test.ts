import { expect, test } from "vitest";
import { isPossibleKey, keyInFragment } from "./apiKey";

test.each([
  ["#key=fh-abc_123", "fh-abc_123"],
  ["#a=b&key=fh-1", "fh-1"],
  ["#key=", null],
  ["#key=two%20words", null],
  ["#key=%0d%0aX-Header:1", null],
  ["", null],
])("the fragment %j holds the key %j", (hash, key) => {
  expect(keyInFragment(hash)).toBe(key);
});

test("a key fits a header and a WebSocket subprotocol", () => {
  expect(isPossibleKey("fh-0aZ")).toBe(true);
  for (const text of ["", "a b", "a,b", "密钥", "a\n", "x".repeat(513)]) {
    expect(isPossibleKey(text)).toBe(false);
  }
});
