"use strict";
const $ = id => document.getElementById(id);
const KEYS = "123456789";
const mask = new Mask($("mask"));
let state = null, at = 0, tool = "brush", current = 0, view = {scale: 1, x: 0, y: 0}, corners = [], locked = true;
let holding = false, drag = null, writing = Promise.resolve(), unsaved = 0, lost = false, draft = false, turn = 0, failed = false;
let folder = {};  // the header by which the server of another folder at this address knows that it is not asked
let sized = false;  // whether the brush fits the first image, or is as somebody wants it
let stamp = "";  // of the mask that is shown, as it lies on the disk
const TAB = crypto.getRandomValues(new Uint32Array(4)).join("-");  // known as the writer of a mask whose answer was lost

const here = () => state.images[at];
const query = image => "?file=" + encodeURIComponent(image.file);
const tell = text => { $("problem").textContent = text; };
const AGAIN = "the server does not answer; start `hf-lowlabel label` again, and open the address that it prints";

// ---- the server -----------------------------------------------------------------------------------------------------
async function reason(answer) {
  const text = await answer.text();
  try { return JSON.parse(text).error; } catch (error) { return text; }
}

async function get(path) {
  let answer;
  try { answer = await fetch(path, {headers: folder}); } catch (error) { throw new Error(AGAIN); }
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

async function send(path, body, type) {
  let problem;
  try {
    const answer = await fetch(path, {method: "POST", headers: {...folder, "Content-Type": type}, body});
    if (answer.ok) return await answer.json();
    problem = await reason(answer);
  } catch (error) { throw new Error("not saved: " + AGAIN); }
  throw new Error(problem);
}

const bytes = async path => (await get(path)).arrayBuffer();
const pack = values => new Response(new Blob([values]).stream().pipeThrough(new CompressionStream("deflate"))).blob();

function save() {  // one after the other; of several that wait only the last is sent
  const image = here(), values = mask.values.slice(), number = ++unsaved;
  draft = false;
  for (const step of mask.past) step.draft = false;  // with what was painted on it, a model's mask is accepted
  $("saved").textContent = "saving";
  writing = writing.then(async () => {
    if (number !== unsaved) return;
    try {
      const answer = await send("mask" + query(image) + "&stamp=" + stamp + "&tab=" + TAB, await pack(values), "application/octet-stream");
      image.mask = answer.mask;
      stamp = answer.stamp;
      if (number !== unsaved) return;
      unsaved = 0;
      lost = false;
      tell(answer.note || "");
      $("saved").textContent = "saved";
    } catch (error) {
      lost = true;
      $("saved").textContent = "not saved";
      tell(error.message + await renewed());
    }
    count();
  });
  count();
}

// ---- one image ------------------------------------------------------------------------------------------------------
async function go(to) {
  if (locked && !failed) return;  // on its way already
  endStroke();
  dropCorners();
  drag = null;
  locked = true; failed = false;
  await writing;
  if (lost && !confirm("The last strokes are not saved. Leave them?")) { locked = false; return; }
  at = (to + state.images.length) % state.images.length;
  await show();
}

async function show() {
  endPrompts();
  const mine = ++turn, image = here(), picture = $("image");
  locked = true; draft = false; failed = false; lost = false; unsaved = 0;
  tell("");
  $("saved").textContent = "";
  $("id").textContent = image.id + (image.why ? ": " + image.why : "");
  const loaded = new Promise((done, failed) => { picture.onload = done; picture.onerror = () => failed(new Error("this image cannot be shown: it was moved or renamed")); });
  picture.src = "images/" + encodeURIComponent(image.file).replaceAll("%2F", "/");
  picture.alt = image.id;
  picture.hidden = false;
  try {
    const [answer] = await Promise.all([get("mask" + query(image)), loaded]);
    const values = new Uint8Array(await answer.arrayBuffer());
    if (mine !== turn) return;
    const sides = answer.headers.get("Image-Sides"), seen = `${picture.naturalWidth} x ${picture.naturalHeight}`;
    if (sides !== seen) throw new Error(`the browser shows this image as ${seen} px, and training reads ${sides} px: save it upright, without an orientation`);
    stamp = (answer.headers.get("ETag") || "").replaceAll('"', "");
    image.mask = stamp !== "";
    mask.load(picture.naturalWidth, picture.naturalHeight, values);
    if (!sized) $("size").value = Math.max(2, Math.round(Math.min(mask.width, mask.height) / 30));
    sized = true;
    locked = false;
    fit();
    if (!image.mask && state.model) await suggest(true);
    if (tool === "pieces") await cutIntoPieces();
  } catch (error) {
    if (mine !== turn) return;
    tell(error.message);
    failed = true;
    picture.hidden = !picture.naturalWidth;
    mask.clear(picture.naturalWidth || 1, picture.naturalHeight || 1);
    fit();
  }
  count();
}

async function suggest(unasked = false) {
  const mine = turn;
  try {
    const values = new Uint8Array(await bytes("model" + query(here())));
    if (mine !== turn || locked) return;
    if (unasked && (drag || here().mask || mask.past.length)) return;  // somebody has painted meanwhile
    endStroke();
    endPrompts();
    const first = !here().mask && !mask.past.length;
    mask.begin();
    mask.replace(values);
    if (mask.commit()) first ? draft = mask.past[0].draft = true : save();
  } catch (error) { tell(error.message); }
  count();
}

async function cutIntoPieces() {
  if (mask.pieces || locked) return;
  const mine = turn;
  looking("looking for pieces");
  try {
    const pieces = new Uint16Array(await bytes("superpixels" + query(here())));
    if (mine !== turn) return;
    mask.pieces = pieces;
    mask.showPieces = tool === "pieces";
    mask.draw();
  } catch (error) { tell(error.message); choose("brush"); }
  looking("");
}

function looking(text) {  // beside the word on what was not saved, which stays
  if (!lost) $("saved").textContent = text;
}

function count() {
  const done = state.images.filter(i => i.mask).length, n = state.images.length, ready = state.classes.length > 1;
  document.title = `${done} of ${n} - ${state.folder}`;
  $("count").textContent = state.review ? `${at + 1} of ${n} to look at again; Ctrl-C in the terminal ends`
    : `${done} of ${n} with a mask` + (done === n ? " - done; Ctrl-C in the terminal ends" : "");
  $("bar").max = n;
  $("bar").value = state.review ? at + 1 : done;
  const open = mask.values ? mask.open() : 1, counts = mask.values ? mask.counts(state.classes.length) : [];
  $("open").textContent = mask.values ? `${Math.round(100 * open)} % unpainted` + (state.whole && open && open < 1 ? ": masks of 0 and 255 are painted whole (r)" : "") + (draft ? ", a model's mask that nobody has accepted: Enter or a stroke accepts all of it, z takes it away" : "") : "";
  $("accept").firstChild.textContent = draft ? "right, next" : here().mask ? "next" : "next without a mask";
  $("undo").disabled = !mask.past || !mask.past.length;
  $("redo").disabled = !mask.future || !mask.future.length;
  $("lead").hidden = ready;
  $("rename").disabled = !state.classes[current];
  $("suggest").hidden = !state.model;
  $("assist").hidden = !state.assist;
  $("then").hidden = !done;
  $("then").textContent = `When you are done: ${state.next}`;
  $("classes").replaceChildren(...state.classes.map(({name, color}, k) => {
    const button = document.createElement("button"), chip = document.createElement("i"), text = document.createElement("span");
    const share = document.createElement("small"), key = document.createElement("kbd");
    chip.style.background = `rgb(${color})`;
    text.textContent = name;
    share.textContent = counts[k] ? `${Math.max(1, Math.round(100 * counts[k] / mask.values.length))} %` : "";
    key.textContent = KEYS[k] || "";
    button.append(chip, text, share, ...(KEYS[k] ? [key] : []));
    button.setAttribute("aria-pressed", k === current);
    button.onclick = () => { current = k; endPrompts(); count(); };
    button.ondblclick = () => rename(name);
    return button;
  }));
}

async function rename(old = state.classes[current]?.name) {
  if (old === undefined) return;
  const name = prompt(`Another name for ${old}`, old);
  if (name === null || name.trim() === old) return;
  await changeClasses("rename", {old, new: name});
}

async function changeClasses(path, body) {
  try {
    const answer = await send(path, JSON.stringify(body), "application/json");
    showClasses(answer.classes);
    tell("");
  } catch (error) { tell(error.message + await renewed()); count(); return false; }
  count();
  return true;
}

function showClasses(classes) {
  state.classes = classes;
  mask.colors = classes.map(c => c.color);
  if (mask.values) mask.draw();
}

async function renewed() {  // after a refusal: another page may have changed the classes; what is painted here stays
  const named = () => state.classes.map(c => c.name).join("\n"), known = named();
  try { showClasses((await (await get("state")).json()).classes); } catch (error) { return ""; }
  return known === named() ? "" : " The classes were changed elsewhere, and are shown here as they are now.";
}

// ---- looking --------------------------------------------------------------------------------------------------------
function place() {
  $("stage").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  $("stage").classList.toggle("near", view.scale >= 2);
  drawPrompts();
  ring();
  const [x, y, w, h] = here().box, px = v => `${v}px`, odd = $("odd").style;  // where a mask is in doubt
  $("odd").hidden = w === undefined;
  if (w === undefined) return;
  Object.assign(odd, {left: px(x * mask.width), top: px(y * mask.height), width: px(w * mask.width), height: px(h * mask.height)});
  odd.borderWidth = px(2 / view.scale);
}
function fit() {
  const box = $("view").getBoundingClientRect();
  view.scale = Math.min(box.width / mask.width, box.height / mask.height) * 0.98;
  view.x = (box.width - view.scale * mask.width) / 2;
  view.y = (box.height - view.scale * mask.height) / 2;
  place();
}
function zoom(by, x, y) {
  const box = $("view").getBoundingClientRect(), scale = Math.max(0.02, Math.min(64, view.scale * by));
  x ??= box.width / 2; y ??= box.height / 2;
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  place();
  drawCorners();
}
const inView = event => { const box = $("view").getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
const inImage = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
const radius = () => Number($("size").value) / 2;

let pointer = [-1000, -1000];
function ring() {
  const on = (tool === "brush" || tool === "eraser") && !holding;
  for (const [name, value] of [["cx", pointer[0]], ["cy", pointer[1]], ["r", on ? Math.max(1, radius() * view.scale) : 0]]) $("ring").setAttribute(name, value);
  $("view").style.cursor = holding || tool === "pan" ? "grab" : "crosshair";
  $("sizeText").textContent = `${$("size").value} px`;
}
function drawCorners() {
  const shown = corners.map(([x, y]) => [x * view.scale + view.x, y * view.scale + view.y]);
  $("corners").setAttribute("points", (corners.length ? [...shown, pointer] : []).map(p => p.join(",")).join(" "));
}
function dropCorners() { corners = []; drawCorners(); }

// ---- painting -------------------------------------------------------------------------------------------------------
const value = () => tool === "eraser" ? NONE : current;
function endStroke() {  // one that is under way is whole: what follows is a step of its own, or of another image
  if (!drag || !drag.last) return;
  drag = null;
  if (mask.commit()) save();
}
function change(work) {
  endStroke();
  endPrompts();  // a step of another kind: what takes theirs back would take this one
  mask.begin();
  work();
  if (mask.commit()) save();
}
function closePolygon() {
  const points = corners;
  dropCorners();
  if (points.length > 2) change(() => mask.polygon(points, current));
}
const mayPaint = () => !locked && (tool === "eraser" || current < state.classes.length);

$("view").onpointerdown = event => {
  if (locked || drag || !event.isPrimary || event.target.closest("#lead")) return;  // one finger, pen or mouse at a time
  pointer = inView(event);
  const [x, y] = inImage(pointer);
  if (event.button === 1 || holding || tool === "pan") drag = {pan: [event.clientX - view.x, event.clientY - view.y]};
  else if (event.button || !mayPaint()) return;
  else if (tool === "polygon") {
    const [fx, fy] = corners[0] || [];
    if (corners.length > 2 && Math.hypot(fx - x, fy - y) * view.scale < 10) closePolygon();
    else corners.push([x, y]);
    drawCorners();
    return;
  } else if (tool === "fill") {
    if (x >= 0 && y >= 0 && x < mask.width && y < mask.height) change(() => mask.fill(x, y, current));
    return;
  } else if (tool === "assist") drag = {prompt: [x, y], inside: !event.shiftKey};
  else if (tool === "pieces" && !mask.pieces) return;
  else {
    drag = {last: [x, y]};
    mask.begin();
    paint(x, y);
  }
  drag.id = event.pointerId;
  $("view").setPointerCapture(event.pointerId);
  event.preventDefault();
};
function paint(x, y) {
  if (tool === "pieces") {
    const number = x >= 0 && y >= 0 && x < mask.width && y < mask.height ? mask.pieces[mask.index(x, y)] : drag.piece;
    if (number !== drag.piece) mask.piece(x, y, current);
    drag.piece = number;
  }
  else mask.stroke(...drag.last, x, y, radius(), value());
  drag.last = [x, y];
}
function partsOf(event) {  // of a quick movement; older browsers, Safari before 18.2 among them, do not tell them
  const parts = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  return parts.length ? parts : [event];
}
$("view").onpointermove = event => {
  if (!event.isPrimary || drag && drag.id !== event.pointerId) return;
  pointer = inView(event);
  if (drag && drag.pan) {
    view.x = event.clientX - drag.pan[0];
    view.y = event.clientY - drag.pan[1];
    place();
  } else if (drag && drag.prompt) drawPrompts([...drag.prompt, ...inImage(pointer)]);
  else if (drag) for (const part of partsOf(event)) paint(...inImage(inView(part)));
  ring();
  drawCorners();
};
$("view").onpointerup = $("view").onpointercancel = $("view").onlostpointercapture = event => {
  if (!drag || drag.id !== event.pointerId) return;
  const {prompt, inside} = drag;
  endStroke();
  drag = null;
  if (!prompt) return;
  if (event.type === "pointerup" && tool === "assist") addPrompt(prompt, inImage(inView(event)), inside);
  else drawPrompts();
};
$("view").onpointerleave = () => { if (!drag) { pointer = [-1000, -1000]; ring(); } };
$("view").ondblclick = () => { if (tool === "polygon") closePolygon(); };
$("view").addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...inView(event)); }, {passive: false});

