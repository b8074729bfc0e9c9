// Sets the page's languages up and keeps <html lang> true. The texts are in locales/.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { initialLanguage } from "@/features/settings/language";
import { en } from "./locales/en";
import { zhCN } from "./locales/zh-CN";

export function startI18n(): void {
  i18next.on("languageChanged", (language) => {
    document.documentElement.lang = language;
  });
  void i18next.use(initReactI18next).init({
    lng: initialLanguage(),
    fallbackLng: "en",
    resources: { en: { translation: en }, "zh-CN": { translation: zhCN } },
    interpolation: { escapeValue: false }, // React escapes
  });
}
