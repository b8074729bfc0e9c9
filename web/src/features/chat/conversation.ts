// What a conversation is and how it changes, as pure functions: turns of one question and one answer,
// an answer's way from waiting to its end, and what of it is sent with the next question.
// It knows no sockets and no React: see useChat.ts.
import type { Fault } from "@/api/errors";
import type { Message, TokenFrame, UsageFrame } from "@/api/frames";

export type AnswerStatus = "waiting" | "thinking" | "answering" | "done" | "stopped" | "failed";

/** Measured by this page while tokens arrive; the gateway's own figures replace it at the end. */
export interface Timing {
  readonly askedAt: number; // milliseconds
  readonly firstTokenAt: number | null;
  readonly lastTokenAt: number | null;
  readonly numTokens: number;
}

export interface Answer {
  readonly model: string;
  readonly text: string;
  readonly reasoning: string;
  readonly status: AnswerStatus;
  readonly finishReason: string | null;
  /** How long the model reasoned before its first word; null until that word, or without any. */
  readonly thoughtSeconds: number | null;
  readonly timing: Timing;
  readonly usage: UsageFrame | null;
  readonly fault: Fault | null;
}

export interface Turn {
  readonly id: number;
  readonly question: string;
  readonly answer: Answer;
}

export type Conversation = readonly Turn[];

export type Change =
  | {
      readonly type: "asked";
      readonly question: string;
      readonly model: string;
      readonly at: number;
    }
  | { readonly type: "askedAgain"; readonly model: string; readonly at: number }
  | { readonly type: "tokens"; readonly frames: readonly TokenFrame[]; readonly at: number }
  | { readonly type: "usage"; readonly frame: UsageFrame }
  | { readonly type: "stopped"; readonly at: number }
  | { readonly type: "failed"; readonly fault: Fault; readonly at: number }
  | { readonly type: "cleared" };

/** The conversation after a change; changes to an answer always mean the last one. */
export function change(conversation: Conversation, event: Change): Conversation {
  switch (event.type) {
    case "cleared":
      return [];
    case "asked": {
      const answer = newAnswer(event.model, event.at);
      return [...conversation, { id: nextId(conversation), question: event.question, answer }];
    }
    case "askedAgain":
      return changeLast(conversation, () => newAnswer(event.model, event.at));
    case "tokens":
      return changeUnfinished(conversation, (answer) =>
        event.frames.reduce((current, frame) => addToken(current, frame, event.at), answer),
      );
    case "usage":
      return changeUnfinished(conversation, (answer) => ({
        ...answer,
        status: "done",
        usage: event.frame,
        thoughtSeconds: answer.thoughtSeconds ?? thoughtSeconds(answer, answer.timing.lastTokenAt),
      }));
    case "stopped":
      return changeUnfinished(conversation, (answer) => ({
        ...answer,
        status: "stopped",
        thoughtSeconds: answer.thoughtSeconds ?? thoughtSeconds(answer, event.at),
      }));
    case "failed":
      return changeUnfinished(conversation, (answer) => ({
        ...answer,
        status: "failed",
        fault: event.fault,
        thoughtSeconds: answer.thoughtSeconds ?? thoughtSeconds(answer, event.at),
      }));
  }
}

export function isUnfinished({ status }: Answer): boolean {
  return status === "waiting" || status === "thinking" || status === "answering";
}

/**
 * The messages to send for the last turn's question: the turns before it that have an answer, without
 * their reasoning (models are trained not to see it again), then the question.
 */
export function toMessages(conversation: Conversation): Message[] {
  const last = conversation.at(-1);
  if (last === undefined) return [];
  const messages: Message[] = conversation
    .slice(0, -1)
    .flatMap(({ question, answer }): Message[] =>
      answer.text.trim() === ""
        ? []
        : [
            { role: "user", content: question },
            { role: "assistant", content: answer.text },
          ],
    );
  return [...messages, { role: "user", content: last.question }];
}

export interface Stats {
  readonly ttftSeconds: number | null;
  readonly tokensPerSecond: number | null;
  readonly numTokens: number;
}

/** The figures under an answer: the gateway's, or this page's own where there are none (yet). */
export function statsOf({ usage, timing }: Answer): Stats {
  const { askedAt, firstTokenAt, lastTokenAt, numTokens } = timing;
  const seconds = ((lastTokenAt ?? 0) - (firstTokenAt ?? 0)) / 1000;
  const measured = {
    ttftSeconds: firstTokenAt === null ? null : (firstTokenAt - askedAt) / 1000,
    tokensPerSecond: numTokens > 1 && seconds > 0.05 ? (numTokens - 1) / seconds : null,
    numTokens,
  };
  if (usage === null) return measured;
  return {
    ttftSeconds: usage.ttftSeconds ?? measured.ttftSeconds,
    tokensPerSecond: usage.tokensPerSecond ?? measured.tokensPerSecond,
    numTokens: usage.completionTokens,
  };
}

function newAnswer(model: string, at: number): Answer {
  return {
    model,
    text: "",
    reasoning: "",
    status: "waiting",
    finishReason: null,
    thoughtSeconds: null,
    timing: { askedAt: at, firstTokenAt: null, lastTokenAt: null, numTokens: 0 },
    usage: null,
    fault: null,
  };
}

function addToken(answer: Answer, frame: TokenFrame, at: number): Answer {
  const text = answer.text + frame.text;
  const reasoning = answer.reasoning + frame.reasoning;
  const isFirstWord = answer.text.trim() === "" && text.trim() !== "";
  const isEmpty = frame.text === "" && frame.reasoning === ""; // the frame that only says the end
  const timing = isEmpty ? answer.timing : timed(answer.timing, at);
  return {
    ...answer,
    text,
    reasoning,
    status: text.trim() !== "" ? "answering" : reasoning !== "" ? "thinking" : "waiting",
    finishReason: frame.finishReason ?? answer.finishReason,
    thoughtSeconds: isFirstWord ? thoughtSeconds(answer, at) : answer.thoughtSeconds,
    timing,
  };
}

function timed(timing: Timing, at: number): Timing {
  return {
    askedAt: timing.askedAt,
    firstTokenAt: timing.firstTokenAt ?? at,
    lastTokenAt: at,
    numTokens: timing.numTokens + 1,
  };
}

function thoughtSeconds({ reasoning, timing }: Answer, until: number | null): number | null {
  if (reasoning === "" || timing.firstTokenAt === null || until === null) return null;
  return (until - timing.firstTokenAt) / 1000;
}

function changeLast(conversation: Conversation, next: (answer: Answer) => Answer): Conversation {
  const last = conversation.at(-1);
  if (last === undefined) return conversation;
  return [...conversation.slice(0, -1), { ...last, answer: next(last.answer) }];
}

function changeUnfinished(
  conversation: Conversation,
  next: (answer: Answer) => Answer,
): Conversation {
  const last = conversation.at(-1);
  if (last === undefined || !isUnfinished(last.answer)) return conversation;
  return changeLast(conversation, next);
}

function nextId(conversation: Conversation): number {
  return (conversation.at(-1)?.id ?? 0) + 1;
}
