"use strict";
const element = document.getElementById("data");
const data = JSON.parse(element.textContent), perPage = Number(element.dataset.perPage);
const find = selector => document.querySelector(selector);
const form = find(".filters"), body = find(".answers tbody"), dialog = find("dialog");
const ROWS = 50, TEXTS = { actual: data.names, named: data.names, region: data.regions };
const ranges = ["confidence", "background"], sortKeys = {};
const collator = new Intl.Collator("en", { numeric: true });
let state = new URLSearchParams(), chosen = [], filters = [], drawn = null;

function said(by, place) {
  const value = data[by][place];
  return by in TEXTS ? TEXTS[by][value] : value;
}

function fits(place) {
  for (const [name, value] of filters) {
    if (name === "id" && !data.image[place].toLowerCase().includes(value)) return false;
    if (name in TEXTS && data[name][place] !== Number(value)) return false;
    if (name === "right" && (data.actual[place] === data.named[place]) !== (value === "1")) return false;
    if (ranges.includes(name)) {
      const [low, high] = value.split("-").map(Number), number = data[name][place];
      if (number === null || number < low || number >= high) return false;
    }
  }
  return true;
}

// Comparing texts is slow: they are sorted once, and their ranks compared.
function ranks(texts) {
  const order = [...texts.keys()].sort((a, b) => collator.compare(texts[a], texts[b])), rank = [];
  order.forEach((at, place) => {
    const same = place && collator.compare(texts[at], texts[order[place - 1]]) === 0;
    rank[at] = same ? rank[order[place - 1]] : place;
  });
  return rank;
}

function keys(by) {
  const ofTexts = () => { const rank = ranks(TEXTS[by]); return data[by].map(value => rank[value]); };
  return sortKeys[by] ??= by in TEXTS ? ofTexts() : by === "image" ? ranks(data.image) : data[by];
}

function sorted(places, by, way) {
  const key = keys(by);
  return places.sort((a, b) => {
    if (key[a] === null || key[b] === null) return (key[a] === null) - (key[b] === null) || a - b;
    return way * (key[a] - key[b]) || a - b;
  });
}

function cell(row, text, kind) {
  const made = row.appendChild(document.createElement(kind === "id" ? "th" : "td"));
  made.className = kind || "";
  if (kind === "id") made.scope = "row";
  made.append(text);
  return made;
}

function address(place) {
  return `images/${Math.floor(place / perPage)}.html#image-${place}`;
}

function drawRow(place) {
  const row = document.createElement("tr"), right = data.actual[place] === data.named[place];
  const small = document.createElement("span"), number = place % perPage;
  small.className = "thumb small";
  small.style.setProperty("--sheet", `url(images/${Math.floor(place / perPage)}.webp)`);
  small.style.setProperty("--x", number % 10);
  small.style.setProperty("--y", Math.floor(number / 10));
  cell(row, small, "picture");
  const link = document.createElement("a");
  link.href = address(place);
  link.append(data.image[place]);
  cell(row, link, "id");
  cell(row, said("actual", place));
  cell(row, `${right ? "✓" : "✗"} ${said("named", place)}`, right ? "right" : "wrong").dataset.actual = said("actual", place);
  cell(row, `${data.confidence[place].toFixed(1)}\u00a0%`, "number").dataset.label = "Confidence";
  const margin = data.margin[place];
  cell(row, margin === null ? "–" : margin.toFixed(2).replace("-", "−"), "number").dataset.label = "Margin";
  if (find('[data-by="region"]')) cell(row, said("region", place) || "–");
  const background = data.background[place];
  cell(row, background === null ? "–" : `${background.toFixed(0)}\u00a0%`, "number").dataset.label = "Background";
  row.onclick = event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go({ image: place });
  };
  return row;
}

function draw() {
  filters = [...state].map(([name, value]) => [name, value.toLowerCase()]);
  chosen = [...data.image.keys()].filter(fits);
  if (state.get("sort") in data) sorted(chosen, state.get("sort"), state.has("down") ? -1 : 1);
  const last = Math.max(0, Math.ceil(chosen.length / ROWS) - 1);
  const page = Math.min(last, Number(state.get("page")) || 0), start = page * ROWS;
  body.replaceChildren(...chosen.slice(start, start + ROWS).map(drawRow));
  const wrong = chosen.filter(place => data.actual[place] !== data.named[place]).length;
  find(".count").textContent = `${chosen.length} of ${data.image.length} images, ${wrong} of them named wrong`;
  find("#all .paging span").textContent = `${chosen.length ? start + 1 : 0}–${Math.min(start + ROWS, chosen.length)} of ${chosen.length}`;
  for (const button of document.querySelectorAll("[data-turn]")) {
    const to = page + Number(button.dataset.turn);
    button.disabled = to < 0 || to > last;
    button.onclick = () => go({ page: to });
  }
  for (const button of document.querySelectorAll("[data-by]")) {
    const by = button.dataset.by, mine = state.get("sort") === by, down = state.has("down");
    button.parentElement.ariaSort = mine ? (down ? "descending" : "ascending") : "none";
    button.onclick = () => go({ sort: mine && down ? "" : by, down: mine && !down ? 1 : "", page: "" });
  }
  for (const field of form.elements) if (field.name) field.value = state.get(field.name) ?? "";
}

function show() {
  const place = Number(state.get("image"));
  if (!state.has("image") || !(place in data.image)) return dialog.close();
  const at = chosen.indexOf(place), frame = document.createElement("iframe");
  frame.src = address(place);
  frame.title = `Why: ${data.image[place]}`;
  dialog.querySelector("iframe")?.remove();
  dialog.append(frame);
  dialog.querySelector(".id").textContent = data.image[place];
  dialog.querySelector("a").href = address(place);
  for (const button of dialog.querySelectorAll("[data-step]")) {
    const to = at < 0 ? undefined : chosen[at + Number(button.dataset.step)];
    button.disabled = to === undefined;
    button.onclick = () => go({ image: to });
  }
  if (!dialog.open) dialog.showModal();
}

function go(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") state.delete(name);
    else state.set(name, value);
  }
  const opens = changes.image !== undefined && changes.image !== "" && !dialog.open;
  history[opens ? "pushState" : "replaceState"](null, "", `#${state}`);
  read();
}

function read() {
  state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const table = new URLSearchParams(state);
  table.delete("image");
  if (drawn !== String(table)) draw();
  drawn = String(table);
  show();
}

for (const name in TEXTS) {
  const used = [...new Set(data[name])].filter(value => TEXTS[name][value]);
  used.sort((a, b) => collator.compare(TEXTS[name][a], TEXTS[name][b]));
  form.elements[name]?.append(...used.map(value => new Option(TEXTS[name][value], value)));
}
form.oninput = form.onchange = event => go({ [event.target.name]: event.target.value, page: "" });
form.onreset = () => {
  state = new URLSearchParams();
  go({});
};
form.onsubmit = event => event.preventDefault();
dialog.querySelector("[data-close]").onclick = () => dialog.close();
dialog.onclose = () => go({ image: "" });
dialog.onkeydown = event => {
  const step = { ArrowLeft: "-1", ArrowRight: "1" }[event.key];
  if (step) dialog.querySelector(`[data-step="${step}"]`).click();
};
onhashchange = read;
find("#all").hidden = false;
read();
