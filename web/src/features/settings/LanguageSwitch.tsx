// Changes to the other language; the button is written in the language it leads to.
import { useTranslation } from "react-i18next";
import { Button } from "@/components/Button";
import { rememberLanguage, type Language } from "./language";

export function LanguageSwitch() {
  const { i18n } = useTranslation();
  const other: Language = i18n.language === "zh-CN" ? "en" : "zh-CN";
  const name = other === "en" ? "English" : "中文";
  return (
    <Button
      look="ghost"
      lang={other}
      title={name}
      onClick={() => {
        rememberLanguage(other);
        void i18n.changeLanguage(other);
      }}
    >
      {other === "en" ? "EN" : name}
      {other === "en" && <span className="sr-only">{name}</span>}
    </Button>
  );
}
