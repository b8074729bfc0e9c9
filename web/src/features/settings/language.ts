// Which of the page's two languages to speak: the one chosen before, else the first of the browser's
// that we have. It holds no texts: see app/locales.
import { readStored, writeStored } from "@/lib/storage";

export const LANGUAGES = ["en", "zh-CN"] as const;
export type Language = (typeof LANGUAGES)[number];

/** The page's language for a browser's list of preferred ones, most wanted first. */
export function matchLanguage(preferred: readonly string[]): Language {
  for (const tag of preferred) {
    const primary = tag.toLowerCase().split("-")[0];
    if (primary === "zh") return "zh-CN";
    if (primary === "en") return "en";
  }
  return "en";
}

export function initialLanguage(): Language {
  const stored = readStored("local", "language");
  return LANGUAGES.find((language) => language === stored) ?? matchLanguage(navigator.languages);
}

export function rememberLanguage(language: Language): void {
  writeStored("local", "language", language);
}
