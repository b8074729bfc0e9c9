// The key that the page asks with, and whether a person has to be asked for it. Read next:
// KeyDialog.tsx, apiKey.ts.
import { useCallback, useEffect, useState } from "react";
import { forgetKey, keepKey, storedKey, takeKeyFromAddress } from "./apiKey";

export interface Access {
  readonly apiKey: string | null;
  /** The gateway has said that the last key is wrong. */
  readonly isRejected: boolean;
  readonly isAsking: boolean;
  enter(key: string, onDevice: boolean): void;
  /** Says that the gateway refused this key; a key entered since then is not touched. */
  reject(key: string): void;
  ask(): void;
  dismiss(): void;
}

interface State {
  readonly apiKey: string | null;
  readonly isRejected: boolean;
  readonly isAsking: boolean;
}

function initialState(): State {
  const apiKey = takeKeyFromAddress() ?? storedKey();
  return { apiKey, isRejected: false, isAsking: apiKey === null };
}

export function useAccess(): Access {
  const [state, setState] = useState(initialState);
  const enter = useCallback((key: string, onDevice: boolean) => {
    keepKey(key, onDevice);
    setState({ apiKey: key, isRejected: false, isAsking: false });
  }, []);
  const reject = useCallback((key: string) => {
    setState((current) => {
      if (current.apiKey !== key) return current;
      forgetKey();
      return { apiKey: null, isRejected: true, isAsking: true };
    });
  }, []);
  const ask = useCallback(() => setState((current) => ({ ...current, isAsking: true })), []);
  const dismiss = useCallback(() => setState((current) => ({ ...current, isAsking: false })), []);
  useEffect(() => {
    const take = () => {
      const key = takeKeyFromAddress();
      if (key !== null) setState({ apiKey: key, isRejected: false, isAsking: false });
    };
    window.addEventListener("hashchange", take);
    return () => window.removeEventListener("hashchange", take);
  }, []);
  return { ...state, enter, reject, ask, dismiss };
}
