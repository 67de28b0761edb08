// Puts the page together: connection, picture, panels, keys.

import { Link } from "./link.js";
import { Plot } from "./plots.js";
import { View } from "./view.js";
import { Classes, Settings, element, showFacts, showLog, showSegments, showSelected } from "./panels.js";

const $ = (id) => document.getElementById(id);
const MINUTE = 60000, HISTORIES = 256, STAGES = ["wait", "preprocess", "infer", "segment", "publish"];
const STATES = {
  live: ["live", "live", ""],
  quiet: ["warn", "no new frames", "The daemon lives, but publishes no new frames."],
  silent: ["bad", "daemon hangs", "The daemon has given no sign of life for 5 seconds. Its watchdog restarts it."],
  no_signal: ["warn", "no signal", "No signal: the source gives the daemon no frames."],
  away: ["bad", "daemon away", "No daemon is there. The bridge waits for it, and this page goes on by itself."],
};

const now = { facts: null, control: null, ring: "", link: "away", linkWords: "", paused: false, last: null, pending: null };
const histories = new Map(); // key of a segment → points of the last minute
const recent = []; // [sequence, published_us] of the last two seconds

const view = new View({ onSelect: select });
const classes = new Classes(view, redraw);
const link = new Link({
  session: ({ token, inside }) => { $("logout").hidden = !token || !inside; },
  link: (kind, words) => { now.link = kind; now.linkWords = words; if (kind === "login") login(); showState(); },
  facts: (facts) => { 
    recent.length = 0;
    if (JSON.stringify(facts.labels) !== JSON.stringify(view.facts.labels)) { classes.reset(facts); histories.clear(); }
    now.facts = view.facts = facts;
    showFacts(now);
  },
  state: ({ ring }) => { now.ring = ring; showState(); },
  control: (control) => { now.control = control; settings.update(control); showFacts(now); showLogReason(); },
  log: showLog,
  frame: (frame) => { now.pending?.picture?.close(); if (now.pending === null) requestAnimationFrame(draw); now.pending = frame; },
  trouble: (words) => { $("corner").textContent = words; $("corner").hidden = false; },
});
const settings = new Settings(link, confirmed);

const plots = {
  rate: new Plot($("plot-rate"), { colours: ["--accent"], floor: 5 }),
  latency: new Plot($("plot-latency"), { colours: ["--accent", "--muted"], floor: 20 }),
  stages: new Plot($("plot-stages"), { colours: STAGES.map((_, at) => `--stage-${at}`), kind: "stack", floor: 5 }),
};
const past = new Plot($("plot-history"), { colours: ["--stage-1"], kind: "stack" }); // of the selected segment
const legend = STAGES.map((name, at) => {
  const mark = element("i"), value = element("span");
  mark.style.background = `var(--stage-${at})`;
  $("stage-legend").append(element("li", {}, mark, `${name} `, value));
  return value;
});

function draw() {
  const frame = now.pending;
  now.pending = null;
  if (!frame) return;
  for (const segment of frame.segments) segment.key = segment.track ? `t${segment.track}` : `${segment.category}#${segment.id}`;
  view.show(frame);
  frame.times.drawn = performance.now();
  now.last = frame;
  remember(frame);
  showState();
  refresh();
  // the next animation frame begins when this one has been handed to the screen
  requestAnimationFrame(() => measured(frame));
}

function remember(frame) {
  const time = performance.now();
  for (const { key, area, score } of frame.segments) {
    if (!histories.has(key) && histories.size < HISTORIES) histories.set(key, []);
    histories.get(key)?.push({ time, values: [area], score });
  }
  for (const [key, points] of histories) {
    while (points.length && points[0].time < time - MINUTE) points.shift();
    if (!points.length) histories.delete(key);
  }
}

