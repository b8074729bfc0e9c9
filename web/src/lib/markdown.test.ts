import { expect, test } from "vitest";
import { decodeEntities, embeddedImage, healTail, parseMarkdown, safeHref } from "./markdown";

const ANSWER = [
  "Returns within **30 days** [2], see [the page](https://example.com/a_b) or `RETURN`.\n\n",
  "```python\nprint('**not bold**')  # ` a tick\n```\n\n",
  "1. one\n2. *two* ~~three~~\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n",
].join("");

function textsOf(text: string, isStreaming: boolean): string[] {
  return parseMarkdown(text, isStreaming)
    .map((block) => block.raw.trim())
    .filter(Boolean);
}

test("every prefix of an answer parses, and its finished blocks stay as they are", () => {
  const whole = textsOf(ANSWER, false);
  for (let length = 1; length <= ANSWER.length; length++) {
    const finished = textsOf(ANSWER.slice(0, length), true).slice(0, -1);
    expect(whole.slice(0, finished.length)).toEqual(finished);
  }
});

test("a code block is one from its opening fence on", () => {
  const [block] = parseMarkdown("```ts\nconst a = 1;", true);
  expect(block).toMatchObject({ type: "code", lang: "ts", text: "const a = 1;" });
});

test.each([
  ["a **bo", "a **bo**"],
  ["a **bold*", "a **bold**"],
  ["a **", "a "],
  ["run `ls", "run `ls`"],
  ["see [the page](https://exa", "see "],
  ["see [2]", "see [2]"],
  ["~~old", "~~old~~"],
  ["**done** ", "**done** "],
  ["a **b**\n\nplain", "a **b**\n\nplain"],
  ["```\n**in code", "```\n**in code"],
  ["`a ** b` x", "`a ** b` x"],
  ["2 * 3", "2 * 3"],
])("the end of %j is calmed to %j", (text, healed) => {
  expect(healTail(text)).toBe(healed);
});

test.each([
  ["https://example.com/x", "https://example.com/x"],
  ["mailto:a@example.com", "mailto:a@example.com"],
  ["javascript:alert(1)", null],
  ["JaVaScRiPt:alert(1)", null],
  ["java\nscript:alert(1)", null],
  ["data:text/html,<script>", null],
  ["vbscript:x", null],
  ["file:///etc/passwd", null],
  ["/v1/models", null],
  ["//evil.example", null],
])("the address %j may be followed as %j", (href, safe) => {
  expect(safeHref(href)).toBe(safe);
});

test("only an image that carries its own pixels is shown", () => {
  expect(embeddedImage("data:image/png;base64,AAAA")).not.toBeNull();
  expect(embeddedImage("https://evil.example/x.png")).toBeNull();
  expect(embeddedImage("data:image/svg+xml;base64,AAAA")).toBeNull();
});

test("character references are read once, and an impossible one does no harm", () => {
  expect(decodeEntities("a &lt;b&gt; &amp;amp; &#20320;&#x597d; &unknown;")).toBe(
    "a <b> &amp; 你好 &unknown;",
  );
  expect(decodeEntities("&#0;&#xffffff;&#xd800;")).toBe("\ufffd\ufffd\ufffd");
});

test.each([">", "- ", "*", "[", "1. "])("%j ten thousand times over is still shown", (mark) => {
  const text = mark.repeat(10_000);
  const startedAt = performance.now();
  expect(parseMarkdown(text).length).toBeGreaterThan(0);
  expect(performance.now() - startedAt).toBeLessThan(2_000);
});
