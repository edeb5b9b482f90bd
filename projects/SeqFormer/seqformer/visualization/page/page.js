"use strict";

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("description").textContent);
const { length, fps, width, height, layers, instances } = about;
const stage = $("stage");
const video = document.createElement("video");

const state = {
  frame: 0, // wanted; stage.dataset.frame tells the one that is drawn
  layer: layers,
  threshold: about.threshold,
  solo: -1, // place in `instances`
  masks: true,
  points: true,
  boxes: true,
};
let data = {};

// What the file holds

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

/** The outlines of a mask as a path in pixels of the video; null where there is none. */
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

const isSeen = (instance, frame) => data.outlineFirst[instance * length + frame] >= 0;
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

/** The clip that an instance is shown of in a frame: its first frame and its weights in a layer. */
function clipOf(record, layer) {
  const clip = data.clip[record];
  const frames = data.clipLength[clip];
  const first = data.clipFirst[clip] + (layer - 1) * frames;
  return { start: data.clipStart[clip], weights: Array.from(data.weights.subarray(first, first + frames), share) };
}

const isListed = (instance) => instances[instance].score >= state.threshold;
const shown = () => [...instances.keys()].filter((i) => (state.solo < 0 ? isListed(i) : i === state.solo));
const nameOf = (instance) => `${instances[instance].label} #${instances[instance].id}`;

// The stage: picture and drawing in one canvas, so that they are always of the same frame

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
  const visible = shown().filter((i) => isSeen(i, frame)).reverse(); // the best last, on top
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
    lines.globalCompositeOperation = "destination-out"; // no line of what is below
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

/** Ids above masks; a colour alone would not tell all of them apart. */
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

// Frames: the middle of a frame's time is sought, so that rounding cannot give its neighbour

const isPlaying = () => !video.paused && !video.ended;

function go(frame, tell = true) {
  video.pause();
  state.frame = Math.min(Math.max(Math.round(frame), 0), length - 1);
  if (!video.seeking) video.currentTime = (state.frame + 0.5) / fps;
  showFrame();
  if (tell) announce();
}

function arrived() {
  const at = Math.min(Math.floor(video.currentTime * fps + 1e-3), length - 1);
  if (!isPlaying() && at !== state.frame) video.currentTime = (state.frame + 0.5) / fps;
  else picture(at);
}

function picture(frame) {
  stage.dataset.frame = frame;
  if (isPlaying() && state.frame !== frame) {
    state.frame = frame;
    showFrame();
  }
  draw();
}

function follow(now, { mediaTime }) {
  if (isPlaying()) picture(Math.min(Math.round(mediaTime * fps), length - 1));
  video.requestVideoFrameCallback(follow);
}

function togglePlay() {
  if (isPlaying()) return video.pause();
  if (state.frame === length - 1) video.currentTime = 0;
  video.play();
}

function playingChanged() {
  $("play").toggleAttribute("data-playing", isPlaying());
  $("play").setAttribute("aria-label", isPlaying() ? "Pause" : "Play");
}

function stopped() {
  playingChanged();
  if (!video.seeking && !video.ended) go(state.frame);
  if (video.ended) go(length - 1);
}

function announce() {
  if (isPlaying()) return;
  const seen = shown().filter((i) => isSeen(i, state.frame));
  $("live").textContent = `Frame ${state.frame} of ${length}. ${seen.length ? seen.map(nameOf).join(", ") : "No instance"}.`;
}

// The page around the stage

const svgNode = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);

/** Bars of frames in a chart whose x axis is that of the slider. */
function barsPath(heights) {
  return heights.map((h, t) => (h ? `M${t - 0.45} ${1 - h}h.9V1h-.9z` : "")).join("");
}

/** Runs of frames, from and to, in which an instance has a mask. */
function runs(instance) {
  const found = [];
  for (let t = 0; t < length; t++) {
    if (!isSeen(instance, t)) continue;
    if (found.length && found.at(-1)[1] === t - 1) found.at(-1)[1] = t;
    else found.push([t, t]);
  }
  return found;
}

const rows = [];

