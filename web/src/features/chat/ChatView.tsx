// The conversation and the place to write. It does not know keys or models: a question is asked of the
// model it is given, and without one there is nothing to ask. Read next: useChat.ts, AnswerView.tsx.
import { useCallback, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { ArrowDownIcon } from "@/components/icons";
import { AnswerView } from "./AnswerView";
import { Composer } from "./Composer";
import { isUnfinished } from "./conversation";
import type { Chat } from "./useChat";
import { useFollowing } from "./useFollowing";
import { Welcome } from "./Welcome";

interface ChatViewProps {
  readonly chat: Chat;
  readonly model: string | null;
  /** Shown above the place to write, as when the gateway cannot be reached. */
  readonly notice: ReactNode;
}

export function ChatView({ chat, model, notice }: ChatViewProps) {
  const { t } = useTranslation();
  const { turns, isAnswering, ask, askAgain, stop } = chat;
  const { scroller, isAway, onScroll, toEnd } = useFollowing(turns.length);
  const canAsk = model !== null;
  const askModel = useCallback(
    (question: string) => {
      if (model !== null) ask(question, model);
    },
    [ask, model],
  );
  const retry = useCallback(() => {
    if (model !== null) askAgain(model);
  }, [askAgain, model]);

  return (
    <main className="relative flex min-h-0 flex-1 flex-col">
      <div
        ref={scroller}
        onScroll={onScroll}
        className="flex min-h-0 flex-1 flex-col overflow-y-auto overscroll-contain px-4 sm:[scrollbar-gutter:stable_both-edges]"
      >
        {turns.length === 0 ? (
          <Welcome canAsk={canAsk} onAsk={askModel} />
        ) : (
          <div className="mx-auto w-full max-w-3xl pt-6 pb-8">
            <h1 className="sr-only">{t("conversation")}</h1>
            {turns.map(({ id, question, answer }, index) => {
              const mayRetry = index === turns.length - 1 && canAsk && !isUnfinished(answer);
              return (
                <section key={id} className="mb-6">
                  <Question text={question} />
                  <AnswerView answer={answer} onRetry={mayRetry ? retry : undefined} />
                </section>
              );
            })}
          </div>
        )}
      </div>
      <div className="relative px-4 pb-3">
        {isAway && (
          <button
            type="button"
            aria-label={t("toEnd")}
            title={t("toEnd")}
            onClick={toEnd}
            className="absolute -top-12 left-1/2 flex size-9 -translate-x-1/2 cursor-pointer items-center justify-center rounded-full border border-line bg-surface text-muted shadow-soft hover:text-ink"
          >
            <ArrowDownIcon className="size-4" />
          </button>
        )}
        <div className="mx-auto w-full max-w-3xl">
          {notice}
          <Composer isAnswering={isAnswering} canAsk={canAsk} onAsk={askModel} onStop={stop} />
          <p className="mt-2.5 text-center text-xs text-balance text-muted">{t("footnote")}</p>
        </div>
      </div>
    </main>
  );
}

function Question({ text }: { readonly text: string }) {
  const { t } = useTranslation();
  return (
    <article aria-label={t("yourQuestion")} className="mb-5 flex justify-end">
      <p className="max-w-[85%] rounded-3xl rounded-br-lg bg-bubble px-4 py-2.5 leading-7 wrap-anywhere whitespace-pre-wrap">
        {text}
      </p>
    </article>
  );
}
