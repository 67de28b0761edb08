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
const socket = `${dir}/masks.sock`, controlSocket = `${dir}/control.sock`, models = `${dir}/models`, BROKEN = "<b>broken<b>.onnx";
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
const startDaemon = (...more) => start(DAEMON, ["run", "--model", `${models}/nano.onnx`, "--source", "scenes:7", ...["source.size=320x240", `ring.socket=${socket}`, ...more].flatMap((item) => ["--set", item])], daemonLog, { spawn: { env: { ...process.env, RUST_LOG: "info" } } });
const FRAMES = "ring.include_frame=true", CONTROL = [`control.socket=${controlSocket}`, `control.models=${models}`];
const startBridge = (...args) => start(BRIDGE, ["web", "--socket", socket, ...args], bridgeLog);

// A question at the daemon's control socket, past bridge and page.
const askDaemon = (request) => new Promise((done, fail) => {
  const peer = net.connect(controlSocket, () => peer.write(`${JSON.stringify(request)}\n`)).on("error", fail);
  readline.createInterface({ input: peer }).on("line", (line) => { peer.destroy(); done(JSON.parse(line)); }).on("error", () => {});
});

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
  context.setDefaultTimeout(PATIENCE); // a slow machine only takes longer
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
  parts.daemon = startDaemon();
  await becomes(page, "live");
  await until("the key to set", async () => (await page.locator("#corner").textContent()).includes("ring.include_frame"));
  await moves(page);
  check("without a camera frame the page says which key to set, and shows masks", true);
  await end(parts.daemon);
  parts.daemon = startDaemon(FRAMES);
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

async function orders(page) {
  const threshold = async () => (await askDaemon({ do: "status" })).thresholds.threshold, first = await threshold();
  await page.locator("#settings").waitFor({ state: "visible" });
  await page.locator("#threshold").fill("0.37");
  await page.locator("#apply").click();
  check("an order is asked for", (await page.locator("#confirm-text").textContent()) === `Set threshold from ${first.toFixed(2)} to 0.37?`);
  await page.locator("#confirm-no").click();
  check("and not given when refused", await threshold() === first);
  await page.locator("#apply").click();
  await page.locator("#confirm-yes").click();
  const says = (words) => until(`the answer "${words}"`, async () => (await page.locator("#settings-answer").textContent()).startsWith(words));
  await says("Done. It lasts until a reload");
  check("a threshold reaches the daemon", await threshold() === .37);
  await page.locator("#model").selectOption("other.onnx");
  await page.locator("#switch").click();
  await page.locator("#confirm-yes").click();
  await says("Done. It lasts until a reload");
  // the words are those of the thresholds, too
  const { model } = await until("another model", async () => { const status = await askDaemon({ do: "status" }); return status.model?.path.endsWith("/other.onnx") && status; });
  check("another model runs", model.path.endsWith("/other.onnx") && model.configured === false, model.path);
  await moves(page);
  await page.locator("#model").selectOption(BROKEN);
  await page.locator("#switch").click();
  await page.locator("#confirm-yes").click();
  await says("Refused: ");
  check("a refusal of the daemon is shown in its words", true, await page.locator("#settings-answer").textContent());
  await page.locator("#reload").click();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await says("Done.");
  check("a reload goes back to the configured model", (await askDaemon({ do: "status" })).model.path.endsWith("/nano.onnx"));
  await until("the daemon's log", async () => (await page.locator("#log li").allTextContents()).some((line) => line.includes(BROKEN)));
  check("log lines are text", await page.locator("#log b").count() === 0);
}

async function secured(browser, parts) {
  await end(parts.daemon);
  parts.daemon = startDaemon(FRAMES, ...CONTROL);
  const tokenFile = `${dir}/token`, open = await freePort();
  fs.writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
  const refused = spawnSync(BRIDGE, ["web", "--listen", `0.0.0.0:${open}`, "--socket", socket], { encoding: "utf8" });
  check("others are not let in without a token", refused.status === 2 && refused.stderr.includes("needs --token-file"), refused.stderr.trim());
  const port = await freePort(), before = fs.readFileSync(bridgeLog, "utf8").length;
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
  await orders(page);
  await page.locator("#logout").click();
  await page.locator("#login").waitFor({ state: "visible" });
  check("logged out is outside", true);
  check("no complaint of the browser", page.trouble.length === 0, page.trouble.join(" | "));
  await page.context().close();
  await end(bridge);
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
  fs.mkdirSync(models);
  for (const name of ["nano.onnx", "other.onnx"]) fs.copyFileSync(`${root}/models/eomt-nano-scenes.onnx`, `${models}/${name}`);
  fs.writeFileSync(`${models}/${BROKEN}`, "no network");
  const port = await freePort(), url = `http://127.0.0.1:${port}/`, bridgeArgs = ["--listen", `127.0.0.1:${port}`, "--control", controlSocket];
  const parts = { port, bridgeArgs, daemon: startDaemon(FRAMES), bridge: startBridge(...bridgeArgs) };
  await until("the daemon listens", () => fs.existsSync(socket));
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
  await secured(browser, parts);
  await pictures(browser, url);
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
