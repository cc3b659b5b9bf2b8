// The page's data, and elements made from it.  Texts are only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);

/** An element.  options: attributes, `text`, `on<event>` listeners, `class`, `data` entries. */
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** All elements that a selector finds below `root`. */
function all(selector, root = document) {
  return [...root.querySelectorAll(selector)];
}

/** Scroll `element` into the middle of the box that it scrolls in, and not the whole page. */
function reveal(element, box) {
  const inner = element.getBoundingClientRect();
  const outer = box.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom) {
    box.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2;
  }
  if (inner.left < outer.left || inner.right > outer.right) {
    box.scrollLeft += inner.left - outer.left - Math.max(0, (outer.width - inner.width) / 2);
  }
}

/** The `value` names and "strings" of a line of IR as spans; `seen` holds names defined before. */
function irLine(text, seen) {
  const code = make("code");
  const pattern = /"(?:[^"\\]|\\.)*"|%(?:"(?:[^"\\]|\\.)*"|[\p{L}\p{N}_]+)/gu;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    code.append(text.slice(end, match.index));
    end = match.index + match[0].length;
    if (match[0].startsWith("%")) {
      const use = seen.has(match[0]);
      seen.add(match[0]);
      code.append(make("span", { class: use ? "value use" : "value def", text: match[0] }));
    } else {
      code.append(make("span", { class: "string", text: match[0] }));
    }
  }
  code.append(text.slice(end) || (end ? "" : " "));
  return code;
}
