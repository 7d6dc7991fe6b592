// What people ask and the knowledge base does not answer, and what it may learn from those who did.

import { h } from "./dom.js";
import * as format from "./format.js";
import { addEntry, editEntry, stored } from "./kb-entries.js";

export class Gaps {
  constructor(page, root) {
    this.page = page;
    this.days = h("select", { "aria-label": "Of how many days", "data-testid": "gap-days", onchange: () => this.load() },
      ...[7, 30, 90, 365].map((days) => h("option", { value: days, selected: days === 30 }, `${days} days`)));
    this.facts = h("p", { class: "kb-facts", "data-testid": "gap-facts" });
    this.list = h("ol", { class: "kb-entries", "data-testid": "gaps" });
    this.entries = h("div");
    root.append(
      h("div", { class: "kb-row kb-spread" }, h("h1", {}, "Gaps"), h("div", { class: "kb-row" }, this.days,
        h("button", { type: "button", class: "outlined", "data-testid": "gap-csv", onclick: () => this.download() }, "Download CSV"))),
      h("p", { class: "kb-lead" }, "What people asked and got no answer to, or one that did not help. Addresses, links and long numbers are left out; names that people write are not, so treat it as theirs."),
      this.facts, this.list, this.entries);
    this.load();
  }

  async load() {
    const asked = (this.asked = Symbol("gaps"));
    try {
      const report = await this.page.api.get(`/knowledge/gaps?days=${this.days.value}`);
      if (asked !== this.asked) return;
      this.facts.textContent = report.gaps.length
        ? `${format.count(report.questions)} ${report.questions === 1 ? "question" : "questions"} about ${format.count(report.gaps.length)} ${report.gaps.length === 1 ? "thing" : "things"}${report.truncated ? ", the newest and largest of more" : ""}`
        : "Nothing was asked that was not answered.";
      this.list.replaceChildren(...report.gaps.map((gap) => this.gap(gap)));
      this.entries.replaceChildren(...(report.entries.length ? [h("h2", {}, "Entries that did not help"), this.rated(report.entries)] : []));
    } catch (error) {
      this.facts.textContent = `The report could not be read: ${this.page.problem(error)}`;
    }
  }

  gap(gap) {
    const parts = [
      gap.unanswered > 0 && `${format.count(gap.unanswered)} not answered`,
      gap.down_voted > 0 && `${format.count(gap.down_voted)} did not help`,
      `${format.count(gap.conversations)} ${gap.conversations === 1 ? "conversation" : "conversations"}`,
      `last ${format.shortTime(gap.last_at)}`,
    ];
    const others = gap.examples.filter((example) => example !== gap.question);
    return h("li", { class: "kb-gap", "data-testid": "gap" },
      h("span", { class: "kb-count" }, format.count(gap.count)),
      h("div", {},
        h("p", { class: "kb-title" }, gap.question),
        h("p", { class: "small" }, parts.filter(Boolean).join(" · ")),
        others.length > 0 && h("details", {}, h("summary", { class: "small" }, "Also asked as"), h("ul", {}, ...others.map((example) => h("li", {}, example)))),
        h("div", { class: "kb-row kb-tools" },
          h("button", { type: "button", class: "inline", "data-testid": "write-entry", onclick: () => this.write(gap) }, "Write an entry"))));
  }

  rated(entries) {
    return h("ul", { class: "kb-entries", "data-testid": "rated" }, ...entries.map((entry) => h("li", {},
      h("p", { class: "kb-title" }, entry.menu && h("span", { class: "menu-of" }, `${entry.menu}: `), entry.issue),
      h("div", { class: "kb-row kb-tools" },
        h("span", { class: "small" }, `${format.count(entry.down)} did not help, ${format.count(entry.up)} did`),
        h("button", { type: "button", class: "inline", onclick: () => this.edit(entry.document_id) }, "Change the entry")))));
  }

  async write(gap) {
    if (await addEntry(this.page, { issue: gap.question })) this.page.toast("The entry is in the knowledge base. Questions that were asked before stay in this report.");
  }

  async edit(id) {
    try {
      const { document } = await this.page.api.get(`/knowledge/documents/${id}`);
      if (await editEntry(this.page, document)) this.page.toast("The entry was changed.");
    } catch (error) {
      this.page.toast(this.page.problem(error));
    }
  }

  async download() {
    try {
      const response = await this.page.api.open("GET", `/knowledge/gaps?format=csv&days=${this.days.value}`);
      const address = URL.createObjectURL(await response.blob());
      h("a", { href: address, download: `gaps-${this.days.value}-days.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.page.toast(`It could not be downloaded: ${this.page.problem(error)}`);
    }
  }
}

export class Proposals {
  constructor(page, root) {
    this.page = page;
    this.facts = h("p", { class: "kb-facts", "data-testid": "proposal-facts" });
    this.list = h("ul", { class: "kb-entries", "data-testid": "proposals" });
    root.append(
      h("h1", {}, "Proposals"),
      h("p", { class: "kb-lead" }, "What a person answered who took a conversation over and resolved it. Make an entry of it in your own words, or dismiss it: either way these words are then forgotten."),
      this.facts, this.list);
    this.load();
  }

  async load() {
    try {
      const { proposals, pagination } = await this.page.api.get("/knowledge/proposals?limit=50");
      this.facts.textContent = proposals.length ? `${format.count(proposals.length)}${pagination.has_more ? " and more" : ""} to decide` : "There is nothing to decide.";
      this.list.replaceChildren(...proposals.map((proposal) => this.item(proposal)));
    } catch (error) {
      this.facts.textContent = `The proposals could not be read: ${this.page.problem(error)}`;
    }
  }

  item(proposal) {
    return h("li", { "data-testid": "proposal" },
      h("p", { class: "kb-title" }, proposal.issue || "(nothing was asked)"),
      h("p", { class: "kb-solution" }, proposal.solution),
      h("p", { class: "small" }, `Resolved ${format.shortTime(proposal.created_at)}: ${proposal.resolution}`),
      h("div", { class: "kb-row kb-tools" },
        h("button", { type: "button", class: "inline", "data-testid": "approve", onclick: () => this.approve(proposal) }, "Make an entry of it"),
        h("button", { type: "button", class: "inline", "data-testid": "dismiss", onclick: () => this.dismiss(proposal) }, "Dismiss")));
  }

  async approve(proposal) {
    const fields = { issue: proposal.issue, solution: proposal.solution };
    const done = await this.page.write("Entry from a resolved conversation", fields, (entry) =>
      stored(this.page, "POST", `/knowledge/proposals/${proposal.id}/approve`, { ...entry, collection: this.page.collection() }));
    if (!done) return;
    this.page.toast("The entry is in the knowledge base.");
    this.load();
  }

  async dismiss(proposal) {
    if (!(await this.page.sure("Dismiss this proposal?", "What was asked and answered is forgotten here.", "Dismiss"))) return;
    try {
      await this.page.api.send("POST", `/knowledge/proposals/${proposal.id}/dismiss`);
    } catch (error) {
      if (error.status !== 409) this.page.toast(this.page.problem(error));
    }
    this.load();
  }
}
