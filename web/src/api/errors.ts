// What can go wrong between the page and the gateway, as one typed error. It does not know how a
// fault is worded for a person: see the `fault` messages in app/locales. Read next: frames.ts.

export type FaultKind =
  | "unauthorized" // the key is missing, wrong or revoked
  | "unreachable" // nothing answered at the page's own address
  | "connection_lost" // the connection ended before the answer did
  | "busy" // 429 or 503: try again in a moment
  | "refused" // the gateway answered with an error of its own; `detail` is its sentence
  | "bad_reply"; // the gateway said something this page does not understand

/** A fault as plain data, so that it can be stored with an answer and worded later. */
export interface Fault {
  readonly kind: FaultKind;
  /** The gateway's own sentence, where it gave one. */
  readonly detail: string | null;
}

export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly fault: Fault;

  constructor(kind: FaultKind, detail: string | null = null) {
    super(detail ?? kind);
    this.fault = { kind, detail };
  }
}

/** The error that an HTTP status stands for, with the gateway's sentence if it sent one. */
export function errorForStatus(status: number, detail: string | null): ApiError {
  if (status === 401) return new ApiError("unauthorized", detail);
  if (status === 429 || status === 503) return new ApiError("busy", detail);
  return new ApiError("refused", detail);
}

/** Any thrown value as a fault; what is not ours means that nothing intelligible answered. */
export function toFault(error: unknown): Fault {
  return error instanceof ApiError ? error.fault : { kind: "unreachable", detail: null };
}
