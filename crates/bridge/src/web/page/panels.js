// Lists, facts, settings and log beside the picture. Text is set as text, never as markup: labels and log lines come from files and cameras.

const $ = (id) => document.getElementById(id);
const LOG_LINES = 300;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

const number = (value) => value == null ? "–" : value.toLocaleString("en").replaceAll(",", " ");
const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const chip = (colour) => {
  const made = element("i", { className: "chip" });
  made.style.background = rgb(colour);
  return made;
};
const score = (value) => value == null ? "–" : value.toFixed(2);

// Rows are kept from frame to frame, so that a click meets the row that it aimed at.
export function showSegments(view, onSelect) {
  const body = $("segments"), segments = view.frame.segments, pixels = view.frame.width * view.frame.height;
  $("segment-count").textContent = segments.length + (view.frame.truncated ? " (and more than the ring's table holds)" : "");
  while (body.rows.length > segments.length) body.deleteRow(-1);
  segments.forEach((segment, at) => {
    let row = body.rows[at];
    if (!row) {
      row = body.insertRow();
      for (const name of ["", "", "n", "n"]) row.insertCell().className = name;
      row.cells[1].append(element("i", { className: "chip" }), "");
      row.tabIndex = -1;
      row.addEventListener("click", () => onSelect(row.segment));
    }
    row.segment = segment;
    row.className = view.hidden.has(segment.category) ? "off" : "";
    row.setAttribute("aria-selected", segment.key === view.selected);
    put(row.cells[0].firstChild ?? row.cells[0].appendChild(new Text()), segment.track ? `·${segment.track}` : String(segment.id));
    row.cells[1].firstChild.style.background = rgb(view.colour(segment.category));
    put(row.cells[1].lastChild, view.name(segment.category));
    put(row.cells[2].firstChild ?? row.cells[2].appendChild(new Text()), score(segment.score));
    put(row.cells[3].firstChild ?? row.cells[3].appendChild(new Text()), `${(100 * segment.area / pixels).toFixed(1)} %`);
  });
}

function put(node, text) {
  if (node.data !== text) node.data = text;
}

// The selected segment, or that it is not in this frame.
export function showSelected(view, chosen, last, tracked) {
  const shown = chosen ?? last;
  $("selected").hidden = !shown;
  $("selected-empty").hidden = Boolean(shown);
  if (!shown) return;
  const pixels = view.frame ? view.frame.width * view.frame.height : 1;
  $("selected-chip").style.background = rgb(view.colour(shown.category));
  $("selected-name").textContent = `${view.name(shown.category)} ${shown.track ? `·${shown.track}` : `#${shown.id}`}`;
  $("selected-score").textContent = chosen ? score(chosen.score) : "–";
  $("selected-area").textContent = chosen ? `${number(chosen.area)} px, ${(100 * chosen.area / pixels).toFixed(1)} %` : "not in this frame";
  $("selected-box").textContent = chosen?.box ? `${chosen.box[2]} × ${chosen.box[3]} at ${chosen.box[0]}, ${chosen.box[1]}` : "–";
  $("selected-note").textContent = tracked
    ? "The last minute of this track: area (filled) and score (line, 0 to 1)."
    : "The last minute of this class with this id: area (filled) and score (line, 0 to 1). Segments are not tracked: another object may have had the id before.";
}

// Classes that were seen since the page knows this model, by name; a check box for each.
export class Classes {
  constructor(view, onChange) {
    Object.assign(this, { view, onChange, rows: new Map() });
    $("classes-all").addEventListener("click", () => this.all(true));
    $("classes-none").addEventListener("click", () => this.all(false));
  }

  // Another model with other classes.
  reset(facts) {
    this.view.facts = facts;
    this.rows.clear();
    this.view.hidden.clear();
    $("classes").replaceChildren();
    this.note();
  }

  all(on) {
    // those that were not seen yet, too: a class that appears shall not undo "none"
    this.view.facts.labels.forEach((_, category) => this.mark(category, on));
    this.onChange();
  }

  set(category, on) {
    this.mark(category, on);
    this.onChange();
  }

  mark(category, on) {
    if (on) this.view.hidden.delete(category);
    else this.view.hidden.add(category);
    const row = this.rows.get(category);
    if (row) row.box.checked = on;
  }

