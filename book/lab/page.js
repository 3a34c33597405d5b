// The page: it sends settings to the workers, asks them for pictures and readings, and draws and says what comes back.

import { band, CHARTS, drawChart, drawStrip } from "./charts.js";
import { bestLogit, mixtureOf, samplePoints } from "./data.js";
import { Crew, gridPoints, LIMIT } from "./crew.js";
import { fillPanel, makePanel } from "./panel.js";
import { brief, grouped, plural, singleText, stateText, verdictText } from "./words.js";
import { changed, DEFAULTS, fromHash, MOST_MODES, pythonOf, toHash } from "./settings.js";
import { drawArrows, drawCross, drawField, drawModes, drawPoints, drawTraces, palette, penOf, toScreen } from "./plane.js";
import { measuredText, PRESETS } from "./presets.js";
import { SIGNS, shows } from "./readings.js";
import { Stream } from "./random.js";

const find = (id) => document.getElementById(id);
const FIELD = 36, BEST = 48, FULL = 3; // cells a side of either picture, and the logit of full colour

const LAYERS = [
  ["field", "D’s colours", true], ["real", "data", true], ["fake", "generated points", true], ["weights", "size = weight", true],
  ["arrows", "pull on G", false], ["taught", "teacher’s points", false], ["traces", "paths of six z", false],
];

const state = {
  settings: DEFAULTS, preset: "", repaired: false, id: 0, playing: false, shown: 0, mixture: mixtureOf(DEFAULTS), colours: {},
  readings: new Map(), clouds: new Map(), seen: null, steps: 0, best: null, cursor: [0, 0], stroke: false, spoken: 0,
};

// --- Workers --------------------------------------------------------------------------------------------------------

