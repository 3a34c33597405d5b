// All settings of a run, what they may be, how a link holds them, and the Python lines of the same run.

import { DATA_NAMES } from "./data.js";
import { LOSS_NAMES } from "./losses.js";

const ADAM = { kind: "adam", lr: 0.001, beta1: 0.5, beta2: 0.999 };

export const DEFAULTS = {
  data: "ring", drawing: [], loss: "ns", batch: 128, zDim: 8, gLayers: 2, gWidth: 64, dLayers: 2, dWidth: 64, nDis: 1,
  g: ADAM, d: ADAM, r1: 0, r2: 0, gp: 0, clip: 0,
  leak: { beta: 0, start: 0, from: "sync" }, ema: { decay: 0.99, start: 0 }, seed: 0, seeds: 8,
};

const KINDS = ["adam", "sgd", "rmsprop"], SOURCES = ["sync", "async-noise", "generator", "most-realistic"];
const number = (label, min, max, group, hint) => ({ label, min, max, group, hint });
const whole = (...parts) => ({ ...number(...parts), whole: true });
const choice = (label, options, group, hint) => ({ label, options, group, hint });
const optimiser = (player, group) => ({
  [`${player}.kind`]: choice("Optimiser", KINDS, group),
  [`${player}.lr`]: number("Learning rate", 1e-6, 10, group),
  [`${player}.beta1`]: number("β₁ (momentum)", 0, 0.999, group),
  [`${player}.beta2`]: number("β₂ (decay of squares)", 0, 0.99999, group),
});

/** What options are called where their names say too little. */
export const OPTION_WORDS = {
  grid: "grid of 25", moons: "two moons", gaussian: "one Gaussian", far: "one clump, far off", drawing: "your drawing",
  adam: "Adam", sgd: "gradient descent", rmsprop: "RMSProp", sync: "teacher, z of the fakes", "async-noise": "teacher, fresh z",
  generator: "generator, fresh z", "most-realistic": "generator, those that D scores best",
};

/** Every setting by its path: label, limits or options, and the group it stands in. The page and links follow it. */
export const FIELDS = {
  loss: choice("Cost", LOSS_NAMES, "Game"),
  data: choice("Data", DATA_NAMES, "Game"),
  batch: whole("Batch, samples of each kind", 1, 512, "Game"),
  nDis: whole("D steps per G step", 1, 10, "Game"),
  seed: whole("First seed", 0, 9999, "Game"),
  seeds: whole("Seeds side by side", 1, 8, "Game"),
  zDim: whole("Length of z", 1, 64, "Generator"),
  gLayers: whole("Hidden layers", 1, 4, "Generator"),
  gWidth: whole("Units in each", 8, 64, "Generator"),
  ...optimiser("g", "Generator"),
  dLayers: whole("Hidden layers", 1, 4, "Discriminator"),
  dWidth: whole("Units in each", 8, 64, "Discriminator"),
  ...optimiser("d", "Discriminator"),
  r1: number("R1 at real samples, γ", 0, 1000, "Constraints on D", "γ/2 times the squared slope of D"),
  r2: number("R2 at generated samples, γ", 0, 1000, "Constraints on D"),
  gp: number("WGAN-GP between them, λ", 0, 1000, "Constraints on D", "λ times (slope − 1)²"),
  clip: number("Clip D's weights to ±c", 0, 10, "Constraints on D", "0: no clipping"),
  "ema.decay": number("Decay of the average", 0, 0.99999, "Teacher and leak"),
  "ema.start": whole("Averaging starts at step", 0, 1e6, "Teacher and leak"),
  "leak.beta": number("Leak: share of the real batch, β", 0, 1, "Teacher and leak", "0: no leak"),
  "leak.start": whole("Leak starts at step N", 0, 1e6, "Teacher and leak"),
  "leak.from": choice("Leaked samples come from", SOURCES, "Teacher and leak"),
};

export function valueAt(settings, path) {
  return path.split(".").reduce((part, key) => part[key], settings);
}

/** The settings with some changed: changes are { path: value }. */
export function changed(settings, changes) {
  const copy = { ...settings, g: { ...settings.g }, d: { ...settings.d }, leak: { ...settings.leak }, ema: { ...settings.ema } };
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.split("."), last = keys.pop();
    keys.reduce((part, key) => part[key], copy)[last] = value;
  }
  return copy;
}

/** What is wrong with a value for a setting, in words; an empty text if nothing is. */
export function complaint(path, value) {
  const field = FIELDS[path];
  if (field.options) return field.options.includes(value) ? "" : `${field.label}: choose one of ${field.options.join(", ")}.`;
  const fits = typeof value === "number" && value >= field.min && value <= field.max;
  if (fits && !(field.whole && !Number.isInteger(value)) && !(path.endsWith(".lr") && value === 0)) return "";
  return `${field.label} must be a ${field.whole ? "whole " : ""}number from ${field.min} to ${field.max}.`;
}