function choose(name) {
  if (corners.length) dropCorners();
  endStroke();
  endPrompts();
  tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
  mask.showPieces = name === "pieces";
  if (mask.values) mask.draw();
  if (name === "pieces") cutIntoPieces();
  ring();
}
function step(which) {
  endPrompts();
  if (locked || drag || !mask[which]()) return;
  draft = mask.past.length === 1 && mask.past[0].draft;  // taken back and brought back it is as unaccepted as before
  draft ? count() : save();
}
const rest = () => { if (!locked && current < state.classes.length) change(() => mask.rest(current)); };
async function accept() {
  if (locked && !failed) return;
  endStroke();
  if (draft) save();
  await go(at + 1);
}
function resize(by) {
  const size = Number($("size").value);
  $("size").value = Math.max(1, by > 0 ? Math.ceil(size * 1.2) : Math.floor(size / 1.2));
  sized = true;
  ring();
}

for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => { choose(button.dataset.tool); button.blur(); };
$("size").oninput = () => { sized = true; ring(); };
$("opacity").oninput = () => { mask.opacity = $("opacity").value / 100; if (mask.values) mask.draw(); };
const WORK = {undo: () => step("undo"), redo: () => step("redo"), rest, suggest, closer: () => zoom(1.4), farther: () => zoom(1 / 1.4), fit, rename: () => rename(), back: () => go(at - 1), forward: () => go(at + 1), accept};
for (const [id, work] of Object.entries(WORK)) $(id).onclick = event => { work(); if (event.detail) event.currentTarget.blur(); };
$("name").onkeydown = async event => {
  event.stopPropagation();
  if (event.isComposing || event.keyCode === 229) return;  // of an input method, which ends a word with Enter
  if (event.key === "Escape") $("name").blur();
  if (event.key !== "Enter" || !$("name").value.trim()) return;
  if (await changeClasses("class", {name: $("name").value})) $("name").value = "";
};
document.onkeydown = event => {
  if (!state || event.target === $("name") || event.altKey) return;
  const key = event.key.toLowerCase(), command = event.ctrlKey || event.metaKey;
  if ((key === "enter" || key === " ") && event.target.closest("button, [role=button]")) return;  // its own work
  if (key.startsWith("arrow") && event.target.matches("input[type=range]")) return;
  if (command && key !== "z" && key !== "y") return;
  const tools = {a: state.assist ? "assist" : "", b: "brush", e: "eraser", p: "polygon", f: "fill", s: "pieces", h: "pan"};
  const index = KEYS.indexOf(key);
  if (key === " ") holding = true;
  else if (key === "z") step(event.shiftKey ? "redo" : "undo");
  else if (key === "y") step("redo");
  else if (key === "enter" && event.repeat) { event.preventDefault(); return; }  // held down, it would accept a series
  else if (key === "enter") corners.length ? closePolygon() : prompts.applied ? endPrompts() : accept();
  else if (key === "escape") { dropCorners(); dropPrompts(); }
  else if (key === "arrowleft") go(at - 1);
  else if (key === "arrowright") go(at + 1);
  else if (key === "[" || key === "]") resize(key === "]" ? 1 : -1);
  else if (key === "+" || key === "=") zoom(1.4);
  else if (key === "-") zoom(1 / 1.4);
  else if (key === "0") fit();
  else if (key === "r") rest();
  else if (key === "m" && state.model && !locked) suggest();
  else if (key === "n") $("name").focus();
  else if (key === "f2") rename();
  else if (tools[key]) choose(tools[key]);
  else if (index >= 0 && index < state.classes.length) { current = index; endPrompts(); count(); }
  else return;
  ring();
  event.preventDefault();
};
document.onkeyup = event => { if (event.key === " ") { holding = false; ring(); } };
window.onblur = () => { holding = false; ring(); };  // the key is let go of where this page does not see it
window.onbeforeunload = event => { if (unsaved) event.preventDefault(); };
window.onresize = () => { if (mask.values) fit(); };

get("state").then(answer => answer.json()).then(answer => {
  state = answer;
  folder = {"Labeled-Folder": answer.of};
  mask.colors = state.classes.map(c => c.color);
  at = Math.max(0, state.review ? 0 : state.images.findIndex(i => !i.mask));
  choose("brush");
  if (state.whole) $("partly").textContent = "Paint every pixel: masks of 0 and 255 have no value for others; r fills the rest with the chosen class.";
  count();
  return show();
}).catch(error => tell(error.message));