  update(segments, pixels) {
    const now = new Map();
    for (const { category, area } of segments) {
      const sum = now.get(category) ?? { count: 0, area: 0 };
      now.set(category, { count: sum.count + 1, area: sum.area + area });
    }
    for (const category of now.keys()) if (!this.rows.has(category)) this.add(category);
    for (const [category, row] of this.rows) {
      const sum = now.get(category);
      row.share.textContent = sum ? `${sum.count > 1 ? `${sum.count} × ` : ""}${(100 * sum.area / pixels).toFixed(1)} %` : "";
    }
  }

  add(category) {
    const name = this.view.name(category), box = element("input", { type: "checkbox", checked: !this.view.hidden.has(category) });
    box.addEventListener("change", () => this.set(category, box.checked));
    const share = element("span", { className: "n" });
    const item = element("li", {}, element("label", {}, box, chip(this.view.colour(category)), element("span", { className: "name", title: name }, name)), share);
    item.dataset.category = category;
    this.rows.set(category, { name, box, share, item });
    const sorted = [...this.rows.values()].sort((a, b) => a.name.localeCompare(b.name));
    $("classes").replaceChildren(...sorted.map((row) => row.item));
    this.note();
  }

  note() {
    const unseen = this.view.facts.labels.length - this.rows.size;
    $("classes-note").textContent = unseen > 0 ? `${unseen} of ${this.view.facts.labels.length} not seen yet` : "";
  }
}

export function showFacts({ facts, control, last: frame }) {
  const status = control?.status, model = status?.model, metadata = facts?.metadata ?? {}, rule = ["", ""];
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(bytes < 10000 ? 1 : 0)} kB`;
  const rows = [
    ["model", model?.name ?? metadata.name],
    ["file", model?.path?.split("/").pop()],
    ["task", model?.task ?? metadata.task],
    ["classes", facts?.labels.length],
    ["input", model && `${model.size[0]} × ${model.size[1]}, ${model.precision}`],
    ["SHA-256", frame && `${frame.model.slice(0, 16)}…`],
    ["notice", model?.fallback || metadata.fallback ? "the last good model runs, not the configured one"
      : model?.configured === false ? "switched by hand: a reload goes back" : null],
    rule,
    ["source", status?.source?.uri],
    ["camera", frame && (frame.source ? `id ${frame.source.toString(16).padStart(8, "0")}` : "none yet")],
    ["frame", frame && `${frame.width} × ${frame.height}`],
    ["number", frame && number(frame.frame)],
    ["dropped", frame && losses(frame)],
    ["failed", frame && number(frame.failed)],
    rule,
    ["daemon", status ? `${status.version}, process ${status.pid}` : facts && `process ${facts.pid}`],
    ["up", status && duration(status.uptime_s)],
    ["kernels", status && `${status.isa}, ${status.threads} threads`],
    ["memory", status && `${(status.memory_bytes / 1048576).toFixed(0)} MiB`],
    ["on the wire", frame && `${frame.bytes.jpeg ? `JPEG ${kilobytes(frame.bytes.jpeg)}, ` : ""}ids ${kilobytes(frame.bytes.ids)}`],
  ].filter(([name, value]) => name === "" || (value != null && value !== ""));
  const list = $("facts"), names = rows.map(([name]) => name).join();
  if (list.dataset.names !== names) {
    // else only what changed: a text that is being copied stays selected
    list.dataset.names = names;
    list.replaceChildren(...rows.map(([name]) => name === "" ? element("div", { className: "rule" }) : element("div", {}, element("dt", {}, name), element("dd", {}, ""))));
  }
  rows.forEach(([name, value], at) => { if (name !== "") put(list.children[at].lastChild.firstChild ?? list.children[at].lastChild.appendChild(new Text()), String(value)); });
}

// Frames that were not processed, and why, where the daemon tells.
function losses({ dropped, causes }) {
  const known = Object.entries(causes ?? {}).filter(([, count]) => count > 0).map(([cause, count]) => `${cause} ${number(count)}`);
  return `${number(dropped)}${known.length ? ` (${known.join(", ")})` : ""}`;
}

function duration(seconds) {
  const s = Math.floor(seconds), days = Math.floor(s / 86400), pad = (n) => String(n).padStart(2, "0");
  return `${days ? `${days} d ` : ""}${pad(Math.floor(s / 3600) % 24)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
}

const THRESHOLDS = [
  ["threshold", "score of a segment"],
  ["mask_threshold", "probability of a pixel"],
  ["overlap_threshold", "share of its mask"],
];

