// Tabs, the address, and the keys that work everywhere.

const TABS = all("#tabs a");
const made = {};

const builders = {
  graph: (page) => new Graph(page, (place) => { show("source"); made.source.light(place); }),
  source: (page) => new Source(page, (box) => { show("graph"); made.graph.choose(box); }),
  passes: (page) => new Passes(page),
};

/** Show a page; it is built when it is shown first. */
function show(key) {
  const page = document.getElementById(key);
  for (const other of all(".page")) other.classList.toggle("shown", other === page);
  for (const tab of TABS) {
    const own = tab.dataset.tab === key;
    tab.setAttribute("aria-selected", String(own));
    tab.tabIndex = own ? 0 : -1;
  }
  if (!made[key] && builders[key] && data[key]) made[key] = builders[key](page);
  if (location.hash !== `#${key}`) history.replaceState(null, "", `#${key}`);
}

document.documentElement.classList.add("js");
document.getElementById("tabs").setAttribute("role", "tablist");
TABS.forEach((tab, i) => {
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", tab.dataset.tab);
  document.getElementById(tab.dataset.tab).setAttribute("role", "tabpanel");
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    show(tab.dataset.tab);
  });
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const next = TABS[(i + by + TABS.length) % TABS.length];
    show(next.dataset.tab);
    next.focus();
  });
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape") made.graph?.clear();
  else if (typing) return;
  else if (/^[1-9]$/.test(event.key) && TABS[event.key - 1]) show(TABS[event.key - 1].dataset.tab);
  else if (event.key === "/") {
    event.preventDefault();
    show("graph");
    made.graph.search.focus();
  }
});
window.addEventListener("hashchange", () => open());

function open() {
  const key = location.hash.slice(1);
  show(TABS.some((tab) => tab.dataset.tab === key) ? key : TABS[0].dataset.tab);
}

open();
