// Where a person writes. What is not sent yet survives a reload, for each conversation.

const $ = (id) => document.getElementById(id);
/** From here on the length is shown; how much is allowed is the API's to say. */
const LONG_MESSAGE = 3500;

export class Composer {
  /** `send(content, interrupt)` takes the message, or returns false to leave it where it is. */
  constructor(send) {
    this.send = send;
    this.box = $("message");
    this.draft = "";
    this.box.addEventListener("input", () => {
      this.keep();
      this.update();
    });
    this.box.addEventListener("keydown", (event) => {
      // While a word is being composed, Enter belongs to the input method.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit(event.ctrlKey || event.metaKey);
    });
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(false);
    });
  }

  submit(interrupt) {
    const content = this.box.value;
    if (content.trim() && this.send(content, interrupt) !== false) this.put("");
    this.focus();
  }

  focus() {
    this.box.focus();
  }

  /** Shows what was begun in that conversation, or in a new one. */
  open(conversationId) {
    this.draft = draftName(conversationId);
    this.box.value = sessionStorage.getItem(this.draft) ?? "";
  }

  /** The new conversation exists now; what is being written belongs to it. */
  rename(conversationId) {
    sessionStorage.removeItem(this.draft);
    this.draft = draftName(conversationId);
    this.keep();
  }

  put(text) {
    this.box.value = text;
    this.keep();
    this.update();
  }

  keep() {
    const { value } = this.box;
    if (value) sessionStorage.setItem(this.draft, value);
    else sessionStorage.removeItem(this.draft);
  }

  update(now) {
    if (now) Object.assign(this, now);
    const { box } = this;
    if (box.value !== this.measured) {
      this.measured = box.value;
      // `field-sizing: content` does this in CSS where it is known.
      if (!CSS.supports("field-sizing", "content")) {
        box.style.height = "auto";
        box.style.height = `${box.scrollHeight}px`;
      }
    }
    const empty = !box.value.trim();
    const length = [...box.value].length;
    $("send").disabled = empty || !this.ready;
    let hint = "Enter sends, Shift+Enter starts a new line";
    if (this.busy) hint = empty ? "" : "Enter queues it, Ctrl+Enter stops the reply and sends";
    if (length > LONG_MESSAGE) hint = `${length.toLocaleString()} characters`;
    if ($("hint").textContent !== hint) $("hint").textContent = hint;
  }
}

function draftName(conversationId) {
  return `balas.draft.${conversationId ?? "new"}`;
}

export function forgetDraft(conversationId) {
  sessionStorage.removeItem(draftName(conversationId));
}
