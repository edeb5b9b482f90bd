// Frames: seek to the middle of a frame's time, so that rounding cannot select its neighbour

const middleOf = (frame) => (times[frame] + times[frame + 1]) / 2;

/** The frame that is shown at a time in seconds. */
function frameOf(time) {
  let [first, end] = [0, length];
  while (end - first > 1) {
    const middle = (first + end) >> 1;
    if (times[middle] <= time + 1e-3) first = middle;
    else end = middle;
  }
  return first;
}

const isPlaying = () => !video.paused && !video.ended;

function go(frame, tell = true) {
  video.pause();
  state.frame = Math.min(Math.max(Math.round(frame), 0), length - 1);
  if (!video.seeking) video.currentTime = middleOf(state.frame);
  showFrame();
  if (tell) announce();
}

// A seek may end before its frame can be drawn, so a frame counts when the browser presents it.
let presented = -1;

function arrived() {
  const at = frameOf(video.currentTime);
  if (!isPlaying() && at !== state.frame) video.currentTime = middleOf(state.frame);
  else if (at === presented) picture(at);
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
  presented = frameOf(mediaTime);
  if (isPlaying() || presented === state.frame) picture(presented);
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
  const seen = shown().filter((i) => isVisible(i, state.frame));
  $("live").textContent = `Frame ${state.frame} of ${length}. ${seen.length ? seen.map(nameOf).join(", ") : "No instance"}.`;
}

// The page around the stage

const svgNode = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);

/** Path of the bars of frames in a chart with the slider's x axis. */
function barsPath(heights) {
  return heights.map((h, t) => (h ? `M${t - 0.45} ${1 - h}h.9V1h-.9z` : "")).join("");
}

/** Runs of frames [from, to] in which an instance has a mask. */
function runs(instance) {
  const found = [];
  for (let t = 0; t < length; t++) {
    if (!isVisible(instance, t)) continue;
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
  lane.setAttribute("aria-label", where ? `Visible in frames ${where}` : "Never visible");
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
  $("scrub").setAttribute("aria-valuetext", `frame ${frame}, ${times[frame].toFixed(1)} seconds`);
  $("clock").textContent = `Frame ${frame} of ${length} · ${times[frame].toFixed(2)} s`;
  for (const line of document.querySelectorAll("line.now")) {
    line.setAttribute("x1", frame);
    line.setAttribute("x2", frame);
  }
  showClip();
}

/** Updates which instances are listed and which one is selected. */
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
    ? "Reference point of the layer, the same in all frames"
    : `Reference box of the layer: the box of layer ${state.layer - 1}`;
  $("reference-sign").setAttribute("d", first ? "M8 2v12M2 8h12" : "M2 3h12v10H2z");
  $("reference-sign").classList.toggle("dashed", !first);
  if (state.solo >= 0) showChart();
  showClip();
  draw();
}

function showChart() {
  const shares = Array.from({ length }, (_, t) => shareOf(state.solo, t, state.layer));
  const top = Math.max(...shares, 1) * 1.08;
  const heights = (visible) => shares.map((s, t) => (isVisible(state.solo, t) === visible ? s / top : 0));
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
    `Mean temporal weight of each frame; highest in frame ${heaviest}, ${shares[heaviest].toFixed(1)} times equal weight`,
  );
}

/** Shows the temporal weights of the clip that the frame's trace is taken from. */
function showClip() {
  if (state.solo < 0) return;
  const record = recordOf(state.solo, state.frame);
  const bracket = $("chart").querySelector(".clip");
  $("bars").replaceChildren();
  $("bars").hidden = record < 0;
  bracket.setAttribute("width", 0);
  if (record < 0) {
    $("clip-name").textContent = "";
    $("clip-note").textContent = "No clip contains this instance in this frame.";
    return;
  }
  const { start, weights } = clipOf(record, state.layer);
  const end = start + weights.length - 1;
  for (const [name, value] of [["x", start - 0.5], ["width", weights.length], ["height", 1]])
    bracket.setAttribute(name, value);
  $("clip-name").textContent = `in frames ${start} to ${end}`;
  $("clip-note").textContent = about.clipped
    ? `The video is tracked in overlapping clips. Weights sum to 1 over the frames of a clip, here the one whose middle is nearest to this frame. The chart above the instances shows each frame's mean over all its clips, relative to equal weights (dashed). Faded: no mask.`
    : `Weights sum to 1 over the whole video. The chart above the instances shows them relative to equal weights (dashed). Faded: no mask.`;
  const top = Math.max(...weights, 1e-6);
  weights.forEach((weight, n) => {
    const button = document.createElement("button");
    const bar = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-label", `Frame ${start + n}, weight ${weight.toFixed(3)}`);
    button.title = `Frame ${start + n}: ${weight.toFixed(3)}`;
    button.classList.toggle("absent", !isVisible(state.solo, start + n));
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

// User actions

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

/** Selects the previous or next listed instance. */
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
  // Sliders and lists keep the keys that move them; buttons and checkboxes keep the space bar.
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

/** Applies the initial state in the address: page.html#frame=40&instance=2&layer=1&theme=dark (instance id). */
function begin() {
  const requested = new URLSearchParams(location.hash.slice(1));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(["dark", "light"].includes(requested.get("theme")) ? requested.get("theme") : dark ? "dark" : "light");
  state.solo = instances.findIndex((i) => String(i.id) === requested.get("instance") && i.score >= state.threshold);
  if (Number(requested.get("layer"))) state.layer = Math.min(Math.max(Number(requested.get("layer")), 1), layers);
  showInstances();
  go(Number(requested.get("frame")) || 0);
}

async function start() {
  document.querySelector(".stage").append(video);
  stage.style.setProperty("--aspect", width / height);
  const seconds = times[length].toFixed(1);
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
