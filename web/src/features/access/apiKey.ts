// Where the API key comes from and where it is kept: taken out of the address's fragment at once,
// kept for this tab, and on this device only if asked. It does not know the dialog: see KeyDialog.tsx.
import { readStored, writeStored } from "@/lib/storage";

const NAME = "api-key";

/** The key in a fragment such as `#key=fh-...`, or null. */
export function keyInFragment(hash: string): string | null {
  const key = new URLSearchParams(hash.replace(/^#/, "")).get("key")?.trim() ?? "";
  return isPossibleKey(key) ? key : null;
}

/** Whether a text can be a key at all: it has to fit a header and a WebSocket subprotocol (RFC 7230). */
export function isPossibleKey(text: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,512}$/.test(text);
}

/** Moves a key from the address bar into this tab's storage; returns it, or null if there is none. */
export function takeKeyFromAddress(): string | null {
  const key = keyInFragment(window.location.hash);
  if (!new URLSearchParams(window.location.hash.slice(1)).has("key")) return null;
  const { pathname, search } = window.location;
  window.history.replaceState(window.history.state, "", pathname + search);
  if (key !== null) keepKey(key, false);
  return key;
}

export function storedKey(): string | null {
  return readStored("session", NAME) ?? readStored("local", NAME);
}

/** Keeps the key for this tab, and for this device too when `onDevice`. */
export function keepKey(key: string, onDevice: boolean): void {
  writeStored("session", NAME, key);
  if (onDevice) writeStored("local", NAME, key);
}

/** Forgets the key everywhere, as after the gateway said that it is wrong. */
export function forgetKey(): void {
  writeStored("session", NAME, null);
  writeStored("local", NAME, null);
}
