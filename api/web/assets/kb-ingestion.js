// One ingestion as it goes on: counts, progress, how long it will take, and what became of its rows.

import { backoffMs, pause, readSse } from "./events.js";
import { h, patch } from "./dom.js";
import * as format from "./format.js";

const TERMINAL = new Set(["completed", "completed_with_errors", "failed", "cancelled"]);
/** Silence of the stream after which it is opened again; the API sends a heartbeat every 15 s. */
const SILENCE_MS = 40_000;
const LISTED = 200;

export function isOver(ingestion) {
  return TERMINAL.has(ingestion.status);
}

/** Follows an ingestion to its end, reconnecting as long as it takes. Returns a function that stops it. */
export function followIngestion(api, id, told) {
  const stop = new AbortController();
  const readOnce = async () => {
    const dead = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => dead.abort(), SILENCE_MS);
    };
    const abort = () => dead.abort();
    stop.signal.addEventListener("abort", abort);
    heard();
    try {
      const response = await api.open("GET", `/knowledge/ingestions/${id}/events`, { signal: dead.signal });
      for await (const item of readSse(response.body, heard)) {
        const { ingestion } = JSON.parse(item.data).data;
        told(ingestion);
        if (isOver(ingestion)) return true;
      }
      return false;
    } finally {
      clearTimeout(timer);
      stop.signal.removeEventListener("abort", abort);
    }
  };
  (async () => {
    for (let tries = 0; !stop.signal.aborted; tries += 1) {
      try {
        if (await readOnce()) return;
        tries = 0;
      } catch (error) {
        if (stop.signal.aborted || (error.status && !error.passing)) return;
      }
      await pause(backoffMs(tries), stop.signal);
    }
  })();
  return () => stop.abort();
}

/** Waits for the end of an ingestion, for what makes a single entry. */
export function ended(api, id) {
  return new Promise((resolve) => followIngestion(api, id, (ingestion) => isOver(ingestion) && resolve(ingestion)));
}

const WORDS = {
  uploading: "is being received",
  queued: "waits for a worker",
  running: "is being indexed",
  completed: "indexed",
  completed_with_errors: "indexed, with errors",
  failed: "failed",
  cancelled: "cancelled",
};

export function statusWords(status) {
  return WORDS[status] ?? format.words(status);
}

function left(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `about ${Math.max(1, seconds)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

/** The counts of an ingestion, those that are nothing left out. */
export function counts(ingestion) {
  const all = [
    [ingestion.documents_new, "new"],
    [ingestion.documents_changed, "changed"],
    [ingestion.documents_unchanged, "unchanged"],
    [ingestion.rows_skipped_count, "skipped"],
    [ingestion.chunks_failed, "not embedded"],
  ];
  return all.filter(([count]) => count > 0).map(([count, word]) => `${format.count(count)} ${word}`);
}

/** Rows that make no entry, each with its line and why. */
export function problems(rows, total) {
  if (!rows.length) return null;
  const more = Math.max(total ?? 0, rows.length) - Math.min(rows.length, LISTED);
  return h("div", { class: "kb-problems", "data-testid": "problems" },
    h("h3", {}, `${format.count(Math.max(total ?? 0, rows.length))} rows make no entry`),
    h("ul", {}, ...rows.slice(0, LISTED).map(({ line, reason }) => h("li", {}, h("span", { class: "mono" }, `line ${line}`), " ", reason))),
    more > 0 && h("p", { class: "small" }, `and ${format.count(more)} more`));
}

/** Shows an ingestion, and keeps showing it while it goes on. */
export class IngestionView {
  constructor(page, root) {
    this.page = page;
    this.bar = h("progress", { max: 1, "aria-label": "Progress" });
    this.said = h("p", { class: "kb-state", role: "status", "data-testid": "ingestion-state" });
    this.figures = h("p", { class: "small", "data-testid": "ingestion-counts" });
    this.more = h("div");
    this.actions = h("div", { class: "kb-row" });
    this.node = h("section", { class: "kb-ingestion", "data-testid": "ingestion" }, this.said, this.bar, this.figures, this.actions, this.more);
    root.append(this.node);
  }

  show(ingestion, after) {
    this.stop();
    this.after = after;
    this.update(ingestion);
    if (!isOver(ingestion)) this.unfollow = followIngestion(this.page.api, ingestion.id, (next) => this.update(next));
  }

  update(ingestion) {
    const { status } = ingestion;
    const over = isOver(ingestion);
    this.node.dataset.status = status;
    const name = ingestion.file_name ?? (ingestion.kind === "reindex" ? "All entries" : "One entry");
    patch(this.said, JSON.stringify([name, status, ingestion.eta, ingestion.problem]), () => [
      h("b", {}, name), ` ${statusWords(status)}`, !over && ingestion.eta !== null && `, ${left(ingestion.eta)}`, ".",
      ingestion.problem && ` ${ingestion.problem}`,
    ]);
    // Rows become entries first, then their texts are embedded: each is half of the way.
    const rows = ingestion.documents_new + ingestion.documents_changed + ingestion.documents_unchanged + ingestion.rows_skipped_count;
    const read = ingestion.rows_read ? rows / ingestion.rows_read : 0;
    const texts = ingestion.chunks_total ? (ingestion.chunks_embedded + ingestion.chunks_failed) / ingestion.chunks_total : 0;
    this.bar.hidden = over;
    this.bar.value = Math.min(1, (read + texts) / 2);
    const cost = ingestion.cost === null || ingestion.cost === undefined ? "" : `$${Number(ingestion.cost).toPrecision(2)}`;
    const tokens = ingestion.tokens > 0 && `${format.count(ingestion.tokens)} tokens`;
    this.figures.textContent = [`${format.count(ingestion.rows_read)} rows`, ...counts(ingestion), tokens, Number(ingestion.cost) > 0 && cost].filter(Boolean).join(" · ");
    patch(this.actions, String(over), () => [
      !over && h("button", { type: "button", class: "outlined", "data-testid": "cancel-ingestion", onclick: () => this.cancel(ingestion.id) }, "Cancel"),
    ]);
    patch(this.more, JSON.stringify(ingestion.rows_skipped), () => [problems(ingestion.rows_skipped, ingestion.rows_skipped_count)]);
    if (over) {
      this.after?.();
      this.after = null;
    }
  }

  async cancel(id) {
    try {
      const { ingestion } = await this.page.api.send("POST", `/knowledge/ingestions/${id}/cancel`);
      this.update(ingestion);
    } catch (error) {
      if (error.status !== 409) this.page.toast(`It was not cancelled: ${this.page.problem(error)}`);
    }
  }

  stop() {
    this.unfollow?.();
    this.unfollow = null;
  }
}
