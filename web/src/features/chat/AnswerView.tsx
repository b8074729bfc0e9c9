// One answer: reasoning, text, what went wrong, and under it the figures and what can be done with it.
import { memo } from "react";
import { useTranslation } from "react-i18next";
import { IconButton } from "@/components/Button";
import { CopyButton } from "@/components/CopyButton";
import { Markdown } from "@/components/Markdown";
import { RetryIcon } from "@/components/icons";
import { isUnfinished, statsOf, type Answer } from "./conversation";
import { FaultNote } from "./FaultNote";
import { Reasoning } from "./Reasoning";

interface AnswerViewProps {
  readonly answer: Answer;
  /** Given for the last answer only, once it may be asked for again. */
  readonly onRetry?: (() => void) | undefined;
}

export const AnswerView = memo(function AnswerView({ answer, onRetry }: AnswerViewProps) {
  const { t } = useTranslation();
  const { status, text, reasoning, fault } = answer;
  const isOpen = isUnfinished(answer);
  return (
    <article aria-label={t("answerOf", { model: answer.model })} className="answer">
      {reasoning.trim() !== "" && (
        <Reasoning
          text={reasoning}
          isThinking={status === "thinking"}
          seconds={answer.thoughtSeconds}
        />
      )}
      {status === "waiting" && <Waiting />}
      <div aria-live="polite" aria-busy={isOpen} data-status={status} className="answer-text">
        {text !== "" && <Markdown text={text} isStreaming={isOpen} />}
      </div>
      {status === "done" && text.trim() === "" && <Note>{t("emptyAnswer")}</Note>}
      {status === "stopped" && <Note>{t("stopped")}</Note>}
      {answer.finishReason === "length" && <Note>{t("lengthReached")}</Note>}
      {fault !== null && <FaultNote fault={fault} hasText={text !== ""} onRetry={onRetry} />}
      <footer className="mt-2 flex min-h-8 flex-wrap items-center gap-x-1 text-xs text-muted">
        {!isOpen && text !== "" && (
          <CopyButton text={text} label={t("copyAnswer")} className="-ml-2 size-8!" />
        )}
        {onRetry !== undefined && fault === null && (
          <IconButton label={t("askAgain")} onClick={onRetry} className="mr-2 size-8!">
            <RetryIcon className="size-4" />
          </IconButton>
        )}
        <StatsLine answer={answer} />
      </footer>
    </article>
  );
});

function Waiting() {
  const { t } = useTranslation();
  return (
    <output className="flex h-7 items-center">
      <span className="breathing size-2.5 rounded-full bg-accent" />
      <span className="sr-only">{t("waiting")}</span>
    </output>
  );
}

function Note({ children }: { readonly children: string }) {
  return <p className="mt-2 text-sm text-muted">{children}</p>;
}

function StatsLine({ answer }: { readonly answer: Answer }) {
  const { t, i18n } = useTranslation();
  const { ttftSeconds, tokensPerSecond, numTokens } = statsOf(answer);
  if (ttftSeconds === null) return null;
  const number = (value: number, digits: number) =>
    new Intl.NumberFormat(i18n.language, {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(value);
  const parts = [
    <abbr key="ttft" title={t("ttftLong")} className="no-underline">
      {t("ttft", { seconds: number(ttftSeconds, 2) })}
    </abbr>,
    tokensPerSecond !== null && (
      <span key="rate">{t("tokensPerSecond", { rate: number(tokensPerSecond, 1) })}</span>
    ),
    <span key="count">{t("numTokens", { count: numTokens })}</span>,
  ].filter(Boolean);
  return <p className="stats flex flex-wrap tabular-nums">{parts}</p>;
}
