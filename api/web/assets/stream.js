// Draws a reply while it is written. Paragraphs that no further text can change are drawn once; only the unfinished
// end is drawn again, once per frame. Very long ends (a code block of thousands of lines) grow as plain text.

import { h } from "./dom.js";
import { renderMarkdown, settledLength } from "./markdown.js";

const LONG_TAIL = 8000;

export class ReplyText {
  constructor() {
    this.done = h("div", { class: "done" });
    this.tail = h("div", { class: "tail" });
    this.node = h("div", { class: "prose", "data-testid": "message-text" }, this.done, this.tail);
    this.source = null;
    this.reset(0);
  }

  reset(version) {
    this.version = version;
    this.settled = 0;
    this.shown = 0;
    this.plain = null;
    this.drawn = "";
    this.done.replaceChildren();
    this.tail.replaceChildren();
  }

  /** Shows a reply that will not change any more. */
  setFinal(text) {
    this.node.classList.remove("streaming");
    if (this.source === text) return;
    this.source = text;
    // What was drawn while it was written stays as it is, and with it whatever a person has selected.
    if (!this.drawn || !text.startsWith(this.drawn)) this.reset(0);
    renderMarkdown(text.slice(this.settled), this.done);
    this.tail.replaceChildren();
    this.drawn = "";
  }

  /** Shows the text so far. */
  stream({ text, version }) {
    this.source = null;
    this.node.classList.add("streaming");
    if (version !== this.version || text.length < this.shown) this.reset(version);
    if (text.length === this.shown) return;
    const settled = settledLength(text, this.settled);
    if (settled > this.settled) {
      renderMarkdown(text.slice(this.settled, settled), this.done);
      this.settled = settled;
      this.plain = null;
    }
    if (text.length - settled > LONG_TAIL) this.appendPlain(text);
    else {
      const fresh = h("div");
      renderMarkdown(text.slice(settled), fresh);
      this.tail.replaceChildren(...fresh.childNodes);
    }
    this.shown = text.length;
    this.drawn = text;
  }

  /** Adds to the last of several pieces: laying out one enormous paragraph anew in each frame would take too long. */
  appendPlain(text) {
    if (this.plain && this.plain.length < LONG_TAIL) {
      this.plain.appendData(text.slice(this.shown));
      return;
    }
    const from = this.plain ? this.shown : this.settled;
    if (!this.plain) this.tail.replaceChildren();
    this.plain = document.createTextNode(text.slice(from));
    this.tail.append(h("p", { class: "plain" }, this.plain));
  }
}

/** Reads replies out to screen readers: whole sentences, in order, at a pace that can be listened to. */
export class Narrator {
  constructor(region) {
    this.region = region;
    this.said = new Map();
    this.lastAt = 0;
  }

  /** Says what is new of a text that grows; the unfinished sentence at its end is kept for later. */
  follow(key, live) {
    const state = this.said.get(key);
    const from = state?.version === live.version ? state.upTo : 0;
    if (Date.now() - this.lastAt < 1500) return;
    const end = live.text.slice(from).search(/[.!?:\n][^.!?:\n]*$/);
    if (end < 0) return;
    this.said.set(key, { version: live.version, upTo: from + end + 1 });
    this.say(live.text.slice(from, from + end + 1));
  }

  /** Says the rest of a reply that is complete. Only for replies that were followed from here. */
  finish(key, text) {
    const state = this.said.get(key);
    this.said.delete(key);
    this.say(text.slice(state?.upTo ?? 0));
  }

  say(text) {
    const plain = text.replace(/[*_`#>|]+/g, " ").trim();
    if (!plain) return;
    this.lastAt = Date.now();
    this.region.append(h("p", {}, plain));
    while (this.region.childElementCount > 8) this.region.firstElementChild.remove();
  }
}
