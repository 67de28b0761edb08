// Drives the page in Chromium. See web-check.sh. Waits for what shall happen, never for a time; no figure of speed is asserted, those are printed.
import { spawn, spawnSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import tls from "node:tls";
import { chromium } from "playwright-core";

const root = process.argv[2], out = path.join(root, "web-check-output"), dir = fs.mkdtempSync(path.join(os.tmpdir(), "web-check-"));
const DAEMON = process.env.EOMT_EDGE ?? `${root}/target/release/eomt-edge`, BRIDGE = process.env.EOMT_EDGE_BRIDGE ?? `${root}/target/release/eomt-edge-bridge`;
const CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE = 120000, MEMORY_MAX_KIB = 60 * 1024, TOKEN = "correct horse battery";
const socket = `${dir}/masks.sock`, controlSocket = `${dir}/control.sock`;
const children = new Set();
let failed = 0;

function check(name, good, detail = "") {
  if (!good) failed++;
  console.log(good ? "ok  " : "FAIL", name, detail);
}

function start(program, args, log, options = {}) {
  const to = fs.openSync(log, "a"), child = spawn(program, args, { stdio: [options.stdin ?? "ignore", options.stdout ?? to, to], ...options.spawn });
  children.add(child);
  child.ended = new Promise((done) => child.on("exit", (code) => { children.delete(child); done(code); }));
  return child;
}

async function end(child, signal = "SIGTERM") {
  child.kill(signal);
  return child.ended;
}

async function until(what, test, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await test();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

const freePort = () => new Promise((done) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => done(port)); });
});

const daemonLog = `${dir}/daemon.log`, bridgeLog = `${dir}/bridge.log`;
const startDaemon = (frame = true) => start(DAEMON, ["run", "--model", `${root}/models/eomt-nano-scenes.onnx`, "--source", "scenes:7", "--set", `ring.socket=${socket}`, "--set", `ring.include_frame=${frame}`], daemonLog, { spawn: { env: { ...process.env, RUST_LOG: "info" } } });
const startBridge = (...args) => start(BRIDGE, ["web", "--socket", socket, ...args], bridgeLog);

// The daemon's side of the control socket, as its protocol is written; it keeps what it was asked.
function fakeControl(model) {
  const asked = [], thresholds = { threshold: .8, mask_threshold: .5, overlap_threshold: .8 };
  let current = "eomt-nano-scenes.onnx";
  const server = net.createServer((peer) => {
    readline.createInterface({ input: peer }).on("line", (line) => {
      const request = JSON.parse(line), say = (answer) => peer.write(`${JSON.stringify(answer)}\n`);
      if (!["status", "log"].includes(request.do)) asked.push(request);
      if (request.do === "status") {
        say({ ok: true, version: "0.1.0", pid: 4711, uptime_s: 93784.2, frames: 1406, fps: 15, dropped: 3, failed: 0, source: { uri: "scenes:7", no_signal: false },
          model: { path: `/usr/share/eomt-edge/${current}`, name: model, sha256: "0".repeat(64), precision: "int8", size: [320, 240], task: "panoptic", classes: 9, labels: [], fallback: false, configured: true },
          thresholds, loading: false, isa: "avx2", threads: 2, memory_bytes: 61865984, models: ["eomt-nano-scenes.onnx", "workshop.onnx"] });
      } else if (request.do === "log") {
        const lines = [["info", "model eomt-nano-scenes: 9 classes"], ["info", "source scenes:7: 320x240"], ["warn", "<b>not markup</b>"]].map(([level, text], at) => ({ n: at + 1, time: 1764512345 + at, level, text }));
        say({ ok: true, next: 3, more: false, lines: lines.filter(({ n }) => n > request.after) });
      } else if (request.do === "thresholds") {
        Object.assign(thresholds, request.set);
        say({ ok: true, thresholds, lasts: "until a reload, another model or a restart" });
      } else if (request.do === "model") {
        current = request.name;
        say({ ok: true, model: {}, lasts: "until a reload or a restart, which go back to the configured model" });
      } else say({ ok: false, error: "workshop.onnx: no such file; the old model goes on" });
    });
    peer.on("error", () => {});
  });
  return new Promise((done) => server.listen(controlSocket, () => done({ asked, server })));
}