const SCALE = 20; // a drawn point is kept to a twentieth of a unit

/** The settings as the part of a link after #: what differs from the defaults, and all of a drawing. */
export function toHash(settings) {
  const parts = new URLSearchParams();
  for (const path of Object.keys(FIELDS)) {
    if (valueAt(settings, path) !== valueAt(DEFAULTS, path)) parts.set(path, String(valueAt(settings, path)));
  }
  if (settings.drawing.length) {
    parts.set("drawing", settings.drawing.flat().map((x) => Math.round(SCALE * x)).join("_"));
  }
  return parts.toString();
}

/** Settings of the part of a link after #; what it does not name, misspells or sets out of range is as by default. */
export function fromHash(hash, presets) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  let settings = changed(DEFAULTS, Object.hasOwn(presets, parts.get("preset")) ? presets[parts.get("preset")].changes : {});
  for (const [path, text] of parts) {
    if (!Object.hasOwn(FIELDS, path)) continue;
    const value = FIELDS[path].options ? text : Number(text);
    if (text !== "" && !complaint(path, value)) settings = changed(settings, { [path]: value });
  }
  const drawn = (parts.get("drawing") ?? "").split("_").filter(Boolean).map((x) => Number(x) / SCALE);
  if (drawn.every((x) => Math.abs(x) <= 3) && drawn.length % 2 === 0) {
    const points = drawn.filter((_, i) => i % 2 === 0).map((x, i) => [x, drawn[2 * i + 1]]);
    settings = changed(settings, { drawing: points.slice(0, MOST_MODES) });
  }
  return settings;
}

export const MOST_MODES = 48; // of a drawing

// --- The same in gankit ---------------------------------------------------------------------------------------------

const exact = (x) => Number(x.toPrecision(6)).toString();

const float = (x) => (Number.isInteger(x) ? `${x}.0` : String(x)); // PyTorch's Adam refuses a whole number

function optimiserLine({ kind, lr, beta1, beta2 }) {
  if (kind === "sgd") return `gk.SGD(lr=${float(lr)}, momentum=${float(beta1)})`;
  if (kind === "rmsprop") return `gk.RMSProp(lr=${float(lr)}, decay=${float(beta2)})`;
  return `gk.Adam(lr=${float(lr)}, beta1=${float(beta1)}, beta2=${float(beta2)})`;
}

function dataLines({ data, centres, weights, std }) {
  if (["ring", "spiral", "gaussian"].includes(data)) return [`data = gk.data.load("${data}")`];
  const rows = [];
  for (let i = 0; i < centres.length; i += 4) {
    rows.push(`    ${centres.slice(i, i + 4).map(([x, y]) => `(${exact(x)}, ${exact(y)})`).join(", ")},`);
  }
  return [
    "import torch", "", "from toy.mixtures import Mixture", "",
    "centers = torch.tensor([", ...rows, "])",
    `data = Mixture(centers, torch.ones(${weights.length}), std=${std}, name="${data}").dataset()`,
  ];
}

/** Python lines that train the same networks in the same way. Their random numbers are others. */
export function pythonOf(settings, mixture, steps) {
  const { loss, batch, nDis, zDim, gLayers, gWidth, dLayers, dWidth, seed, seeds, leak, ema } = settings;
  const penalties = [], more = [];
  if (settings.r1 > 0) penalties.push(`gk.penalties.R1(${settings.r1})`);
  if (settings.r2 > 0) penalties.push(`gk.penalties.R2(${settings.r2})`);
  if (settings.gp > 0) penalties.push(`gk.penalties.WganGP(${settings.gp})`);
  if (penalties.length) more.push(`d_terms=[${penalties.join(", ")}],`);
  if (settings.clip > 0) more.push(`projections=[gk.penalties.ClipWeights(${settings.clip})],`);
  if (leak.beta > 0) more.push(`leak=gk.Leak(beta=${leak.beta}, start=${leak.start}, source="${leak.from}"),`);
  more.push(`ema=gk.EMA(decay=${ema.decay}, start=${ema.start}),`);
  return [
    "import gankit as gk", ...dataLines({ data: settings.data, ...mixture }), "",
    "networks = lambda seed: gk.models.mlp(",
    `    data.shape, z_dim=${zDim}, depth=${gLayers + 1}, width=${gWidth}, d_depth=${dLayers + 1}, d_width=${dWidth}, seed=seed`,
    ")",
    `G, D = gk.pair(networks, range(${seed}, ${seed + seeds}))`,
    "run = gk.Trainer(",
    `    G, D, data, loss="${loss}", batch_size=${batch}, n_dis=${nDis},`,
    `    g_optimizer=${optimiserLine(settings.g)},`,
    `    d_optimizer=${optimiserLine(settings.d)},`,
    ...more.map((line) => `    ${line}`),
    ")",
    `run.fit(${Math.max(1, steps)})`,
  ].join("\n");
}
