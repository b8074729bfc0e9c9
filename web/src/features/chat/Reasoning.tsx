// What a model thought before it answered: open while it thinks, folded once the answer begins, and
// after that as the reader leaves it.
import { useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { classes } from "@/lib/classes";
import { ChevronIcon } from "@/components/icons";

interface ReasoningProps {
  readonly text: string;
  readonly isThinking: boolean;
  readonly seconds: number | null;
}

export function Reasoning({ text, isThinking, seconds }: ReasoningProps) {
  const { t, i18n } = useTranslation();
  const [choice, setChoice] = useState<boolean | null>(null);
  const isOpen = choice ?? isThinking;
  const bodyId = useId();
  const duration = new Intl.NumberFormat(i18n.language, {
    maximumFractionDigits: (seconds ?? 0) < 10 ? 1 : 0,
  }).format(seconds ?? 0);
  const label = isThinking
    ? t("thinking")
    : seconds === null
      ? t("thought")
      : t("thoughtFor", { duration });

  return (
    <section className="mb-3">
      <button
        type="button"
        aria-expanded={isOpen}
        aria-controls={bodyId}
        onClick={() => setChoice(!isOpen)}
        className="-ml-1.5 inline-flex cursor-pointer items-center gap-1.5 rounded-md px-1.5 py-1 text-sm text-muted hover:text-ink"
      >
        <ChevronIcon className={classes("size-3.5 transition-transform", isOpen && "rotate-90")} />
        <span className={classes(isThinking && "breathing")}>{label}</span>
      </button>
      <div
        id={bodyId}
        hidden={!isOpen}
        className="mt-1.5 ml-[0.2rem] border-l-2 border-line pl-4 text-sm leading-relaxed whitespace-pre-wrap text-muted"
      >
        {text.trim()}
      </div>
    </section>
  );
}