function makeRow(instance, i) {
  const row = document.createElement("li");
  row.className = "row";
  row.style.setProperty("--color", instance.color);
  const button = document.createElement("button");
  button.type = "button";
  for (const [kind, text] of [["swatch", ""], ["name", `#${instance.id} ${instance.label}`], ["score", instance.score.toFixed(2)]]) {
    const part = document.createElement("span");
    [part.className, part.textContent] = [kind, text];
    button.append(part);
  }
  const present = runs(i);
  const where = present.map(([from, to]) => (from === to ? from : `${from} to ${to}`)).join(", ");
  button.setAttribute("aria-label", `${nameOf(i)}, score ${instance.score.toFixed(2)}`);
  button.addEventListener("click", () => solo(state.solo === i ? -1 : i));
  const lane = svgNode("svg");
  lane.setAttribute("class", "lane");
  lane.setAttribute("viewBox", `0 0 ${Math.max(length - 1, 1)} 1`);
  lane.setAttribute("preserveAspectRatio", "none");
  lane.setAttribute("role", "img");
  lane.setAttribute("aria-label", where ? `Seen in frames ${where}` : "Never seen");
  const path = svgNode("path");
  path.setAttribute("d", present.map(([from, to]) => `M${from - 0.5} 0H${to + 0.5}V1H${from - 0.5}z`).join(""));
  lane.append(path, now());
  lane.addEventListener("click", (event) => go(frameAt(event)));
  row.append(button, lane);
  $("instances").append(row);
  rows.push({ row, button });
}

function now() {
  const line = svgNode("line");
  line.setAttribute("class", "now");
  line.setAttribute("y2", 1);
  return line;
}

function frameAt(event) {
  const { left, width: across } = event.currentTarget.getBoundingClientRect();
  return ((event.clientX - left) / across) * (length - 1);
}

function showFrame() {
  const { frame } = state;
  $("scrub").value = frame;
  $("scrub").setAttribute("aria-valuetext", `frame ${frame}, ${(frame / fps).toFixed(1)} seconds`);
  $("clock").textContent = `Frame ${frame} of ${length} · ${(frame / fps).toFixed(2)} s`;
  for (const line of document.querySelectorAll("line.now")) {
    line.setAttribute("x1", frame);
    line.setAttribute("x2", frame);
  }
  showClip();
}

/** Which instances are listed, and which one is alone. */
function showInstances() {
  const alone = state.solo >= 0;
  rows.forEach(({ row, button }, i) => {
    row.hidden = !isListed(i);
    row.classList.toggle("dimmed", alone && i !== state.solo);
    button.setAttribute("aria-pressed", i === state.solo);
  });
  $("none").hidden = rows.some(({ row }) => !row.hidden);
  $("threshold").value = state.threshold;
  $("threshold-value").textContent = state.threshold.toFixed(2);
  $("all").disabled = !alone;
  $("hint").hidden = alone;
  $("decoder").hidden = $("weights").hidden = !alone;
  if (alone) {
    for (const part of [$("decoder"), $("weights")]) part.style.setProperty("--color", instances[state.solo].color);
    $("chosen").textContent = `${nameOf(state.solo)}, score ${instances[state.solo].score.toFixed(2)}`;
  }
  showLayer();
}

function showLayer() {
  $("layer").value = state.layer;
  $("layer-value").textContent = `${state.layer} of ${layers}`;
  const first = state.layer === 1;
  $("reference-note").textContent = first
    ? "Where the layer starts: a point, the same in all frames"
    : `Where the layer starts: the box of layer ${state.layer - 1}`;
  $("reference-sign").setAttribute("d", first ? "M8 2v12M2 8h12" : "M2 3h12v10H2z");
  $("reference-sign").classList.toggle("dashed", !first);
  if (state.solo >= 0) showChart();
  showClip();
  draw();
}

