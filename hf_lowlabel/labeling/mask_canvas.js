"use strict";
// A mask of class numbers over an image: drawn, changed by tools, undone. 255 is a pixel that nobody has painted.
const NONE = 255;
const STEPS = 200, STEP_BYTES = 1 << 28;  // that can be undone, whichever are fewer

class Mask {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.opacity = 0.45;
    this.colors = [];
  }

  load(width, height, values) {
    Object.assign(this, {width, height, values, past: [], future: [], pieces: null, before: null});
    this.canvas.width = width;
    this.canvas.height = height;
    this.draw();
  }

  clear(width, height) {  // of an image that cannot be painted
    this.load(width, height, new Uint8Array(width * height).fill(NONE));
    this.values = null;
  }

  // ---- steps -------------------------------------------------------------------------------------------------------
  begin() {
    this.before = this.values.slice();
    this.box = null;
  }

  grow(x0, y0, x1, y1) {  // the part that this step has changed, both ends inside
    const b = this.box;
    this.box = b ? [Math.min(b[0], x0), Math.min(b[1], y0), Math.max(b[2], x1), Math.max(b[3], y1)] : [x0, y0, x1, y1];
  }

  commit() {  // whether anything has changed
    const before = this.before, box = this.box;
    this.before = null;
    if (!before || !box) return false;
    const step = {box, old: this.cut(before, box), now: this.cut(this.values, box)};
    if (step.old.every((value, i) => value === step.now[i])) return false;
    this.past.push(step);
    let bytes = this.past.reduce((sum, {old}) => sum + 2 * old.length, 0);
    while (this.past.length > STEPS || this.past.length > 1 && bytes > STEP_BYTES) bytes -= 2 * this.past.shift().old.length;
    this.future = [];
    return true;
  }

  cancel() {
    if (this.before) this.values = this.before;
    this.before = null;
    this.draw();
  }

  cut(values, [x0, y0, x1, y1]) {
    const out = new Uint8Array((x1 - x0 + 1) * (y1 - y0 + 1));
    for (let y = y0, at = 0; y <= y1; y++, at += x1 - x0 + 1)
      out.set(values.subarray(y * this.width + x0, y * this.width + x1 + 1), at);
    return out;
  }

  paste(part, [x0, y0, x1, y1]) {
    const w = x1 - x0 + 1;
    for (let y = y0; y <= y1; y++) this.values.set(part.subarray((y - y0) * w, (y - y0 + 1) * w), y * this.width + x0);
    this.draw([x0, y0, x1, y1]);
  }

  undo() { return this.shift(this.past, this.future, "old"); }
  redo() { return this.shift(this.future, this.past, "now"); }
  shift(from, to, which) {
    const step = from.pop();
    if (!step) return false;
    to.push(step);
    this.paste(step[which], step.box);
    return true;
  }

  // ---- tools: each changes values between begin and commit ----------------------------------------------------------
  stroke(x0, y0, x1, y1, radius, value) {  // all pixels whose centre is within `radius` of the line
    const w = this.width, h = this.height, r = Math.max(radius, 0.5);
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - r)), right = Math.min(w - 1, Math.ceil(Math.max(x0, x1) + r));
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - r)), bottom = Math.min(h - 1, Math.ceil(Math.max(y0, y1) + r));
    if (left > right || top > bottom) return;
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) {
        const px = x + 0.5 - x0, py = y + 0.5 - y0;
        const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
        const ex = px - t * dx, ey = py - t * dy;
        if (ex * ex + ey * ey <= r * r) this.values[y * w + x] = value;
      }
    if (radius <= 0.5) this.values[this.index(x1, y1)] = value;  // one pixel, wherever in it
    this.changed(left, top, right, bottom);
  }

  polygon(points, value) {  // even-odd, by the centres of the pixels
    const w = this.width, h = this.height, xs = points.map(p => p[0]), ys = points.map(p => p[1]);
    const left = Math.max(0, Math.floor(Math.min(...xs))), right = Math.min(w - 1, Math.ceil(Math.max(...xs)));
    const top = Math.max(0, Math.floor(Math.min(...ys))), bottom = Math.min(h - 1, Math.ceil(Math.max(...ys)));
    for (let y = top; y <= bottom; y++) {
      const cy = y + 0.5, ends = [];
      points.forEach(([ax, ay], i) => {
        const [bx, by] = points[(i + 1) % points.length];
        if ((ay <= cy) !== (by <= cy)) ends.push(ax + (cy - ay) / (by - ay) * (bx - ax));
      });
      ends.sort((a, b) => a - b);
      for (let k = 0; k + 1 < ends.length; k += 2) {
        const from = Math.max(0, Math.ceil(ends[k] - 0.5)), to = Math.min(w, Math.ceil(ends[k + 1] - 0.5));
        if (from < to) this.values.fill(value, y * w + from, y * w + to);
      }
    }
    if (left <= right && top <= bottom) this.changed(left, top, right, bottom);
  }

  fill(x, y, value) {  // what is connected and has the same class as the pixel that was clicked
    const w = this.width, h = this.height, start = this.index(x, y), same = this.values[start];
    if (same === value) return;
    const stack = [start], v = this.values;
    let left = w, top = h, right = 0, bottom = 0;
    while (stack.length) {
      const at = stack.pop(), row = Math.floor(at / w) * w;
      if (v[at] !== same) continue;
      let from = at, to = at;
      while (from > row && v[from - 1] === same) from--;
      while (to < row + w - 1 && v[to + 1] === same) to++;
      v.fill(value, from, to + 1);
      for (const next of [row - w, row + w]) {
        if (next < 0 || next >= w * h) continue;
        for (let i = from - row; i <= to - row; i++)
          if (v[next + i] === same && (i === from - row || v[next + i - 1] !== same)) stack.push(next + i);
      }
      left = Math.min(left, from - row); right = Math.max(right, to - row);
      top = Math.min(top, row / w); bottom = Math.max(bottom, row / w);
    }
    this.changed(left, top, right, bottom);
  }

  piece(x, y, value) {  // the superpixel under a point
    const number = this.pieces[this.index(x, y)], w = this.width;
    this.where(i => this.pieces[i] === number, value);
  }

  rest(value) { this.where(i => this.values[i] === NONE, value); }
  where(test, value) {
    const w = this.width;
    let left = w, top = this.height, right = -1, bottom = -1;
    for (let y = 0, i = 0; y < this.height; y++)
      for (let x = 0; x < w; x++, i++)
        if (this.values[i] !== value && test(i)) {
          this.values[i] = value;
          if (x < left) left = x;
          if (x > right) right = x;
          if (y < top) top = y;
          bottom = y;
        }
    if (right >= 0) this.changed(left, top, right, bottom);
  }

  replace(values) {
    this.values = values.slice();
    this.changed(0, 0, this.width - 1, this.height - 1);
  }

  index(x, y) {
    const clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v)));
    return clamp(y, this.height) * this.width + clamp(x, this.width);
  }

  open() {  // share of the pixels that nobody has painted
    let count = 0;
    for (const value of this.values) count += value === NONE;
    return count / this.values.length;
  }

  counts(classes) {
    const found = new Array(classes).fill(0);
    for (const value of this.values) if (value < classes) found[value]++;
    return found;
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------
  changed(x0, y0, x1, y1) {
    this.grow(x0, y0, x1, y1);
    this.draw([x0, y0, x1, y1]);
  }

  draw(box = [0, 0, this.width - 1, this.height - 1]) {  // colours, and a light line where a class ends: it shows on dark
    const w = this.width, h = this.height, v = this.values;
    const x0 = Math.max(0, box[0] - 1), y0 = Math.max(0, box[1] - 1), x1 = Math.min(w - 1, box[2] + 1), y1 = Math.min(h - 1, box[3] + 1);
    const image = this.context.createImageData(x1 - x0 + 1, y1 - y0 + 1), d = image.data, inside = Math.round(255 * this.opacity);
    for (let y = y0, o = 0; y <= y1; y++)
      for (let x = x0; x <= x1; x++, o += 4) {
        const i = y * w + x, value = v[i];
        const edge = (x + 1 < w && v[i + 1] !== value) || (y + 1 < h && v[i + w] !== value);
        const piece = this.pieces && this.showPieces && ((x + 1 < w && this.pieces[i + 1] !== this.pieces[i]) || (y + 1 < h && this.pieces[i + w] !== this.pieces[i]));
        if (edge && this.opacity) { d[o] = d[o + 1] = d[o + 2] = 255; d[o + 3] = 220; }
        else if (value !== NONE) {
          const c = this.colors[value] || [128, 128, 128];
          d[o] = c[0]; d[o + 1] = c[1]; d[o + 2] = c[2]; d[o + 3] = inside;
        }
        if (piece && !edge) { d[o] = d[o + 1] = d[o + 2] = 255; d[o + 3] = 90; }
      }
    this.context.putImageData(image, x0, y0);
  }
}
