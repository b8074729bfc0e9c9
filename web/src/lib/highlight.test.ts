import { expect, test } from "vitest";
import { highlight } from "./highlight";

const kindsOf = (code: string, language: string) =>
  highlight(code, language)
    .filter((piece) => piece.kind !== "plain")
    .map((piece) => [piece.kind, piece.text]);

test.each([
  ["def f(x):\n    return 'a' # c\n", "python"],
  ['const s = `a ${b}`; // "c"\n/* open', "ts"],
  ["select * from t -- all\nwhere a = 'it''s'", "sql"],
  ['echo "$X" # y\n\'unclosed', "bash"],
  ["<b>anything</b>", "nosuch"],
  ["你好 = 1", "py"],
])("the pieces of %j joined are the code", (code, language) => {
  expect(
    highlight(code, language)
      .map((piece) => piece.text)
      .join(""),
  ).toBe(code);
});

test("what looks like code inside a string or comment is not coloured as code", () => {
  expect(kindsOf("return 'if 1' # for 2", "python")).toEqual([
    ["keyword", "return"],
    ["string", "'if 1'"],
    ["comment", "# for 2"],
  ]);
});

test("calls, numbers and keywords of any case are told apart", () => {
  expect(kindsOf("print(x1, 0x1F)", "python")).toEqual([
    ["call", "print"],
    ["number", "0x1F"],
  ]);
  expect(kindsOf("SELECT a", "SQL")).toEqual([["keyword", "SELECT"]]);
});

test("a very long block is shown plainly and at once", () => {
  expect(highlight("x = '".repeat(100_000), "python")).toHaveLength(1);
});