function measured(frame) {
  if (frame.no_signal) return;
  const time = performance.now(), clock = link.now();
  const latency = clock === null ? null : clock - frame.captured_us / 1000;
  const published = (frame.published_us - frame.captured_us) / 1000;
  recent.push([frame.sequence, frame.published_us]);
  while (recent.length > 2 && recent[0][1] < frame.published_us - 2e6) recent.shift();
  const [[first, from], [last, to]] = [recent[0], recent[recent.length - 1]];
  const rate = to > from && last > first ? (last - first) / (to - from) * 1e6 : null;
  const stages = frame.stage_us.map((us) => us / 1000);
  stages.unshift(Math.max(0, published - stages.reduce((a, b) => a + b, 0)));
  plots.rate.add(time, [rate]);
  plots.latency.add(time, [latency, published]);
  plots.stages.add(time, stages);
  Object.assign(page, { frame, latency, rate });
  const { received, decoded, drawn: painted } = frame.times;
  page.latencies.push({ latency, published, received: latency === null ? null : latency - (time - received), decode: decoded - received, draw: painted - decoded });
  if (page.latencies.length > 1000) page.latencies.shift();
}

// Numbers that a person reads change four times a second.
setInterval(() => {
  const { frame, latency, rate } = page, live = now.link === "open" && now.ring === "live" && !now.paused;
  $("now-rate").textContent = live && rate ? rate.toFixed(1) : "–";
  $("now-latency").textContent = live && latency != null ? latency.toFixed(0) : "–";
  $("now-infer").textContent = live && frame ? (frame.stage_us[1] / 1000).toFixed(1) : "–";
  const stages = plots.stages.points.at(-1)?.values;
  if (stages) legend.forEach((node, at) => { node.textContent = stages[at].toFixed(stages[at] < 10 ? 1 : 0); });
  $("latency-note").textContent = latency == null ? "" : `Grey: until the masks were published. By the ring's stamps; the clocks are compared to ±${link.uncertainty().toFixed(1)} ms.`;
  showFacts(now);
  const chosen = now.last?.segments.find((s) => s.key === view.selected);
  showSelected(view, chosen, chosen ?? page.selected, Boolean((chosen ?? page.selected)?.track));
}, 250);

// Plots move ten times a second, or once where motion is unwelcome.
let drawn = 0;
function plot(time) {
  const every = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;
  if (time - drawn >= every) {
    drawn = time;
    Object.values(plots).forEach((one) => one.draw(performance.now()));
    drawHistory();
  }
  requestAnimationFrame(plot);
}
requestAnimationFrame(plot);

function drawHistory() {
  const points = histories.get(view.selected);
  if (!points) return;
  past.points = points;
  past.share = { colour: "--stage-2", points: points.map(({ time, score }) => ({ time, values: [score] })) };
  past.draw(performance.now());
}

function refresh() {
  if (!now.last) return;
  showSegments(view, (segment) => select(segment));
  classes.update(now.last.segments, now.last.width * now.last.height);
}

function select(segment) {
  view.selected = segment?.key ?? null;
  page.selected = segment;
  showSelected(view, segment, segment, Boolean(segment?.track));
  redraw();
}

function redraw() {
  view.redraw();
  refresh();
}

function showState() {
  let [kind, word, notice] = STATES[now.ring] ?? ["wait", "connecting", ""];
  if (now.link !== "open") [kind, word, notice] = now.link === "login" ? ["warn", "token needed", ""] : ["bad", now.link === "full" ? "no place free" : "bridge away", now.linkWords];
  else if (now.paused) [kind, word, notice] = ["warn", "paused", ""];
  else if (now.ring === "live" && now.last?.stale) [kind, word, notice] = ["warn", "stale", ""];
  $("state").dataset.kind = kind;
  if ($("state-word").textContent !== word) $("state-word").textContent = word;
  if ($("notice").textContent !== notice) $("notice").textContent = notice;
  $("notice").hidden = notice === "";
  const corner = !now.last ? ""
    : word === "stale" ? "Stale: this picture was old when its masks were published. The camera or the network lags behind."
    : now.last.format && !now.last.picture ? `The ring carries the camera frame as ${now.last.format}, which is not shown here. Set ring.frame_format = "rgb" in eomt-edge.toml.`
    : !now.last.picture && !now.last.no_signal ? "The ring carries no camera frame. To see it here, set ring.include_frame = true in eomt-edge.toml." : "";
  $("corner").textContent = corner;
  $("corner").hidden = corner === "" || notice !== "";
  $("frame-number").textContent = now.last ? `frame ${now.last.sequence.toLocaleString("en").replaceAll(",", " ")}` : "";
}

function showLogReason() {
  if ($("log").children.length) return;
  $("log-reason").textContent = now.control?.status ? "No line yet." : now.control?.reason ?? "No line yet.";
}

