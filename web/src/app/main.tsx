// The page's entry: theme and language before the first drawing, then the application.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { applyStoredTheme } from "@/features/settings/theme";
import { App } from "./App";
import { startI18n } from "./i18n";
import "./styles.css";

applyStoredTheme();
startI18n();

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={new QueryClient()}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
