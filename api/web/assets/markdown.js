// Markdown, the part that models write. It builds DOM nodes and puts text into them as text, never as HTML, so
// nothing a model writes can become markup; links are http(s) only.

/** Above this many characters a single paragraph is shown as it is: the patterns below are not linear. */
const INLINE_LIMIT = 8000;
const DEEPEST = 6;

const INLINE = new RegExp(
  [
    "\\\\([\\\\`*_{}\\[\\]()#+\\-.!|>~])", // 1: an escaped mark
    "(`{1,3})([^]*?[^`])\\2(?!`)", // 2, 3: code
    "\\*\\*(?=\\S)([^]*?[^\\s*]\\*?)\\*\\*", // 4: bold
    "(?<!\\w)__(?=\\S)([^]*?\\S)__(?!\\w)", // 5: bold
    "\\*(?=[^\\s*])([^*]*?[^\\s*])\\*(?!\\*)", // 6: emphasis
    "(?<!\\w)_(?=[^\\s_])([^_]*?[^\\s_])_(?!\\w)", // 7: emphasis
    "~~(?=\\S)([^]*?\\S)~~", // 8: struck out
    "\\[([^\\]\\n]+)\\]\\((https?://(?:[^\\s()\"<>]|\\([^\\s()\"<>]*\\))+)\\)", // 9, 10: link
    "(https?://(?:[^\\s()\"<>\\]`*]|\\([^\\s()\"<>]*\\))*(?:[^\\s()\"<>\\]`*.,;:!?']|\\([^\\s()\"<>]*\\)))", // 11: bare address
  ].join("|"),
  "gi",
);

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^\s{0,3}>\s?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function link(label, address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return label;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return label;
  const node = element("a", label);
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

function inline(text, depth = 0) {
  const out = document.createDocumentFragment();
  if (depth > DEEPEST || text.length > INLINE_LIMIT) {
    out.append(text);
    return out;
  }
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    out.append(text.slice(from, match.index));
    from = match.index + match[0].length;
    const [, mark, , code, bold1, bold2, em1, em2, struck, label, address, bare] = match;
    if (mark) out.append(mark);
    else if (code) out.append(element("code", code));
    else if (bold1 || bold2) out.append(element("strong", inline(bold1 || bold2, depth + 1)));
    else if (em1 || em2) out.append(element("em", inline(em1 || em2, depth + 1)));
    else if (struck) out.append(element("s", inline(struck, depth + 1)));
    else if (address) out.append(link(inline(label, depth + 1), address));
    else out.append(link(bare, bare));
  }
  out.append(text.slice(from));
  return out;
}

/** Appends the blocks of `text` to `into`. */
export function renderMarkdown(text, into, depth = 0) {
  const lines = text.split(/\r?\n/);
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") at += 1;
    else if (FENCE.test(line)) at = fence(lines, at, into);
    else if (HEADING.test(line)) {
      const [, marks, title] = line.match(HEADING);
      into.append(element(marks.length < 4 ? "h3" : "h4", inline(title)));
      at += 1;
    } else if (RULE.test(line)) {
      into.append(element("hr"));
      at += 1;
    } else if (QUOTE.test(line) && depth < DEEPEST) at = quote(lines, at, into, depth);
    else if (ITEM.test(line) && depth < DEEPEST) at = list(lines, at, into, depth);
    else if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) at = table(lines, at, into);
    else at = paragraph(lines, at, into);
  }
}