export class Settings {
  constructor(link, confirm) {
    Object.assign(this, { link, confirm, values: {}, dirty: false, busy: false, models: "" });
    this.inputs = Object.fromEntries(THRESHOLDS.map(([key, what]) => [key, this.threshold(key, what)]));
    $("settings").addEventListener("submit", (event) => { event.preventDefault(); this.apply(); });
    $("reload").addEventListener("click", () => this.order({ do: "reload" }, "Reload the configuration and the model?", "Frames go on until the new model has been tried."));
    $("switch").addEventListener("click", () => {
      const name = $("model").value;
      this.order({ do: "model", name }, `Switch to ${name}?`, "It is tried first; if it fails, the old one stays. A reload or a restart goes back to the configured model.");
    });
    $("model").addEventListener("change", () => this.buttons());
  }

  threshold(key, what) {
    const range = element("input", { type: "range", min: 0, max: 1, step: .01, id: `range-${key}`, "aria-label": `${key}: ${what}` });
    const box = element("input", { type: "number", min: 0, max: 1, step: .01, id: key, "aria-label": key });
    for (const [from, to] of [[range, box], [box, range]]) {
      from.addEventListener("input", () => { to.value = from.value; this.dirty = true; this.buttons(); });
    }
    const label = element("label", { htmlFor: key }, element("code", {}, key), ` ${what}`);
    $("thresholds").append(element("div", { className: "threshold" }, label, range, box));
    return { range, box };
  }

  update(control) {
    const { status, allowed, reason } = control;
    this.status = status;
    this.allowed = allowed;
    $("settings-reason").textContent = reason ?? "";
    $("settings").hidden = !status;
    if (!status) return;
    this.values = status.thresholds;
    if (!this.dirty) this.fill();
    const models = (status.models ?? []).join("\n"), current = status.model.path.split("/").pop();
    if (models !== this.models || current !== this.current) {
      [this.models, this.current] = [models, current];
      $("model").replaceChildren(...(status.models ?? []).map((name) => element("option", { value: name, selected: name === current }, name)));
    }
    $("model-row").hidden = !status.models?.length;
    this.buttons();
  }

  fill() {
    for (const [key] of THRESHOLDS) for (const input of Object.values(this.inputs[key])) input.value = (this.values[key] ?? 0).toFixed(2);
  }

  changes() {
    return THRESHOLDS.map(([key]) => [key, Number(this.inputs[key].box.value)]).filter(([key, value]) => Math.abs(value - this.values[key]) > .0001);
  }

  buttons() {
    const off = !this.allowed || this.busy || this.status?.loading;
    const valid = THRESHOLDS.every(([key]) => this.inputs[key].box.value !== "" && this.inputs[key].box.checkValidity());
    if (this.changes().length === 0) this.dirty = false;
    $("apply").disabled = off || !valid || this.changes().length === 0;
    $("reload").disabled = off;
    $("switch").disabled = off || $("model").value === this.current;
    for (const { range, box } of Object.values(this.inputs)) range.disabled = box.disabled = !this.allowed;
    $("model").disabled = !this.allowed;
  }

  async apply() {
    const changes = this.changes();
    if (!changes.length) return;
    const said = changes.map(([key, value]) => `${key} from ${this.values[key].toFixed(2)} to ${value.toFixed(2)}`);
    const done = await this.order({ do: "thresholds", set: Object.fromEntries(changes) }, `Set ${said.join(", ")}?`, "From the next frame on, until a reload, another model or a restart. All readers of the masks get it.");
    // else what was typed stays, to be tried again
    if (done) this.values = { ...this.values, ...Object.fromEntries(changes) };
    this.buttons();
  }

  async order(request, question, note) {
    if (!await this.confirm(question, note)) return false;
    this.busy = true;
    this.buttons();
    $("settings-answer").textContent = "in work …";
    const answer = await this.link.ask(request);
    this.busy = false;
    this.buttons();
    $("settings-answer").textContent = answer.ok ? `Done.${answer.lasts ? ` It lasts ${answer.lasts}.` : ""}` : `Refused: ${answer.error}`;
    return answer.ok;
  }
}

export function showLog({ fresh, lines }) {
  const list = $("log"), below = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  if (fresh) list.replaceChildren();
  for (const { time, level, text } of lines) {
    const at = new Date(time * 1000);
    list.append(element("li", { className: level ?? "" }, element("time", { dateTime: at.toISOString() }, at.toLocaleTimeString("en-GB")), element("span", {}, text)));
  }
  while (list.children.length > LOG_LINES) list.firstChild.remove();
  $("log-reason").hidden = true;
  $("log-count").textContent = `${list.children.length} lines`;
  if (below) list.scrollTop = list.scrollHeight;
}
