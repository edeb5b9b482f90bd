"use strict";

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("description").textContent);
const { length, times, width, height, layers, instances } = about;
const stage = $("stage");
const video = document.createElement("video");

const state = {
  frame: 0, // requested; stage.dataset.frame is the one that is drawn
  layer: layers,
  threshold: about.threshold,
  solo: -1, // index in `instances`; -1 for all
  masks: true,
  points: true,
  boxes: true,
};
let data = {};

// Data in the file

function bytesOf(id) {
  const text = atob($(id).textContent.trim());
  $(id).textContent = "";
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

async function readArrays() {
  const stream = new Blob([bytesOf("arrays")]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const kinds = { int32: Int32Array, int16: Int16Array, uint16: Uint16Array, uint8: Uint8Array };
  for (const [name, place] of Object.entries(about.arrays))
    data[name] = new kinds[place.type](buffer, place.offset, place.length);
}

const share = (value) => value / 65535;

function normalised(value) {
  const [low, high] = about.coordinates;
  return low + share(value) * (high - low);
}

/** The outlines of a mask as a path in pixels of the video; null without a mask. */
function outline(instance, frame) {
  let at = data.outlineFirst[instance * length + frame];
  if (at < 0) return null;
  const path = new Path2D();
  const numbers = data.outlines;
  for (let polygons = numbers[at++]; polygons > 0; polygons--) {
    const corners = numbers[at++];
    let x = 0.5, y = 0.5; // centres of pixels, in half pixels
    for (let corner = 0; corner < corners; corner++) {
      x += numbers[at++];
      y += numbers[at++];
      if (corner) path.lineTo(x / 2, y / 2);
      else path.moveTo(x / 2, y / 2);
    }
    path.closePath();
  }
  return path;
}

const isVisible = (instance, frame) => data.outlineFirst[instance * length + frame] >= 0;
const recordOf = (instance, frame) => data.record[instance * length + frame];
const shareOf = (instance, frame, layer) =>
  share(data.shares[(instance * length + frame) * layers + layer - 1]) * about.heaviestShare;

/** Sampling points of a layer, in pixels, with attention weights. */
function pointsOf(record, layer) {
  const first = (record * layers + layer - 1) * about.points;
  return Array.from({ length: about.points }, (_, n) => ({
    x: normalised(data.points[2 * (first + n)]) * width,
    y: normalised(data.points[2 * (first + n) + 1]) * height,
    weight: (data.attention[first + n] / 255) ** 2,
  }));
}

/** The reference point (layer 0) or a layer's box: centre, width and height in pixels. */
function placeOf(record, layer) {
  const first = (record * (layers + 1) + layer) * 4;
  const [x, y, w, h] = data.places.subarray(first, first + 4);
  return [normalised(x) * width, normalised(y) * height, normalised(w) * width, normalised(h) * height];
}

/** The clip of a record: its first frame and its weights in a layer. */
function clipOf(record, layer) {
  const clip = data.clip[record];
  const frames = data.clipLength[clip];
  const first = data.clipFirst[clip] + (layer - 1) * frames;
  return { start: data.clipStart[clip], weights: Array.from(data.weights.subarray(first, first + frames), share) };
}

const isListed = (instance) => instances[instance].score >= state.threshold;
const shown = () => [...instances.keys()].filter((i) => (state.solo < 0 ? isListed(i) : i === state.solo));
const nameOf = (instance) => `${instances[instance].label} #${instances[instance].id}`;

// The stage: picture and drawing share a canvas, so that they always belong to the same frame

const layerOfMasks = document.createElement("canvas");
const layerOfLines = document.createElement("canvas");

function fitStage() {
  const scale = Math.min(devicePixelRatio || 1, 2);
  stage.width = Math.round(stage.clientWidth * scale);
  stage.height = Math.round((stage.width * height) / width);
  for (const canvas of [layerOfMasks, layerOfLines]) [canvas.width, canvas.height] = [stage.width, stage.height];
  draw();
}

function draw() {
  const frame = Number(stage.dataset.frame ?? -1);
  if (frame < 0) return;
  const context = stage.getContext("2d");
  const scale = stage.width / width;
  const visible = shown().filter((i) => isVisible(i, frame)).reverse(); // best last, on top
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalAlpha = 1;
  context.drawImage(video, 0, 0, stage.width, stage.height);
  if (state.masks) drawMasks(context, visible, frame, scale);
  if (state.solo >= 0) drawDecoder(context, frame, scale);
  else if (state.masks) drawNames(context, visible, frame, scale);
  stage.setAttribute("aria-label", `Frame ${frame}: ${visible.length ? visible.map(nameOf).join(", ") : "no instance"}`);
}

function drawMasks(context, visible, frame, scale) {
  const [fills, lines] = [layerOfMasks.getContext("2d"), layerOfLines.getContext("2d")];
  for (const layer of [fills, lines]) {
    layer.setTransform(1, 0, 0, 1, 0, 0);
    layer.clearRect(0, 0, stage.width, stage.height);
    layer.setTransform(scale, 0, 0, scale, 0, 0);
  }
  for (const i of visible) {
    const path = outline(i, frame);
    fills.fillStyle = lines.strokeStyle = instances[i].color;
    fills.fill(path, "evenodd");
    lines.globalCompositeOperation = "destination-out"; // hides lines below
    lines.fill(path, "evenodd");
    lines.globalCompositeOperation = "source-over";
    lines.lineWidth = (1.5 * stage.width) / stage.clientWidth / scale;
    lines.stroke(path);
  }
  context.globalAlpha = state.solo >= 0 && state.points ? 0.25 : 0.45;
  context.drawImage(layerOfMasks, 0, 0);
  context.globalAlpha = 1;
  context.drawImage(layerOfLines, 0, 0);
}

/** Draws ids above masks, because colours alone do not tell all instances apart. */
function drawNames(context, visible, frame, scale) {
  const pixel = stage.width / stage.clientWidth;
  context.font = `600 ${11 * pixel}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const i of visible) {
    const numbers = data.outlines;
    let at = data.outlineFirst[i * length + frame] + 2;
    let [x, y, left, top] = [0, 0, Infinity, Infinity];
    for (let corner = numbers[at - 1]; corner > 0; corner--) {
      [x, y] = [x + numbers[at++], y + numbers[at++]];
      if (y < top) [left, top] = [x, y];
    }
    if (top === Infinity) continue;
    const text = `#${instances[i].id}`;
    const [w, h] = [context.measureText(text).width + 6 * pixel, 15 * pixel];
    const [px, py] = [
      Math.min(Math.max((left * scale) / 2 - w / 2, 0), stage.width - w),
      Math.max((top * scale) / 2 - h - 2 * pixel, 0),
    ];
    context.fillStyle = instances[i].color;
    context.beginPath();
    context.roundRect(px, py, w, h, 3 * pixel);
    context.fill();
    context.fillStyle = "#101010";
    context.fillText(text, px + 3 * pixel, py + h / 2);
  }
}

function drawDecoder(context, frame, scale) {
  const record = recordOf(state.solo, frame);
  if (record < 0) return;
  const color = instances[state.solo].color;
  const pixel = stage.width / stage.clientWidth;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  if (state.boxes) {
    if (state.layer === 1) cross(context, placeOf(record, 0), color, pixel / scale);
    else box(context, placeOf(record, state.layer - 1), color, pixel / scale, [5, 4]);
    box(context, placeOf(record, state.layer), color, pixel / scale, []);
  }
  if (!state.points) return;
  const points = pointsOf(record, state.layer);
  const radius = Math.min(Math.max(stage.clientWidth / 800, 0.55), 1.2) * (pixel / scale);
  const heaviest = Math.max(...points.map((point) => point.weight), 1e-6);
  context.fillStyle = color;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.lineWidth = (0.75 * pixel) / scale;
  for (const { x, y, weight } of points.reverse()) {
    const relative = weight / heaviest;
    context.globalAlpha = 0.3 + 0.7 * relative;
    context.beginPath();
    context.arc(x, y, (1.5 + 4.5 * Math.sqrt(relative)) * radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
  context.globalAlpha = 1;
}

function twice(context, color, size, stroke) {
  for (const [style, thick] of [["rgb(0 0 0 / 70%)", 3.5], [color, 1.75]]) {
    context.strokeStyle = style;
    context.lineWidth = thick * size;
    stroke();
  }
}

function box(context, [x, y, w, h], color, size, dashes) {
  context.setLineDash(dashes.map((dash) => dash * size));
  twice(context, color, size, () => context.strokeRect(x - w / 2, y - h / 2, w, h));
  context.setLineDash([]);
}

function cross(context, [x, y], color, size) {
  const arm = 9 * size;
  twice(context, color, size, () => {
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  });
}
