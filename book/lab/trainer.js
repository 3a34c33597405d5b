// A discriminator step, a generator step and a teacher: `gk.Trainer` for two networks in the plane.

import { between, clip, oneCentred, slopePenalty, zeroCentred } from "./penalties.js";
import { backward, forward, initialise, makeNetwork, norm, Tapes } from "./network.js";
import { lossOf, mean, toUnit } from "./losses.js";
import { makeOptimiser } from "./optimisers.js";
import { mixtureOf, samplePoints } from "./data.js";
import { Stream } from "./random.js";

/** The random numbers of a run: latents, data and uniform numbers, from one stream. */
export class Source {
  constructor(settings, seed) {
    this.mixture = mixtureOf(settings);
    this.zDim = settings.zDim;
    this.stream = new Stream(seed, "train");
  }

  latents(n) {
    return this.stream.normals(new Float64Array(n * this.zDim));
  }

  data(n) {
    return samplePoints(this.mixture, this.stream, new Float64Array(2 * n));
  }

  uniform(n) {
    return this.stream.uniforms(new Float64Array(n));
  }
}

/** Python's round: a half goes to the even neighbour. */
export const roundHalfEven = (x) => {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
};

export const sizesOf = (nIn, hidden, width, nOut) => [nIn, ...Array(hidden).fill(width), nOut];

export class Trainer {
  /** `source` gives the random numbers, `tapes` the room for passes: runs that take turns may share it. */
  constructor(settings, seed, source = new Source(settings, seed), tapes = new Tapes()) {
    const { zDim, gLayers, gWidth, dLayers, dWidth } = settings;
    Object.assign(this, { settings, seed, source, tapes, steps: 0, loss: lossOf(settings.loss) });
    const stream = new Stream(seed, "weights");
    this.G = initialise(makeNetwork(sizesOf(zDim, gLayers, gWidth, 2)), stream);
    this.D = initialise(makeNetwork(sizesOf(2, dLayers, dWidth, 1)), stream);
    this.gGradient = makeNetwork(this.G.sizes);
    this.dGradient = makeNetwork(this.D.sizes);
    this.gDescend = makeOptimiser(settings.g, this.G.parameters.length);
    this.dDescend = makeOptimiser(settings.d, this.D.parameters.length);
    this.teacher = makeNetwork(this.G.sizes);
    this.teacher.parameters.set(this.G.parameters);
    this.seen = { dLoss: NaN, gLoss: NaN, realLogit: NaN, fakeLogit: NaN, gNorm: NaN, dNorm: NaN };
  }

  /** Samples [n, 2] of a generator, on a tape of their own. */
  generate(network, z, use) {
    return forward(network, z, this.tapes.of(network, z.length / this.settings.zDim, use));
  }

  /** Logits [n] of points [n, 2]. */
  score(x, use) {
    return forward(this.D, x, this.tapes.of(this.D, x.length / 2, use));
  }

  /** One discriminator update. */
  dStep() {
    const { settings, source, G, D, dGradient, loss, seen } = this, n = settings.batch;
    const z = source.latents(n), fake = this.generate(G, z, "fake");
    const real = this.leak(source.data(n), z);
    const pair = new Float64Array(4 * n); // both through D as one batch
    pair.set(real);
    pair.set(fake, 2 * n);
    const tape = this.tapes.of(D, 2 * n, "pair"), logits = forward(D, pair, tape), slopes = new Float64Array(2 * n);
    const [realLogits, fakeLogits] = [logits.subarray(0, n), logits.subarray(n)];
    seen.dLoss = loss.d(realLogits, fakeLogits, slopes.subarray(0, n), slopes.subarray(n));
    seen.realLogit = mean(realLogits);
    seen.fakeLogit = mean(fakeLogits);
    dGradient.parameters.fill(0);
    backward(D, tape, slopes, dGradient, false);
    this.penalise(real, fake);
    seen.dNorm = norm(dGradient.parameters);
    this.dDescend(D.parameters, dGradient.parameters);
    if (settings.clip > 0) clip(D.parameters, settings.clip);
  }

  /** Adds the gradients of the penalties. */
  penalise(real, fake) {
    const { r1, r2, gp } = this.settings, n = this.settings.batch;
    const add = (x, price) => slopePenalty(this.D, x, this.tapes.of(this.D, n, "slope"), this.dGradient, price);
    if (r1 > 0) add(real, zeroCentred(r1));
    if (r2 > 0) add(fake, zeroCentred(r2));
    if (gp > 0) add(between(real, fake, this.source.uniform(n)), oneCentred(gp));
  }

  /** Replaces the first samples of a real minibatch by the teacher's (LeakyEMA). */
  leak(real, z) {
    const { beta, start, from } = this.settings.leak, n = this.settings.batch;
    const replaced = this.steps >= start ? roundHalfEven(beta * n) : 0;
    if (replaced === 0) return real;
    const { source } = this, zDim = this.settings.zDim;
    if (from === "most-realistic") {
      const taught = this.generate(this.G, source.latents(n), "leak"), logits = this.score(taught, "leak");
      const best = Array.from(logits.keys()).sort((i, j) => logits[j] - logits[i]).slice(0, replaced);
      best.forEach((i, row) => real.set(taught.subarray(2 * i, 2 * i + 2), 2 * row));
    } else {
      const latents = from === "sync" ? z.subarray(0, replaced * zDim) : source.latents(replaced);
      real.set(this.generate(from === "generator" ? this.G : this.teacher, latents, "leak"));
    }
    return real;
  }

  /** One generator update; then the teacher follows. */
  gStep() {
    const { settings, source, G, D, gGradient, loss, seen } = this, n = settings.batch;
    const gTape = this.tapes.of(G, n, "g"), dTape = this.tapes.of(D, n, "g"), slopes = new Float64Array(n);
    const logits = forward(D, forward(G, source.latents(n), gTape), dTape);
    const realLogits = loss.pairs ? this.score(source.data(n), "real") : null;
    seen.gLoss = loss.cost(logits, realLogits);
    loss.weights(logits, slopes, realLogits);
    for (let i = 0; i < n; i += 1) slopes[i] /= -n;
    gGradient.parameters.fill(0);
    backward(G, gTape, backward(D, dTape, slopes, null, true), gGradient, false);
    seen.gNorm = norm(gGradient.parameters);
    if (loss.unit) toUnit(gGradient.parameters, seen.gNorm);
    this.gDescend(G.parameters, gGradient.parameters);
    this.follow();
    this.steps += 1;
  }

  /** The teacher's parameters move towards the generator's; before the start it is a copy. */
  follow() {
    const { decay, start } = this.settings.ema, mine = this.teacher.parameters, other = this.G.parameters;
    if (this.steps < start) mine.set(other);
    else for (let i = 0; i < mine.length; i += 1) mine[i] += (1 - decay) * (other[i] - mine[i]);
  }

  /** `nDis` discriminator updates and one generator update. */
  step() {
    for (let i = 0; i < this.settings.nDis; i += 1) this.dStep();
    this.gStep();
  }
}
