// The frames of the WebSocket /v1/stream (protocol `freehold.v1`): types, and the parser that turns
// a text frame into one of them or throws. It does not know sockets: see stream.ts.
import { ApiError } from "./errors";

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** What one answer is asked with: the fields of an OpenAI chat request that the page sends. */
export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly Message[];
  readonly temperature: number;
}

export type ClientFrame =
  | ({ readonly type: "start"; readonly id: string } & ChatRequest)
  | { readonly type: "cancel"; readonly id: string };

export interface TokenFrame {
  readonly type: "token";
  readonly id: string;
  /** Numbered by the orchestrator; a number not above the last one is a repeat. */
  readonly sequence: number;
  readonly text: string;
  readonly reasoning: string;
  readonly finishReason: string | null;
}

export interface UsageFrame {
  readonly type: "usage";
  readonly id: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly ttftSeconds: number | null;
  readonly tokensPerSecond: number | null;
}

export interface ErrorFrame {
  readonly type: "error";
  /** null when the gateway could not tell which request the error belongs to. */
  readonly id: string | null;
  readonly status: number;
  readonly message: string | null;
}

export interface CancelFrame {
  readonly type: "cancel";
  readonly id: string;
}

export type ServerFrame = TokenFrame | UsageFrame | ErrorFrame | CancelFrame;

type Fields = Readonly<Record<string, unknown>>;

/**
 * One text frame from the gateway, or null for a type that this page does not know (a newer gateway
 * may send more). Throws ApiError("bad_reply") for what is not a frame at all.
 */
export function parseFrame(data: unknown): ServerFrame | null {
  const fields = parseObject(data);
  switch (fields["type"]) {
    case "token":
      return {
        type: "token",
        id: requireString(fields, "id"),
        sequence: requireNumber(fields, "sequence"),
        text: optionalString(fields, "text") ?? "",
        reasoning: optionalString(fields, "reasoning") ?? "",
        finishReason: optionalString(fields, "finish_reason"),
      };
    case "usage":
      return {
        type: "usage",
        id: requireString(fields, "id"),
        promptTokens: requireNumber(fields, "prompt_tokens"),
        completionTokens: requireNumber(fields, "completion_tokens"),
        ttftSeconds: optionalNumber(fields, "ttft_seconds"),
        tokensPerSecond: optionalNumber(fields, "tokens_per_second"),
      };
    case "error":
      return {
        type: "error",
        id: optionalString(fields, "id"),
        status: optionalNumber(fields, "status") ?? 500,
        message: errorMessage(fields),
      };
    case "cancel":
      return { type: "cancel", id: requireString(fields, "id") };
    default:
      return null;
  }
}

/** The sentence inside an OpenAI error object `{"error": {"message": ...}}`, if there is one. */
export function errorMessage(body: unknown): string | null {
  if (!isFields(body) || !isFields(body["error"])) return null;
  return optionalString(body["error"], "message");
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseObject(data: unknown): Fields {
  if (typeof data === "string") {
    try {
      const value: unknown = JSON.parse(data);
      if (isFields(value)) return value;
    } catch {
      // falls through to the one error below
    }
  }
  throw new ApiError("bad_reply", "A frame is not a JSON object.");
}

function requireString(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  throw new ApiError("bad_reply", `A ${String(fields["type"])} frame has no string "${name}".`);
}

function requireNumber(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value === "number") return value;
  throw new ApiError("bad_reply", `A ${String(fields["type"])} frame has no number "${name}".`);
}

function optionalString(fields: Fields, name: string): string | null {
  const value = fields[name];
  return typeof value === "string" ? value : null;
}

function optionalNumber(fields: Fields, name: string): number | null {
  const value = fields[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
