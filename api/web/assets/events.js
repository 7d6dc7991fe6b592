// Events: one generation's log by SSE, and the feed of all conversations by WebSocket.
//
// The text of a reply comes by SSE only, because that log can be read from its beginning and resumed by id. The
// feed tells what happens elsewhere: another tab, another conversation, a title. It is not resumed; whoever owns it
// reads the lists again each time it opens.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 15_000;
/** The API sends a heartbeat every 15 s; this much silence means the connection is dead. */
const SILENCE_MS = 40_000;
const PING_MS = 20_000;
/** A socket that lived this long was a good one: the next wait starts small again. */
const STEADY_MS = 5_000;
const TERMINAL = new Set(["generation.completed", "generation.failed", "generation.cancelled"]);

/** How long to wait before try `n` (from 0): doubling, with the upper half random so that tabs spread out. */
export function backoffMs(n) {
  const cap = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** n);
  return cap / 2 + Math.random() * (cap / 2);
}

/** Sleeps; ends early when the browser comes back online, and at once when aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}

/** Reads `text/event-stream` bytes; yields `{id, event, data}`. `onBytes` hears of every chunk, heartbeats included. */
export async function* readSse(body, onBytes) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let item = { id: "", event: "", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes();
      // A chunk may end between CR and LF; the CR is kept back until the next one shows which it is.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (item.data.length) yield { id: item.id, event: item.event, data: item.data.join("\n") };
          item = { id: item.id, event: "", data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") item.data.push(text);
        else if (field === "id") item.id = text;
        else if (field === "event") item.event = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Follows one generation until its terminal event, reconnecting as long as it takes.
 * `hooks`: `event(e)`, `trouble(isCut)`, `restart()` (the log is read from its beginning again), `gone(error)`.
 * Returns a function that stops it.
 */
export function followGeneration(api, id, after, hooks) {
  const stop = new AbortController();
  let cursor = after;
  let tries = 0;

  const readOnce = async () => {
    const dead = new AbortController();
    const abort = () => dead.abort();
    let timer = setTimeout(abort, SILENCE_MS);
    const onBytes = () => {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE_MS);
    };
    stop.signal.addEventListener("abort", abort);
    try {
      const headers = cursor ? { "Last-Event-ID": cursor } : {};
      const response = await api.open("GET", `/generations/${id}/events`, { headers, signal: dead.signal });
      // The log has nothing after the event we have.
      if (response.status === 204) {
        hooks.gone();
        return true;
      }
      hooks.trouble(false);
      for await (const item of readSse(response.body, onBytes)) {
        if (stop.signal.aborted) return true;
        const event = JSON.parse(item.data);
        if (cursor && event.id <= cursor) continue;
        cursor = event.id;
        tries = 0;
        hooks.event(event);
        if (TERMINAL.has(event.type)) return true;
      }
      return false;
    } finally {
      clearTimeout(timer);
      stop.signal.removeEventListener("abort", abort);
    }
  };

  (async () => {
    while (!stop.signal.aborted) {
      let wait = 0;
      try {
        if (await readOnce()) return;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (cursor && (error.status === 400 || error.status === 422)) {
          cursor = null;
          hooks.restart();
        } else if (error.status && !error.passing) {
          hooks.gone(error);
          return;
        }
        wait = error.retryAfterMs || 0;
      }
      if (stop.signal.aborted) return;
      hooks.trouble(true);
      await pause(Math.max(wait, backoffMs(tries++)), stop.signal);
    }
  })();
  return () => stop.abort();
}

/** The WebSocket feed of everything that is the user's. `hooks`: `event(e)`, `open()`, `state(isLive)`. */
export function openFeed(api, hooks) {
  const stop = new AbortController();

  const runOnce = async () => {
    const { ticket } = await api.send("POST", "/ws-ticket");
    if (stop.signal.aborted) return false;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/chat/ws?ticket=${encodeURIComponent(ticket)}`);
    const close = () => socket.close();
    stop.signal.addEventListener("abort", close);
    let openedAt = 0;
    let heard = true;
    const timer = setInterval(() => {
      if (!heard) {
        socket.close();
        return;
      }
      heard = false;
      if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}');
    }, PING_MS);
    await new Promise((resolve) => {
      socket.onopen = () => {
        openedAt = Date.now();
        hooks.state(true);
        hooks.open();
      };
      socket.onmessage = ({ data }) => {
        heard = true;
        const event = JSON.parse(data);
        if (event.conversation_id) hooks.event(event);
      };
      socket.onclose = resolve;
      stop.signal.addEventListener("abort", resolve);
    });
    clearInterval(timer);
    stop.signal.removeEventListener("abort", close);
    return openedAt > 0 && Date.now() - openedAt > STEADY_MS;
  };

  (async () => {
    let tries = 0;
    while (!stop.signal.aborted) {
      let wait = 0;
      try {
        if (await runOnce()) tries = 0;
      } catch (error) {
        wait = error.retryAfterMs || 0;
      }
      if (stop.signal.aborted) return;
      hooks.state(false);
      await pause(Math.max(wait, backoffMs(tries++)), stop.signal);
    }
  })();
  return () => stop.abort();
}
