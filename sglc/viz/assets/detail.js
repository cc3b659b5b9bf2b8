// The panel beside the graph: everything that is known of one box.

class Detail {
  constructor(choose, close, showPlace) {
    this.choose = choose;
    this.close = close;
    this.showPlace = showPlace;
    this.panel = make("aside", { class: "detail", hidden: true, "aria-label": "the chosen box" });
  }

  hide() {
    this.panel.hidden = true;
  }

  show(number) {
    const node = data.graph.nodes[number];
    this.panel.hidden = false;
    this.panel.replaceChildren(
      make("button", { class: "close", type: "button", text: "✕", "aria-label": "close", onclick: this.close }),
      make("h3", { text: node.title || node.kind }),
      this.facts([["kind", node.kind], ...(node.program ? [["program", node.program]] : []),
        ...node.facts]),
      this.places(node), this.remarks(node), this.text(node), this.options(node),
      this.boxes("Read by", node.readers, node.readerCount),
      this.boxes("Made of", node.sources, node.sources.length),
      this.boxes("Continued by", node.children, node.children.length));
    this.panel.scrollTop = 0;
  }

  facts(pairs) {
    return make("dl", {}, ...pairs.flatMap(([name, value]) =>
      [make("dt", { text: name }), make("dd", { text: value })]));
  }

  part(title, ...children) {
    return children.length ? make("div", {}, make("h4", { text: title }), ...children) : "";
  }

  places(node) {
    const buttons = node.places.map(([key, where]) => make("div", { class: "places" },
      make("button", { type: "button", text: where, onclick: () => this.showPlace(key) })));
    return this.part("Written at", ...buttons);
  }

  text(node) {
    if (!node.pieces.length) return "";
    const box = make("div", { class: "tokens" });
    for (const piece of node.pieces) {
      if (piece.kind === "value") {
        box.append(make("span", { class: "value", text: `{${piece.text}}`, title: "known at run time" }));
        continue;
      }
      const style = `t ${piece.kind === "special" ? "special" : ""} ${piece.exact ? "" : "about"}`;
      for (const token of piece.tokens) box.append(make("span", { class: style, text: shown(token) }));
    }
    const held = node.pieces[node.pieces.length - 1].held;
    if (held) {
      box.append(make("span", { class: "t held", text: shown(held), title: "held back: encoded with what follows" }));
    }
    return this.part("Text, with token borders", box);
  }

  options(node) {
    if (!node.options.length && !node.detail) return "";
    return this.part("Options", this.facts(node.options.length ? node.options : [["", node.detail]]));
  }

  remarks(node) {
    return this.part("Why it is not shared more", ...node.remarks.map((r) => make("div", { class: "remarks" },
      make("div", {}, make("b", { text: r.code }), ` ${r.what}.`,
        ...[["Why: ", r.why], ["Effect: ", r.effect], ...r.fixes.map((f) => ["Fix: ", f])]
          .filter(([, text]) => text).map(([head, text]) => make("p", { text: head + text }))))));
  }

  boxes(title, numbers, count) {
    if (!numbers.length) return "";
    const same = new Map(); // boxes of one name, as one line
    for (const n of numbers) {
      const name = brief(data.graph.nodes[n]);
      same.set(name, [...(same.get(name) ?? []), n]);
    }
    const named = [...same].map(([name, own]) => make("div", { class: "boxes" },
      make("button", { type: "button", text: name, onclick: () => this.choose(own[0]) }),
      own.length > 1 ? make("span", { text: ` ×${own.length}` }) : null));
    if (count > numbers.length) named.push(make("div", { text: `and ${count - numbers.length} more` }));
    return this.part(title, ...named);
  }
}

/** Line ends of a token, so that they can be seen. */
function shown(token) {
  return token.replace(/\n/g, "⏎\n");
}

function brief(node) {
  const title = node.title || node.kind;
  return title.length > 60 ? `${title.slice(0, 59)}…` : title;
}