function pause() {
  now.paused = !now.paused;
  $("pause").setAttribute("aria-pressed", now.paused);
  $("pause").textContent = now.paused ? "Go on" : "Pause";
  link.setStopped(now.paused);
  showState();
}

function opacity(value) {
  $("opacity").value = value;
  $("opacity-value").textContent = `${value} %`;
  $("mask").style.opacity = value / 100;
  keep("opacity", value);
}

function labels(on) {
  $("labels").checked = view.labels = on;
  keep("labels", on ? "1" : "0");
  view.drawMarks();
}

function step(by) {
  const segments = now.last?.segments ?? [];
  if (!segments.length) return;
  const at = segments.findIndex((s) => s.key === view.selected);
  select(segments[at < 0 ? (by > 0 ? 0 : segments.length - 1) : (at + by + segments.length) % segments.length]);
}

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.querySelector(".picture").requestFullscreen?.().catch(() => {});
}

function theme(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  $("theme").textContent = { system: "◐ Auto", dark: "◐ Dark", light: "◐ Light" }[choice];
  $("theme").dataset.choice = choice;
  keep("theme", choice);
}

// What a browser refuses to keep is asked for again.
function keep(name, value) {
  try { localStorage.setItem(`eomt-edge.${name}`, value); } catch { /* a private window */ }
}
function kept(name, otherwise) {
  try { return localStorage.getItem(`eomt-edge.${name}`) ?? otherwise; } catch { return otherwise; }
}

function confirmed(question, note) {
  const dialog = $("confirm");
  $("confirm-text").textContent = question;
  $("confirm-note").textContent = note;
  dialog.returnValue = "";
  dialog.showModal();
  $("confirm-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}
$("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
$("confirm-no").addEventListener("click", () => $("confirm").close("no"));

function login() {
  if (!$("login").open) $("login").showModal();
  $("token").focus();
}
$("login").addEventListener("cancel", (event) => event.preventDefault());
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", headers: { "content-type": "text/plain" }, body: $("token").value }).catch(() => null);
  if (answer?.ok) {
    $("token").value = $("login-note").textContent = "";
    $("login").close();
    link.start();
  } else $("login-note").textContent = !answer ? "The bridge does not answer." : answer.status === 429 ? `Too many wrong tokens: try again in ${answer.headers.get("retry-after")} seconds.` : "This is not the token.";
});
$("logout").addEventListener("click", async () => {
  await fetch("logout", { method: "POST" }).catch(() => null);
  location.reload();
});

const KEYS = {
  " ": pause, o: () => opacity([0, 25, 50, 75, 100].find((value) => value > Number($("opacity").value)) ?? 0), l: () => labels(!view.labels),
  f: fullscreen, "?": () => $("help").showModal(), Escape: () => select(null), ArrowLeft: () => step(-1), ArrowUp: () => step(-1), ArrowRight: () => step(1), ArrowDown: () => step(1),
  c: () => { const chosen = page.selected; if (chosen) { classes.set(chosen.category, view.hidden.has(chosen.category)); } },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const field = event.target.closest("input, select, textarea, button");
  // what a field or a scrolled list does with a key itself stays its own
  if (field && (event.key === " " || event.key.startsWith("Arrow") || field.matches("input[type=number], input[type=password], select"))) return;
  if (event.key.startsWith("Arrow") && event.target.closest("#log")) return;
  const segment = /^[1-9]$/.test(event.key) ? now.last?.segments[Number(event.key) - 1] : null;
  const action = segment ? () => select(segment) : KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
});

$("pause").addEventListener("click", pause);
$("opacity").addEventListener("input", (event) => opacity(Number(event.target.value)));
$("labels").addEventListener("change", (event) => labels(event.target.checked));
$("fullscreen").addEventListener("click", fullscreen);
$("help-open").addEventListener("click", () => $("help").showModal());
$("theme").addEventListener("click", () => theme({ system: "dark", dark: "light", light: "system" }[$("theme").dataset.choice]));

// What the page shows, for the console and for tests.
const page = { frame: null, latency: null, rate: null, latencies: [], selected: null, view, link };
window.eomtEdge = page;

opacity(Number(kept("opacity", "50")));
labels(kept("labels", "1") === "1");
theme(["dark", "light"].find((choice) => choice === kept("theme", "system")) ?? "system");
link.start();
