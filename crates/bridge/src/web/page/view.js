// The picture: camera, masks and marks as three layers. The masks' opacity is the browser's business, so that it changes without drawing.
//
// The mask layer has the class's colour where a pixel belongs to a segment, a quarter of it where the pixel to the right or below has another id,
// and nothing elsewhere: the same contours as the daemon's own overlay.

const $ = (id) => document.getElementById(id);

export class View {
  constructor({ onSelect }) {
    this.layers = $("layers");
    this.camera = $("camera");
    this.mask = $("mask");
    this.marks = $("marks");
    this.frame = null;
    this.selected = null; // key of a segment
    this.hidden = new Set(); // classes
    this.labels = true;
    this.facts = { labels: [], colours: [] };
    this.layers.addEventListener("click", (event) => onSelect(this.at(event)));
    new ResizeObserver(() => this.drawMarks()).observe(this.layers);
  }

  colour(category) {
    return this.facts.colours[category] ?? [160, 160, 160];
  }

  name(category) {
    return this.facts.labels[category] ?? String(category);
  }

  show(frame) {
    this.frame?.picture?.close();
    const { width, height } = frame;
    if (this.mask.width !== width || this.mask.height !== height) {
      for (const canvas of [this.camera, this.mask]) { canvas.width = width; canvas.height = height; }
      this.layers.style.setProperty("--aspect", `${width} / ${height}`);
      this.pixels = null;
    }
    this.frame = frame;
    const pen = this.camera.getContext("2d", { alpha: false });
    if (frame.picture) pen.drawImage(frame.picture, 0, 0);
    else pen.fillRect(0, 0, width, height);
    this.drawMask();
    this.drawMarks();
  }

  redraw() {
    if (!this.frame) return;
    this.drawMask();
    this.drawMarks();
  }

  drawMask() {
    const { ids, width, height } = this.frame.map;
    const pen = this.mask.getContext("2d");
    this.pixels ??= pen.createImageData(width, height);
    const out = new Uint32Array(this.pixels.data.buffer);
    const count = this.frame.segments.reduce((most, s) => Math.max(most, s.id), 0) + 1;
    const inner = new Uint32Array(count), edge = new Uint32Array(count); // 0: transparent, of ids without a row too
    for (const { id, category } of this.frame.segments) {
      if (this.hidden.has(category)) continue;
      const [r, g, b] = this.colour(category);
      inner[id] = (0xff000000 | b << 16 | g << 8 | r) >>> 0;
      edge[id] = (0xff000000 | (b >> 2) << 16 | (g >> 2) << 8 | r >> 2) >>> 0;
    }
    for (let y = 0, at = 0; y < height; y++) {
      const below = y + 1 < height ? width : 0;
      for (let x = 0; x < width; x++, at++) {
        const id = ids[at];
        if (id === 0 || id >= count) { out[at] = 0; continue; }
        out[at] = (x + 1 < width && ids[at + 1] !== id) || ids[at + below] !== id ? edge[id] : inner[id];
      }
    }
    pen.putImageData(this.pixels, 0, 0);
  }

  // From pixels of the frame to those of the screen.
  placement() {
    const { width, height } = this.frame, { clientWidth: w, clientHeight: h } = this.layers;
    const scale = Math.min(w / width, h / height);
    return { scale, x: (w - scale * width) / 2, y: (h - scale * height) / 2, w, h };
  }

  drawMarks() {
    if (!this.frame) return;
    const { scale, x, y, w, h } = this.placement(), density = devicePixelRatio || 1;
    const [width, height] = [Math.round(w * density), Math.round(h * density)];
    if (this.marks.width !== width || this.marks.height !== height) { this.marks.width = width; this.marks.height = height; }
    const pen = this.marks.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.setTransform(density * scale, 0, 0, density * scale, density * x, density * y);
    const chosen = this.frame.segments.find((s) => s.key === this.selected);
    if (chosen?.box) this.outline(pen, chosen, scale);
    pen.setTransform(density, 0, 0, density, density * x, density * y);
    if (this.labels) this.drawLabels(pen, scale, { w: scale * this.frame.width, h: scale * this.frame.height });
  }

  outline(pen, { id, box: [x0, y0, w, h] }, scale) {
    const { ids, width, height } = this.frame.map, path = new Path2D();
    const is = (x, y) => x >= 0 && y >= 0 && x < width && y < height && ids[y * width + x] === id;
    for (let y = y0; y <= y0 + h; y++) {
      for (let x = x0; x <= x0 + w; x++) {
        const here = is(x, y);
        if (here !== is(x - 1, y)) { path.moveTo(x, y); path.lineTo(x, y + 1); }
        if (here !== is(x, y - 1)) { path.moveTo(x, y); path.lineTo(x + 1, y); }
      }
    }
    pen.lineCap = "square";
    for (const [style, line] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = line / scale;
      pen.stroke(path);
    }
  }

  drawLabels(pen, scale, { w, h }) {
    const taken = [];
    pen.font = "600 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    const order = this.frame.segments.filter((s) => s.box && !this.hidden.has(s.category));
    order.sort((a, b) => (b.key === this.selected) - (a.key === this.selected) || b.area - a.area);
    for (const segment of order) {
      const text = `${this.name(segment.category)} ${segment.track ? `·${segment.track}` : `#${segment.id}`}${segment.score == null ? "" : `  ${segment.score.toFixed(2)}`}`;
      const width = Math.min(pen.measureText(text).width + 20, w), height = 18;
      const x = Math.max(0, Math.min(w - width, segment.place.x * scale - width / 2));
      const wanted = Math.max(0, Math.min(h - height, segment.place.y * scale - height / 2));
      const free = (y) => y >= 0 && y + height <= h && taken.every((t) => x + width < t.x || t.x + t.width < x || y + height < t.y || t.y + height < y);
      const y = [0, 20, -20, 40, -40].map((shift) => wanted + shift).find(free);
      if (y === undefined) continue; // a crowd: the list has them all
      taken.push({ x, y, width });
      const [r, g, b] = this.colour(segment.category);
      pen.fillStyle = segment.key === this.selected ? "rgb(255 255 255 / 94%)" : "rgb(14 18 23 / 80%)";
      pen.beginPath();
      pen.roundRect(x, y, width, height, 4);
      pen.fill();
      pen.fillStyle = `rgb(${r} ${g} ${b})`;
      pen.fillRect(x + 5, y + 5, 8, 8);
      pen.fillStyle = segment.key === this.selected ? "#10151b" : "#eef2f6";
      pen.fillText(text, x + 16, y + height / 2 + .5, width - 20);
    }
  }

  // The segment under the pointer.
  at(event) {
    if (!this.frame) return null;
    const place = this.placement(), bounds = this.layers.getBoundingClientRect();
    const x = Math.floor((event.clientX - bounds.left - place.x) / place.scale), y = Math.floor((event.clientY - bounds.top - place.y) / place.scale);
    const { ids, width, height } = this.frame.map;
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const id = ids[y * width + x];
    return this.frame.segments.find((s) => s.id === id) ?? null;
  }
}
