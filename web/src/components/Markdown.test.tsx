import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { Markdown } from "./Markdown";

const draw = (text: string) => renderToStaticMarkup(<Markdown text={text} />);

test.each([
  "<script>window.hacked = 1</script>",
  'hello <img src=x onerror="window.hacked = 1"> there',
  "<iframe src='https://evil.example'></iframe>",
  "<svg/onload=alert(1)>",
  "> <b onclick=alert(1)>quote</b>",
  "- <style>*{display:none}</style>",
  "| a |\n|--|\n| <script>x</script> |",
  "# <script>x</script>",
  "**<u onmouseover=x>**",
])("raw HTML is shown as the text it is: %s", (text) => {
  const html = draw(text);
  const tags = [...html.matchAll(/<\/?([a-z0-9]+)/g)].map((match) => match[1]);
  for (const tag of ["script", "img", "iframe", "svg", "b", "u", "style"]) {
    expect(tags).not.toContain(tag);
  }
  expect(html).toContain("&lt;");
  expect(html).not.toMatch(/<[^>]* on[a-z]+=/);
});

test.each([
  "[a](javascript:alert(1))",
  "[a](JAVASCRIPT:alert(1))",
  "[a](&#106;avascript:alert(1))",
  "[a](data:text/html;base64,PHNjcmlwdD4=)",
  "<javascript:alert(1)>",
  "[a][1]\n\n[1]: javascript:alert(1)",
  "![a](javascript:alert(1))",
])("an address that would run something is no link: %s", (text) => {
  expect(draw(text)).not.toContain("href");
});

test("a link opens apart from the page and tells it nothing", () => {
  expect(draw("[a](https://example.com)")).toContain('rel="noopener noreferrer nofollow"');
});

test("a remote image is offered as a link and not loaded", () => {
  const html = draw("![a cat](https://evil.example/pixel.png)");
  expect(html).not.toContain("<img");
  expect(html).toContain("a cat");
});

test("ordinary Markdown becomes the elements it means", () => {
  const html = draw(
    "## T\n\n**b** *i* `c` ~~d~~\n\n3. x\n4. y\n\n- [x] z\n\n> q\n\n|a|\n|--:|\n|1|",
  );
  for (const part of [
    '<h4 data-depth="2">T</h4>',
    "<strong>b</strong>",
    "<em>i</em>",
    "<code>c</code>",
    "<del>d</del>",
    '<ol start="3">',
    'type="checkbox"',
    "<blockquote>",
    '<td data-align="right">1</td>',
  ]) {
    expect(html).toContain(part);
  }
  expect(html).not.toContain("style=");
});

test("text with signs of HTML reads as it was written", () => {
  expect(draw("a &lt; b && c < d")).toBe(
    '<div class="markdown"><p>a &lt; b &amp;&amp; c &lt; d</p></div>',
  );
});
