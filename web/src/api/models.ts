// The list of models that the gateway serves, GET /v1/models. Also the probe that tells why a
// WebSocket was refused, since a browser does not say. Read next: stream.ts.
import { ApiError, errorForStatus } from "./errors";
import { errorMessage } from "./frames";

export interface Model {
  readonly id: string;
}

/** Asks the gateway for its models. Throws ApiError: unauthorized, unreachable, busy, refused. */
export async function fetchModels(apiKey: string, signal?: AbortSignal): Promise<Model[]> {
  const response = await fetch("/v1/models", {
    headers: { Authorization: `Bearer ${apiKey}` },
    cache: "no-store",
    credentials: "omit",
    ...(signal ? { signal } : {}),
  }).catch((error: unknown) => {
    if (signal?.aborted) throw error;
    throw new ApiError("unreachable");
  });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw errorForStatus(response.status, errorMessage(body));
  return readModels(body);
}

/** Why the gateway refused a WebSocket with this key, found by asking for the models. */
export async function explainRefusal(apiKey: string): Promise<ApiError> {
  try {
    await fetchModels(apiKey);
  } catch (error) {
    return error instanceof ApiError ? error : new ApiError("unreachable");
  }
  return new ApiError("connection_lost");
}

function readModels(body: unknown): Model[] {
  const data = (body as { data?: unknown } | null)?.data;
  if (!Array.isArray(data)) throw new ApiError("bad_reply", "The list of models has no data.");
  return data
    .filter((item: unknown): item is Model => typeof (item as Model | null)?.id === "string")
    .map(({ id }) => ({ id }));
}
