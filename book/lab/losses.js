// What the discriminator minimises and how the generator weighs its samples: the costs of `gankit.game.losses`.
// f is a logit, D's unbounded output; s = sigmoid(f) is the probability of being real that D states.

export const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
export const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const EPS = 1e-20; // the smallest denominator of a rescaling factor

export function mean(values, of = (x) => x) {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += of(values[i]);
  return sum / values.length;
}

// --- Discriminator: (real logits, fake logits, slopes in either) -> cost; the slopes are filled in ------------------

/** A cost that is the sum of a mean over real and a mean over fake logits. */
const separate = (real, realSlope, fake, fakeSlope) => (r, f, dr, df) => {
  for (let i = 0; i < r.length; i += 1) dr[i] = realSlope(r[i]) / r.length;
  for (let i = 0; i < f.length; i += 1) df[i] = fakeSlope(f[i]) / f.length;
  return mean(r, real) + mean(f, fake);
};

const logistic = separate((r) => softplus(-r), (r) => -sigmoid(-r), softplus, sigmoid);
const leastSquares = separate((r) => (r - 1) ** 2 / 2, (r) => r - 1, (f) => f ** 2 / 2, (f) => f);
const hinge = separate(
  (r) => Math.max(0, 1 - r), (r) => (r < 1 ? -1 : 0),
  (f) => Math.max(0, 1 + f), (f) => (f > -1 ? 1 : 0),
);
const wasserstein = separate((r) => -r, () => -1, (f) => f, () => 1);

/** The relativistic pairing of R3GAN: each fake is compared with one real sample, softplus(f_fake - f_real). */
const relativistic = (r, f, dr, df) => {
  let sum = 0;
  for (let i = 0; i < f.length; i += 1) {
    const slope = sigmoid(f[i] - r[i]) / f.length;
    dr[i] = -slope;
    df[i] = slope;
    sum += softplus(f[i] - r[i]);
  }
  return sum / f.length;
};

// --- Generator: cost(f) of a minibatch, and weights(f, w), which fills in w = -N dJ/df of each sample ---------------

const fill = (weight) => (f, w) => { for (let i = 0; i < f.length; i += 1) w[i] = weight(f[i]); };
const plain = (d, value, weight) => ({ d, cost: (f) => mean(f, value), weights: fill(weight) });

/** factor(m, q) times a cost: m and q are the minibatch's means of s and of 1 - s, and count as constants. */
const scaled = (factor, value, weight) => {
  const size = (f) => factor(mean(f, sigmoid), mean(f, (x) => sigmoid(-x)));
  return {
    d: logistic,
    cost: (f) => size(f) * mean(f, value),
    weights: (f, w) => {
      const r = size(f);
      for (let i = 0; i < f.length; i += 1) w[i] = r * weight(f[i]);
    },
  };
};

const mm = (f) => -softplus(f), ns = (f) => softplus(-f);
const q = (f) => sigmoid(-f); // 1 - s, to full precision
// asinh(exp(x)) without overflow
const asinhExp = (x) => (x > 0 ? x + Math.log(1 + Math.sqrt(1 + Math.exp(-2 * x))) : Math.asinh(Math.exp(x)));

const MM = plain(logistic, mm, sigmoid), NS = plain(logistic, ns, q);
const MM_NSAT = scaled((m, n) => n / (m + EPS), mm, sigmoid);

/** (1 - a) NS + a times another cost. */
const mix = (a, other) => ({
  d: logistic,
  cost: (f) => (1 - a) * NS.cost(f) + a * other.cost(f),
  weights: (f, w) => {
    other.weights(f, w);
    for (let i = 0; i < f.length; i += 1) w[i] = (1 - a) * q(f[i]) + a * w[i];
  },
});
const nsAdd = (a) => scaled((m, n) => n / (a + n + EPS), (f) => ns(f) - a * f, (f) => q(f) + a);
const mmNsatAdd = (a) => scaled((m, n) => n / (a + m + EPS), (f) => mm(f) - a * f, (f) => sigmoid(f) + a);

const RPGAN = {
  d: relativistic,
  pairs: true, // the generator's cost needs the logits of real samples, r
  cost: (f, r) => mean(f.map((x, i) => softplus(r[i] - x))),
  weights: (f, w, r) => { for (let i = 0; i < f.length; i += 1) w[i] = sigmoid(r[i] - f[i]); },
};

const LOSSES = {
  mm: MM,
  ns: NS,
  "mm-nsat": MM_NSAT,
  "mm-unit": { ...MM, unit: true },
  "ns-unit": { ...NS, unit: true },
  "ns-exp-2": scaled((m, n) => 1 / (n + EPS), (f) => ns(f) + sigmoid(f), (f) => q(f) ** 2),
  "mm-nsat-exp-2": scaled((m, n) => n / (m * m + EPS), (f) => mm(f) + sigmoid(f), (f) => sigmoid(f) ** 2),
  "ns-exp-0.5": scaled((m, n) => Math.sqrt(n), (f) => 2 * asinhExp(-f / 2), (f) => Math.sqrt(q(f))),
  "mm-nsat-exp-0.5": scaled(
    (m, n) => n / Math.sqrt(m + EPS), (f) => -2 * asinhExp(f / 2), (f) => Math.sqrt(sigmoid(f)),
  ),
  ls: plain(leastSquares, (f) => (f - 1) ** 2 / 2, (f) => 1 - f),
  hinge: plain(hinge, (f) => -f, () => 1),
  wgan: plain(wasserstein, (f) => -f, () => 1),
  rpgan: RPGAN,
};

const FAMILIES = [
  [/^ns\+mm\((.+)\)$/, (a) => mix(a, MM)],
  [/^ns\+mm-nsat\((.+)\)$/, (a) => mix(a, MM_NSAT)],
  [/^ns-add-([\d.]+)$/, nsAdd],
  [/^mm-nsat-add-([\d.]+)$/, mmNsatAdd],
];

/** The costs that the page offers, with a few members of the families. */
export const LOSS_NAMES = [
  "ns", "mm", "mm-nsat", "rpgan", "hinge", "ls", "wgan", "mm-unit", "ns-unit",
  ...["mm", "mm-nsat"].flatMap((other) => [0.25, 0.5, 0.75].map((a) => `ns+${other}(${a})`)),
  ...["ns", "mm-nsat"].flatMap((other) => [0.1, 1].map((a) => `${other}-add-${a}`)),
  "ns-exp-2", "mm-nsat-exp-2", "ns-exp-0.5", "mm-nsat-exp-0.5",
];

/** A cost by its name in `gankit.losses`; undefined where there is none. */
export function lossOf(name) {
  if (Object.hasOwn(LOSSES, name)) return LOSSES[name];
  for (const [pattern, make] of FAMILIES) {
    const found = pattern.exec(name);
    if (found && Number(found[1]) >= 0) return make(Number(found[1]));
  }
  return undefined;
}

/** Brings a gradient of n numbers to the norm n (the -unit costs). */
export function toUnit(gradient, size) {
  const n = gradient.length, factor = n / (EPS * n + size);
  for (let i = 0; i < n; i += 1) gradient[i] *= factor;
}
