// Messages on their way out. Each keeps one idempotency key for as long as it takes, so that a repeat after a lost
// answer, even after a reload of the page, never becomes a second message.

import { ApiError, newKey } from "./api.js";
import { backoffMs, pause } from "./events.js";

export class Outbox {
  /**
   * `user` is whose messages these are: another person who signs in later must not send them.
   * `hooks`: `changed()`, `created(item, conversation)`, `accepted(item, answer)`.
   */
  constructor(api, user, hooks) {
    this.api = api;
    this.stored = `balas.outbox.${user}`;
    this.hooks = hooks;
    this.items = this.load();
    this.busy = false;
    this.stopped = false;
    this.nudge = new AbortController();
  }

  /** Takes a message; it leaves after those that came before it, so a person's order is kept. */
  add({ conversationId, draftKey, contextType, content, interrupt = false }) {
    const item = {
      key: newKey(),
      conversationId,
      draftKey,
      contextType, // of the conversation that its first message begins
      content,
      interrupt,
      at: new Date().toISOString(),
      state: "sending", // sending | waiting (no answer yet) | refused
      error: null,
    };
    this.items.push(item);
    this.save();
    this.hooks.changed();
    this.pump();
    return item;
  }

  /** Tries a waiting message now instead of later. */
  hurry() {
    this.nudge.abort();
  }

  discard(item) {
    const at = this.items.indexOf(item);
    if (at >= 0) this.items.splice(at, 1);
    this.save();
    this.hurry();
    this.hooks.changed();
  }

  sendingTo(conversationId) {
    return this.items.some((item) => item.conversationId === conversationId && item.state !== "refused");
  }

  stop() {
    this.stopped = true;
    this.hurry();
  }

  /** Sends what waits, one after another, until nothing is left that could still be accepted. */
  async pump() {
    if (this.busy) return;
    this.busy = true;
    let tries = 0;
    for (;;) {
      const item = this.items.find((candidate) => candidate.state !== "refused");
      if (!item || this.stopped) break;
      try {
        await this.deliver(item);
        tries = 0;
      } catch (error) {
        // The token is at fault, not the message: it is sent once there is a good one.
        if (error.status === 401) break;
        item.error = error;
        item.state = error instanceof ApiError && !error.passing ? "refused" : "waiting";
        this.save();
        this.hooks.changed();
        if (item.state === "waiting") {
          this.nudge = new AbortController();
          await pause(Math.max(error.retryAfterMs || 0, backoffMs(tries++)), this.nudge.signal);
        }
      }
    }
    this.busy = false;
  }

  async deliver(item) {
    if (!item.conversationId) {
      const begun = item.contextType ? { context_type: item.contextType } : {};
      const conversation = await this.api.post("/conversations", begun, item.draftKey);
      for (const other of this.items) {
        if (other.draftKey && other.draftKey === item.draftKey) other.conversationId = conversation.id;
      }
      this.save();
      this.hooks.created(item, conversation);
    }
    const body = { content: item.content };
    if (item.interrupt) body.concurrency = "interrupt";
    const answer = await this.api.post(`/conversations/${item.conversationId}/messages`, body, item.key);
    const at = this.items.indexOf(item);
    if (at >= 0) this.items.splice(at, 1);
    this.save();
    this.hooks.accepted(item, answer);
  }

  save() {
    const plain = this.items.map(({ error, ...item }) => ({ ...item, state: item.state === "refused" ? "refused" : "sending" }));
    sessionStorage.setItem(this.stored, JSON.stringify(plain));
  }

  load() {
    try {
      const items = JSON.parse(sessionStorage.getItem(this.stored) ?? "[]");
      return items.map((item) => ({ ...item, error: null }));
    } catch {
      return [];
    }
  }
}
