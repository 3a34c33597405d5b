// What is imitated: mixtures of Gaussians of one width in the plane, whose density is known exactly.

/** Mixture: centres [[x, y], ...], weights on any scale, the standard deviation of every mode. */
const range = (n, make) => Array.from({ length: n }, (_, i) => make(i));
const polar = (radius, angle) => [radius * Math.cos(angle), radius * Math.sin(angle)];
const even = (centres, std) => ({ centres, weights: centres.map(() => 1), std });

const MIXTURES = {
  ring: () => even(range(8, (i) => polar(2, (2 * Math.PI * i) / 8)), 0.05),
  spiral: () => ({
    centres: range(12, (i) => polar(0.3 + (1.7 * i) / 11, (2.2 * 2 * Math.PI * i) / 11)),
    weights: range(12, (i) => 3 + (19 * i) / 11), // from 2.0 to 14.7 %
    std: 0.05,
  }),
  grid: () => even(range(25, (i) => [(i % 5) - 2, Math.floor(i / 5) - 2]), 0.05),
  moons: () => even([
    ...range(16, (i) => polar(1.2, (Math.PI * i) / 15)).map(([x, y]) => [x - 0.6, y - 0.3]),
    ...range(16, (i) => polar(1.2, Math.PI * (1 + i / 15))).map(([x, y]) => [x + 0.6, y + 0.3]),
  ], 0.08),
  gaussian: () => even([[0, 0]], 1),
  far: () => even([[2, 2]], 0.05),
};

export const DATA_NAMES = [...Object.keys(MIXTURES), "drawing"];

/** The mixture of a name; "drawing" takes its centres from the settings. */
export const mixtureOf = ({ data, drawing }) => (data === "drawing" ? even(drawing.length ? drawing : [[0, 0]], 0.05) : MIXTURES[data]());

/** Shares of the modes, which add to 1. */
export function shares(weights) {
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** Fills `out` [N, 2] with points of the mixture. */
export function samplePoints(mixture, stream, out) {
  const due = shares(mixture.weights);
  for (let i = 0; i < out.length; i += 2) {
    let u = stream.uniform(), k = 0;
    while (k < due.length - 1 && u >= due[k]) u -= due[k++];
    out[i] = mixture.centres[k][0] + mixture.std * stream.normal();
    out[i + 1] = mixture.centres[k][1] + mixture.std * stream.normal();
  }
  return out;
}

/** Logarithm of a mixture's density at points [N, 2], also where the density itself underflows. */
export function logDensity({ centres, weights, std }, points) {
  const offset = shares(weights).map((w) => Math.log(w) - Math.log(2 * Math.PI * std * std));
  const scale = -1 / (2 * std * std), terms = new Float64Array(centres.length);
  return Float64Array.from({ length: points.length / 2 }, (_, i) => {
    const x = points[2 * i], y = points[2 * i + 1];
    let top = -Infinity, sum = 0;
    for (let k = 0; k < terms.length; k += 1) {
      const dx = x - centres[k][0], dy = y - centres[k][1];
      terms[k] = offset[k] + scale * (dx * dx + dy * dy);
      if (terms[k] > top) top = terms[k];
    }
    for (let k = 0; k < terms.length; k += 1) if (terms[k] > top - 40) sum += Math.exp(terms[k] - top);
    return top + Math.log(sum);
  });
}

/** The best discriminator's logit log p - log g at points [N, 2]; g is a narrow Gaussian on each generated point. */
export function bestLogit(mixture, generated, points) {
  const centres = [];
  for (let i = 0; i < generated.length; i += 2) centres.push([generated[i], generated[i + 1]]);
  const g = logDensity({ centres, weights: centres.map(() => 1), std: 1.2 * mixture.std }, points);
  return logDensity(mixture, points).map((p, i) => p - g[i]);
}
