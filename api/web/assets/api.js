// HTTP to the API: one place that adds the token, reads problem+json and tells a refusal from a lost connection.

const BASE = "/api/chat";
const TIMEOUT_MS = 35_000;

/** The API answered, and the answer was no. */
export class ApiError extends Error {
  constructor(status, problem, headers) {
    super(problem.detail || problem.title || `the API answered ${status}`);
    this.status = status;
    this.code = problem.code || `http_${status}`;
    this.fields = problem.errors || [];
    this.requestId = problem.request_id || headers.get("x-request-id") || "";
    const seconds = Number(headers.get("retry-after"));
    this.retryAfterMs = Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
  }

  /** Whether the same request, with the same key, may succeed later. */
  get passing() {
    const stillRunning = this.status === 409 && this.code.startsWith("idempotency");
    return stillRunning || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** No answer came: the request may or may not have been carried out. */
export class NetworkError extends Error {}

/** A random key. `crypto.randomUUID` exists only on https and localhost, so it is not used. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the token says of its holder, or null when it is not a JWT. Only the API can tell whether it is genuine. */
export function readToken(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    const user = claims.sub || claims.id || claims.user_id;
    if (!user) return null;
    const expired = typeof claims.exp === "number" && claims.exp * 1000 <= Date.now();
    return { user, tier: claims.tier || "free", role: claims.role || "user", expired };
  } catch {
    return null;
  }
}

export class Api {
  /** The server's clock minus ours, in milliseconds; 0 while they agree within the header's resolution. */
  skewMs = 0;

  constructor(token, onUnauthorised) {
    this.token = token;
    this.onUnauthorised = onUnauthorised;
  }

  get(path) {
    return this.send("GET", path);
  }

  /** A POST that creates something; repeating it with the same key creates nothing more. */
  post(path, body, key = newKey()) {
    return this.send("POST", path, body, { "Idempotency-Key": key });
  }

  async send(method, path, body, headers = {}) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
    try {
      const response = await this.open(method, path, { body, headers, signal: stop.signal });
      if (response.status === 204) return null;
      return await response.json();
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw new NetworkError("no answer from the API", { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** The response itself, for streams. Throws ApiError unless the status is a success. */
  async open(method, path, { body, headers = {}, signal } = {}) {
    const all = { Authorization: `Bearer ${this.token}`, ...headers };
    // A form says itself what it is: the browser adds the boundary between its parts.
    const isForm = body instanceof FormData;
    if (body !== undefined && !isForm) all["Content-Type"] = "application/json";
    const payload = body === undefined || isForm ? body : JSON.stringify(body);
    const response = await fetch(BASE + path, { method, headers: all, body: payload, signal, cache: "no-store" });
    const skew = Date.parse(response.headers.get("date")) - Date.now();
    this.skewMs = Math.abs(skew) > 2000 ? skew : 0;
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const error = new ApiError(response.status, problem, response.headers);
    if (error.status === 401) this.onUnauthorised(error);
    throw error;
  }
}
