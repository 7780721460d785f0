// Makes one piece of a page the same as another, and leaves alone what is the same: what has the focus, is chosen,
// scrolled or opened stays so. Children with a `data-key` or an id are known by it, others by their place.

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id || "" : "");
const isLike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;

// What the visitor has changed is not changed back.
const VISITORS = new Set(["open", "checked", "value"]);
const isVisitors = (node, name) =>
  VISITORS.has(name) && (node.nodeName === "DETAILS" || node.nodeName === "INPUT" || node.nodeName === "DIALOG");

export function morph(from, to) {
  if (from.isEqualNode(to)) return;
  if (from.nodeType !== 1) {
    from.nodeValue = to.nodeValue;
    return;
  }
  matchAttributes(from, to);
  if (!from.hasAttribute("data-keep")) matchChildren(from, to);
}

function matchAttributes(from, to) {
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !isVisitors(from, name)) from.removeAttribute(name);
  }
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value && !isVisitors(from, name)) from.setAttribute(name, value);
  }
}

function matchChildren(from, to) {
  const wanted = new Set([...to.childNodes].map(keyOf));
  const known = new Map();
  for (const child of [...from.childNodes]) {
    const key = keyOf(child);
    if (!key) continue;
    if (wanted.has(key)) known.set(key, child);
    else child.remove();
  }
  let place = from.firstChild;
  for (const next of [...to.childNodes]) {
    const key = keyOf(next);
    const match = key ? known.get(key) : place && !keyOf(place) && isLike(place, next) ? place : null;
    if (match && isLike(match, next)) {
      if (match === place) place = place.nextSibling;
      else from.insertBefore(match, place);
      morph(match, next);
    } else {
      from.insertBefore(document.importNode(next, true), place);
    }
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}
