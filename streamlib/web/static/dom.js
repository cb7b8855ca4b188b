// Views build what they show anew each second; `morph` changes the page to that and leaves alone what is the same, so
// that focus, selection, scrolling and open details stay. Text only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element[name] = value;
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

const HANDLERS = ["onclick", "onsubmit", "oninput", "onkeydown", "onchange"];

export function morph(old, wanted) {
  if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName || keyOf(old) !== keyOf(wanted)) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const name of old.getAttributeNames()) {
    if (name !== "style" && !wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const name of wanted.getAttributeNames()) {
    if (name !== "style" && name !== "value" && old.getAttribute(name) !== wanted.getAttribute(name)) old.setAttribute(name, wanted.getAttribute(name));
  }
  if (old.style && old.style.cssText !== wanted.style.cssText) old.style.cssText = wanted.style.cssText;
  for (const name of HANDLERS) if (old[name] !== wanted[name]) old[name] = wanted[name];
  morphChildren(old, [...wanted.childNodes]);
}

export function morphChildren(parent, wanted) {
  for (let number = 0; number < wanted.length; number++) {
    const here = parent.childNodes[number];
    if (here) morph(here, wanted[number]);
    else parent.append(wanted[number]);
  }
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
