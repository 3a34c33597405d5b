// One setting for each failure of the book, the sign by which it is known, the steps within which it shows, a seed that
// shows it, and the one change that repairs it.

import { MEASURED } from "./measured.js";

const both = (key, value) => ({ [`g.${key}`]: value, [`d.${key}`]: value });
const small = { batch: 64, gWidth: 32, dWidth: 32 };

export const PRESETS = {
  hopping: {
    title: "Mode hopping", chapter: "chapters 8 and 10", sign: "hops", steps: 1000, shown: 4,
    changes: { ...both("beta1", 0.9), "d.lr": 0.0005 },
    look: "The data are eight small clumps, the modes, on a ring. All points of the generator stay together. D learns that their "
      + "place is “generated” (purple), they flee to where D says “real” (orange), and D learns again. So they visit the modes "
      + "one after another and never cover them all. At the end of the curves, a strip shows which mode is nearest: "
      + "filled cells move from row to row, for the modes take turns.",
    repair: { text: "cost mm-nsat in place of ns", changes: { loss: "mm-nsat" } },
    after: "The same weights, noise and data with another cost. A point’s size is its weight, how much the next update listens to "
      + "it. The cost ns makes those at the back large, which D rejects most, so stragglers catch up and the crowd stays together. "
      + "mm-nsat makes those in front large: the crowd is stretched, until it lies round the ring.",
  },
  spiral: {
    title: "Mode dropping on a spiral", chapter: "chapters 10 and 11", sign: "drops", steps: 1400, shown: 0,
    changes: { ...small, data: "spiral", batch: 16, ...both("lr", 0.002) },
    look: "Twelve modes on a spiral, of which the outer ones are seven times as frequent as the innermost. Nothing hops and the "
      + "curves look calm, but rings stay empty: modes that are never generated, others in other seeds. A mean over seeds "
      + "would not show it.",
    repair: { text: "cost mm-nsat in place of ns", changes: { loss: "mm-nsat" } },
    after: "The same with mm-nsat, which listens most to points that score well. A neglected mode scores well, so its few points "
      + "pull harder. Count the empty rings, and compare the seeds in pairs.",
  },
  saturation: {
    title: "Saturation", chapter: "chapters 1, 6 and 9", sign: "silent", steps: 500, shown: 3,
    changes: { ...small, data: "far", loss: "mm", nDis: 5, dLayers: 3, "g.lr": 0.00005, "d.lr": 0.003 },
    look: "The data are one clump in the upper right corner, far from where the generator starts, and D learns much faster than G: "
      + "soon it is sure of every fake. The minimax cost mm weighs a point by the probability that D gives it, which is now "
      + "nothing. Watch the norm of G’s gradient (solid) fall by powers of ten, and the points stand still.",
    repair: { text: "cost ns in place of mm", changes: { loss: "ns" } },
    after: "The non-saturating cost ns weighs a point by the probability that it is fake, which is now one. The same D, just as "
      + "sure, now pulls with full force (switch on “pull on G”).",
  },
  leak: {
    title: "A leak from the start", chapter: "chapter 7", sign: "astray", steps: 1500, shown: 0,
    changes: { ...small, ...both("lr", 0.002), "leak.beta": 0.9 },
    look: "A teacher, the moving average of the generator, supplies nine tenths of what D is shown as real (LeakyEMA with β = 0.9), "
      + "and does so from the first step on, when the teacher knows nothing. D can hardly tell the two halves of its "
      + "batch apart: its picture stays pale beside the best one, its mean logits stay near 0, and G learns next to nothing from it. "
      + "Switch on the teacher’s points: they are where G’s are.",
    repair: { text: "start the leak at step 800", changes: { "leak.start": 800 } },
    after: "The same share, but for 800 steps D sees data only. By then the teacher is worth listening to. The pictures turn "
      + "pale at step 800; look at whether the points stay where they are.",
  },
  clipping: {
    title: "Clipped weights", chapter: "chapter 12", sign: "silent", steps: 500, shown: 0,
    changes: {
      ...small, loss: "wgan", nDis: 5, dLayers: 3, clip: 0.01, ...both("kind", "rmsprop"), ...both("lr", 0.0005), ...both("beta2", 0.99),
    },
    look: "A Wasserstein GAN as it was first trained: after each step, D’s weights are clipped to ±0.01. Through four layers of "
      + "such weights next to nothing passes. D’s picture stays blank beside the best D, and G’s gradient is a "
      + "hundred thousandth of what it was elsewhere. RMSProp makes steps of it all the same, nearly at random.",
    repair: { text: "a gradient penalty in place of clipping", changes: { clip: 0, gp: 1 } },
    after: "The penalty asks D for a slope of 1 between data and generated points, and leaves its weights alone. The picture has "
      + "colours again, the gradient is back near 1, and the points go to the ring. (500 steps are too few for its modes.)",
  },
};

/** What was measured for a preset, in one sentence; empty where nothing was. */
export function measuredText(name) {
  if (!Object.hasOwn(MEASURED, name)) return "";
  const { failed, repaired, seeds, seconds } = MEASURED[name], { steps } = PRESETS[name];
  return `Measured with seeds 0 to ${seeds - 1}: ${failed} of ${seeds} fail within ${steps.toLocaleString("en")} steps `
    + `(about ${seconds} s on two free cores), and after the change ${repaired} of ${seeds}.`;
}