function tape() {
  const child = start("/usr/bin/python3", [`${root}/scripts/web_tape.py`, socket], `${dir}/tape.log`, { stdin: "pipe", stdout: "pipe" });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return async (question) => {
    child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value } = await lines.next();
    const said = JSON.parse(value);
    if (said.error) throw new Error(said.error);
    return said;
  };
}

async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.trouble = [];
  // of reading the canvas, which only this script does
  page.on("console", (message) => { if (["error", "warning"].includes(message.type()) && !message.text().includes("willReadFrequently")) page.trouble.push(message.text()); });
  page.on("pageerror", (error) => page.trouble.push(String(error)));
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  await page.goto(url);
  return page;
}

const sequence = (page) => page.evaluate(() => window.eomtEdge.view.frame?.sequence ?? 0);
const word = (page) => page.locator("#state-word").textContent();
const becomes = (page, wanted) => until(`state "${wanted}"`, async () => (await word(page)) === wanted);
async function moves(page, count = 5) {
  const first = await sequence(page);
  await until("new frames", async () => { const now = await sequence(page); return now >= first + count || (now > 0 && now < first); });
}
async function pixels(page, canvas) {
  const text = await page.evaluate((id) => {
    const c = document.getElementById(id), data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let text = "";
    for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
    return btoa(text);
  }, canvas);
  const file = `${dir}/${canvas}.rgba`;
  fs.writeFileSync(file, Buffer.from(text, "base64"));
  return file;
}
const memory = (child, what) => Number(fs.readFileSync(`/proc/${child.pid}/status`, "utf8").match(new RegExp(`${what}:\\s+(\\d+)`))[1]);
const quantile = (list, part) => list.slice().sort((a, b) => a - b)[Math.floor(part * (list.length - 1))];

async function pausedPicture(page, ask) {
  await page.keyboard.press("Space");
  await becomes(page, "paused");
  // what was on its way when the key was pressed is drawn first
  const still = await until("a frame that stays", async () => { const a = await sequence(page); await page.evaluate(() => new Promise((r) => setTimeout(r, 300))); return a === await sequence(page) && a; });
  const said = await ask({ sequence: still, mask: await pixels(page, "mask"), camera: await pixels(page, "camera") });
  check("each pixel of the mask layer is the ring's", said.wrong === 0, `${said.wrong} of ${said.pixels} differ, ${said.segments.length} segments`);
  check("the camera layer is the ring's picture", said.camera_error < 6, `mean error ${said.camera_error?.toFixed(2)}`);
  return { still, segments: said.segments };
}

async function clicks(page, ask, { still, segments }) {
  const layers = await page.locator("#layers").boundingBox(), size = await page.evaluate(() => [window.eomtEdge.view.frame.width, window.eomtEdge.view.frame.height]);
  const scale = Math.min(layers.width / size[0], layers.height / size[1]);
  const left = layers.x + (layers.width - scale * size[0]) / 2, top = layers.y + (layers.height - scale * size[1]) / 2;
  for (const segment of segments) {
    await page.mouse.click(left + (segment.x + .5) * scale, top + (segment.y + .5) * scale);
    const name = await page.locator("#selected-name").textContent(), area = await page.locator("#selected-area").textContent();
    check("a click shows class and area", name === `${segment.label} #${segment.id}` && area.replaceAll(" ", "").startsWith(`${segment.area}px`), `${name}, ${area}`);
  }
  const off = segments[0].category, on = page.locator(`#classes li[data-category="${off}"] input`);
  await on.uncheck();
  const hidden = await ask({ sequence: still, mask: await pixels(page, "mask"), hidden: [off] });
  check("a class that is off is gone, the others stay", hidden.wrong === 0, `${hidden.wrong} pixels differ`);
  await on.check();
  const back = await ask({ sequence: still, mask: await pixels(page, "mask") });
  check("and comes back", back.wrong === 0);
  const opacity = () => page.evaluate(() => Number(getComputedStyle(document.getElementById("mask")).opacity));
  await page.locator("#opacity").fill("20");
  check("opacity by the slider", await opacity() === .2);
  await page.locator("#screen").focus();
  await page.keyboard.press("o");
  check("opacity by key", await opacity() === .25);
  await page.locator("#opacity").fill("50");
  await page.locator("#screen").focus();
  await page.keyboard.press("2");
  check("a digit selects", (await page.locator("#segments tr").nth(1).getAttribute("aria-selected")) === "true");
  await page.keyboard.press("ArrowLeft");
  check("an arrow selects", (await page.locator("#segments tr").nth(0).getAttribute("aria-selected")) === "true");
  await page.keyboard.press("?");
  check("help opens", await page.locator("#help").isVisible());
  await page.keyboard.press("Escape");
  await page.keyboard.press("Space");
  await moves(page);
}

