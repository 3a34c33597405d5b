// What is read off a run every few steps, and what a row of readings says about how it fails.

import { mean } from "./losses.js";
import { shares } from "./data.js";
import { Stream } from "./random.js";

export const EVERY = 25; // steps between two readings
const POINTS = 1000, RADIUS = 3, COVERED = 0.1;

/** The same latents at every reading of every run of a z of this length: what changes is the generator alone. */
export const judgesLatents = (zDim) => new Stream(0, "judge").normals(new Float64Array(POINTS * zDim));

/** Of points [N, 2]: the share within 3 standard deviations of each mode, and that to which each is the nearest. */
export function countModes(mixture, points) {
  const { centres, std } = mixture, n = points.length / 2;
  const inside = centres.map(() => 0), nearest = centres.map(() => 0);
  for (let i = 0; i < points.length; i += 2) {
    let best = Infinity, mode = 0;
    for (let k = 0; k < centres.length; k += 1) {
      const d = (points[i] - centres[k][0]) ** 2 + (points[i + 1] - centres[k][1]) ** 2;
      if (d < best) [best, mode] = [d, k];
    }
    nearest[mode] += 1 / n;
    if (Math.sqrt(best) <= RADIUS * std) inside[mode] += 1 / n;
  }
  return { inside, nearest };
}

/** Jensen-Shannon divergence in bits of the modes' shares among the points that lie in modes; 1 where none does. */
export function modeDivergence(inside, due) {
  const total = inside.reduce((a, b) => a + b, 0);
  if (total === 0) return 1;
  const term = (p) => (p > 0 ? p * Math.log2(p) : 0);
  return Math.max(0, inside.reduce((sum, share, k) => {
    const p = share / total;
    return sum + (term(p) + term(due[k]) - 2 * term((p + due[k]) / 2)) / 2;
  }, 0));
}

/** A reading of a run; `latents` are the judge's. */
export function read(run, latents) {
  const { mixture } = run.source, points = run.generate(run.G, latents, "judge");
  const { inside, nearest } = countModes(mixture, points), due = shares(mixture.weights);
  const { gNorm, dNorm, realLogit, fakeLogit } = run.seen, { clip } = run.settings;
  const holder = nearest.findIndex((share) => share > 0.5);
  return {
    step: run.steps,
    covered: inside.filter((share, k) => share > 0 && share >= COVERED * due[k] - 1e-12).length,
    divergence: modeDivergence(inside, due),
    inModes: inside.reduce((a, b) => a + b, 0),
    nearest, holder, gNorm, dNorm, realLogit, fakeLogit,
    atBound: clip > 0 ? mean(run.D.parameters, (w) => (Math.abs(w) > 0.999 * clip ? 1 : 0)) : 0,
  };
}

/** Changes of the mode that holds more than half of the points, between readings in which there is one. */
export function countHops(readings) {
  return readings.slice(1).filter(({ holder }, i) => {
    const before = readings[i].holder;
    return holder >= 0 && before >= 0 && holder !== before;
  }).length;
}

const last = (readings, steps) => readings.slice(-Math.round(steps / EVERY));

/** Signs of a failure in the readings of one run, each with a short name and words. `modes` is the data's number of modes. */
export const SIGNS = {
  hops: {
    word: "hop: the mode that holds most of the points changed at least 6 times in the last 500 steps",
    holds: (readings) => countHops(last(readings, 500)) >= 6,
  },
  drops: {
    word: "leave two or more modes empty, in each of the last 4 readings",
    holds: (readings, modes) => last(readings, 100).every(({ covered }) => covered <= modes - 2),
  },
  silent: {
    word: "are silent: the norm of G’s gradient was below 0.001 in each reading of the last 200 steps",
    holds: (readings) => last(readings, 200).every(({ gNorm }) => gNorm < 1e-3),
  },
  astray: {
    word: "have less than a tenth of their points in modes, in each of the last 4 readings",
    holds: (readings) => last(readings, 100).every(({ inModes }) => inModes < 0.1),
  },
  collapsed: {
    word: "cover at most a quarter of the modes, in each of the last 4 readings",
    holds: (readings, modes) => last(readings, 100).every(({ covered }) => covered <= modes / 4),
  },
};

/** Whether a run of readings shows a sign; a run too short to tell does not. */
export const shows = (sign, readings, modes) => readings.length >= 8 && SIGNS[sign].holds(readings, modes);
