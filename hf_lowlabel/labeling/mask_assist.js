"use strict";
// Clicks and boxes that a SAM makes a mask of. A further click changes the same mask, until it is ended.
const prompts = {points: [], box: null, applied: false, turn: 0};

function endPrompts() {
  Object.assign(prompts, {points: [], box: null, applied: false, turn: prompts.turn + 1});
  drawPrompts();
}
function dropPrompts() {  // takes back what they painted
  if (locked) return;  // on the way to another image: a save would be of neither
  if (prompts.applied && mask.undo()) { mask.future = []; save(); }
  endPrompts();
}
async function addPrompt(from, to, inside) {
  const far = Math.hypot(to[0] - from[0], to[1] - from[1]) * view.scale > 6, clamp = ([x, y]) => [Math.max(0, Math.min(mask.width, x)), Math.max(0, Math.min(mask.height, y))];
  const [a, b] = [clamp(from), clamp(to)];
  if (far) prompts.box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  else prompts.points.push([...a, inside ? 1 : 0]);
  drawPrompts();
  await askPrompts();
}
async function askPrompts() {
  const mine = ++prompts.turn, image = turn, text = v => v.map(x => x.toFixed(1)).join(",");
  looking("looking");
  try {
    const path = "assist" + query(here()) + "&points=" + prompts.points.map(text).join(";") + "&box=" + (prompts.box ? text(prompts.box) : "");
    const found = new Uint8Array(await bytes(path));
    looking("");
    if (mine !== prompts.turn || image !== turn || locked) return;
    endStroke();
    const undone = prompts.applied && mask.undo();
    if (undone) mask.future = [];
    mask.begin();
    mask.where(i => found[i] === 1, current);
    prompts.applied = mask.commit();
    if (undone || prompts.applied) save();  // where nothing has changed, a model's mask is not accepted by it
  } catch (error) { looking(""); tell(error.message); endPrompts(); }
}
function drawPrompts(drag) {
  const [vx, vy] = [x => x * view.scale + view.x, y => y * view.scale + view.y], box = drag || prompts.box, out = [];
  const add = (tag, values) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values)) one.setAttribute(name, value);
    out.push(one);
  };
  if (box) add("rect", {x: vx(Math.min(box[0], box[2])), y: vy(Math.min(box[1], box[3])), width: Math.abs(box[2] - box[0]) * view.scale, height: Math.abs(box[3] - box[1]) * view.scale});
  for (const [x, y, inside] of prompts.points) {
    add("circle", {cx: vx(x), cy: vy(y), r: 6});
    add("path", {d: `M${vx(x) - 4} ${vy(y)}h8` + (inside ? `M${vx(x)} ${vy(y) - 4}v8` : "")});
  }
  $("prompts").replaceChildren(...out);
}