async function restarts(page, parts, ask) {
  await end(parts.daemon, "SIGKILL");
  await becomes(page, "daemon away");
  check("a daemon that is killed is told", (await page.locator("#notice").textContent()).startsWith("No daemon"));
  parts.daemon = startDaemon(false);
  await becomes(page, "live");
  await until("the key to set", async () => (await page.locator("#corner").textContent()).includes("ring.include_frame"));
  await moves(page);
  check("without a camera frame the page says which key to set, and shows masks", true);
  await end(parts.daemon);
  parts.daemon = startDaemon();
  await until("a picture again", () => page.evaluate(() => Boolean(window.eomtEdge.view.frame?.picture)));
  await becomes(page, "live");
  check("a daemon that comes back is shown, without a reload of the page", true);
  parts.daemon.kill("SIGSTOP");
  await becomes(page, "daemon hangs");
  parts.daemon.kill("SIGCONT");
  await becomes(page, "live");
  check("a daemon that hangs is told", true);
  await end(parts.bridge, "SIGKILL");
  await becomes(page, "bridge away");
  parts.bridge = startBridge(...parts.bridgeArgs);
  await becomes(page, "live");
  await moves(page);
  check("a bridge that is killed and started again is found", true);
  check("the bridge ends by SIGTERM with success", await end(parts.bridge) === 0);
  parts.bridge = startBridge(...parts.bridgeArgs);
  await becomes(page, "live");
  // refused connections and the end of the WebSocket are what this part is about
  page.trouble = page.trouble.filter((text) => !/ERR_CONNECTION|WebSocket|Failed to load resource/.test(text));
}

async function crowd(browser, page, parts, url) {
  const others = [];
  for (let count = 1; count < 10; count++) others.push(await openPage(browser, url, { viewport: { width: 800, height: 600 } }));
  await Promise.all([page, ...others].map((one) => moves(one, 30)));
  check("ten viewers are served", others.length === 9);
  const rss = memory(parts.bridge, "VmRSS"), peak = memory(parts.bridge, "VmHWM");
  check("ten viewers fit into 60 MiB", peak <= MEMORY_MAX_KIB, `VmRSS ${(rss / 1024).toFixed(1)} MiB, VmHWM ${(peak / 1024).toFixed(1)} MiB`);
  const rates = await Promise.all(others.map((one) => one.evaluate(() => window.eomtEdge.rate?.toFixed(1))));
  console.log("     rate as ten pages show it:", rates.join(" "));
  await stuck(page, parts);
  await Promise.all(others.map((one) => one.context().close()));
  check("and peak memory stays", memory(parts.bridge, "VmHWM") <= MEMORY_MAX_KIB, `VmHWM ${(memory(parts.bridge, "VmHWM") / 1024).toFixed(1)} MiB`);
}

