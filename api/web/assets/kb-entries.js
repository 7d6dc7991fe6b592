// Entries: read, add, change, delete.

import { h } from "./dom.js";
import * as format from "./format.js";
import { ended } from "./kb-ingestion.js";

const PAGE = 25;

/** Adds an entry; waits until it can be found. */
export function addEntry(page, fields = {}) {
  return page.write("New entry", fields, (entry) => stored(page, "POST", "/knowledge/documents", { ...entry, collection: page.collection() }));
}

/** Changes an entry; waits until it can be found. */
export function editEntry(page, document) {
  return page.write("Change the entry", document, (entry) => stored(page, "PUT", `/knowledge/documents/${document.id}`, entry));
}

/** Sends an entry and waits until it is indexed. */
export async function stored(page, method, path, entry) {
  const { ingestion } = await page.api.send(method, path, entry);
  const done = await ended(page.api, ingestion.id);
  if (done.status === "failed" || done.status === "cancelled") throw new Error(done.problem ?? "it was given up");
  return done;
}

export async function deleteEntry(page, document) {
  const sure = await page.sure("Delete this entry?", `${document.menu ? `${document.menu}: ` : ""}${document.issue || document.solution}`, "Delete");
  if (!sure) return false;
  try {
    await page.api.send("DELETE", `/knowledge/documents/${document.id}`);
    return true;
  } catch (error) {
    page.toast(`It was not deleted: ${page.problem(error)}`);
    return error.status === 404;
  }
}

/** An entry as it is read, its long parts folded away. */
export function entryParts(document) {
  return [
    h("p", { class: "kb-title" }, document.menu && h("span", { class: "menu-of" }, `${document.menu}: `), document.issue || "(no issue)"),
    document.solution ? h("p", { class: "kb-solution" }, document.solution) : h("p", { class: "small" }, "No solution yet."),
    (document.note_dev || document.note_qa) && h("details", {}, h("summary", { class: "small" }, "Notes"),
      document.note_dev && h("p", { class: "kb-solution" }, h("b", {}, "Developers: "), document.note_dev),
      document.note_qa && h("p", { class: "kb-solution" }, h("b", {}, "Testers: "), document.note_qa)),
  ];
}

export class Entries {
  constructor(page, root) {
    this.page = page;
    this.offset = 0;
    this.total = h("p", { class: "kb-facts", "data-testid": "entries-total" });
    this.list = h("ul", { class: "kb-entries", "data-testid": "entries" });
    this.pages = h("div", { class: "kb-row" });
    root.append(
      h("div", { class: "kb-row kb-spread" }, h("h1", {}, "Entries"),
        h("button", { type: "button", class: "primary", "data-testid": "add-entry", onclick: () => this.add() }, "Add an entry")),
      this.total, this.list, this.pages);
    this.load();
  }

  async load() {
    const asked = (this.asked = Symbol("page"));
    try {
      const query = new URLSearchParams({ collection: this.page.collection(), limit: PAGE, offset: this.offset });
      const { documents, total, pagination } = await this.page.api.get(`/knowledge/documents?${query}`);
      if (asked !== this.asked) return;
      this.total.textContent = total ? `${format.count(total)} in ${this.page.collection()}, newest first` : `Nothing is in ${this.page.collection()} yet. Upload a file, or add an entry.`;
      this.list.replaceChildren(...documents.map((document) => this.item(document)));
      this.pages.replaceChildren(...[
        this.offset > 0 && this.turn("Newer", -PAGE),
        pagination.has_more && this.turn("Older", PAGE),
      ].filter(Boolean));
    } catch (error) {
      this.total.textContent = `The entries could not be read: ${this.page.problem(error)}`;
    }
  }

  turn(label, step) {
    return h("button", { type: "button", class: "outlined", onclick: () => {
      this.offset = Math.max(0, this.offset + step);
      this.load();
      scrollTo(0, 0);
    } }, label);
  }

  item(document) {
    return h("li", { "data-testid": "entry", "data-id": document.id }, ...entryParts(document),
      h("div", { class: "kb-row kb-tools" },
        h("span", { class: "small", title: format.fullTime(document.updated_at) }, `version ${document.version}, ${format.shortTime(document.updated_at)}`),
        h("button", { type: "button", class: "inline", "data-testid": "edit-entry", onclick: () => this.edit(document) }, "Change"),
        h("button", { type: "button", class: "inline", "data-testid": "delete-entry", onclick: () => this.remove(document) }, "Delete")));
  }

  async add() {
    if (!(await addEntry(this.page))) return;
    this.offset = 0;
    this.page.toast("The entry is in the knowledge base.");
    this.load();
  }

  async edit(document) {
    if (!(await editEntry(this.page, document))) return;
    this.page.toast("The entry was changed.");
    this.load();
  }

  async remove(document) {
    if (await deleteEntry(this.page, document)) this.load();
  }
}
