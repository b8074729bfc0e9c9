// A block of code with its language, light colouring and a copy button.
import { memo } from "react";
import { useTranslation } from "react-i18next";
import { highlight, type PieceKind } from "@/lib/highlight";
import { CopyButton } from "./CopyButton";

const COLOURS: Record<PieceKind, string | undefined> = {
  plain: undefined,
  comment: "text-code-comment italic",
  string: "text-code-string",
  number: "text-code-number",
  keyword: "text-code-keyword",
  call: "text-code-call",
};

interface CodeBlockProps {
  readonly code: string;
  readonly language: string;
}

export const CodeBlock = memo(function CodeBlock({ code, language }: CodeBlockProps) {
  const { t } = useTranslation();
  return (
    <figure className="my-4 overflow-hidden rounded-xl border border-line bg-code">
      <figcaption className="flex h-9 items-center justify-between border-b border-line pr-1 pl-4 text-xs text-muted">
        <span>{language || t("code")}</span>
        <CopyButton text={code} label={t("copyCode")} className="size-7!" />
      </figcaption>
      {/* A wide block scrolls sideways, so the keyboard must be able to reach it. */}
      {/* oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <pre tabIndex={0} className="overflow-x-auto px-4 py-3 font-mono text-[13px] leading-relaxed">
        <code>
          {highlight(code, language).map((piece, index) => (
            // oxlint-disable-next-line react/no-array-index-key -- pieces only grow at the end
            <span key={index} className={COLOURS[piece.kind]}>
              {piece.text}
            </span>
          ))}
        </code>
      </pre>
    </figure>
  );
});
