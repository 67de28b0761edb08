// The id map of a frame: a 16-bit grey PNG, read here. A canvas would give 8 of the 16 bits, and some browsers add noise to what it gives.
// Refuses: everything that the bridge does not write (other depths, interlacing).

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

export async function decodeIds(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (SIGNATURE.some((value, at) => bytes[at] !== value)) throw new Error("the id map is no PNG");
  let width = 0, height = 0;
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), kind = view.getUint32(at + 4), body = at + 8;
    if (kind === 0x49484452) { // IHDR
      width = view.getUint32(body);
      height = view.getUint32(body + 4);
      if (bytes[body + 8] !== 16 || bytes[body + 9] !== 0 || bytes[body + 12] !== 0) throw new Error("the id map is no 16-bit grey PNG");
    } else if (kind === 0x49444154) parts.push(bytes.subarray(body, body + length)); // IDAT
    at = body + length + 4;
  }
  const rows = await inflate(parts);
  if (rows.length !== height * (1 + 2 * width)) throw new Error("the id map has another size than it says");
  return { width, height, ids: unfilter(rows, width, height) };
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// PNG, section 9.2: each row begins with its filter; two bytes for a pixel, the high one first.
function unfilter(rows, width, height) {
  const ids = new Uint16Array(width * height), stride = 2 * width;
  let above = new Uint8Array(stride);
  for (let y = 0, from = 0; y < height; y++, from += stride + 1) {
    const row = rows.subarray(from + 1, from + 1 + stride);
    switch (rows[from]) {
      case 0: break;
      case 1: for (let i = 2; i < stride; i++) row[i] += row[i - 2]; break;
      case 2: for (let i = 0; i < stride; i++) row[i] += above[i]; break;
      case 3: for (let i = 0; i < stride; i++) row[i] += ((i < 2 ? 0 : row[i - 2]) + above[i]) >> 1; break;
      case 4: for (let i = 0; i < stride; i++) row[i] += i < 2 ? above[i] : paeth(row[i - 2], above[i], above[i - 2]); break;
      default: throw new Error("the id map has an unknown filter");
    }
    for (let x = 0, out = y * width; x < width; x++) ids[out + x] = row[2 * x] << 8 | row[2 * x + 1];
    above = row;
  }
  return ids;
}

function paeth(left, up, corner) {
  const guess = left + up - corner, a = Math.abs(guess - left), b = Math.abs(guess - up), c = Math.abs(guess - corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

// Where each segment lies: box, and a place for its label in the longest run of its middle row.
export function measure(map, segments) {
  const { ids, width, height } = map;
  const count = segments.reduce((most, s) => Math.max(most, s.id), 0) + 1;
  const left = new Uint32Array(count).fill(width), right = new Uint32Array(count), top = new Uint32Array(count).fill(height), bottom = new Uint32Array(count);
  const sum = new Float64Array(count), area = new Uint32Array(count);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width;) {
      const id = ids[at], start = x;
      do { x++; at++; } while (x < width && ids[at] === id);
      if (id === 0 || id >= count) continue;
      if (start < left[id]) left[id] = start;
      if (x > right[id]) right[id] = x;
      if (y < top[id]) top[id] = y;
      bottom[id] = y + 1;
      area[id] += x - start;
      sum[id] += y * (x - start);
    }
  }
  for (const segment of segments) {
    const id = segment.id;
    if (area[id] === 0) { segment.box = null; continue; }
    segment.box = [left[id], top[id], right[id] - left[id], bottom[id] - top[id]];
    segment.place = longestRun(map, id, Math.round(sum[id] / area[id]), segment.box);
  }
}

function longestRun({ ids, width }, id, row, [x0, y0, w, h]) {
  for (const y of [row, y0 + (h >> 1), y0]) {
    let best = 0, middle = 0;
    for (let x = x0; x < x0 + w;) {
      const start = x;
      while (x < x0 + w && ids[y * width + x] === id) x++;
      if (x - start > best) { best = x - start; middle = (start + x) / 2; }
      if (x === start) x++;
    }
    if (best > 0) return { x: middle, y: y + .5 };
  }
  return { x: x0 + w / 2, y: y0 + h / 2 };
}
