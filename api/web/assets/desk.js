// What the help desk adds to its answers: the entries they were made of, what to ask next, who takes over.

import { h } from "./dom.js";
import * as format from "./format.js";

/** Who has written a reply. */
export function writer(message) {
  return message?.metadata?.human ? message.metadata.agent || "A person" : "Balas";
}

/** The parts below an answer of the help desk; none below any other reply. */
export function deskParts(message, isLast, actions) {
  const support = message.metadata?.support;
  if (!support) return [];
  const { sources = [], suggestions = [] } = support;
  return [
    sources.length > 0 && h("div", { class: "sources", "data-testid": "sources" }, ...sources.map((source, place) => sourceOf(message, source, place, actions))),
    support.should_escalate && h("p", { class: "handed", "data-testid": "handed-over" }, "A person of the help desk has been asked to take over."),
    isLast && !support.should_escalate && suggestions.length > 0 &&
      h("div", { class: "next", "data-testid": "suggestions" }, ...suggestions.map((text) => h("button", { type: "button", onclick: () => actions.suggest(text) }, text))),
  ];
}

function sourceOf(message, source, place, actions) {
  const opened = h("div", { class: "opened", "data-testid": "source-text" });
  const node = h("details", { "data-testid": "source" },
    h("summary", {},
      h("span", { class: "mono" }, `[${place + 1}]`),
      h("span", {}, source.menu && h("span", { class: "menu-of" }, `${source.menu}: `), source.issue)),
    opened);
  node.addEventListener("toggle", () => node.open && open(message, place, opened, actions));
  return node;
}

async function open(message, place, into, actions) {
  if (into.childElementCount) return;
  into.textContent = "Opening…";
  try {
    const sources = await actions.openSources(message);
    const source = sources.find(({ number }) => number === place + 1);
    into.replaceChildren(...textOf(source));
  } catch (error) {
    into.textContent = `It could not be opened: ${error.message}.`;
  }
}

function textOf(source) {
  if (!source || source.solution === null) return [h("p", {}, "This entry is not in the knowledge base any more.")];
  const when = `${source.changed ? "Changed since this answer, on" : "As of"} ${format.shortTime(source.updated_at)}.`;
  return [h("p", {}, source.solution || "The entry has no solution yet."), h("p", { class: "small", title: format.fullTime(source.updated_at) }, when)];
}
