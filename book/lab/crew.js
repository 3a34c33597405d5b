// What runs in a worker: some seeds of one setting, a step at a time, between the messages of the page.

import { backward, forward, Tapes } from "./network.js";
import { EVERY, judgesLatents, read } from "./readings.js";
import { mean } from "./losses.js";
import { samplePoints } from "./data.js";
import { Stream } from "./random.js";
import { forgetNumbers } from "./product.js";
import { Trainer } from "./trainer.js";

const SHOWN = 400, TAUGHT = 200, CLOUD = 150; // points in the large picture, of the teacher, in a small picture
const TRACES = 6, TRACE_EVERY = 5, TRACE_LENGTH = 40;
export const LIMIT = 2.8; // the pictures show the square from -LIMIT to LIMIT

/** The middles of n x n cells of the square, row by row from the top: [n * n, 2]. */
export function gridPoints(n) {
  const at = (i) => LIMIT * ((2 * i + 1) / n - 1), out = new Float64Array(2 * n * n);
  for (let i = 0; i < n * n; i += 1) [out[2 * i], out[2 * i + 1]] = [at(i % n), -at(Math.floor(i / n))];
  return out;
}

const latentsOf = (name, n, zDim) => new Stream(0, name).normals(new Float64Array(n * zDim));

export class Crew {
  /** `post` sends a message to the page; `later` calls a function soon, after waiting messages. */
  constructor(post, later) {
    Object.assign(this, { post, later, runs: [], turn: 0, playing: false, pace: Infinity, waiting: false });
  }

  receive(message) {
    this[message.type](message);
  }

  /** Begins anew: { id, settings, seeds, shown }. Every answer carries the id, so that late ones can be told. */
  start({ id, settings, seeds, shown }) {
    forgetNumbers();
    const tapes = new Tapes();
    this.runs = seeds.map((seed) => new Trainer(settings, seed, undefined, tapes));
    Object.assign(this, { id, settings, playing: false, turn: 0, stepped: 0 });
    this.judge = judgesLatents(settings.zDim);
    this.latents = latentsOf("shown", SHOWN, settings.zDim);
    this.traceLatents = latentsOf("traces", TRACES, settings.zDim);
    this.show({ shown });
    this.read(this.runs);
  }

  /** Which seed is looked at; it may be another worker's. */
  show({ shown }) {
    this.shown = this.runs.find(({ seed }) => seed === shown);
    this.traces = [];
    if (this.shown) this.trace();
  }

  play({ pace }) {
    Object.assign(this, { playing: true, pace, since: performance.now(), stepsSince: 0 });
    this.soon();
  }

  /** Stops once all seeds have made the same number of steps. */
  pause() {
    this.playing = false;
    while (this.turn > 0) this.next();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    this.later(() => {
      this.waiting = false;
      this.work();
    });
  }

  /** Steps for a few milliseconds, then lets messages in. */
  work() {
    const begun = performance.now(), allowed = (this.pace * (begun - this.since)) / 1000 + 1;
    while (this.playing && performance.now() - begun < 6 && this.stepsSince < allowed) this.next();
    if (this.playing) this.soon();
  }

  /** One step of the seed whose turn it is. */
  next() {
    const run = this.runs[this.turn];
    run.step();
    this.after(run);
    this.turn = (this.turn + 1) % this.runs.length;
    if (this.turn === 0) {
      this.stepsSince += 1;
      this.stepped += 1;
    }
  }

  after(run) {
    if (run === this.shown && run.steps % TRACE_EVERY === 0) this.trace();
    if (run.steps % EVERY === 0) this.read([run]);
  }

  read(runs) {
    this.post({ type: "readings", id: this.id, rows: runs.map((run) => ({ seed: run.seed, ...read(run, this.judge) })) });
  }

  /** Where a few fixed z went in the last steps of the seed that is looked at. */
  trace() {
    this.traces.push(this.shown.generate(this.shown.G, this.traceLatents, "trace").slice());
    this.traces = this.traces.slice(-TRACE_LENGTH);
  }

  /** One update of a single player in all seeds, and what it did to the one that is looked at. */
  single({ player }) {
    const before = this.shown && this.measure();
    for (const run of this.runs) {
      run[player === "d" ? "dStep" : "gStep"]();
      if (player === "g") this.after(run);
    }
    if (!this.shown) return;
    const after = this.measure();
    const moved = mean(after.points.map((x, i) => Math.abs(x - before.points[i])));
    this.post({
      type: "single", id: this.id, player, seed: this.shown.seed, moved,
      before: { real: before.real, fake: before.fake }, after: { real: after.real, fake: after.fake },
    });
  }

  measure() {
    const { shown } = this, points = shown.generate(shown.G, this.latents, "shown").slice();
    return { points, fake: mean(shown.score(points, "shown")), real: mean(shown.score(this.realPoints(), "shown")) };
  }

  realPoints() {
    return samplePoints(this.shown.source.mixture, new Stream(0, "real"), new Float64Array(2 * SHOWN));
  }

  /** What the page draws: { field: cells a side of D's logits, or 0; clouds: whether all seeds' points are wanted }. */
  look({ field, clouds }) {
    const answer = { type: "seen", id: this.id, steps: this.runs[0].steps, stepped: this.stepped };
    if (clouds) answer.clouds = this.runs.map((run) => ({ seed: run.seed, points: this.cloud(run) }));
    if (this.shown) Object.assign(answer, this.picture(field));
    this.post(answer);
  }

  cloud(run) {
    return Float32Array.from(run.generate(run.G, this.latents.subarray(0, CLOUD * this.settings.zDim), "cloud"));
  }

  /** Points of the seed that is looked at, with D's logits, their slopes and the generator's weights, and the rest. */
  picture(field) {
    const { shown, latents } = this, { D, G, loss, teacher } = shown, tape = shown.tapes.of(D, SHOWN, "shown");
    const points = shown.generate(G, latents, "shown").slice(), logits = forward(D, points, tape).slice();
    const slopes = backward(D, tape, new Float64Array(SHOWN).fill(1), null, true).slice(), weights = new Float64Array(SHOWN);
    loss.weights(logits, weights, loss.pairs ? shown.score(this.realPoints(), "shown") : null);
    const taught = shown.generate(teacher, latents.subarray(0, TAUGHT * this.settings.zDim), "taught").slice();
    const cells = field ? Float32Array.from(shown.score(gridPoints(field), "field")) : null;
    return { seed: shown.seed, points, logits, slopes, weights, taught, field: cells, traces: this.traces };
  }
}