function showChart() {
  const shares = Array.from({ length }, (_, t) => shareOf(state.solo, t, state.layer));
  const top = Math.max(...shares, 1) * 1.08;
  const heights = (wanted) => shares.map((s, t) => (isSeen(state.solo, t) === wanted ? s / top : 0));
  const [absent, present] = $("chart").querySelectorAll(".bars");
  absent.setAttribute("d", barsPath(heights(false)));
  present.setAttribute("d", barsPath(heights(true)));
  const equal = $("chart").querySelector(".equal");
  for (const [name, value] of [["x1", 0], ["x2", length - 1], ["y1", 1 - 1 / top], ["y2", 1 - 1 / top]])
    equal.setAttribute(name, value);
  const heaviest = shares.indexOf(Math.max(...shares));
  $("heaviest").dataset.frame = heaviest;
  $("chart").setAttribute(
    "aria-label",
    `Mean temporal weight of each frame; heaviest is frame ${heaviest}, ${shares[heaviest].toFixed(1)} times an equal share`,
  );
}

/** The temporal weights of the clip that the frame is shown of. */
function showClip() {
  if (state.solo < 0) return;
  const record = recordOf(state.solo, state.frame);
  const bracket = $("chart").querySelector(".clip");
  $("bars").replaceChildren();
  $("bars").hidden = record < 0;
  bracket.setAttribute("width", 0);
  if (record < 0) {
    $("clip-name").textContent = "";
    $("clip-note").textContent = "No clip holds this instance in this frame.";
    return;
  }
  const { start, weights } = clipOf(record, state.layer);
  const end = start + weights.length - 1;
  for (const [name, value] of [["x", start - 0.5], ["width", weights.length], ["height", 1]])
    bracket.setAttribute(name, value);
  $("clip-name").textContent = `in frames ${start} to ${end}`;
  $("clip-note").textContent = about.clipped
    ? `The video is tracked in overlapping clips, and weights sum to 1 over the frames of one: here the one whose middle is nearest to this frame. The chart above the instances shows each frame's mean over all its clips, relative to equal weights (dashed). Faded: no mask there.`
    : `Weights sum to 1 over the whole video. The chart above the instances shows them relative to equal weights (dashed). Faded: no mask there.`;
  const top = Math.max(...weights, 1e-6);
  weights.forEach((weight, n) => {
    const button = document.createElement("button");
    const bar = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-label", `Frame ${start + n}, weight ${weight.toFixed(3)}`);
    button.title = `Frame ${start + n}: ${weight.toFixed(3)}`;
    button.classList.toggle("absent", !isSeen(state.solo, start + n));
    if (start + n === state.frame) button.setAttribute("aria-current", "true");
    bar.style.height = `${(70 * weight) / top}%`;
    button.append(weight.toFixed(2).replace(/^0/, ""), bar, String(start + n));
    button.addEventListener("click", () => {
      go(start + n);
      $("bars").querySelector("[aria-current]")?.focus();
    });
    $("bars").append(button);
  });
}

// What the user does

function solo(instance) {
  state.solo = instance;
  showInstances();
  announce();
}

function setThreshold(value) {
  state.threshold = value;
  if (state.solo >= 0 && !isListed(state.solo)) state.solo = -1;
  showInstances();
}

function setLayer(layer) {
  state.layer = Math.min(Math.max(layer, 1), layers);
  showLayer();
}

function toggle(name) {
  state[name] = !state[name];
  $(name).checked = state[name];
  draw();
}

/** The instance before or after the one alone, of those listed. */
function nextInstance(step) {
  const listed = [...instances.keys()].filter(isListed);
  if (!listed.length) return;
  const at = listed.indexOf(state.solo);
  const next = at < 0 ? (step > 0 ? 0 : -1) : (at + step + listed.length) % listed.length;
  solo(listed.at(next));
  rows[state.solo].row.scrollIntoView({ block: "nearest" });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", theme === "dark");
}

const isDark = () => $("theme").getAttribute("aria-pressed") === "true";
const jumpToHeaviest = () => state.solo >= 0 && go(Number($("heaviest").dataset.frame));

