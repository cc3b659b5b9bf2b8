// The source page: hovering (or going with the keyboard) over a line of source lights the IR that
// it became, and the other way round; over a value, where it is made and used.

class Source {
  constructor(page, showBox) {
    this.page = page;
    this.showBox = showBox;
    const ir = page.querySelector("#ir");
    this.listing = make("div", { class: "listing", tabindex: "0", "aria-label": "the IR" });
    this.stage = make("select", { "aria-label": "stage", onchange: () => this.draw() },
      ...data.source.stages.map((s, i) => make("option", { value: i, text: s.title })));
    ir.append(make("div", { class: "tools" }, this.stage), this.listing);
    const optimised = data.source.stages.findIndex((s) => s.key === "prompt");
    this.stage.value = String(Math.max(0, optimised));
    page.addEventListener("mouseover", (event) => this.over(event.target));
    page.addEventListener("click", (event) => this.click(event.target));
    this.draw();
  }

  draw() {
    const stage = data.source.stages[Number(this.stage.value)];
    const seen = new Set();
    const lines = (stage?.lines ?? []).map((line, i) => {
      if (line.text.startsWith("program ")) seen.clear();
      return make("div", {
        class: "line", data: line.op === undefined ? {} :
          { op: line.op, ...(line.place ? { place: line.place } : {}),
            ...(line.box === null ? {} : { box: line.box }) },
      }, make("span", { class: "no", text: i + 1 }), irLine(line.text, seen));
    });
    this.listing.replaceChildren(...lines);
    this.light(this.place);
  }

  over(target) {
    const value = target.closest?.(".value");
    for (const lit of all(".value.lit", this.listing)) lit.classList.remove("lit");
    if (value) {
      for (const same of all(".value", this.listing)) {
        if (same.textContent === value.textContent) same.classList.add("lit");
      }
    }
    const line = target.closest?.(".line[data-place]");
    if (line && line.dataset.place !== this.place) this.light(line.dataset.place, line);
  }

  click(target) {
    const line = target.closest?.(".line[data-place]");
    if (!line) return;
    if (line.dataset.box !== undefined && target.closest("code")) this.showBox(Number(line.dataset.box));
    else this.light(line.dataset.place, line, true);
  }

  /** Light all lines of a place; `from`: the one under the pointer, which must not move. */
  light(place, from, jump = true) {
    this.place = place;
    for (const lit of all(".line.lit", this.page)) lit.classList.remove("lit");
    if (!place) return;
    const lit = all(".line[data-place]", this.page).filter((l) => l.dataset.place === place);
    const boxes = new Set();
    for (const line of lit) {
      line.classList.add("lit");
      const box = line.closest(".listing, figure");
      if (jump && !boxes.has(box) && (!from || from.closest(".listing, figure") !== box)) {
        boxes.add(box);
        reveal(line, box);
      }
    }
  }
}
