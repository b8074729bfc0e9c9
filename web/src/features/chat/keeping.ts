// Keeps the conversation across a reload, in this tab only: another tab has its own, and closing the
// tab forgets it. What is read back is checked, since the storage may hold an older page's data.
import { readStored, writeStored } from "@/lib/storage";
import { isUnfinished, type Answer, type Conversation, type Turn } from "./conversation";

const NAME = "conversation.1"; // raise the number when the shape changes

export function keepConversation(conversation: Conversation): void {
  writeStored("session", NAME, conversation.length === 0 ? null : serialize(conversation));
}

export function keptConversation(): Conversation {
  return deserialize(readStored("session", NAME));
}

export function serialize(conversation: Conversation): string {
  return JSON.stringify(conversation);
}

/** The conversation in a stored text. An answer that was under way has lost its connection. */
export function deserialize(text: string | null): Conversation {
  if (text === null) return [];
  try {
    const value: unknown = JSON.parse(text);
    if (!Array.isArray(value) || !value.every(isTurn)) return [];
    return value.map((turn) => ({ ...turn, answer: settle(turn.answer) }));
  } catch {
    return [];
  }
}

function settle(answer: Answer): Answer {
  if (!isUnfinished(answer)) return answer;
  return { ...answer, status: "failed", fault: { kind: "connection_lost", detail: null } };
}

function isTurn(value: unknown): value is Turn {
  const turn = value as Partial<Turn> | null;
  return typeof turn?.id === "number" && typeof turn.question === "string" && isAnswer(turn.answer);
}

function isAnswer(answer: Partial<Answer> | undefined): boolean {
  return (
    typeof answer?.text === "string" &&
    typeof answer.reasoning === "string" &&
    typeof answer.status === "string" &&
    typeof answer.timing?.askedAt === "number" &&
    answer.usage !== undefined &&
    answer.fault !== undefined
  );
}
