// One reply: its text, the state of the generation that makes it, and what one can do with it.

import { h, icon, iconButton, patch, setText } from "./dom.js";
import * as format from "./format.js";
import { deskParts, writer } from "./desk.js";
import { newestMessageId } from "./store.js";
import { ReplyText } from "./stream.js";

/** The state of a generation in a word and a few details, for the margin. */
export function describe(generation, isHead, nowMs) {
  const { live, status, usage } = generation;
  const model = format.modelName(generation.model);
  if (live) {
    const details = [];
    if (status === "queued") {
      details.push(isHead ? format.queuePlace(generation.queue_position) : "after the reply above");
      const estimate = generation.estimated_response_time_ms;
      if (estimate > 0) details.push(`about ${format.seconds(Math.max(1000, Math.round(estimate / 1000) * 1000)).replace(".0", "")}`);
      if (live.restarts) details.push(`attempt ${live.attempt + 1}`);
    } else {
      const elapsed = nowMs - Date.parse(generation.timings.started_at ?? "");
      details.push(model);
      if (live.attempt > 1 || live.restarts) details.push(live.attempt > 1 ? `attempt ${live.attempt}` : "started over");
      if (elapsed > 1500) details.push(`${Math.round(elapsed / 1000)} s`);
    }
    if (live.cut) details.push("reconnecting");
    let word = status === "queued" ? "queued" : live.text ? "writing" : "waiting for the model";
    if (live.notice?.kind === "retrying") word = "retrying";
    if (live.stopping) word = "stopping";
    return { word, details };
  }
  const spent = usage
    ? [`${format.count(usage.total_tokens)} tokens`, format.seconds(usage.processing_time_ms), format.cost(usage)]
    : [];
  if (status === "completed") return { word: "", details: [format.modelName(usage?.model ?? generation.model), ...spent] };
  if (status === "incomplete") return { word: "cut short", details: [format.modelName(usage?.model ?? generation.model), ...spent] };
  if (status === "cancelled") return { word: "stopped", details: generation.timings.started_at ? [model] : ["before it began"] };
  return { word: "failed", details: [model, generation.attempts > 1 && `${generation.attempts} attempts`].filter(Boolean) };
}

function usageTitle(generation) {
  const usage = generation?.usage;
  if (!usage) return generation?.model ?? "";
  const read = `${format.count(usage.prompt_tokens)} read (${format.count(usage.cached_tokens)} cached)`;
  return `${usage.model}\n${read}, ${format.count(usage.completion_tokens)} written`;
}

export class ReplyView {
  constructor(actions) {
    this.actions = actions;
    this.key = null;
    this.text = new ReplyText();
    this.status = h("p", { class: "status", "data-testid": "generation-status" });
    this.notice = h("div", { class: "notice-frame" });
    this.desk = h("div", { class: "desk" });
    this.tools = h("div", { class: "tools", role: "group", "aria-label": "This reply" });
    this.body = h("div", { class: "body" }, this.text.node, this.notice, this.desk, this.tools);
    this.who = h("h2", {}, "Balas");
    this.margin = h("header", { class: "margin" }, this.who, this.status);
    this.node = h("div", { class: "reply", role: "group", "data-testid": "message-assistant", "aria-label": "Balas" }, this.margin, this.body);
  }

  update({ reply, turn, thread, isHead, nowMs }) {
    const { message, generation } = reply;
    if (this.key !== reply.key) {
      this.key = reply.key;
      this.text.source = null;
      this.text.reset(-1);
    }
    const status = generation?.status ?? "completed";
    const { dataset } = this.node;
    if (dataset.status !== status) dataset.status = status;
    dataset.generationId = generation?.id ?? "";
    dataset.messageId = message?.id ?? "";
    this.updateStatus(reply, turn, isHead, nowMs);
    if (generation?.live) this.text.stream(generation.live);
    else this.text.setFinal(message?.content ?? generation?.partial_content ?? "");
    this.updateDesk(reply, turn, thread);
    this.updateNotice(reply, turn);
    this.updateTools(reply, turn, thread);
  }

