// How the page is built: into the gateway's package, with hashed files and nothing inlined, so that
// it runs under the gateway's strict content security policy. Read next: src/app/main.tsx.
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

export default defineConfig(({ mode }) => ({
  base: "./",
  plugins: [react(), tailwindcss()],
  resolve: { tsconfigPaths: true },
  build: {
    outDir: "../src/freehold/serving/gateway/page",
    emptyOutDir: true,
    target: ["chrome123", "firefox128", "safari17.5"],
    assetsInlineLimit: 0, // font-src 'self' forbids data: fonts
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
  },
  // `npm run dev` talks to a running gateway: FREEHOLD_URL, or the usual address.
  server: { proxy: { "/v1": { target: gatewayUrl(mode), ws: true } } },
  test: { include: ["src/**/*.test.{ts,tsx}"], environment: "node" },
}));

function gatewayUrl(mode: string): string {
  return loadEnv(mode, ".", "FREEHOLD_")["FREEHOLD_URL"] ?? "http://127.0.0.1:8080";
}
