// What a question would find: both lists side by side, and whether it is an answer at all.

import { h } from "./dom.js";
import { deleteEntry, editEntry, entryParts } from "./kb-entries.js";

export class Search {
  constructor(page, root) {
    this.page = page;
    this.box = h("input", { type: "search", name: "q", required: true, maxlength: "4000", placeholder: "akun saya kekunci, ga bisa masuk", "aria-label": "Question", autocomplete: "off", "data-testid": "question" });
    this.many = h("select", { "aria-label": "Entries to find", "data-testid": "top-k" }, ...[5, 10, 20, 50].map((count) => h("option", { value: count }, `${count} entries`)));
    this.verdict = h("div", { class: "kb-verdict", role: "status", "data-testid": "verdict" });
    this.results = h("ol", { class: "kb-results", "data-testid": "results" });
    const form = h("form", { class: "kb-ask" }, this.box, this.many, h("button", { class: "primary", "data-testid": "search" }, "Search"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    root.append(h("h1", {}, "Try a question"), form, this.verdict, this.results);
    if (matchMedia("(hover: hover)").matches) this.box.focus();
  }

  async search() {
    const q = this.box.value.trim();
    if (!q) return;
    const asked = (this.asked = Symbol("question"));
    this.verdict.replaceChildren(h("p", { class: "small" }, "Searching…"));
    try {
      const query = new URLSearchParams({ q, top_k: this.many.value, collection: this.page.collection() });
      const found = await this.page.api.get(`/knowledge/search?${query}`);
      if (asked === this.asked) this.show(found);
    } catch (error) {
      if (asked !== this.asked) return;
      this.verdict.replaceChildren(h("p", { class: "problem" }, `It could not be searched: ${this.page.problem(error)}`));
      this.results.replaceChildren();
    }
  }

  show(found) {
    const { signals, results } = found;
    const percent = (share) => `${Math.round(share * 100)} %`;
    const said = [
      `${percent(signals.coverage)} of the question's words (${signals.matched})`,
      signals.similarity !== null && `similarity ${signals.similarity.toFixed(3)}`,
      signals.margin !== null && `${signals.margin.toFixed(3)} nearer than the next`,
      signals.agreed && "first in both lists",
    ];
    this.verdict.dataset.answerable = found.answerable;
    this.verdict.replaceChildren(...[
      h("p", { class: "kb-state" }, found.answerable ? "This would be answered." : results.length ? "Nothing here is an answer: the help desk would say that it does not know." : "Nothing was found."),
      results.length > 0 && h("p", { class: "small" }, said.filter(Boolean).join(" · ")),
      found.corrected.length > 0 && h("p", { class: "small", "data-testid": "corrected" }, "Read as: ", ...found.corrected.map(([from, to]) => `${from} → ${to} `)),
      found.degraded && h("p", { class: "notice waiting", "data-testid": "degraded" }, "Searched by words only: there was no vector of the question in time."),
    ].filter(Boolean));
    const most = (leg) => Math.max(...results.map((result) => result[leg]?.score ?? 0), 0.0001);
    const tops = { words: most("words"), vector: 1 };
    this.results.replaceChildren(...results.map((result, place) => this.result(result, place, tops)));
  }

  result({ document, score, fused, words, vector }, place, tops) {
    return h("li", { "data-testid": "result" },
      h("div", { class: "kb-found" }, h("span", { class: "kb-place" }, String(place + 1)), h("div", {}, ...entryParts(document).filter(Boolean),
        h("div", { class: "kb-row kb-tools" },
          h("button", { type: "button", class: "inline", onclick: async () => (await editEntry(this.page, document)) && this.search() }, "Change"),
          h("button", { type: "button", class: "inline", onclick: async () => (await deleteEntry(this.page, document)) && this.search() }, "Delete")))),
      h("dl", { class: "kb-legs" },
        leg("By words", words, tops.words, "words", 3),
        leg("By meaning", vector, tops.vector, "vector", 3),
        h("div", { class: "kb-leg" }, h("dt", {}, "Together"), h("dd", { title: `fused ${fused.toFixed(5)}` }, h("span", { class: "mono" }, `#${place + 1}`), ` relevance ${score.toFixed(2)}`))));
  }
}

/** The place of an entry in one of the lists, with what it was ordered by. */
function leg(name, found, top, kind, digits) {
  if (!found) return h("div", { class: "kb-leg missing", "data-leg": kind }, h("dt", {}, name), h("dd", {}, "not in this list"));
  return h("div", { class: "kb-leg", "data-leg": kind }, h("dt", {}, name),
    h("dd", {}, h("span", { class: "mono" }, `#${found.rank}`), ` ${found.score.toFixed(digits)}`,
      h("meter", { min: "0", max: String(top), value: String(Math.max(0, found.score)), "aria-hidden": "true" })));
}
