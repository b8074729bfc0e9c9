// Makes the compiler check every text key that the page asks for.
import type { en } from "./locales/en";

declare module "i18next" {
  interface CustomTypeOptions {
    resources: { translation: typeof en };
  }
}
