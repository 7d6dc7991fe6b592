// Small helpers to build and to patch the page.

/** `h("p", {class: "x", onclick: f, "data-testid": "y"}, "text", child)`. Falsy children are left out. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

const SHAPES = {
  copy: "M9 9V5h10v10h-4M5 9h10v10H5z",
  again: "M19 12a7 7 0 1 1-2.1-5M19 4v4h-4",
  up: "M7 11v9H4v-9zm0 0 4-7c1.6 0 2.4 1.2 2 2.7L12.3 10H19l-1.5 8.5Q17.2 20 15.7 20H7",
  down: "M7 13V4H4v9zm0 0 4 7c1.6 0 2.4-1.2 2-2.7L12.3 14H19l-1.5-8.5Q17.2 4 15.7 4H7",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  latest: "M12 5v14m-6-6 6 6 6-6",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

/** Makes the children of `parent` match `items` in order, keeping the nodes of items that stay. */
export function reconcile(parent, items, keyOf, create, update) {
  const kept = (parent.kept ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, node] of kept) {
    if (wanted.has(key)) continue;
    node.remove();
    kept.delete(key);
  }
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = kept.get(key);
    if (!node) {
      node = create(item);
      kept.set(key, node);
    }
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

/** Replaces a node's children only when what they were made from has changed. The focus stays on the same control. */
export function patch(node, signature, build) {
  if (node.signature === signature) return;
  node.signature = signature;
  const focused = node.contains(document.activeElement) ? document.activeElement.dataset.testid : null;
  node.replaceChildren(...build().filter(Boolean));
  if (focused) node.querySelector(`[data-testid="${focused}"]`)?.focus();
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