function paragraph(lines, at, into) {
  const start = at;
  do at += 1;
  while (at < lines.length && lines[at].trim() !== "" && !startsBlock(lines[at]));
  into.append(element("p", inline(lines.slice(start, at).map((line) => line.trim()).join("\n"))));
  return at;
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function fence(lines, at, into) {
  const [, marks, language] = lines[at].match(FENCE);
  const start = at + 1;
  const closes = (line) => line.trim().startsWith(marks) && line.trim().replaceAll(marks[0], "") === "";
  at = start;
  while (at < lines.length && !closes(lines[at])) at += 1;
  const code = element("code", lines.slice(start, at).join("\n"));
  const block = element("pre", code);
  block.tabIndex = 0;
  if (language) block.dataset.language = language;
  into.append(block);
  return at + 1;
}

function quote(lines, at, into, depth) {
  const inner = [];
  while (at < lines.length && lines[at].trim() !== "" && (QUOTE.test(lines[at]) || !startsBlock(lines[at]))) {
    inner.push(lines[at].replace(QUOTE, ""));
    at += 1;
  }
  const block = element("blockquote");
  renderMarkdown(inner.join("\n"), block, depth + 1);
  into.append(block);
  return at;
}

function list(lines, at, into, depth) {
  const [, margin, first] = lines[at].match(ITEM);
  const ordered = /\d/.test(first);
  const sameList = (line) => {
    const match = line.match(ITEM);
    return match && match[1].length < margin.length + 2 && /\d/.test(match[2]) === ordered && !RULE.test(line);
  };
  const block = document.createElement(ordered ? "ol" : "ul");
  if (ordered && parseInt(first, 10) !== 1) block.start = parseInt(first, 10);
  while (at < lines.length && sameList(lines[at])) {
    const [, indent, mark, gap, head] = lines[at].match(ITEM);
    const width = indent.length + mark.length + Math.min(gap.length || 1, 4);
    const inner = [head];
    at += 1;
    while (at < lines.length) {
      const line = lines[at];
      const deeper = line.search(/\S/) >= margin.length + 2;
      if (line.trim() === "") {
        const next = lines[at + 1] ?? "";
        if (next.trim() === "" || !(next.search(/\S/) >= margin.length + 2)) break;
        inner.push("");
      } else if (deeper) inner.push(line.slice(Math.min(width, line.search(/\S/))));
      else if (inner.at(-1) !== "" && !startsBlock(line)) inner.push(line);
      else break;
      at += 1;
    }
    const item = element("li");
    renderMarkdown(inner.join("\n"), item, depth + 1);
    // A one-paragraph item needs no paragraph of its own.
    if (item.firstElementChild?.tagName === "P") item.firstElementChild.replaceWith(...item.firstElementChild.childNodes);
    block.append(item);
    // Blank lines between items do not end the list.
    let next = at;
    while (next < lines.length && lines[next].trim() === "") next += 1;
    if (next > at && next < lines.length && sameList(lines[next])) at = next;
  }
  into.append(block);
  return at;
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at, into) {
  const sides = cells(lines[at + 1]).map((rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "middle" : "end") : ""));
  const row = (line, tag) => {
    const node = element("tr");
    cells(line).slice(0, sides.length).forEach((text, column) => {
      const cell = element(tag, inline(text));
      if (sides[column]) cell.className = sides[column];
      node.append(cell);
    });
    return node;
  };
  const head = element("thead", row(lines[at], "th"));
  const body = element("tbody");
  at += 2;
  while (at < lines.length && lines[at].includes("|") && lines[at].trim() !== "") {
    body.append(row(lines[at], "td"));
    at += 1;
  }
  const frame = element("div", element("table", head, body));
  frame.className = "table";
  frame.tabIndex = 0;
  into.append(frame);
  return at;
}

/**
 * The end of the text, from `from` on, that no further text can change: after the last blank line that is outside a
 * code fence and is followed by the beginning of something that is not a continuation of a list or a quotation.
 */
export function settledLength(text, from) {
  let at = from;
  let settled = from;
  let blank = false;
  let fenced = "";
  while (at < text.length) {
    const found = text.indexOf("\n", at);
    const end = found < 0 ? text.length : found;
    const line = text.slice(at, end);
    if (blank && !fenced && line.trim() !== "" && !/^(\s|>|[-*+](\s|$)|\d{1,9}([.)]|$))/.test(line)) settled = at;
    const mark = line.match(FENCE)?.[1];
    if (fenced ? line.trim().startsWith(fenced) : mark) fenced = fenced ? "" : mark;
    blank = line.trim() === "";
    at = end + 1;
  }
  return settled;
}