  updateStatus({ message, generation }, turn, isHead, nowMs) {
    const said = generation ? describe(generation, isHead, nowMs) : { word: "", details: [] };
    const newest = turn.replies.at(-1);
    if (message && newest.message && newest.message !== message) said.word = "superseded";
    const mayStop = generation?.live && !isHead && !generation.live.stopping;
    const phase = generation?.live ? (generation.live.text ? "writing" : generation.status) : (generation?.status ?? "completed");
    this.status.dataset.status = generation?.status ?? "completed";
    this.status.dataset.phase = phase;
    const title = usageTitle(generation);
    if (this.status.title !== title) this.status.title = title;
    patch(this.status, JSON.stringify([said, mayStop]), () => [
      said.word && h("span", { class: "word" }, generation?.live && h("i", { class: "dot" }), said.word),
      ...said.details.filter(Boolean).map((detail) => h("span", {}, detail)),
      mayStop && h("button", { type: "button", class: "inline", onclick: () => this.actions.stop(generation) }, "withdraw"),
    ]);
  }

  /** What the help desk adds to its answers, and who has written this one. */
  updateDesk({ message }, turn, thread) {
    setText(this.who, writer(message));
    const isLast = message && message.id === newestMessageId(thread);
    const signature = JSON.stringify([message?.id, message?.metadata?.support, isLast]);
    patch(this.desk, signature, () => (message ? deskParts(message, isLast, this.actions) : []));
  }

  updateNotice({ generation, message }, turn) {
    const notice = generation?.live?.notice ?? null;
    const askAgain = generation && !generation.live && !turn.askedAgain && this.actions.mayAskAgain(turn, generation);
    const signature = JSON.stringify([notice, generation?.error, generation?.status, askAgain, Boolean(message)]);
    patch(this.notice, signature, () => {
      if (notice) return [h("p", { class: `notice ${notice.kind}`, "data-testid": "notice" }, ...noticeText(notice))];
      const again = askAgain && h("button", { type: "button", class: "outlined", "data-testid": "retry", onclick: () => this.actions.askAgain(turn, generation) }, icon("again"), generation.status === "failed" ? "Try again" : "Ask again");
      if (generation?.status === "failed") {
        const { message: text = "No reply came.", code = "" } = generation.error ?? {};
        return [h("div", { class: "problem", "data-testid": "generation-error" }, h("p", {}, text, " ", h("code", {}, code)), again)];
      }
      if (generation?.status === "cancelled") return [again && h("div", { class: "after" }, again)];
      if (generation?.status === "incomplete") return [h("p", { class: "notice" }, "The reply ends here because it reached the length limit.")];
      return [];
    });
  }

  updateTools({ message, generation }, turn, thread) {
    const at = turn.replies.findIndex((reply) => reply.key === this.key);
    const pages = turn.replies.length;
    const busy = turn.replies.some((reply) => reply.generation?.live);
    const rating = message ? thread.ratings.get(message.id) : null;
    const writable = thread.conversation?.status === "active";
    const signature = JSON.stringify([this.key, message?.id, at, pages, busy, rating, writable, Boolean(generation?.live)]);
    patch(this.tools, signature, () => {
      const page = (step) => this.actions.page(turn, turn.replies[at + step].key);
      const rate = (value, label) =>
        iconButton(value, label, () => this.actions.rate(message, value), { "aria-pressed": String(rating === value), "data-testid": `feedback-${value}` });
      return [
        pages > 1 &&
          h("span", { class: "pager", "data-testid": "pager" },
            iconButton("left", "Earlier reply", () => page(-1), { disabled: at === 0, "data-testid": "pager-earlier" }),
            h("span", {}, `${at + 1} / ${pages}`),
            iconButton("right", "Later reply", () => page(1), { disabled: at === pages - 1, "data-testid": "pager-later" })),
        message && navigator.clipboard && iconButton("copy", "Copy", () => this.actions.copy(message), { "data-testid": "copy" }),
        message && writable && turn.user && !message.metadata?.human && iconButton("again", "Regenerate", () => this.actions.regenerate(turn), { disabled: busy, "data-testid": "regenerate" }),
        message && rate("up", "Good reply"),
        message && rate("down", "Poor reply"),
      ];
    });
  }
}

function noticeText(notice) {
  if (notice.kind === "interim") return [notice.message];
  if (notice.kind === "taken_over") return ["Another worker took this over and begins again."];
  const failed = format.modelName(notice.model);
  const next = notice.next_model && notice.next_model !== notice.model ? format.modelName(notice.next_model) : "";
  const delay = notice.delay_ms > 500 ? ` in ${format.seconds(notice.delay_ms)}` : "";
  return [
    h("b", {}, failed), ` did not finish: ${format.words(notice.reason)}. `,
    notice.hadText && "What it had written is void. ",
    next ? "Starting over with " : "Trying again", next && h("b", {}, next), `${delay}.`,
  ].filter(Boolean);
}
