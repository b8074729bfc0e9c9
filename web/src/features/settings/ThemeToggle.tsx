// Changes between light and dark.
import { useTranslation } from "react-i18next";
import { IconButton } from "@/components/Button";
import { MoonIcon, SunIcon } from "@/components/icons";
import { useTheme } from "./theme";

export function ThemeToggle() {
  const { t } = useTranslation();
  const [theme, toggle] = useTheme();
  return (
    <IconButton label={theme === "dark" ? t("useLight") : t("useDark")} onClick={toggle}>
      {theme === "dark" ? <SunIcon /> : <MoonIcon />}
    </IconButton>
  );
}