// A viewer that says "ack" all the time, and reads nothing after the first bytes.
async function stuck(page, parts) {
  const before = fs.readFileSync(bridgeLog, "utf8").length;
  const peer = net.connect(parts.port, "127.0.0.1");
  peer.on("error", () => {});
  peer.write(`GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${crypto.randomBytes(16).toString("base64")}\r\n\r\n`);
  await new Promise((done) => peer.once("data", done));
  peer.pause();
  const text = Buffer.from('{"do":"ack"}'), ack = Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]);
  const saying = setInterval(() => { if (peer.writable) peer.write(ack); }, 30);
  const first = await sequence(page);
  await until("the viewer that reads nothing is sent away", () => fs.readFileSync(bridgeLog, "utf8").slice(before).includes("it took nothing for 5 s"));
  const seen = await sequence(page) - first;
  check("a viewer that stops reading is sent away, and others see on", seen > 10, `${seen} frames meanwhile`);
  clearInterval(saying);
  peer.destroy();
}

async function login(page) {
  await page.locator("#login").waitFor({ state: "visible" });
  await page.locator("#token").fill("a wrong token");
  await page.keyboard.press("Enter");
  await until("the refusal", async () => (await page.locator("#login-note").textContent()) === "This is not the token.");
  await page.locator("#token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.locator("#login").waitFor({ state: "hidden" });
  await becomes(page, "live");
  await moves(page);
  check("the page opens with the token, and not with another", true);
  const [cookie] = await page.context().cookies();
  check("the cookie is for this page alone", cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict", cookie.name);
  page.trouble = page.trouble.filter((text) => !text.includes("403"));
}

async function orders(page, control) {
  await page.locator("#settings").waitFor({ state: "visible" });
  await page.locator("#threshold").fill("0.6");
  await page.locator("#apply").click();
  check("an order is asked for", (await page.locator("#confirm-text").textContent()) === "Set threshold from 0.80 to 0.60?");
  await page.locator("#confirm-no").click();
  check("and not given when refused", control.asked.length === 0);
  await page.locator("#apply").click();
  await page.locator("#confirm-yes").click();
  await until("the order", () => control.asked.length === 1);
  check("a threshold reaches the daemon", JSON.stringify(control.asked[0]) === '{"do":"thresholds","set":{"threshold":0.6}}', JSON.stringify(control.asked[0]));
  await until("the answer", async () => (await page.locator("#settings-answer").textContent()).startsWith("Done. It lasts until a reload"));
  await page.locator("#model").selectOption("workshop.onnx");
  await page.locator("#switch").click();
  await page.locator("#confirm-yes").click();
  await until("the switch", () => control.asked.some((one) => one.do === "model" && one.name === "workshop.onnx"));
  await page.locator("#reload").click();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await until("the daemon's refusal", async () => (await page.locator("#settings-answer").textContent()) === "Refused: workshop.onnx: no such file; the old model goes on");
  check("a refusal of the daemon is shown in its words", true);
  check("log lines are text", (await page.locator("#log li").allTextContents()).some((line) => line.includes("<b>not markup</b>")) && await page.locator("#log b").count() === 0);
}

async function secured(browser) {
  const tokenFile = `${dir}/token`, open = await freePort();
  fs.writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
  const refused = spawnSync(BRIDGE, ["web", "--listen", `0.0.0.0:${open}`, "--socket", socket], { encoding: "utf8" });
  check("others are not let in without a token", refused.status === 2 && refused.stderr.includes("needs --token-file"), refused.stderr.trim());
  const control = await fakeControl("eomt-nano-scenes"), port = await freePort(), before = fs.readFileSync(bridgeLog, "utf8").length;
  const bridge = startBridge("--listen", `0.0.0.0:${port}`, "--token-file", tokenFile, "--state-dir", `${dir}/state`, "--control", controlSocket);
  await until("the bridge listens", () => fs.readFileSync(bridgeLog, "utf8").slice(before).includes("SHA-256"));
  const told = fs.readFileSync(bridgeLog, "utf8").slice(before).match(/SHA-256: ([0-9A-F:]+)/)[1];
  const seen = await new Promise((done, fail) => {
    const peer = tls.connect({ port, host: "127.0.0.1", servername: "localhost", rejectUnauthorized: false }, () => { done(peer.getPeerCertificate().fingerprint256); peer.end(); }).on("error", fail);
  });
  check("the certificate is the one that the log tells", told === seen, told.slice(0, 23));
  const plain = await new Promise((done) => { http.get({ port, host: "127.0.0.1" }, (answer) => done(answer.statusCode)).on("error", (error) => done(error.code)); });
  check("there is no plain HTTP", typeof plain === "string", String(plain));
  const page = await openPage(browser, `https://localhost:${port}/`, { ignoreHTTPSErrors: true });
  await login(page);
  await orders(page, control);
  await page.locator("#logout").click();
  await page.locator("#login").waitFor({ state: "visible" });
  check("logged out is outside", true);
  check("no complaint of the browser", page.trouble.length === 0, page.trouble.join(" | "));
  await page.context().close();
  await end(bridge);
  control.server.close();
}

async function pictures(browser, url) {
  for (const scheme of ["dark", "light"]) {
    for (const width of [360, 768, 1440]) {
      const page = await openPage(browser, url, { viewport: { width, height: width < 700 ? 780 : 900 }, colorScheme: scheme });
      await becomes(page, "live");
      await moves(page, 60);
      await page.locator("#segments tr").nth(0).click();
      await moves(page, 45);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(`nothing is wider than a screen of ${width}`, overflow <= 0, scheme);
      await page.screenshot({ path: `${out}/${width}-${scheme}.png`, fullPage: true });
      await page.context().close();
    }
  }
}

async function main() {
  const port = await freePort(), url = `http://127.0.0.1:${port}/`, bridgeArgs = ["--listen", `127.0.0.1:${port}`, "--control", controlSocket];
  const parts = { port, bridgeArgs, daemon: startDaemon(), bridge: startBridge(...bridgeArgs) };
  const ask = tape();
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: CHROMIUM });
  await until("the bridge listens", () => fetch(url).then(() => true, () => false));
  const page = await openPage(browser, url);
  await becomes(page, "live");
  await moves(page, 60);
  const latencies = (await page.evaluate(() => [window.eomtEdge.latencies, window.eomtEdge.link.uncertainty()]));
  const times = latencies[0].filter((one) => one.latency !== null), known = times.map((one) => one.latency);
  console.log(`     capture to screen: median ${quantile(known, .5).toFixed(0)} ms, 95 % ${quantile(known, .95).toFixed(0)} ms, of ${known.length} frames; clocks to ±${latencies[1].toFixed(1)} ms`);
  console.log(`     of it, medians: published ${["published", "received"].map((part) => quantile(times.map((one) => one[part]), .5).toFixed(0)).join(" ms, received ")} ms after capture; decoded in ${["decode", "draw"].map((part) => quantile(times.map((one) => one[part]), .5).toFixed(0)).join(" ms, drawn in ")} ms`);
  check("the latency is measured", known.length > 0 && known.every((one) => one > 0));
  check("without a control socket the page says why settings and log are absent", (await page.locator("#settings-reason").textContent()).includes("control.socket") && await page.locator("#settings").isHidden());
  await clicks(page, ask, await pausedPicture(page, ask));
  await restarts(page, parts, ask);
  check("no complaint of the browser", page.trouble.length === 0, page.trouble.join(" | "));
  await crowd(browser, page, parts, url);
  await page.context().close();
  await secured(browser);
  const shown = await fakeControl("eomt-nano-scenes");
  await pictures(browser, url);
  shown.server.close();
  await browser.close();
}

try {
  await main();
} catch (error) {
  check("to the end", false, error.stack);
}
for (const child of children) child.kill("SIGKILL");
if (failed > 0) for (const log of ["bridge.log", "daemon.log", "tape.log"]) console.log(`--- ${log}\n${fs.existsSync(`${dir}/${log}`) ? fs.readFileSync(`${dir}/${log}`, "utf8").slice(-3000) : ""}`);
fs.rmSync(dir, { recursive: true, force: true });
console.log(failed ? `web-check: ${failed} failed` : "web-check: all passed");
process.exit(failed ? 1 : 0);
