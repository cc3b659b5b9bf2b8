// The graph page: choose boxes with the mouse or the arrow keys, zoom, search, unfold repeats.

const LEAST = 0.3; // of its size, at which a picture can still be made out
const READABLE = 0.7; // at which its words can be read

class Graph {
  constructor(page, showPlace) {
    this.nodes = data.graph.nodes;
    this.canvas = page.querySelector(".canvas");
    this.drawings = all(".drawing", page);
    this.zoom = 1;
    this.chosen = null;
    this.detail = new Detail((n) => this.choose(n), () => this.clear(), showPlace);
    this.split = make("div", { class: "split" });
    this.canvas.before(this.tools(), this.split);
    this.split.append(this.canvas, this.detail.panel);
    this.use(this.drawings.find((d) => !d.hidden));
    const whole = this.whole();
    if (whole >= READABLE) this.scale(Math.min(whole, 1));
    this.canvas.addEventListener("click", (event) => {
      const shape = event.target.closest(".node");
      if (shape) this.choose(Number(shape.dataset.node));
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.scale(this.zoom * Math.exp(-event.deltaY / 300));
    }, { passive: false });
    this.draggable();
  }

  /** The background moves with the pointer. */
  draggable() {
    let from = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".node") || event.target === this.canvas) return;
      from = { x: event.clientX + this.canvas.scrollLeft, y: event.clientY + this.canvas.scrollTop };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      this.canvas.scrollTo({
        left: from.x - event.clientX, top: from.y - event.clientY, behavior: "instant" });
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => { from = null; });
    }
  }

  tools() {
    this.found = make("span", { class: "found", "aria-live": "polite" });
    this.search = make("input", {
      type: "search", placeholder: "search text, names, places", "aria-label": "search",
      oninput: () => this.seek(this.search.value),
      onkeydown: (event) => { if (event.key === "Enter") this.next(); },
    });
    const button = (text, label, act) =>
      make("button", { type: "button", text, title: label, "aria-label": label, onclick: act });
    const unfold = data.graph.folds
      ? make("label", {}, this.unfold = make("input", {
        type: "checkbox", onchange: () => this.use(this.drawings[this.unfold.checked ? 1 : 0]),
      }), " every repeat") : null;
    return make("div", { class: "tools" }, this.search, this.found,
      button("−", "smaller", () => this.scale(this.zoom / 1.25)),
      button("+", "larger", () => this.scale(this.zoom * 1.25)),
      button("fit", "fit to the window", () => this.fit()), unfold,
      make("span", { class: "keys", text: "arrows: box to box · + − 0: zoom · drag: move · /: search · 1–6: tabs · Esc: close" }));
  }

  /** Show one of the drawings (folded, or all). */
  use(drawing) {
    for (const d of this.drawings) d.hidden = d !== drawing;
    this.drawing = drawing;
    this.svg = drawing.querySelector("svg");
    this.size = [this.svg.viewBox.baseVal.width, this.svg.viewBox.baseVal.height];
    this.shapes = new Map(all(".node", drawing).map((g) => [Number(g.dataset.node), g]));
    this.lines = new Map([...this.shapes.keys()].map((n) => [n, []]));
    for (const line of all("[data-edge]", drawing)) {
      for (const n of new Set([line.dataset.from, line.dataset.to])) this.lines.get(Number(n)).push(line);
    }
    this.scale(this.zoom);
    if (this.search.value) this.seek(this.search.value);
    if (this.chosen !== null && this.shapes.has(this.chosen)) this.choose(this.chosen);
  }

  scale(zoom) {
    const [x, y] = [this.canvas.scrollLeft / this.zoom, this.canvas.scrollTop / this.zoom];
    this.zoom = Math.min(4, Math.max(0.05, zoom));
    // Not the picture's width and height: then all of its text would be laid out again.
    this.svg.style.transform = `scale(${this.zoom})`;
    this.drawing.style.width = `${this.size[0] * this.zoom}px`;
    this.drawing.style.height = `${this.size[1] * this.zoom}px`;
    this.canvas.scrollTo({ left: x * this.zoom, top: y * this.zoom, behavior: "instant" });
  }

  /** The zoom at which all of the picture is seen. */
  whole() {
    return Math.min((this.canvas.clientWidth - 4) / this.size[0],
      (window.innerHeight * 0.76 - 4) / this.size[1]);
  }

  fit() {
    this.scale(Math.max(LEAST, Math.min(this.whole(), 1.5)));
  }

  choose(number) {
    if (!this.shapes.has(number) && this.unfold) {
      this.unfold.checked = true;
      this.chosen = number;
      this.use(this.drawings[1]);
      return;
    }
    this.mark(false);
    this.chosen = number;
    this.split.classList.add("open");
    this.detail.show(number);
    this.mark(true);
    const shape = this.shapes.get(number);
    if (shape) {
      shape.focus({ preventScroll: true });
      reveal(shape, this.canvas);
    }
  }

  mark(on) {
    if (this.chosen === null) return;
    const node = this.nodes[this.chosen];
    this.shapes.get(this.chosen)?.classList.toggle("chosen", on);
    this.shapes.get(this.chosen)?.setAttribute("aria-pressed", String(on));
    for (const reader of node.readers) this.shapes.get(reader)?.classList.toggle("reads", on);
    for (const line of this.lines.get(this.chosen) ?? []) line.classList.toggle("lit", on);
  }

  clear() {
    this.mark(false);
    this.chosen = null;
    this.split.classList.remove("open");
    this.detail.hide();
    this.canvas.focus({ preventScroll: true });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const towards = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const shown = [...this.shapes.keys()];
    if (event.key === "Home") this.choose(shown[0]);
    else if (event.key === "End") this.choose(shown[shown.length - 1]);
    else if (event.key === "+" || event.key === "=") this.scale(this.zoom * 1.25);
    else if (event.key === "-") this.scale(this.zoom / 1.25);
    else if (event.key === "0") this.fit();
    else if (event.key in towards) {
      this.choose(this.chosen === null ? shown[0] : this.beside(towards[event.key]));
    } else return;
    event.preventDefault();
  }

  /** The box to go to: what it continues, what continues it, else the nearest in a direction. */
  beside([dx, dy]) {
    const node = this.nodes[this.chosen];
    if (dx < 0 && this.shapes.has(node.parent)) return node.parent;
    const next = node.children.filter((c) => this.shapes.has(c));
    if (dx > 0 && next.length) return next[0];
    const here = middle(this.shapes.get(this.chosen));
    let best = this.chosen;
    let least = Infinity;
    for (const [number, shape] of this.shapes) {
      if (number === this.chosen) continue;
      const there = middle(shape);
      const along = dx ? dx * (there.x - here.x) : dy * (there.y - here.y);
      const aside = dx ? Math.abs(there.y - here.y) : Math.abs(there.x - here.x) / 4;
      if (along > 1 && along + 2 * aside < least) {
        least = along + 2 * aside;
        best = number;
      }
    }
    return best;
  }

  seek(words) {
    const wanted = words.trim().toLowerCase();
    this.drawing.classList.toggle("seeking", wanted !== "");
    this.hits = [];
    for (const [number, shape] of this.shapes) {
      const node = this.nodes[number];
      const hit = wanted !== "" && [node.title, node.detail, ...node.pieces.map((p) => p.text),
        ...node.places.map((p) => p[1])].some((text) => text.toLowerCase().includes(wanted));
      shape.classList.toggle("hit", hit);
      if (hit) this.hits.push(number);
    }
    this.found.textContent = wanted ? `${this.hits.length} found` : "";
  }

  next() {
    if (!this.hits?.length) return;
    const at = this.hits.indexOf(this.chosen);
    this.choose(this.hits[(at + 1) % this.hits.length]);
    this.search.focus();
  }
}

function middle(shape) {
  const box = shape.getBBox();
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}