const KEYS = {
  " ": togglePlay,
  ArrowLeft: (event) => go(state.frame - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => go(state.frame + (event.shiftKey ? 10 : 1)),
  Home: () => go(0),
  End: () => go(length - 1),
  ArrowUp: () => nextInstance(-1),
  ArrowDown: () => nextInstance(1),
  Escape: () => solo(-1),
  "[": () => setLayer(state.layer - 1),
  "]": () => setLayer(state.layer + 1),
  h: jumpToHeaviest,
  m: () => toggle("masks"),
  p: () => toggle("points"),
  b: () => toggle("boxes"),
  d: () => setTheme(isDark() ? "light" : "dark"),
  "?": () => $("shortcuts").showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || $("shortcuts").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const tag = event.target.tagName;
  // Sliders and lists keep the keys that move them, buttons and boxes the one that presses them.
  const takes = tag === "SELECT" || (event.target.type === "range" ? key !== " " : /BUTTON|INPUT/.test(tag) && key === " ");
  if (!KEYS[key] || (takes && key !== "Escape" && (key === " " || key.length > 1 || tag === "SELECT"))) return;
  event.preventDefault();
  KEYS[key](event);
}

function connect() {
  $("play").addEventListener("click", togglePlay);
  $("back").addEventListener("click", () => go(state.frame - 1));
  $("next").addEventListener("click", () => go(state.frame + 1));
  $("scrub").addEventListener("input", () => go($("scrub").valueAsNumber, false));
  $("scrub").addEventListener("change", announce);
  $("speed").addEventListener("change", () => (video.playbackRate = Number($("speed").value)));
  $("threshold").addEventListener("input", () => setThreshold($("threshold").valueAsNumber));
  $("layer").addEventListener("input", () => setLayer($("layer").valueAsNumber));
  for (const name of ["masks", "points", "boxes"]) $(name).addEventListener("change", () => toggle(name));
  $("all").addEventListener("click", () => solo(-1));
  $("heaviest").addEventListener("click", jumpToHeaviest);
  $("chart").addEventListener("click", (event) => go(frameAt(event)));
  $("theme").addEventListener("click", KEYS.d);
  $("help").addEventListener("click", KEYS["?"]);
  stage.addEventListener("click", togglePlay);
  document.addEventListener("keydown", pressed);
  new ResizeObserver(fitStage).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
  video.addEventListener("seeked", arrived);
  video.addEventListener("play", playingChanged);
  video.addEventListener("pause", stopped);
  video.addEventListener("error", () => fail("This browser cannot play the video (H.264)."));
  video.requestVideoFrameCallback(follow);
}

function fail(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

/** Where to begin, such as page.html#frame=40&instance=2&layer=1&theme=dark; the instance by its id. */
function begin() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(["dark", "light"].includes(wanted.get("theme")) ? wanted.get("theme") : dark ? "dark" : "light");
  state.solo = instances.findIndex((i) => String(i.id) === wanted.get("instance") && i.score >= state.threshold);
  if (Number(wanted.get("layer"))) state.layer = Math.min(Math.max(Number(wanted.get("layer")), 1), layers);
  showInstances();
  go(Number(wanted.get("frame")) || 0);
}

async function start() {
  document.querySelector(".stage").append(video);
  stage.style.setProperty("--aspect", width / height);
  const seconds = (length / fps).toFixed(1);
  $("facts").textContent = `${length} frames, ${seconds} s, ${width}×${height} pixels, ${instances.length} instances with a score of at least ${about.floor}`;
  const part = about.points < about.outOf ? `the ${about.points} heaviest of ${about.outOf} sampling points (${Math.round(100 * about.kept)} % of the attention)` : `all ${about.outOf} sampling points`;
  $("points-note").textContent = `Larger, denser: more attention; ${part}`;
  $("scrub").max = length - 1;
  $("layer").max = layers;
  $("threshold").min = about.floor;
  const viewBox = `0 0 ${Math.max(length - 1, 1)} 1`;
  $("chart").setAttribute("viewBox", viewBox);
  $("chart").append(now());
  await readArrays();
  instances.forEach(makeRow);
  [video.muted, video.playsInline, video.preload] = [true, true, "auto"];
  video.tabIndex = -1;
  video.setAttribute("aria-hidden", "true");
  video.addEventListener("loadeddata", begin, { once: true });
  connect();
  video.src = URL.createObjectURL(new Blob([bytesOf("movie")], { type: "video/mp4" }));
}

start().catch((error) => {
  fail(`The page cannot be shown: ${error.message}`);
  throw error;
});
