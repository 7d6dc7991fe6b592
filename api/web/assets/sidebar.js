// The list of conversations, its menu, and the small dialogs.

import { h, iconButton, reconcile, setText } from "./dom.js";
import * as format from "./format.js";
import { lastActivity } from "./store.js";

const $ = (id) => document.getElementById(id);
const SEARCH_PAUSE_MS = 200;

export class Sidebar {
  constructor(actions) {
    this.actions = actions;
    let timer;
    $("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => actions.find($("search").value.trim()), SEARCH_PAUSE_MS);
    });
    for (const tab of document.querySelectorAll("[data-list]")) {
      tab.addEventListener("click", () => actions.showList(tab.dataset.list));
    }
    $("list-more").addEventListener("click", () => actions.loadMore());
    new IntersectionObserver(([entry]) => entry.isIntersecting && actions.loadMore(), { rootMargin: "200px" }).observe($("list-more"));
    this.drawer();
  }

  /** On a narrow screen the list is a drawer: the rest is out of reach while it is open. */
  drawer() {
    const set = (open) => {
      $("console").classList.toggle("drawer-open", open);
      $("main").inert = open;
      $("open-side").setAttribute("aria-expanded", String(open));
    };
    $("open-side").addEventListener("click", () => {
      set(true);
      $("new").focus();
    });
    this.closeDrawer = () => {
      if (!$("main").inert) return;
      set(false);
      $("open-side").focus();
    };
    $("shade").addEventListener("click", this.closeDrawer);
    document.addEventListener("keydown", (event) => event.key === "Escape" && $("menu").hidden && this.closeDrawer());
    matchMedia("(min-width: 56rem)").addEventListener("change", () => set(false));
  }

  toTop() {
    $("list").parentElement.scrollTop = 0;
  }

  render(state) {
    const { list } = state;
    const rows = [];
    let last = "";
    for (const conversation of list.items) {
      const period = format.period(lastActivity(conversation));
      if (period !== last && !list.query) rows.push({ key: `period ${period}`, period });
      last = period;
      rows.push({ key: conversation.id, conversation });
    }
    reconcile($("list"), rows, (row) => row.key, (row) => (row.period ? h("li", { class: "period" }, row.period) : this.newItem()), (node, row) => row.conversation && this.updateItem(node, row.conversation, state));
    for (const tab of document.querySelectorAll("[data-list]")) tab.setAttribute("aria-pressed", String(tab.dataset.list === list.status));
    $("list-more").hidden = !list.hasMore;
    let note = "";
    if (list.failed) note = "The list could not be read. Trying again…";
    else if (list.loaded && !list.items.length) {
      note = list.query ? "Nothing matches." : list.status === "archived" ? "Nothing is archived." : "Your conversations will stand here.";
    }
    setText($("list-note"), note);
    $("list-note").hidden = !note;
    setText($("holder-name"), state.holder.user.slice(0, 8));
    $("holder-name").title = state.holder.user;
    $("keep").hidden = state.holder.role !== "admin";
    setText($("holder-tier"), state.holder.role === "admin" ? `${state.holder.tier}, admin` : state.holder.tier);
  }

  newItem() {
    const item = h("li", { class: "item" });
    item.title = "";
    item.label = h("span", { class: "label" });
    item.when = h("span", { class: "when" });
    item.link = h("a", { "data-testid": "conversation-item" }, item.label, item.when);
    item.more = iconButton("more", "", () => this.actions.menu(item.more, item.conversation), { "aria-haspopup": "menu", "data-testid": "item-actions" });
    item.append(item.link, item.more);
    return item;
  }

  updateItem(item, conversation, state) {
    item.conversation = conversation;
    const { id, title } = conversation;
    const href = `#c=${id}`;
    if (item.link.getAttribute("href") !== href) {
      item.link.href = href;
      item.link.dataset.id = id;
      item.link.addEventListener("click", () => this.closeDrawer());
    }
    setText(item.label, title);
    const name = `Actions for ${title}`;
    if (item.more.title !== name) {
      item.more.title = name;
      item.more.setAttribute("aria-label", name);
    }
    const mark = state.running.has(id) ? "running" : state.unread.has(id) ? "unread" : "";
    if (item.dataset.mark !== mark) item.dataset.mark = mark;
    setText(item.when, mark === "running" ? "replying" : mark === "unread" ? "new" : format.shortTime(lastActivity(conversation)));
    if (state.thread.id === id) item.link.setAttribute("aria-current", "page");
    else item.link.removeAttribute("aria-current");
  }
}

/** Opens a menu of `[label, action, testId]` at a button. */
export function openMenu(button, entries) {
  const menu = $("menu");
  const close = (refocus) => {
    menu.hidden = true;
    removeEventListener("pointerdown", outside, true);
    removeEventListener("resize", away);
    removeEventListener("scroll", away, true);
    if (refocus) button.focus();
  };
  const away = () => close(false);
  const outside = (event) => !menu.contains(event.target) && close(false);
  menu.replaceChildren(...entries.map(([label, action, testId]) =>
    h("button", { type: "button", role: "menuitem", "data-testid": testId, onclick: () => { close(true); action(); } }, label)));
  menu.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      const items = [...menu.children];
      items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
    } else if (event.key === "Escape" || event.key === "Tab") close(true);
    else return;
    event.preventDefault();
  };
  menu.hidden = false;
  const at = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${at.bottom + height + 8 > innerHeight ? at.top - height - 4 : at.bottom + 4}px`;
  menu.firstElementChild.focus();
  addEventListener("pointerdown", outside, true);
  addEventListener("resize", away);
  addEventListener("scroll", away, true);
}

/** Asks in a dialog. Resolves to the input's text (or true, without an input), or to null when it was cancelled. */
export function ask({ title, text = "", value = null, yes, danger = false }) {
  const dialog = $("ask");
  const input = $("ask-input");
  setText($("ask-title"), title);
  setText($("ask-text"), text);
  $("ask-text").hidden = !text;
  input.hidden = value === null;
  input.required = value !== null;
  input.value = value ?? "";
  setText($("ask-yes"), yes);
  $("ask-yes").classList.toggle("danger", danger);
  $("ask-no").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  (value === null ? $("ask-no") : input).focus();
  input.select();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue !== "yes" ? null : value === null ? true : input.value.trim());
  });
}

let toastTimer;
/** Says something at the edge of the page for a few seconds, with one thing that can be done about it. */
export function toast(text, label, action) {
  const node = $("toast");
  clearTimeout(toastTimer);
  const hide = () => (node.hidden = true);
  const act = () => { hide(); action(); };
  node.replaceChildren(text, ...(label ? [" ", h("button", { type: "button", class: "inline", onclick: act }, label)] : []));
  node.hidden = false;
  toastTimer = setTimeout(hide, 7000);
}
