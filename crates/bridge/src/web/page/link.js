// The connection to the bridge: it comes back by itself, asks for the next frame when the last one is decoded, and knows the daemon's clock.
//
// A frame: u32 length of the header, header (JSON), JPEG if any, id map as PNG. See message.rs of the bridge.
// The clock: of several question-and-answer pairs the fastest one tells how CLOCK_MONOTONIC and performance.now() differ; it is wrong by half its
// round trip at most.

import { decodeIds, measure } from "./idmap.js";

const PAUSE_MIN = 250, PAUSE_MAX = 3000, CLOCK_EVERY = 2000, CLOCK_SAMPLES = 10;

export class Link {
  constructor(on) {
    this.on = on;
    this.socket = null;
    this.pause = PAUSE_MIN;
    this.samples = [];
    this.held = false; // an acknowledgement is owed, while paused or hidden
    this.stopped = false;
    this.orders = new Map();
    this.order = 0;
    setInterval(() => this.askClock(), CLOCK_EVERY);
    document.addEventListener("visibilitychange", () => this.release());
  }

  async start() {
    let session;
    try {
      const answer = await fetch("session", { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      session = await answer.json();
    } catch (error) {
      this.on.link("away", "The bridge does not answer. This page goes on trying.");
      return this.later();
    }
    this.on.session(session);
    if (!session.inside) return this.on.link("login", "");
    if (!session.free) {
      this.on.link("full", "All places for viewers are taken. This page goes on trying.");
      return this.later();
    }
    this.open();
  }

  later() {
    setTimeout(() => this.start(), this.pause);
    this.pause = Math.min(2 * this.pause, PAUSE_MAX);
  }

  open() {
    const socket = new WebSocket(new URL("live", location.href.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.held = false;
    this.samples = [];
    socket.onopen = () => {
      this.pause = PAUSE_MIN;
      this.on.link("open", "");
      this.askClock();
    };
    socket.onmessage = ({ data }) => typeof data === "string" ? this.hear(JSON.parse(data)) : this.receive(socket, data);
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.socket = null;
      for (const done of this.orders.values()) done({ ok: false, error: "the connection broke before the answer came" });
      this.orders.clear();
      this.on.link("away", "The bridge does not answer. This page goes on trying.");
      this.later();
    };
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  askClock() {
    if (!document.hidden) this.send({ do: "clock", t: performance.now() });
  }

  hear(message) {
    if (message.type === "clock") {
      const now = performance.now(), trip = now - message.t;
      this.samples.push({ trip, offset: message.now_us / 1000 - (message.t + trip / 2) });
      if (this.samples.length > CLOCK_SAMPLES) this.samples.shift();
    } else if (message.type === "answer") {
      this.orders.get(message.id)?.(message);
      this.orders.delete(message.id);
    } else this.on[message.type]?.(message);
  }

  best() {
    return this.samples.reduce((best, sample) => !best || sample.trip < best.trip ? sample : best, null);
  }

  // CLOCK_MONOTONIC of the daemon's machine, milliseconds; null while unknown.
  now() {
    const best = this.best();
    return best ? performance.now() + best.offset : null;
  }

  // The most that `now` may be wrong by, milliseconds.
  uncertainty() {
    return (this.best()?.trip ?? 0) / 2;
  }

  ask(request) {
    if (this.socket?.readyState !== WebSocket.OPEN) return Promise.resolve({ ok: false, error: "the bridge does not answer" });
    const id = ++this.order;
    return new Promise((done) => {
      this.orders.set(id, done);
      this.send({ ...request, id });
    });
  }

  async receive(socket, data) {
    try {
      const frame = await decode(data);
      if (this.socket === socket) this.on.frame(frame);
    } catch (error) {
      this.on.trouble(String(error.message ?? error));
    }
    if (this.socket !== socket) return;
    this.held = true;
    this.release();
  }

  setStopped(stopped) {
    this.stopped = stopped;
    this.release();
  }

  // The next frame may come, unless nobody would see it.
  release() {
    if (!this.held || this.stopped || document.hidden) return;
    this.held = false;
    this.send({ do: "ack" });
  }
}

async function decode(data) {
  const received = performance.now();
  const length = new DataView(data).getUint32(0, true);
  const frame = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const jpeg = new Uint8Array(data, 4 + length, frame.jpeg), png = new Uint8Array(data, 4 + length + frame.jpeg, frame.ids);
  const [picture, map] = await Promise.all([
    frame.jpeg > 0 ? createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })) : null,
    decodeIds(png),
  ]);
  const segments = frame.segments.map(([id, category, score, area, track]) => ({ id, category, score, area, track }));
  measure(map, segments);
  return { ...frame, times: { received, decoded: performance.now() }, bytes: { jpeg: frame.jpeg, ids: frame.ids }, picture, map, segments };
}
