// Small named values kept by the browser. Storage that is full, forbidden or absent reads as null and
// forgets what it is told: the page works without it, it only remembers less.

export type Keeper = "session" | "local";

export function readStored(keeper: Keeper, name: string): string | null {
  try {
    return storageOf(keeper).getItem(`freehold.${name}`);
  } catch {
    return null;
  }
}

/** Keeps the value, or forgets the name when the value is null. Returns whether it was kept. */
export function writeStored(keeper: Keeper, name: string, value: string | null): boolean {
  try {
    if (value === null) storageOf(keeper).removeItem(`freehold.${name}`);
    else storageOf(keeper).setItem(`freehold.${name}`, value);
    return true;
  } catch {
    return false;
  }
}

function storageOf(keeper: Keeper): Storage {
  return keeper === "session" ? window.sessionStorage : window.localStorage;
}
