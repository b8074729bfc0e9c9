import { expect, test } from "vitest";
import type { TokenFrame, UsageFrame } from "@/api/frames";
import { change, statsOf, toMessages, type Change, type Conversation } from "./conversation";
import { deserialize, serialize } from "./keeping";

const token = (text: string, reasoning = "", finishReason: string | null = null): TokenFrame => ({
  type: "token",
  id: "r1",
  sequence: 0,
  text,
  reasoning,
  finishReason,
});
const tokens = (at: number, ...frames: TokenFrame[]): Change => ({ type: "tokens", frames, at });
const asked = (question: string, at = 0): Change => ({ type: "asked", question, model: "m", at });
const usage: UsageFrame = {
  type: "usage",
  id: "r1",
  promptTokens: 5,
  completionTokens: 9,
  ttftSeconds: 0.25,
  tokensPerSecond: 40,
};
const after = (...changes: Change[]): Conversation => changes.reduce(change, []);
const answerAfter = (...changes: Change[]) => after(asked("q"), ...changes).at(-1)!.answer;

test("an answer waits, thinks, answers and is done", () => {
  expect(answerAfter().status).toBe("waiting");
  expect(answerAfter(tokens(1, token("", "hm"))).status).toBe("thinking");
  expect(answerAfter(tokens(1, token("", "hm")), tokens(2, token("Hi"))).status).toBe("answering");
  expect(answerAfter(tokens(1, token("Hi")), { type: "usage", frame: usage }).status).toBe("done");
});

test("reasoning and text are kept apart, and thinking is timed until the first word", () => {
  const answer = answerAfter(
    tokens(1000, token("", "Let me ")),
    tokens(2000, token("", "see.")),
    tokens(3500, token("\n\n")),
    tokens(4000, token("Yes")),
    tokens(9000, token(".", "", "stop")),
  );
  expect(answer).toMatchObject({
    reasoning: "Let me see.",
    text: "\n\nYes.",
    finishReason: "stop",
  });
  expect(answer.thoughtSeconds).toBe(3);
});

test("an answer without reasoning has no thinking time", () => {
  expect(answerAfter(tokens(1000, token("Hi"))).thoughtSeconds).toBeNull();
});

test("thinking that is stopped is timed until then", () => {
  const answer = answerAfter(tokens(1000, token("", "hm")), { type: "stopped", at: 2500 });
  expect(answer).toMatchObject({ status: "stopped", thoughtSeconds: 1.5 });
});

test("an answer that has ended changes no more", () => {
  const stopped = after(asked("q"), tokens(1, token("a")), { type: "stopped", at: 2 });
  expect(change(stopped, tokens(3, token("b")))).toBe(stopped);
  expect(change(stopped, { type: "usage", frame: usage })).toBe(stopped);
});

test("a lost connection keeps what had arrived, and asking again replaces it", () => {
  const fault = { kind: "connection_lost", detail: null } as const;
  const lost = after(asked("q"), tokens(1, token("half")), { type: "failed", fault, at: 2 });
  expect(lost.at(-1)?.answer).toMatchObject({ text: "half", status: "failed", fault });
  const again = change(lost, { type: "askedAgain", model: "m2", at: 3 });
  expect(again).toHaveLength(1);
  expect(again[0]?.answer).toMatchObject({ text: "", status: "waiting", model: "m2", fault: null });
});

test("the next question goes with the turns before it, less reasoning and unanswered ones", () => {
  const conversation = after(
    asked("one"),
    tokens(1, token("1", "because")),
    { type: "usage", frame: usage },
    asked("lost"),
    { type: "failed", fault: { kind: "busy", detail: null }, at: 2 },
    asked("two"),
  );
  expect(toMessages(conversation)).toEqual([
    { role: "user", content: "one" },
    { role: "assistant", content: "1" },
    { role: "user", content: "two" },
  ]);
});

test("figures are measured while streaming, and the gateway's take their place", () => {
  const streaming = answerAfter(
    tokens(500, token("a")),
    tokens(1500, token("b"), token("c")),
    tokens(9000, token("", "", "stop")),
  );
  expect(statsOf(streaming)).toEqual({ ttftSeconds: 0.5, tokensPerSecond: 2, numTokens: 3 });
  expect(statsOf({ ...streaming, usage })).toEqual({
    ttftSeconds: 0.25,
    tokensPerSecond: 40,
    numTokens: 9,
  });
});

test("a conversation survives storing, and an answer under way has lost its connection", () => {
  const done = after(asked("q"), tokens(1, token("a")), { type: "usage", frame: usage });
  expect(deserialize(serialize(done))).toEqual(done);
  const cut = deserialize(serialize(after(asked("q"), tokens(1, token("a")))));
  expect(cut[0]?.answer).toMatchObject({ text: "a", status: "failed" });
});

test.each([
  null,
  "",
  "{}",
  "[1]",
  "[null]",
  '[{"id":1,"question":"q"}]',
  '[{"id":1,"question":"q","answer":{}}]',
])("a stored text that is no conversation is an empty one: %j", (text) => {
  expect(deserialize(text)).toEqual([]);
});
