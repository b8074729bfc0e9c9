// One WebSocket to /v1/stream carrying many answers by id: opened at the first question, kept, and
// opened again when it was lost. It does not know what is done with the tokens: see
// features/chat/useChat.ts. Frames are described in frames.ts.
import { ApiError, errorForStatus } from "./errors";
import {
  parseFrame,
  type ChatRequest,
  type ClientFrame,
  type TokenFrame,
  type UsageFrame,
} from "./frames";

/** What happens to one answer. After `usage`, `cancelled` or `failed` nothing more is called. */
export interface AnswerListener {
  token(frame: TokenFrame): void;
  usage(frame: UsageFrame): void;
  cancelled(): void;
  failed(error: ApiError): void;
}

export interface StreamOptions {
  readonly url: string;
  readonly apiKey: string;
  /** Tells why the gateway would not open the socket (a browser cannot see the HTTP status). */
  readonly explainRefusal: (apiKey: string) => Promise<ApiError>;
}

interface Pending {
  readonly listener: AnswerListener;
  readonly socket: WebSocket;
  lastSequence: number;
}

export class AnswerStream {
  readonly #options: StreamOptions;
  readonly #pending = new Map<string, Pending>();
  #socket: WebSocket | null = null;
  #numRequests = 0;

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  /** Asks, and returns the function that stops the answer (harmless once it has ended). */
  ask(request: ChatRequest, listener: AnswerListener): () => void {
    const id = `r${++this.#numRequests}`;
    const socket = this.#usableSocket();
    this.#pending.set(id, { listener, socket, lastSequence: -1 });
    whenOpen(socket, () => {
      if (this.#pending.has(id)) send(socket, { type: "start", id, ...request });
    });
    return () => this.#cancel(id);
  }

  /** Closes the socket; answers still under way fail with connection_lost. */
  close(): void {
    this.#socket?.close(1000);
  }

  #cancel(id: string): void {
    const socket = this.#pending.get(id)?.socket;
    this.#pending.delete(id);
    if (socket?.readyState === WebSocket.OPEN) send(socket, { type: "cancel", id });
  }

  #usableSocket(): WebSocket {
    const isUsable = this.#socket !== null && this.#socket.readyState <= WebSocket.OPEN;
    return isUsable && this.#socket !== null ? this.#socket : this.#open();
  }

  #open(): WebSocket {
    const { url, apiKey, explainRefusal } = this.#options;
    const socket = new WebSocket(url, ["freehold.v1", `freehold-key.${apiKey}`]);
    let hasOpened = false;
    socket.addEventListener("open", () => (hasOpened = true));
    socket.addEventListener("message", (event) => this.#receive(event.data, socket));
    socket.addEventListener("close", () => {
      const lost = this.#takeAll(socket);
      if (lost.length === 0) return;
      if (hasOpened) failAll(lost, new ApiError("connection_lost"));
      else void explainRefusal(apiKey).then((error) => failAll(lost, error));
    });
    this.#socket = socket;
    return socket;
  }

  #receive(data: unknown, socket: WebSocket): void {
    try {
      const frame = parseFrame(data);
      if (frame === null) return;
      if (frame.type === "error" && frame.id === null) {
        failAll(this.#takeAll(socket), errorForStatus(frame.status, frame.message));
        return;
      }
      const id = frame.id as string;
      const pending = this.#pending.get(id);
      if (pending === undefined) return; // stopped here; the gateway had not heard yet
      if (frame.type === "token") {
        const isRepeat = frame.sequence <= pending.lastSequence;
        pending.lastSequence = Math.max(frame.sequence, pending.lastSequence);
        if (!isRepeat) pending.listener.token(frame);
        return;
      }
      this.#pending.delete(id);
      if (frame.type === "usage") pending.listener.usage(frame);
      else if (frame.type === "cancel") pending.listener.cancelled();
      else pending.listener.failed(errorForStatus(frame.status, frame.message));
    } catch (error) {
      failAll(this.#takeAll(socket), error instanceof ApiError ? error : new ApiError("bad_reply"));
    }
  }

  #takeAll(socket: WebSocket): AnswerListener[] {
    const taken = [...this.#pending].filter(([, pending]) => pending.socket === socket);
    for (const [id] of taken) this.#pending.delete(id);
    return taken.map(([, pending]) => pending.listener);
  }
}

/** The address of the stream at the host that served the page. */
export function streamUrl(location: Location): string {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/v1/stream`;
}

function whenOpen(socket: WebSocket, go: () => void): void {
  if (socket.readyState === WebSocket.OPEN) go();
  else socket.addEventListener("open", go, { once: true });
}

function send(socket: WebSocket, frame: ClientFrame): void {
  socket.send(JSON.stringify(frame));
}

function failAll(listeners: readonly AnswerListener[], error: ApiError): void {
  for (const listener of listeners) listener.failed(error);
}
