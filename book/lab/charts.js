// Small charts over the steps of training: a band over the seeds, and the seed that is shown.

import { penOf } from "./plane.js";

const LEFT = 40, BOTTOM = 18, TOP = 6, RIGHT = 8;

export const CHARTS = [
  { id: "covered", title: "Modes covered", lines: [{ key: "covered" }], from: 0, whole: true },
  { id: "divergence", title: "D_JS of the modes’ shares (bits)", lines: [{ key: "divergence" }], from: 0, to: 1 },
  {
    id: "gradients", title: "Gradient norms: G solid, D dashed", log: true,
    lines: [{ key: "gNorm" }, { key: "dNorm", dash: [5, 3], colour: "quiet" }],
  },
  {
    id: "logits", title: "D’s mean logit: generated solid, real dashed",
    lines: [{ key: "fakeLogit" }, { key: "realLogit", dash: [5, 3], colour: "quiet" }],
  },
];

/** At most n readings, evenly taken, the last among them. */
function thinned(rows, n) {
  const stride = Math.ceil(rows.length / n);
  return rows.filter((_, i) => (rows.length - 1 - i) % stride === 0);
}

const finite = (x) => Number.isFinite(x);
const median = (sorted) => (sorted.length % 2 ? sorted[(sorted.length - 1) / 2] : (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2);

/** [{ step, low, middle, high, own }] of one quantity: over the seeds, and of the seed that is shown. */
export function band(bySeed, shown, key) {
  const lists = [...bySeed.values()], length = Math.min(...lists.map((rows) => rows.length));
  const places = thinned(Array.from({ length }, (_, i) => i), 240);
  return places.map((i) => {
    const values = lists.map((rows) => rows[i][key]).filter(finite).sort((a, b) => a - b);
    return {
      step: lists[0][i].step, low: values[0], middle: median(values), high: values[values.length - 1],
      own: bySeed.get(shown)?.[i][key],
    };
  }).filter(({ middle }) => finite(middle));
}

function ticks(low, high, whole) {
  const rough = (high - low) / 4, ten = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(whole ? 1 : 0, [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= rough));
  return Array.from({ length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1 }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step);
}

/** A power of ten: 0.01, 1 or 10⁻⁶. */
export function power(n) {
  if (n >= -2 && n <= 3) return Number(`1e${n}`).toLocaleString("en");
  return `10${[...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`;
}

const short = (x) => Number(x.toPrecision(3)).toLocaleString("en").replace("-", "−");

/** One chart: `most` is the highest value of its axis where the chart names none. */
export function drawChart(canvas, chart, bySeed, shown, colours, most) {
  const { pen, width, height } = penOf(canvas);
  const bands = chart.lines.map(({ key }) => band(bySeed, shown, key));
  const all = bands.flat().flatMap(({ low, high }) => [low, high]).filter((x) => !chart.log || x > 0);
  pen.font = "11px system-ui, sans-serif";
  if (all.length < 4) {
    pen.fillStyle = colours.quiet;
    pen.fillText("Press Play.", LEFT, height / 2);
    return;
  }
  const scale = chart.log ? Math.log10 : (x) => x;
  let low = scale(chart.from ?? Math.min(...all)), high = scale(chart.to ?? most ?? Math.max(...all));
  if (chart.log) [low, high] = [Math.floor(Math.max(low, -12)), Math.ceil(high)];
  if (high - low < 1e-6) high = low + 1;
  const last = bands[0][bands[0].length - 1].step;
  const across = (step) => LEFT + (step / last) * (width - LEFT - RIGHT);
  const up = (value) => height - BOTTOM - ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (height - BOTTOM - TOP);

  pen.strokeStyle = colours.line;
  pen.fillStyle = colours.quiet;
  pen.lineWidth = 0.6;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of ticks(low, high, chart.whole || chart.log)) {
    pen.beginPath();
    pen.moveTo(LEFT, up(tick));
    pen.lineTo(width - RIGHT, up(tick));
    pen.stroke();
    pen.fillText(chart.log ? power(tick) : short(tick), LEFT - 4, up(tick));
  }
  pen.textBaseline = "alphabetic";
  ticks(0, last, true).filter((tick) => tick > 0).forEach((tick) => pen.fillText(short(tick), Math.min(width - RIGHT, across(tick) + 10), height - 4));
  pen.textAlign = "left";
  pen.fillText("step", LEFT, height - 4);

  chart.lines.forEach(({ dash = [], colour = "accent" }, i) => {
    const rows = bands[i], line = (key) => rows.forEach((row, k) => pen[k ? "lineTo" : "moveTo"](across(row.step), up(scale(row[key]))));
    pen.fillStyle = colours[colour];
    pen.globalAlpha = 0.16;
    pen.beginPath();
    line("high");
    [...rows].reverse().forEach((row) => pen.lineTo(across(row.step), up(scale(row.low))));
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = colours[colour];
    pen.setLineDash(dash);
    for (const [key, thick] of [["middle", 2], ["own", 0.9]]) {
      pen.lineWidth = thick;
      pen.beginPath();
      line(key);
      pen.stroke();
    }
    pen.setLineDash([]);
  });
}

/** Which mode the points of one seed are nearest to, over the steps: a row for each mode, dark for all points. */
export function drawStrip(canvas, rows, colours) {
  const { pen, width, height } = penOf(canvas), shown = thinned(rows, 240), modes = rows[0].nearest.length;
  const wide = (width - LEFT - RIGHT) / Math.max(shown.length, 40), tall = (height - BOTTOM - TOP) / modes;
  pen.fillStyle = colours.ink;
  shown.forEach(({ nearest }, i) => nearest.forEach((share, k) => {
    pen.globalAlpha = Math.min(1, share);
    pen.fillRect(LEFT + i * wide, TOP + k * tall, wide + 0.3, tall - 0.5);
  }));
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.line;
  pen.lineWidth = 0.6;
  pen.strokeRect(LEFT, TOP, width - LEFT - RIGHT, height - BOTTOM - TOP);
  pen.fillStyle = colours.quiet;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.fillText("1", LEFT - 4, TOP + 10);
  pen.fillText(String(modes), LEFT - 4, height - BOTTOM);
  pen.fillText(short(shown[shown.length - 1].step), Math.min(width - RIGHT, LEFT + shown.length * wide), height - 4);
  pen.textAlign = "left";
  pen.fillText("step", LEFT, height - 4);
}
