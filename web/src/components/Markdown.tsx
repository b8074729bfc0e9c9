// Markdown as React elements. No HTML string is ever made: raw HTML in a model's output is shown as
// the text it is, links open apart from the page, and remote images are not loaded.
// The pure half is lib/markdown.ts.
import type { Token, Tokens } from "marked";
import { createElement, memo, useMemo, type ReactNode } from "react";
import { decodeEntities, embeddedImage, parseMarkdown, safeHref } from "@/lib/markdown";
import { CodeBlock } from "./CodeBlock";

interface MarkdownProps {
  readonly text: string;
  readonly isStreaming?: boolean;
}

export const Markdown = memo(function Markdown({ text, isStreaming = false }: MarkdownProps) {
  const blocks = useMemo(() => parseMarkdown(text, isStreaming), [text, isStreaming]);
  return (
    <div className="markdown">
      {blocks.map((token, index) => (
        // oxlint-disable-next-line react/no-array-index-key -- blocks only grow at the end
        <Block key={index} raw={token.raw} token={token} />
      ))}
    </div>
  );
});

interface BlockProps {
  /** The block's source: a block whose source is unchanged is not drawn again. */
  readonly raw: string;
  readonly token: Token;
}

const Block = memo(
  ({ token }: BlockProps) => drawBlock(token),
  (before, after) => before.raw === after.raw,
);
Block.displayName = "Block";

function drawAll(tokens: readonly Token[] | undefined, draw: (token: Token) => ReactNode) {
  return (tokens ?? []).map((token, index) => (
    // oxlint-disable-next-line react/no-array-index-key -- a parsed text has no other identity
    <Piece key={index}>{draw(token)}</Piece>
  ));
}

function Piece({ children }: { readonly children: ReactNode }) {
  return children;
}

function drawBlock(token: Token): ReactNode {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      // An answer's headings stand below the page's own first and second level.
      return createElement(
        `h${Math.min(6, (token as Tokens.Heading).depth + 2)}`,
        { "data-depth": (token as Tokens.Heading).depth },
        drawAll(token.tokens, drawInline),
      );
    case "paragraph":
      return <p>{drawAll(token.tokens, drawInline)}</p>;
    case "code":
      return <CodeBlock code={token.text} language={firstWord((token as Tokens.Code).lang)} />;
    case "blockquote":
      return <blockquote>{drawAll(token.tokens, drawBlock)}</blockquote>;
    case "hr":
      return <hr />;
    case "list":
      return drawList(token as Tokens.List);
    case "table":
      return drawTable(token as Tokens.Table);
    case "text":
      return token.tokens ? drawAll(token.tokens, drawInline) : decodeEntities(token.text);
    case "html":
      return <p>{token.raw.trimEnd()}</p>;
    default:
      return drawInline(token);
  }
}

function drawInline(token: Token): ReactNode {
  switch (token.type) {
    case "strong":
      return <strong>{drawAll(token.tokens, drawInline)}</strong>;
    case "em":
      return <em>{drawAll(token.tokens, drawInline)}</em>;
    case "del":
      return <del>{drawAll(token.tokens, drawInline)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "link":
      return drawLink(token as Tokens.Link);
    case "image":
      return drawImage(token as Tokens.Image);
    case "text":
      return token.tokens ? drawAll(token.tokens, drawInline) : decodeEntities(token.text);
    case "escape":
      return token.text;
    case "checkbox":
      return <input type="checkbox" checked={Boolean(token["checked"])} readOnly disabled />;
    default:
      return token.raw; // raw HTML above all: shown, never run
  }
}

function drawLink(token: Tokens.Link): ReactNode {
  const href = safeHref(decodeEntities(token.href));
  const label = drawAll(token.tokens, drawInline);
  if (href === null) return <span>{label}</span>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
      {label}
    </a>
  );
}

function drawImage(token: Tokens.Image): ReactNode {
  const source = embeddedImage(token.href);
  if (source !== null) return <img src={source} alt={token.text} />;
  const label = token.text || token.href;
  const href = safeHref(token.href);
  if (href === null) return <span>{label}</span>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
      {label} ↗
    </a>
  );
}

function drawList(token: Tokens.List): ReactNode {
  const items = token.items.map((item, index) => (
    // oxlint-disable-next-line react/no-array-index-key -- items only grow at the end
    <li key={index} className={item.task ? "task" : undefined}>
      {drawAll(item.tokens, drawBlock)}
    </li>
  ));
  if (!token.ordered) return <ul>{items}</ul>;
  return <ol start={token.start === "" ? 1 : token.start}>{items}</ol>;
}

function drawCell(tag: "th" | "td", { align, tokens }: Tokens.TableCell, index: number) {
  const attributes = { key: index, "data-align": align ?? undefined };
  return createElement(tag, attributes, drawAll(tokens, drawInline));
}

function drawTable(token: Tokens.Table): ReactNode {
  return (
    // A wide table scrolls sideways, so the keyboard must be able to reach it.
    // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="table-frame" tabIndex={0}>
      <table>
        <thead>
          <tr>{token.header.map((item, index) => drawCell("th", item, index))}</tr>
        </thead>
        <tbody>
          {token.rows.map((row, index) => (
            // oxlint-disable-next-line react/no-array-index-key -- rows only grow at the end
            <tr key={index}>{row.map((item, column) => drawCell("td", item, column))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function firstWord(text: string | undefined): string {
  return text?.trim().split(/\s+/)[0] ?? "";
}
