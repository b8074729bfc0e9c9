// What an empty conversation shows: a greeting and a few questions to begin with.
import { useTranslation } from "react-i18next";
import { Logo } from "@/components/Logo";

interface WelcomeProps {
  readonly canAsk: boolean;
  readonly onAsk: (question: string) => void;
}

export function Welcome({ canAsk, onAsk }: WelcomeProps) {
  const { t } = useTranslation();
  const suggestions = [t("suggestion.what"), t("suggestion.who"), t("suggestion.do")];
  return (
    <div className="m-auto flex w-full max-w-xl flex-col items-center gap-3 py-10 text-center">
      <Logo className="size-12" />
      <h1 className="mt-2 text-2xl font-semibold tracking-tight text-balance sm:text-[1.75rem]">
        {t("welcome")}
      </h1>
      <p className="max-w-md text-balance text-muted">{t("welcomeMore")}</p>
      <ul className="mt-5 flex flex-wrap justify-center gap-2">
        {suggestions.map((question) => (
          <li key={question}>
            <button
              type="button"
              disabled={!canAsk}
              onClick={() => onAsk(question)}
              className="cursor-pointer rounded-full border border-line bg-surface px-4 py-2 text-sm transition-colors hover:bg-hover disabled:cursor-default disabled:opacity-50"
            >
              {question}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
