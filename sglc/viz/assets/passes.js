// The passes page: a slider over the recorded rewrites (a pass that recorded none is one stop), with
// the IR before and after, or what differs.

class Passes {
  constructor(page) {
    this.stops = data.passes.steps.flatMap((step, pass) => (step.rewrites.length
      ? step.rewrites.map((rewrite, i) => ({ pass, rewrite, i })) : [{ pass, rewrite: null, i: 0 }]));
    this.drawn = null;
    const root = page.querySelector("#slider");
    if (!this.stops.length) return;
    this.range = make("input", {
      type: "range", min: 0, max: this.stops.length - 1, value: 0, "aria-label": "rewrite",
      oninput: () => this.show(Number(this.range.value)),
    });
    const move = (by, text, label) => make("button", {
      type: "button", text, "aria-label": label, title: label, onclick: () => this.move(by),
    });
    this.view = make("select", { "aria-label": "what to show", onchange: () => this.redraw() },
      ...[["diff", "what changed"], ["sides", "before and after"], ["after", "after"], ["before", "before"]]
        .map(([value, text]) => make("option", { value, text })));
    this.title = make("h3", { "aria-live": "polite" });
    this.chips = make("div", { class: "chips" });
    this.said = make("p", { class: "said" });
    this.body = make("div");
    root.className = "slider";
    root.append(make("div", { class: "row" }, move(-1, "◀", "the rewrite before"), this.range,
      move(1, "▶", "the next rewrite"), this.view), this.title, this.chips, this.said, this.body);
    all("tbody tr", page.querySelector(".passes")).forEach((row, pass) => {
      row.addEventListener("click", () => this.go(this.stops.findIndex((s) => s.pass === pass)));
    });
    this.go(Math.max(0, this.stops.findIndex((s) => this.changes(s.pass))));
  }

  changes(pass) {
    return data.passes.steps[pass].diff.length > 0;
  }

  move(by) {
    this.go(Math.min(this.stops.length - 1, Math.max(0, Number(this.range.value) + by)));
  }

  go(stop) {
    this.range.value = String(stop);
    this.show(stop);
  }

  show(stop) {
    const { pass, rewrite, i } = this.stops[stop];
    const step = data.passes.steps[pass];
    this.range.setAttribute("aria-valuetext", step.name);
    this.title.textContent = `${pass + 1}. ${step.spec}`;
    this.chips.replaceChildren(...step.figures.map(([name, value]) =>
      make("span", {}, `${name} `, make("b", { text: value }))));
    this.said.textContent = rewrite
      ? `rewrite ${i + 1} of ${step.rewrites.length + step.more}: ${rewrite.rule}: ${rewrite.before} → ${rewrite.after}`
        + (rewrite.where ? `  (${rewrite.where})` : "")
      : this.changes(pass) ? "It changed the program without recording single rewrites."
        : "It changed nothing here.";
    if (this.drawn !== pass) this.redraw(pass);
    this.aim(rewrite);
  }

  redraw(pass = this.stops[Number(this.range.value)].pass) {
    this.drawn = pass;
    const step = data.passes.steps[pass];
    const before = data.passes.versions[step.before];
    const after = data.passes.versions[step.after];
    const view = this.changes(pass) ? this.view.value : "after";
    const listing = (rows) => make("div", { class: "listing", tabindex: "0" }, ...rows);
    if (view === "diff") this.body.replaceChildren(listing(diff(step.diff, before, after)));
    else if (view === "sides") {
      this.body.replaceChildren(make("div", { class: "sides" },
        listing(side(step.diff, before, 1, "removed")), listing(side(step.diff, after, 3, "added"))));
    } else this.body.replaceChildren(listing(plain(view === "after" ? after : before)));
    this.aim(this.stops[Number(this.range.value)].rewrite);
  }

  /** Mark the lines of a rewrite's place. */
  aim(rewrite) {
    for (const line of all(".aimed", this.body)) line.classList.remove("aimed");
    if (!rewrite?.where) return;
    const place = new RegExp(`[/\\\\ "]${escapeRegex(rewrite.where)}(:|$)`);
    const aimed = all(".line", this.body).filter((line) => place.test(line.dataset.where ?? ""));
    for (const line of aimed) line.classList.add("aimed");
    const { pass, i } = this.stops[Number(this.range.value)];
    const before = data.passes.steps[pass].rewrites.slice(0, i);
    const changed = aimed.filter((line) => line.matches(".removed"));
    const own = changed[before.filter((r) => r.where === rewrite.where).length] ?? changed[0] ?? aimed[0];
    if (own) reveal(own, own.closest(".listing"));
  }
}

const AROUND = 2; // equal lines shown around what differs

function irRow(number, style, sign) {
  const text = data.passes.lines[number];
  const at = text.lastIndexOf("  // ");
  return make("div", { class: `line ${style}`, data: { where: at < 0 ? "" : text.slice(at + 4) } },
    make("span", { class: "sign", text: sign }), irLine(at < 0 ? text : text.slice(0, at), new Set()));
}

function plain(lines) {
  return lines.map((n) => irRow(n, "", ""));
}

function diff(ranges, before, after) {
  const rows = [];
  ranges.forEach(([tag, i, j, k, m], at) => {
    if (tag !== "e") {
      for (const n of before.slice(i, j)) rows.push(irRow(n, "removed", "−"));
      for (const n of after.slice(k, m)) rows.push(irRow(n, "added", "+"));
      return;
    }
    const same = before.slice(i, j);
    const head = at === 0 ? [] : same.slice(0, AROUND);
    const tail = at === ranges.length - 1 ? [] : same.slice(Math.max(head.length, same.length - AROUND));
    const hidden = same.length - head.length - tail.length;
    rows.push(...head.map((n) => irRow(n, "", "")));
    if (hidden > 0) rows.push(make("div", { class: "gap", text: `⋯ ${hidden} equal lines` }));
    rows.push(...tail.map((n) => irRow(n, "", "")));
  });
  return rows;
}

function side(ranges, lines, at, style) {
  return ranges.flatMap((range) => lines.slice(range[at], range[at + 1])
    .map((n) => irRow(n, range[0] === "e" ? "" : style, "")));
}

function escapeRegex(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
