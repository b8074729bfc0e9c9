import { expect, test } from "vitest";
import { ApiError } from "./errors";
import { parseFrame } from "./frames";

const parse = (value: unknown) => parseFrame(JSON.stringify(value));

test("a token frame reads its text and reasoning, null as empty", () => {
  const frame = { type: "token", id: "r1", index: 0, sequence: 3, text: null, reasoning: "hm" };
  expect(parse({ ...frame, finish_reason: null })).toEqual({
    type: "token",
    id: "r1",
    sequence: 3,
    text: "",
    reasoning: "hm",
    finishReason: null,
  });
});

test("a usage frame reads its figures, and one that is absent is null", () => {
  expect(
    parse({ type: "usage", id: "r1", prompt_tokens: 12, completion_tokens: 34, ttft_seconds: 0.1 }),
  ).toMatchObject({ completionTokens: 34, ttftSeconds: 0.1, tokensPerSecond: null });
});

test("an error frame keeps the gateway's sentence and status", () => {
  const error = { message: "Too long.", type: "invalid_request_error", param: null, code: null };
  expect(parse({ type: "error", id: "r1", status: 400, error })).toEqual({
    type: "error",
    id: "r1",
    status: 400,
    message: "Too long.",
  });
});

test("a frame of a type from the future is passed over", () => {
  expect(parse({ type: "citation", id: "r1" })).toBeNull();
});

test.each(["", "null", "[]", "5", "{", '{"type":"token","id":1}', '{"type":"token","id":"r1"}'])(
  "what is not a frame is a bad reply: %j",
  (text) => {
    expect(() => parseFrame(text)).toThrow(ApiError);
  },
);

test("binary data is a bad reply", () => {
  expect(() => parseFrame(new ArrayBuffer(4))).toThrow(ApiError);
});
