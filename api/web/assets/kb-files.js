// Files: choose one, see how it is understood, index it, watch it, and what was indexed before.

import { h } from "./dom.js";
import * as format from "./format.js";
import { IngestionView, counts, isOver, problems, statusWords } from "./kb-ingestion.js";

const FIELDS = { menu: "Menu", issue: "Issue", solution: "Solution", note_dev: "Note by dev", note_qa: "Note by QA" };
const DELIMITERS = { ",": "commas", ";": "semicolons", "\t": "tabs" };

export class Files {
  constructor(page, root) {
    this.page = page;
    this.input = h("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv", id: "file", "data-testid": "file", onchange: () => this.look(this.input.files[0]) });
    this.drop = h("label", { class: "kb-drop", for: "file" },
      h("b", {}, "Choose a CSV file, or drop it here."),
      h("span", {}, "UTF-8 or Windows-1252, with commas, semicolons or tabs. It is shown first, and nothing is stored before you say so."),
      this.input);
    this.seen = h("div", { "data-testid": "preview" });
    this.past = h("div");
    root.append(h("h1", {}, "Files"), this.drop, this.seen);
    this.view = new IngestionView(page, root);
    this.view.node.hidden = true;
    root.append(this.past);
    this.dropping();
    this.loadPast(true);
  }

  stop() {
    this.view.stop();
    this.stopped = true;
  }

  dropping() {
    const over = (on) => (event) => {
      event.preventDefault();
      this.drop.classList.toggle("over", on);
    };
    this.drop.addEventListener("dragover", over(true));
    this.drop.addEventListener("dragleave", over(false));
    this.drop.addEventListener("drop", (event) => {
      over(false)(event);
      this.look(event.dataTransfer.files[0]);
    });
  }

  form(file) {
    const form = new FormData();
    form.append("collection", this.page.collection());
    form.append("file", file);
    return form;
  }

  /** Files may take long: there is no time limit but the reader's own. */
  async send(path, file) {
    const response = await this.page.api.open("POST", path, { body: this.form(file) });
    return response.json();
  }

  async look(file) {
    if (!file) return;
    this.view.stop();
    this.view.node.hidden = true;
    this.seen.replaceChildren(h("p", { class: "kb-state", role: "status" }, `Reading ${file.name}…`));
    const asked = (this.asked = Symbol("file"));
    try {
      const { preview } = await this.send("/knowledge/ingestions?preview=true", file);
      if (asked === this.asked) this.seen.replaceChildren(...this.preview(file, preview));
    } catch (error) {
      if (asked !== this.asked) return;
      this.seen.replaceChildren(h("p", { class: "problem", role: "alert", "data-testid": "file-problem" }, `${file.name} cannot be read: ${this.page.problem(error)}`));
    }
    this.input.value = "";
  }

  preview(file, preview) {
    const entries = preview.rows_read - preview.rows_skipped.length;
    const facts = [
      `${format.count(preview.rows_read)} rows`,
      preview.encoding === "utf-8" ? "UTF-8" : "Windows-1252",
      `separated by ${DELIMITERS[preview.delimiter] ?? preview.delimiter}`,
    ];
    const used = new Set(preview.columns.map(({ column }) => column).filter(Boolean));
    const shown = Object.keys(FIELDS).filter((name) => used.has(name));
    return [
      h("h2", {}, file.name),
      h("p", { class: "kb-facts", "data-testid": "preview-facts" }, facts.join(" · ")),
      h("div", { class: "kb-map", "data-testid": "preview-columns" }, ...preview.columns.map(({ name, column }) =>
        h("p", { class: column ? "" : "left-out" }, h("span", { class: "mono" }, name || "(no name)"), " → ", column ? FIELDS[column] : "left out"))),
      preview.rows.length > 0 && h("div", { class: "kb-table", tabindex: "0" },
        h("table", { "data-testid": "preview-rows" },
          h("thead", {}, h("tr", {}, ...shown.map((name) => h("th", {}, FIELDS[name])))),
          h("tbody", {}, ...preview.rows.map((row) => h("tr", {}, ...shown.map((name) => h("td", {}, row[name]))))))),
      problems(preview.rows_skipped),
      h("div", { class: "kb-row" },
        h("button", { type: "button", class: "primary", disabled: entries < 1, "data-testid": "index-file", onclick: (event) => this.index(file, event.target) }, `Index it into ${this.page.collection()}`),
        h("button", { type: "button", class: "outlined", "data-testid": "drop-file", onclick: () => this.seen.replaceChildren() }, "Leave it")),
    ].filter(Boolean);
  }

  async index(file, button) {
    button.disabled = true;
    button.textContent = "Sending…";
    try {
      const { ingestion } = await this.send("/knowledge/ingestions", file);
      this.seen.replaceChildren();
      this.follow(ingestion);
      this.loadPast();
    } catch (error) {
      button.disabled = false;
      button.textContent = "Try again";
      this.page.toast(`It was not stored: ${this.page.problem(error)}`);
    }
  }

  follow(ingestion) {
    this.view.node.hidden = false;
    this.view.show(ingestion, () => this.loadPast());
  }

  async loadPast(first = false) {
    try {
      const { ingestions } = await this.page.api.get("/knowledge/ingestions?limit=20");
      if (this.stopped) return;
      this.past.replaceChildren(...(ingestions.length ? [h("h2", {}, "Before"), this.list(ingestions)] : []));
      // What goes on is shown at once, whoever began it.
      const running = ingestions.find((ingestion) => !isOver(ingestion));
      if (first && running) this.follow(running);
    } catch (error) {
      if (!this.stopped) this.past.replaceChildren(h("p", { class: "problem" }, `The list could not be read: ${this.page.problem(error)}`));
    }
  }

  list(ingestions) {
    return h("ul", { class: "kb-list", "data-testid": "ingestions" }, ...ingestions.map((ingestion) =>
      h("li", {}, h("button", { type: "button", onclick: () => this.open(ingestion.id) },
        h("span", { class: "kb-name" }, ingestion.file_name ?? (ingestion.kind === "reindex" ? "All entries" : "One entry")),
        h("span", { class: "small" }, [statusWords(ingestion.status), ...counts(ingestion)].join(" · ")),
        h("time", { class: "small", title: format.fullTime(ingestion.created_at) }, format.shortTime(ingestion.created_at))))));
  }

  async open(id) {
    try {
      const { ingestion } = await this.page.api.get(`/knowledge/ingestions/${id}`);
      this.follow(ingestion);
      this.view.node.scrollIntoView({ block: "nearest" });
    } catch (error) {
      this.page.toast(this.page.problem(error));
    }
  }
}
