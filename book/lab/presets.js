// One setting for each failure of the book, the sign by which it is known, and the one change that repairs it.

import { MEASURED } from "./measured.js";

const small = { gWidth: 32, dWidth: 32 };
const bothAdam = (lr, beta1) => ({ "g.lr": lr, "d.lr": lr, "g.beta1": beta1, "d.beta1": beta1 });

export const PRESETS = {
  hopping: {
    title: "Mode hopping", chapter: "chapter 10", sign: "hops", steps: 1000,
    changes: { ...bothAdam(0.001, 0.9), "d.lr": 0.0005 },
    look: "Eight modes on a ring, and a generator whose points all stay together. D learns that the clump is generated (purple), "
      + "the clump flees to where D says “real” (orange), D learns again. It visits modes and never covers them. Watch the strip of "
      + "the nearest mode: a dark cell that jumps from row to row.",
    repair: { text: "the cost, from ns to mm-nsat", changes: { loss: "mm-nsat" } },
    after: "The same weights, noise and data, seed by seed, with the cost mm-nsat. Its weights are largest where D is most "
      + "convinced (look at the sizes of the points), so those in front run ahead and the clump is drawn out until it surrounds the ring.",
  },
};

/** What was measured for a preset, in one sentence; empty where nothing was. */
export function measuredText(name) {
  if (!Object.hasOwn(MEASURED, name)) return "";
  const { failed, repaired, seeds, seconds } = MEASURED[name], { steps } = PRESETS[name];
  return `Measured with seeds 0 to ${seeds - 1}: ${failed} of ${seeds} fail within ${steps.toLocaleString("en")} steps `
    + `(${seconds} s on two cores), and after the change ${repaired} of ${seeds}.`;
}
