// The page of those who keep the knowledge base: finds the token, and shows the part that the address names.

import { Api, readToken } from "./api.js";
import { h, setText } from "./dom.js";
import { Entries } from "./kb-entries.js";
import { Files } from "./kb-files.js";
import { Gaps, Proposals } from "./kb-gaps.js";
import { Search } from "./kb-search.js";

const $ = (id) => document.getElementById(id);
/** Apart from the console's, so that one browser may ask as one person and keep entries as another. */
const STORED = "balas.editor";
const CONSOLE = "balas.token";
const PARTS = { files: Files, entries: Entries, search: Search, gaps: Gaps, proposals: Proposals };

/** What every part of the page works with. */
class Page {
  constructor(token) {
    this.api = new Api(token, () => showGate("The API no longer accepts that token. Make a new one."));
    this.part = null;
  }

  collection() {
    return $("collection").value.trim() || "default";
  }

  /** Shows a part. Each is made anew, so that it shows how things are now. */
  show(name) {
    this.part?.stop?.();
    for (const tab of document.querySelectorAll("[data-tab]")) {
      if (tab.dataset.tab === name) {
        tab.setAttribute("aria-current", "page");
        // On a phone the row of them is wider than the page.
        tab.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else tab.removeAttribute("aria-current");
    }
    const root = h("div", { class: "kb-part", "data-part": name });
    $("body").replaceChildren(root);
    this.part = new PARTS[name](this, root);
  }

  stop() {
    this.part?.stop?.();
    this.part = null;
    $("body").replaceChildren();
  }

  toast(text) {
    const node = $("toast");
    clearTimeout(this.toasted);
    setText(node, text);
    node.hidden = false;
    this.toasted = setTimeout(() => (node.hidden = true), 7000);
  }

  /** Says why something was refused, with the field where there is one. */
  static problem(error) {
    const fields = (error.fields ?? []).map(({ field, message }) => `${field} ${message}`);
    return fields.length ? fields.join("; ") : error.message;
  }

  problem(error) {
    return Page.problem(error);
  }

  sure(title, text, yes) {
    const dialog = $("sure");
    setText($("sure-title"), title);
    setText($("sure-text"), text);
    setText($("sure-yes"), yes);
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
  }

  /**
   * Lets somebody write an entry. `save(fields)` stores it; while it refuses, the dialog stays and says why.
   * Resolves to what `save` gave, or to null.
   */
  write(title, fields, save) {
    const names = ["menu", "issue", "solution", "note_dev", "note_qa"];
    setText($("entry-title"), title);
    $("entry-problem").hidden = true;
    for (const name of names) $(`entry-${name}`).value = fields[name] ?? "";
    $("entry").showModal();
    $("entry-issue").focus();
    return new Promise((resolve) => {
      const close = (value) => {
        $("entry-form").onsubmit = null;
        $("entry").onclose = null;
        $("entry").close();
        resolve(value);
      };
      $("entry-no").onclick = () => close(null);
      $("entry").onclose = () => close(null);
      $("entry-form").onsubmit = async (event) => {
        event.preventDefault();
        $("entry-yes").disabled = true;
        try {
          close(await save(Object.fromEntries(names.map((name) => [name, $(`entry-${name}`).value]))));
        } catch (error) {
          setText($("entry-problem"), `It was not stored: ${Page.problem(error)}`);
          $("entry-problem").hidden = false;
        }
        $("entry-yes").disabled = false;
      };
    });
  }
}

let page = null;

function showGate(reason) {
  localStorage.removeItem(STORED);
  page?.stop();
  page = null;
  $("page").hidden = true;
  $("gate").hidden = false;
  $("gate-reason").hidden = !reason;
  setText($("gate-reason"), reason);
  $("token").focus();
}

function enter(token) {
  const holder = readToken(token);
  if (!holder) return showGate("That is not a token: it should be three parts joined by dots.");
  if (holder.expired) return showGate("That token has expired. Make a new one.");
  if (holder.role !== "admin") return showGate("That token is not an administrator's.");
  localStorage.setItem(STORED, token);
  page?.stop();
  page = new Page(token);
  $("gate").hidden = true;
  $("page").hidden = false;
  route();
}

function route() {
  const name = location.hash.slice(1);
  page?.show(name in PARTS ? name : "files");
}

/** Takes the token out of the address, so that it is neither bookmarked nor shared. */
function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname);
  return token?.trim();
}

/** The console's token, where it is an administrator's. */
function consoleToken() {
  const token = localStorage.getItem(CONSOLE);
  return token && readToken(token)?.role === "admin" ? token : null;
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  enter(token);
});
$("leave").addEventListener("click", () => showGate(""));
$("collection").addEventListener("change", () => $("collection").reportValidity() && route());
addEventListener("hashchange", () => {
  const token = tokenFromAddress();
  if (token) enter(token);
  else route();
});

const token = tokenFromAddress() || localStorage.getItem(STORED) || consoleToken();
if (token) enter(token);
else showGate("");
