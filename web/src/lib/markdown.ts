// The pure half of showing Markdown while it is still being written: cutting it into blocks, calming
// the unfinished end, and deciding which addresses may be followed. It makes no elements: see
// components/Markdown.tsx.
import { Lexer, type Token } from "marked";

/**
 * The blocks of a Markdown text. With `isStreaming`, the unfinished end is healed first. A text nested
 * too deeply to be read (thousands of `>`) comes back as it is, in one paragraph.
 */
export function parseMarkdown(text: string, isStreaming = false): Token[] {
  if (isNestedTooDeeply(text)) {
    return [{ type: "paragraph", raw: text, text, tokens: [{ type: "escape", raw: text, text }] }];
  }
  return new Lexer({ gfm: true, breaks: false }).lex(isStreaming ? healTail(text) : text);
}

function isNestedTooDeeply(text: string): boolean {
  return /^(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])(?=[ \t>])){40}/m.test(text) || /[*_~[]{200}/.test(text);
}

/**
 * Closes what the last paragraph has opened (`**bold`, `` `code ``) and holds back a half-written
 * link, so that a streamed answer does not flicker between raw signs and formatted text.
 */
export function healTail(text: string): string {
  if (isInsideFence(text)) return text;
  const start = text.lastIndexOf("\n\n") + 1;
  let tail = text.slice(start);
  tail = tail.replace(/!?\[[^\]\n]{0,300}\]\([^)\s]{0,2000}$/, "");
  tail = tail.replace(/(^|\s)(\*{1,2}|_{1,2}|~~|`)$/, "$1");
  if (countOf(tail, "`") % 2 === 1) return text.slice(0, start) + tail + "`";
  const prose = tail.replace(/`[^`]*`/g, "");
  for (const mark of ["**", "~~"]) {
    if (countOf(prose, mark) % 2 === 1) tail = tail.trimEnd().replace(/\*$/, "") + mark;
  }
  return text.slice(0, start) + tail;
}

/** The address if a person may follow it from an answer, else null. */
export function safeHref(href: string): string | null {
  try {
    const url = new URL(href);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null; // relative addresses would point into the gateway
  }
}

/** The source of an image that carries its own pixels; remote images are never loaded. */
export function embeddedImage(src: string): string | null {
  return /^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=]+$/i.test(src) ? src : null;
}

const NAMED_ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  mdash: "—",
  ndash: "–",
  hellip: "…",
  times: "×",
  middot: "·",
  rarr: "→",
};

/** Replaces the character references that Markdown allows in running text; unknown ones stay. */
export function decodeEntities(text: string): string {
  return text.replace(/&(#x[0-9a-f]{1,6}|#[0-9]{1,7}|[a-z]{2,8});/gi, (whole, name: string) => {
    if (!name.startsWith("#")) return NAMED_ENTITIES[name] ?? whole;
    const isHex = name[1] === "x" || name[1] === "X";
    const code = isHex ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
    const isCharacter = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return isCharacter ? String.fromCodePoint(code) : "\ufffd";
  });
}

function isInsideFence(text: string): boolean {
  let fence: string | null = null;
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (mark === undefined) continue;
    if (fence === null) fence = mark;
    else if (mark[0] === fence[0] && mark.length >= fence.length) fence = null;
  }
  return fence !== null;
}

function countOf(text: string, mark: string): number {
  return text.split(mark).length - 1;
}
