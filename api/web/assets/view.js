// The open conversation: its turns, the scrolling, the composer's state.

import { h, icon, iconButton, patch, reconcile, setText } from "./dom.js";
import * as format from "./format.js";
import { ReplyView } from "./reply.js";
import { headOf, selectedReply, turnsOf } from "./store.js";
import { Narrator } from "./stream.js";

const $ = (id) => document.getElementById(id);
const NEAR_END_PX = 80;
const CHAT = {
  lead: "Ask, and the reply is written here.",
  text: "Your message is stored before anything else happens. You can close this page; the reply comes all the same.",
  examples: [
    "Which careers suit someone who likes both numbers and teaching?",
    "Explain what an investigative RIASEC score says about how I work.",
    "Plan six weeks of evening study for a career change.",
  ],
};
const DESK = {
  lead: "Ask the help desk.",
  text: "Answers are made of the entries of the knowledge base, and name them. Where nothing is known, that is what you are told; a person takes over when that is right.",
  examples: ["Akun saya terkunci, bagaimana membukanya?", "SPP tidak bisa disimpan", "Saya ingin bicara dengan petugas"],
};

class TurnView {
  constructor(actions) {
    this.actions = actions;
    this.time = h("time");
    this.words = h("div", { class: "words", "data-testid": "message-user" });
    this.extra = h("div", { class: "extra" });
    this.who = h("h2", {}, "You");
    this.said = h("div", { class: "said", role: "group", "aria-label": "You" }, h("header", { class: "margin" }, this.who, this.time), h("div", { class: "body" }, this.words, this.extra));
    this.node = h("article", { class: "turn" });
    this.reply = null;
  }

  update(turn, context) {
    if (turn.user) this.updateUser(turn);
    const reply = selectedReply(context.thread, turn);
    if (reply) this.reply ??= new ReplyView(this.actions);
    const parts = [turn.user && this.said, reply && this.reply.node].filter(Boolean);
    if (this.node.childElementCount !== parts.length) this.node.replaceChildren(...parts);
    if (reply) this.reply.update({ reply, turn, thread: context.thread, isHead: context.head === reply.generation, nowMs: context.nowMs });
  }

