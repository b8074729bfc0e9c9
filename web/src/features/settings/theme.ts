// Light or dark: what the system says, unless a person chose the other one. Choosing what the system
// says anyway returns to following it. Styles read the `data-theme` of <html>: see app/styles.css.
import { useCallback, useSyncExternalStore } from "react";
import { readStored, writeStored } from "@/lib/storage";

export type Theme = "light" | "dark";

const systemDark = () => window.matchMedia("(prefers-color-scheme: dark)");

export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  if (chosen === "light" || chosen === "dark") return chosen;
  return systemDark().matches ? "dark" : "light";
}

/** Puts the remembered choice into force; called before the first drawing. */
export function applyStoredTheme(): void {
  const stored = readStored("local", "theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset["theme"] = stored;
}

function chooseTheme(theme: Theme): void {
  const isSystems = theme === (systemDark().matches ? "dark" : "light");
  writeStored("local", "theme", isSystems ? null : theme);
  if (isSystems) delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  window.dispatchEvent(new Event("themechange"));
}

function subscribe(onChange: () => void): () => void {
  const system = systemDark();
  system.addEventListener("change", onChange);
  window.addEventListener("themechange", onChange);
  return () => {
    system.removeEventListener("change", onChange);
    window.removeEventListener("themechange", onChange);
  };
}

/** The theme in force and the function that changes to the other one. */
export function useTheme(): readonly [Theme, () => void] {
  const theme = useSyncExternalStore(subscribe, currentTheme);
  const toggle = useCallback(() => chooseTheme(currentTheme() === "dark" ? "light" : "dark"), []);
  return [theme, toggle];
}