/** A crew in a worker, or where a browser allows none, on the page itself: either way { send }. */
function hire(receive) {
  const loop = "const channel = new MessageChannel(), waiting = [];\n"
    + "channel.port1.onmessage = () => waiting.shift()();\n"
    + "const crew = new Crew((data) => postMessage(data), (f) => { waiting.push(f); channel.port2.postMessage(0); });\n"
    + "onmessage = ({ data }) => crew.receive(data);";
  try {
    const url = URL.createObjectURL(new Blob([`${find("core").textContent}\n${loop}`], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => receive(data);
    return { send: (message) => worker.postMessage(message) };
  } catch {
    const crew = new Crew((data) => setTimeout(() => receive(data)), (f) => setTimeout(f));
    return { send: (message) => crew.receive(message) };
  }
}

const crews = Array.from({ length: Math.max(1, Math.min(4, navigator.hardwareConcurrency || 2)) }, () => {
  const crew = { ...hire((data) => receive(crew, data)), seeds: [], asked: false, stepped: 0 };
  return crew;
});
const busy = () => crews.filter(({ seeds }) => seeds.length);
const tellAll = (message) => busy().forEach(({ send }) => send(message));

function receive(crew, data) {
  if (data.id !== state.id) return;
  if (data.type === "readings") {
    for (const row of data.rows) state.readings.get(row.seed).push(row);
  } else if (data.type === "seen") {
    Object.assign(crew, { asked: false, stepped: data.stepped });
    for (const { seed, points } of data.clouds ?? []) state.clouds.set(seed, points);
    state.steps = Math.max(state.steps, data.steps);
    if (data.points && data.seed === state.shown) {
      state.seen = data;
      state.fresh = true;
    }
    state.dirty ||= Boolean(data.clouds);
  } else {
    say(singleText(data));
    state.dirty = true;
  }
}

// --- Running --------------------------------------------------------------------------------------------------------

const seedsOf = ({ seed, seeds }) => Array.from({ length: seeds }, (_, i) => seed + i);

function restart() {
  const { settings } = state, seeds = seedsOf(settings), playing = state.playing;
  state.id += 1;
  if (!seeds.includes(state.shown)) state.shown = seeds[0];
  Object.assign(state, {
    mixture: mixtureOf(settings), readings: new Map(seeds.map((seed) => [seed, []])), clouds: new Map(), seen: null, best: null,
    steps: 0, dirty: true, bestAt: 0, begun: performance.now(), playing: false,
  });
  state.real = samplePoints(state.mixture, new Stream(0, "real"), new Float64Array(800));
  const share = Math.ceil(seeds.length / crews.length);
  crews.forEach((crew, i) => {
    Object.assign(crew, { seeds: seeds.slice(i * share, (i + 1) * share), asked: false, stepped: 0 });
    crew.send(crew.seeds.length ? { type: "start", id: state.id, settings, seeds: crew.seeds, shown: state.shown } : { type: "pause" });
  });
  rates.reset();
  makeMultiples();
  showSettings();
  setPlaying(playing);
}

function setPlaying(playing) {
  state.playing = playing;
  find("play").textContent = playing ? "Pause" : "Play";
  for (const id of ["d-step", "g-step"]) find(id).disabled = playing;
  tellAll(playing ? { type: "play", pace: Number(find("pace").value) } : { type: "pause" });
  if (!playing) find("rates").textContent = "";
  rates.reset();
  state.dirty = true;
}

function toggle() {
  setPlaying(!state.playing);
  if (state.playing) say("Training.");
  else sayState(true);
}

function single(player) {
  if (state.playing) return;
  tellAll({ type: "single", player });
}

function show(seed) {
  state.shown = seed;
  state.seen = null;
  state.bestAt = 0;
  tellAll({ type: "show", shown: seed });
  nameShown();
  state.dirty = true;
  sayState(true);
}

/** Says which seed is shown, under the picture and on its button. */
function nameShown() {
  for (const name of document.querySelectorAll(".shown-seed")) name.textContent = `seed ${state.shown}`;
  for (const seed of state.readings.keys()) find(`seed-${seed}`).setAttribute("aria-pressed", seed === state.shown);
}

/** Steps and pictures a second, over the last seconds. */
const rates = {
  reset() {
    Object.assign(this, { since: performance.now(), frames: 0, steps: crews.map(({ stepped }) => stepped), now: null });
  },
  frame() {
    this.frames += 1;
    const seconds = (performance.now() - this.since) / 1000;
    if (seconds < 2) return;
    const each = busy().map((crew) => (crew.stepped - this.steps[crews.indexOf(crew)]) / seconds);
    const now = { each: Math.min(...each), all: each.reduce((sum, rate, i) => sum + rate * busy()[i].seeds.length, 0), frames: this.frames / seconds };
    this.reset();
    this.now = now;
    find("rates").textContent = state.playing
      ? `${grouped(now.each)} steps/s for each of ${plural(state.settings.seeds, "seed")}, ${grouped(now.frames)} pictures/s` : "";
  },
};

// --- Words ----------------------------------------------------------------------------------------------------------

function say(text) {
  if (find("words").textContent !== text) find("words").textContent = text;
  state.spoken = performance.now();
}

/** The state in words: every few seconds while it trains, or at once. */
function sayState(now) {
  const rows = state.readings.get(state.shown);
  if (rows?.length && (now || (state.playing && performance.now() - state.spoken > 4000))) {
    say(stateText(rows, state.mixture.centres.length));
  }
}

// --- Drawing --------------------------------------------------------------------------------------------------------

const wants = (layer) => find(`show-${layer}`).checked;

/** Radii of the generated points: their area goes with the weight. */
function radii({ weights }) {
  const total = weights.reduce((sum, w) => sum + Math.abs(w), 0) / weights.length;
  return weights.map((w) => 2.4 * Math.sqrt(Math.min(9, Math.abs(w) / (total || 1))));
}

function noteWeights() {
  const { weights } = state.seen, total = weights.reduce((sum, w) => sum + w, 0) / weights.length;
  find("size-note").textContent = wants("weights") ? `, as large as their weights, whose mean is ${brief(total)}` : "";
}

function drawPlane() {
  const { pen, width: size } = penOf(find("plane")), { seen, colours, mixture } = state;
  if (seen?.field && wants("field")) drawField(pen, size, seen.field, FULL, colours.plane);
  drawModes(pen, size, mixture, colours.quiet);
  if (wants("real")) drawPoints(pen, size, state.real, colours.real, 1.3, 0.4);
  if (seen) {
    if (wants("traces")) drawTraces(pen, size, seen.traces, colours.accent);
    if (wants("taught")) drawPoints(pen, size, seen.taught, colours.taught, 2.2, 0.9);
    if (wants("fake")) drawPoints(pen, size, seen.points, colours.fake, wants("weights") ? radii(seen) : 2.4, 0.85);
    if (wants("arrows")) drawArrows(pen, size, seen.points, seen.slopes, seen.weights, colours.arrow);
  }
  if (state.settings.data === "drawing" && document.activeElement === find("plane")) drawCross(pen, size, state.cursor, colours.ink);
}

const bestPlaces = gridPoints(BEST);

function drawBest() {
  const { seen, colours, mixture } = state;
  if (!seen) return;
  const { pen, width: size } = penOf(find("best"));
  drawField(pen, size, bestLogit(mixture, seen.points, bestPlaces), 2 * FULL, colours.plane);
  drawModes(pen, size, mixture, colours.quiet);
  drawPoints(pen, size, seen.points, colours.fake, 1.8, 0.85);
}

/** The failures that are looked for: that of the preset, or any. */
const signs = () => (PRESETS[state.preset] ? [PRESETS[state.preset].sign] : Object.keys(SIGNS));

function makeMultiples() {
  find("multiples").replaceChildren(...seedsOf(state.settings).map((seed) => {
    const button = Object.assign(document.createElement("button"), { type: "button", id: `seed-${seed}` });
    const label = document.createElement("span"), sign = document.createElement("span");
    sign.className = "sign";
    button.append(document.createElement("canvas"), label, " ", sign);
    button.addEventListener("click", () => show(seed));
    return button;
  }));
}

function drawMultiple(seed) {
  const button = find(`seed-${seed}`), [canvas, label, sign] = button.children, rows = state.readings.get(seed), { colours, mixture } = state;
  const modes = mixture.centres.length, row = rows[rows.length - 1];
  label.textContent = `seed ${seed}: ${row ? `${row.covered}/${modes}` : ""}`;
  sign.textContent = signs().filter((name) => shows(name, rows, modes)).join(", ");
  const { pen, width: size } = penOf(canvas);
  drawModes(pen, size, mixture, colours.quiet);
  if (state.clouds.has(seed)) drawPoints(pen, size, state.clouds.get(seed), colours.fake, 1.3);
}

function makeCharts() {
  const figure = (id, title) => {
    const made = document.createElement("figure"), caption = document.createElement("figcaption");
    const canvas = Object.assign(document.createElement("canvas"), { id: `chart-${id}` });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", title);
    caption.textContent = title;
    made.append(caption, canvas);
    return made;
  };
  find("charts").replaceChildren(
    ...CHARTS.map(({ id, title }) => figure(id, title)),
    figure("strip", "Nearest mode of the shown seed’s points: one row a mode, full colour = all points"),
  );
}

function drawCharts() {
  const { readings, shown, colours, mixture } = state;
  for (const chart of CHARTS) {
    const most = chart.id === "covered" ? mixture.centres.length : undefined, canvas = find(`chart-${chart.id}`);
    drawChart(canvas, chart, readings, shown, colours, most);
    const end = chart.lines.map(({ key }) => band(readings, shown, key).pop()).filter(Boolean);
    const told = end.map(({ low, middle, high }) => [middle, low, high].map((x) => Number(x.toPrecision(3))).join(", from ").replace(/, from ([^,]*)$/, " to $1"));
    canvas.setAttribute("aria-label", `${chart.title}. Median and range now: ${told.join("; ")}`);
  }
  find("chart-strip").parentElement.hidden = mixture.centres.length === 1;
  if (readings.get(shown).length && mixture.centres.length > 1) drawStrip(find("chart-strip"), readings.get(shown), colours);
}

function frame(now) {
  requestAnimationFrame(frame);
  const often = now - (state.drawnAt ?? 0) > 250 || state.dirty;
  for (const crew of busy()) {
    const own = crew.seeds.includes(state.shown);
    if (crew.asked || !(state.playing ? own || often : state.dirty || (own && !state.seen))) continue;
    crew.asked = true;
    crew.send({ type: "look", field: own && wants("field") ? FIELD : 0, clouds: often });
  }
  if (state.fresh && state.seen) {
    state.fresh = false;
    drawPlane();
    rates.frame();
    find("step").textContent = `step ${grouped(state.steps)}`;
    if (now - state.bestAt > 600 || !state.playing) {
      drawBest();
      noteWeights();
      state.bestAt = now;
    }
  }
  if (!often) return;
  Object.assign(state, { drawnAt: now, dirty: false });
  if ([...state.readings.values()].every((rows) => rows.length)) {
    for (const seed of state.readings.keys()) drawMultiple(seed);
    drawCharts();
    find("verdict").textContent = verdictText(state.readings, state.mixture.centres.length, signs());
  }
  sayState(false);
}

// --- Settings -------------------------------------------------------------------------------------------------------

function showSettings() {
  const { settings, preset, repaired } = state, chosen = PRESETS[preset];
  fillPanel(settings);
  const hash = preset && !repaired ? `preset=${preset}` : toHash(settings);
  find("link").value = `${location.href.split("#")[0]}#${hash}`;
  try {
    history.replaceState(null, "", `#${hash}`);
  } catch { /* a page without an address of its own, inside a notebook */ }
  find("python").textContent = pythonOf(settings, state.mixture, chosen?.steps ?? 2000);
  find("preset").value = preset;
  find("story").textContent = chosen ? (repaired ? chosen.after : chosen.look) : "Your own settings. Watch the curves of all seeds before you believe one.";
  find("measured").textContent = chosen ? measuredText(preset) : "";
  find("repair").hidden = !chosen;
  if (chosen) find("repair").textContent = repaired ? "Undo the change" : `Change one thing: ${chosen.repair.text}`;
  nameShown();
  find("drawing-tools").hidden = settings.data !== "drawing";
  find("plane").classList.toggle("drawing", settings.data === "drawing");
  find("plane").tabIndex = settings.data === "drawing" ? 0 : -1;
  find("plane").setAttribute("aria-label", `Data, generated points and D’s logits in the square from −${LIMIT} to ${LIMIT}`);
}

/** Settings of a preset, before or after its one change. */
function choose(preset, repaired) {
  const { changes = {}, repair } = PRESETS[preset] ?? {};
  Object.assign(state, { preset, repaired, settings: changed(changed(DEFAULTS, changes), repaired ? repair.changes : {}) });
  if (preset && !repaired) state.shown = PRESETS[preset].shown;
  restart();
  if (preset) say(`${PRESETS[preset].title}${repaired ? `, with one change: ${repair.text}` : ""}. ${state.playing ? "Training begins anew." : "Press Play."}`);
}

function adjust(path, value) {
  Object.assign(state, { preset: "", repaired: false, settings: changed(state.settings, { [path]: value }) });
  restart();
  say("Settings changed. Training begins anew.");
}

function draw(points) {
  const near = (p) => state.settings.drawing.some(([x, y]) => Math.hypot(x - p[0], y - p[1]) < 0.25);
  if (near(points) || state.settings.drawing.length >= MOST_MODES) return;
  adjust("drawing", [...state.settings.drawing, points]);
  say(`${plural(state.settings.drawing.length, "mode")} drawn, the last at ${points[0].toFixed(1)}, ${points[1].toFixed(1)}.`);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied.`);
  } catch {
    say(`This browser does not let the page copy: select the ${what.toLowerCase()} and copy by hand.`);
  }
}

/** The numbers of the run, as one object. */
function numbersOfRun() {
  return {
    settings: state.settings, python: find("python").textContent, rates: rates.now,
    readings: Object.fromEntries([...state.readings].map(([seed, rows]) => [seed, rows.map(({ seed: _, ...row }) => row)])),
  };
}

function save() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(numbersOfRun())], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href: url, download: "gan-laboratory.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  say("The numbers of all seeds were saved as gan-laboratory.json.");
}

// --- Begin ----------------------------------------------------------------------------------------------------------

function listen() {
  const on = (id, event, act) => find(id).addEventListener(event, act);
  on("preset", "change", () => choose(find("preset").value, false));
  on("repair", "click", () => choose(state.preset, !state.repaired));
  on("play", "click", toggle);
  on("d-step", "click", () => single("d"));
  on("g-step", "click", () => single("g"));
  on("restart", "click", restart);
  on("pace", "change", () => setPlaying(state.playing));
  on("copy-link", "click", () => copy(find("link").value, "Link"));
  on("copy-python", "click", () => copy(find("python").textContent, "Lines"));
  on("export", "click", save);
  on("clear-drawing", "click", () => adjust("drawing", []));
  on("link", "focus", () => find("link").select());

  const plane = find("plane"), drawing = () => state.settings.data === "drawing";
  const place = (event) => {
    const box = plane.getBoundingClientRect(), snap = (x) => Math.round(20 * Math.max(-LIMIT, Math.min(LIMIT, x))) / 20;
    return [snap(((event.clientX - box.left) / box.width) * 2 * LIMIT - LIMIT), snap(LIMIT - ((event.clientY - box.top) / box.height) * 2 * LIMIT)];
  };
  plane.addEventListener("pointerdown", (event) => {
    state.stroke = drawing();
    if (state.stroke) draw(place(event));
  });
  plane.addEventListener("pointermove", (event) => state.stroke && draw(place(event)));
  addEventListener("pointerup", () => { state.stroke = false; });
  const arrows = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  plane.addEventListener("keydown", (event) => {
    if (!drawing()) return;
    if (event.key === "Enter") draw(state.cursor.map((x) => Math.round(20 * x) / 20));
    const by = arrows[event.key];
    if (!by) return;
    event.preventDefault();
    state.cursor = state.cursor.map((x, i) => Math.max(-LIMIT, Math.min(LIMIT, x + by[i])));
    drawPlane();
  });

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, summary, pre")) return;
    const onButton = event.target.closest("button"), key = event.key.toLowerCase();
    if (key === " " && !onButton) {
      event.preventDefault();
      toggle();
    } else if (key === "d" || key === "g") single(key);
    else if (key === "r") restart();
    else if (/^[1-8]$/.test(key) && Number(key) <= state.settings.seeds) show(state.settings.seed + Number(key) - 1);
  });
  const recolour = () => Object.assign(state, { colours: palette(), fresh: Boolean(state.seen), dirty: true, bestAt: 0 });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  addEventListener("resize", recolour);
  addEventListener("hashchange", open);
}

/** Begins with what the address asks for, or the attribute of the page where it has no address of its own. */
function open() {
  const hash = location.hash.length > 1 ? location.hash.slice(1) : document.body.dataset.start || "preset=hopping";
  const parts = new URLSearchParams(hash), asked = parts.get("preset");
  if (Object.hasOwn(PRESETS, asked) && parts.size === 1) choose(asked, false);
  else {
    Object.assign(state, { preset: "", repaired: false, settings: fromHash(hash, PRESETS) });
    restart();
    say("Settings of your link. Press Play.");
  }
}

const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
find("preset").append(...Object.entries(PRESETS).map(([name, { title, chapter }]) => option(name, `${title} (${chapter})`)), option("", "your own settings"));
find("layers").append(...LAYERS.map(([name, text, checked]) => {
  const label = document.createElement("label"), box = Object.assign(document.createElement("input"), { type: "checkbox", id: `show-${name}`, checked });
  box.addEventListener("change", () => { Object.assign(state, { dirty: true, fresh: Boolean(state.seen) }); });
  label.append(box, text);
  return label;
}));
makePanel(find("fields"), (wrong) => { find("complaint").textContent = wrong; }, adjust);
makeCharts();
state.colours = palette();
listen();
open();
requestAnimationFrame(frame);
/** For measurements from outside: what the page shows now. */
globalThis.laboratory = { state, rates, choose, setPlaying, numbersOfRun };
