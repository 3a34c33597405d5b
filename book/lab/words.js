// What happened, in sentences: for the line under the buttons, which screen readers speak.

import { power } from "./charts.js";
import { countHops, EVERY, SIGNS, shows } from "./readings.js";

const digits = (x, n = 2) => (Object.is(Math.round(x * 10 ** n), -0) ? 0 : x).toFixed(n).replace("-", "−");
const withSign = (x) => (x < 0 ? digits(x) : `+${digits(x)}`);
export const grouped = (n) => Math.round(n).toLocaleString("en");
/** A number above 0 of any size, in two digits. */
export const brief = (x) => (x >= 0.01 || x === 0 ? digits(x) : `${digits(x / 10 ** Math.floor(Math.log10(x)), 0)} · ${power(Math.floor(Math.log10(x)))}`);
export const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

/** How one seed is doing. */
export function stateText(rows, modes) {
  const row = rows[rows.length - 1], hops = countHops(rows.slice(-500 / EVERY));
  if (![row.gNorm, row.inModes].every(Number.isFinite) && row.step > 0) return `Seed ${row.seed} has diverged: its numbers are no longer finite.`;
  const where = `${row.covered} of ${plural(modes, "mode")} covered, ${Math.round(100 * row.inModes)} % of the points in modes`;
  const hopping = hops > 1 ? `, ${hops} hops in the last 500 steps` : "";
  const force = row.gNorm < 1e-3 ? `; the generator’s gradient is about ${power(Math.round(Math.log10(row.gNorm + 1e-30)))}, next to nothing` : "";
  return `Step ${grouped(row.step)}, seed ${row.seed}: ${where}${hopping}${force}.`;
}

/** How many seeds show each of the signs. */
export function verdictText(bySeed, modes, signs) {
  const lists = [...bySeed.values()], steps = Math.min(...lists.map((rows) => rows[rows.length - 1].step));
  if (lists[0].length < 8) return `After ${8 * EVERY} steps this line counts the seeds that fail.`;
  const found = signs
    .map((sign) => [lists.filter((rows) => shows(sign, rows, modes)).length, SIGNS[sign].word])
    .filter(([count]) => count > 0 || signs.length === 1)
    .map(([count, word]) => `${count} of ${plural(lists.length, "seed")} ${word}`);
  return `Step ${grouped(steps)}. ${found.length ? found.join("; ") : "No seed shows any of the failures that are counted here"}.`;
}

/** What a single update did. */
export function singleText({ player, seed, moved, before, after }) {
  if (player === "d") {
    return `One D step, seed ${seed}: mean logit of data ${withSign(before.real)} → ${withSign(after.real)}, `
      + `of generated points ${withSign(before.fake)} → ${withSign(after.fake)}. The points stayed; D’s colours changed.`;
  }
  return `One G step, seed ${seed}: the points moved by ${digits(moved, 3)} on average, and their mean logit went from `
    + `${withSign(before.fake)} to ${withSign(after.fake)}. D stayed as it was.`;
}