  updateUser({ user, draft }) {
    setText(this.words, user.content);
    setText(this.who, user.sender_type === "system" ? "Note" : "You");
    const at = user.created_at;
    setText(this.time, format.shortTime(at));
    if (this.time.dateTime !== at) {
      this.time.dateTime = at;
      this.time.title = format.fullTime(at);
    }
    this.words.dataset.messageId = user.id ?? "";
    const state = draft ? draft.state : "sent";
    this.said.dataset.state = state;
    patch(this.extra, JSON.stringify([state, draft?.error?.message, user.attachments]), () => [
      ...(user.attachments ?? []).filter(({ url }) => /^https?:/i.test(url)).map(({ url, media_type }) =>
        h("a", { class: "attachment", href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, media_type)),
      state === "waiting" && this.waiting(draft),
      state === "refused" && this.refused(draft),
    ]);
  }

  waiting(draft) {
    const why = draft.error?.status ? draft.error.message : "The connection was lost.";
    return h("p", { class: "notice waiting", "data-testid": "not-sent" }, `Not confirmed yet. ${why} It is being sent again. `,
      h("button", { type: "button", class: "inline", onclick: () => this.actions.hurry() }, "Send now"), " ",
      h("button", { type: "button", class: "inline", onclick: () => this.actions.discard(draft) }, "Give up"));
  }

  refused(draft) {
    return h("div", { class: "problem", "data-testid": "refused" },
      h("p", {}, draft.error?.message ?? "This message was not accepted.", " ", h("code", {}, draft.error?.code ?? "")),
      h("button", { type: "button", class: "outlined", onclick: () => this.actions.edit(draft) }, "Edit"),
      h("button", { type: "button", class: "quiet", onclick: () => this.actions.discard(draft) }, "Discard"));
  }
}

export class ThreadView {
  constructor(actions) {
    this.actions = actions;
    this.pinned = true;
    this.shown = null;
    this.narrator = new Narrator($("narration"));
    this.narrated = new Map();
    const scroller = $("scroller");
    this.scroller = scroller;
    scroller.addEventListener("scroll", () => {
      this.pinned = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PX;
      $("latest").hidden = this.pinned;
    }, { passive: true });
    // Runs after layout and before paint, so following the text costs no extra layout.
    const follow = new ResizeObserver(() => this.pinned && this.toEnd());
    follow.observe(scroller);
    follow.observe($("content"));
    new IntersectionObserver(([entry]) => entry.isIntersecting && actions.loadOlder(), { root: scroller, rootMargin: "600px 0px 0px" }).observe($("older"));
    $("older").addEventListener("click", () => actions.loadOlder());
    $("latest").append(icon("latest"));
    $("latest").addEventListener("click", () => this.follow());
    $("head-actions").append(this.more = iconButton("more", "Actions for this conversation", () => actions.menu(this.more, this.shown?.conversation), { "aria-haspopup": "menu", "data-testid": "conversation-actions" }));
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Goes to the end and stays there while text arrives. */
  follow() {
    this.pinned = true;
    $("latest").hidden = true;
    this.toEnd();
  }

  /** Renders what was added above without moving what is being read. */
  renderInPlace(state) {
    const { scroller } = this;
    const below = scroller.scrollHeight - scroller.scrollTop;
    this.render(state);
    scroller.scrollTop = scroller.scrollHeight - below;
  }

  render(state) {
    const { thread } = state;
    const first = this.shown !== thread;
    if (first) {
      this.shown = thread;
      this.pinned = true;
      this.narrated.clear();
    }
    const head = headOf(thread);
    const context = { thread, head, nowMs: Date.now() + this.actions.skewMs() };
    const turns = turnsOf(thread, state.outbox);
    reconcile($("turns"), turns, (turn) => turn.key,
      (turn) => {
        const view = new TurnView(this.actions);
        view.node.view = view;
        view.node.dataset.key = turn.key;
        return view.node;
      },
      (node, turn) => node.view.update(turn, context));
    this.renderFrame(state, turns, head);
    this.narrate(thread);
    if (first) this.toEnd();
  }

  /** What a new conversation is for, before anything is asked. */
  invite(contextType) {
    const { lead, text, examples } = contextType === "support" ? DESK : CHAT;
    patch($("empty"), lead, () => [
      h("p", { class: "lead" }, lead),
      h("p", {}, text),
      h("ul", {}, ...examples.map((example) => h("li", {}, h("button", { type: "button", onclick: () => this.actions.suggest(example) }, example)))),
    ]);
  }

  renderFrame({ thread, feedLive }, turns, head) {
    this.invite(thread.contextType);
    const fresh = thread.contextType === "support" ? "New question to the help desk" : "New conversation";
    const title = thread.conversation?.title ?? (thread.state === "missing" ? "Not found" : thread.id ? "" : fresh);
    setText($("title"), title);
    document.title = title ? `${title} · Balas` : "Balas";
    this.more.hidden = !thread.conversation;
    setText($("link"), feedLive === false ? "Reconnecting…" : "");
    $("older").hidden = !thread.hasOlder;
    $("empty").hidden = Boolean(thread.id) || turns.length > 0;
    const trouble = { missing: "There is no such conversation. It may have been deleted.", failed: "The conversation could not be read. Trying again…" }[thread.state];
    $("turns").dataset.state = thread.state;
    $("turns").setAttribute("data-trouble", trouble ?? "");
    const archived = thread.conversation?.status === "archived";
    $("archived").hidden = !archived;
    $("composer").hidden = archived || thread.state === "missing";
    $("stop").hidden = !head;
    $("stop").disabled = Boolean(head?.live.stopping);
    this.busy = Boolean(head);
  }

  narrate(thread) {
    for (const generation of thread.generations.values()) {
      const { id, live, status } = generation;
      const before = this.narrated.get(id);
      if (live) {
        if (before !== status) this.narrated.set(id, status);
        this.narrator.follow(id, live);
      } else if (before && before !== "told") {
        this.narrated.set(id, "told");
        const reply = thread.messages.get(generation.assistant_message_id)?.content;
        if (reply) this.narrator.finish(id, reply);
        else this.narrator.say(status === "failed" ? `The reply failed. ${generation.error?.message ?? ""}` : "The reply was stopped.");
      }
    }
  }
}
