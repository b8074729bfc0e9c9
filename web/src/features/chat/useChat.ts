// Joins a conversation to the stream: asks, gathers tokens and draws them at most once a frame, stops,
// and asks again. What changes is in conversation.ts, how it travels in api/stream.ts.
import { useCallback, useEffect, useReducer, useRef } from "react";
import { explainRefusal } from "@/api/models";
import type { TokenFrame } from "@/api/frames";
import { AnswerStream, streamUrl } from "@/api/stream";
import { change, isUnfinished, toMessages, type Conversation } from "./conversation";
import { keepConversation, keptConversation } from "./keeping";

export interface Chat {
  readonly turns: Conversation;
  readonly isAnswering: boolean;
  ask(question: string, model: string): void;
  /** Asks the last question again; its answer is replaced. */
  askAgain(model: string): void;
  stop(): void;
  clear(): void;
}

const DRAW_EVERY_MS = 33;
const TEMPERATURE = 0.7; // lively but on the subject; the gateway's own default is 1

export function useChat(apiKey: string | null, onUnauthorized: (apiKey: string) => void): Chat {
  const [turns, dispatch] = useReducer(change, null, keptConversation);
  const stream = useRef<AnswerStream | null>(null);
  const cancel = useRef<(() => void) | null>(null);
  const lastTurn = turns.at(-1);
  const isAnswering = lastTurn !== undefined && isUnfinished(lastTurn.answer);

  useEffect(() => {
    if (apiKey === null) return;
    const opened = new AnswerStream({ url: streamUrl(window.location), apiKey, explainRefusal });
    stream.current = opened;
    return () => opened.close();
  }, [apiKey]);

  useEffect(() => {
    if (!isAnswering) keepConversation(turns);
    const keep = () => keepConversation(turns);
    window.addEventListener("pagehide", keep);
    return () => window.removeEventListener("pagehide", keep);
  }, [turns, isAnswering]);

  const start = useCallback(
    (conversation: Conversation, model: string) => {
      if (stream.current === null || apiKey === null) return;
      const tokens = gatherTokens((frames, at) => dispatch({ type: "tokens", frames, at }));
      const stopAsking = stream.current.ask(
        { model, messages: toMessages(conversation), temperature: TEMPERATURE },
        {
          token: tokens.add,
          usage: (frame) => {
            tokens.flush();
            dispatch({ type: "usage", frame });
          },
          cancelled: () => {
            tokens.flush();
            dispatch({ type: "stopped", at: performance.now() });
          },
          failed: ({ fault }) => {
            tokens.flush();
            dispatch({ type: "failed", fault, at: performance.now() });
            if (fault.kind === "unauthorized") onUnauthorized(apiKey);
          },
        },
      );
      cancel.current = () => {
        tokens.flush();
        stopAsking();
        dispatch({ type: "stopped", at: performance.now() });
      };
    },
    [apiKey, onUnauthorized],
  );

  const ask = useCallback(
    (question: string, model: string) => {
      if (apiKey === null) return;
      const event = { type: "asked", question, model, at: performance.now() } as const;
      dispatch(event);
      start(change(turns, event), model);
    },
    [apiKey, turns, start],
  );
  const askAgain = useCallback(
    (model: string) => {
      if (apiKey === null) return;
      dispatch({ type: "askedAgain", model, at: performance.now() });
      start(turns, model);
    },
    [apiKey, turns, start],
  );
  const stop = useCallback(() => cancel.current?.(), []);
  const clear = useCallback(() => {
    cancel.current?.();
    dispatch({ type: "cleared" });
  }, []);
  return { turns, isAnswering, ask, askAgain, stop, clear };
}

/** Gathers tokens so that a fast model does not draw the page more often than a person can see. */
function gatherTokens(draw: (frames: readonly TokenFrame[], at: number) => void) {
  let frames: TokenFrame[] = [];
  let timer: ReturnType<typeof setTimeout> | null = null;
  let lastDrawnAt = -Infinity;
  const flush = () => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    if (frames.length === 0) return;
    const gathered = frames;
    frames = [];
    lastDrawnAt = performance.now();
    draw(gathered, lastDrawnAt);
  };
  const add = (frame: TokenFrame) => {
    frames.push(frame);
    const wait = lastDrawnAt + DRAW_EVERY_MS - performance.now();
    if (wait <= 0) flush();
    else timer ??= setTimeout(flush, wait);
  };
  return { add, flush };
}
