// Moving plots of the last minute, on canvas.

const SPAN = 60000;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plot {
  // `share`, when set, is drawn as a line from 0 to 1.
  // kind: "line" draws each series by itself, "stack" one upon the other. colours: names of CSS variables.
  constructor(canvas, { colours, kind = "line", floor = 0, digits = 0 }) {
    Object.assign(this, { canvas, colours, kind, floor, digits, points: [] });
  }

  add(time, values) {
    this.points.push({ time, values });
    while (this.points.length > 2 && this.points[1].time < time - SPAN) this.points.shift();
  }

  draw(now) {
    if (this.canvas.clientWidth === 0) return;
    const scale = devicePixelRatio || 1, width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const top = this.top(), inner = height - 2;
    this.grid(pen, width, inner, top);
    const x = (time) => width - (now - time) / SPAN * width, y = (value) => 1 + inner - value / top * inner;
    pen.lineJoin = "round";
    if (this.kind === "stack") this.stack(pen, x, y);
    else this.colours.forEach((colour, series) => this.line(pen, x, y, css(colour), series));
    // on a scale of its own, 0 to 1
    if (this.share) this.line(pen, x, (value) => 1 + inner - value * inner, css(this.share.colour), 0, this.share.points);
  }

  top() {
    let most = this.floor;
    for (const { values } of this.points) most = Math.max(most, this.kind === "stack" ? values.reduce((a, b) => a + (b ?? 0), 0) : Math.max(...values.map((v) => v ?? 0)));
    return nice(most * 1.08 || 1);
  }

  grid(pen, width, height, top) {
    pen.font = "10px system-ui, sans-serif";
    pen.fillStyle = css("--muted");
    pen.strokeStyle = css("--line");
    pen.lineWidth = 1;
    for (const part of [0, .5, 1]) {
      const y = Math.round(1 + height - part * height) - (part === 0 ? .5 : -.5);
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
      if (part > 0) pen.fillText((top * part).toFixed(top * part < 10 && top * part % 1 ? 1 : this.digits), 2, y + 11);
    }
  }

  line(pen, x, y, colour, series, points = this.points) {
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let before = null;
    for (const { time, values } of points) {
      const value = values[series];
      if (value == null) { before = null; continue; }
      if (before === null || time - before > 3000) pen.moveTo(x(time), y(value)); // a gap is a gap
      else pen.lineTo(x(time), y(value));
      before = time;
    }
    pen.stroke();
  }

  stack(pen, x, y) {
    const sums = this.points.map(() => 0);
    this.colours.forEach((colour, series) => {
      const lower = sums.slice();
      this.points.forEach(({ values }, at) => { sums[at] += values[series] ?? 0; });
      pen.fillStyle = css(colour);
      for (let start = 0; start < this.points.length;) {
        let end = start + 1;
        while (end < this.points.length && this.points[end].time - this.points[end - 1].time <= 3000) end++;
        pen.beginPath();
        for (let at = start; at < end; at++) pen.lineTo(x(this.points[at].time), y(sums[at]));
        for (let at = end - 1; at >= start; at--) pen.lineTo(x(this.points[at].time), y(lower[at]));
        pen.fill();
        start = end;
      }
    });
  }
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value) ?? 10 * power;
}
