// Pictures of the plane: D's logits as colours, and points on them.

import { LIMIT } from "./crew.js";

/** The page's colours as they are now, light or dark. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    ["ink", "quiet", "paper", "line", "accent", "real", "fake", "taught", "arrow", "plane"].map(
      (name) => [name, style.getPropertyValue(`--${name}`).trim()],
    ),
  );
}

/** A pen on a canvas that has as many pixels as it covers on the screen; x and y count in CSS pixels. */
export function penOf(canvas) {
  const scale = Math.min(2, devicePixelRatio || 1), { clientWidth, clientHeight } = canvas;
  const [width, height] = [Math.round(clientWidth * scale), Math.round(clientHeight * scale)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, clientWidth, clientHeight);
  return { pen, width: clientWidth, height: clientHeight };
}

const channels = (hex) => {
  const long = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex;
  return [1, 3, 5].map((i) => parseInt(long.slice(i, i + 2), 16));
};

const WARM = [241, 149, 38], COLD = [128, 115, 190]; // PuOr's two sides
const sheet = document.createElement("canvas");

/** Colours a square by n x n logits: orange for "real", purple for "generated"; full colour from `full` on. */
export function drawField(pen, size, logits, full, ground) {
  const n = Math.round(Math.sqrt(logits.length)), paper = channels(ground);
  Object.assign(sheet, { width: n, height: n });
  const context = sheet.getContext("2d"), image = context.createImageData(n, n);
  logits.forEach((logit, i) => {
    const share = 0.85 * Math.min(1, Math.abs(logit) / full), side = logit > 0 ? WARM : COLD;
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = paper[c] + share * (side[c] - paper[c]);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(sheet, 0, 0, size, size);
}

export const toScreen = (size) => [(x) => ((x + LIMIT) / (2 * LIMIT)) * size, (y) => ((LIMIT - y) / (2 * LIMIT)) * size];

/** Points [N, 2] as discs of one radius, or of one for each; very small ones as squares, which cost less to paint. */
export function drawPoints(pen, size, points, colour, radius, alpha = 1) {
  const [across, up] = toScreen(size);
  pen.fillStyle = colour;
  pen.globalAlpha = alpha;
  for (let i = 0; i < points.length; i += 2) {
    const r = typeof radius === "number" ? radius : radius[i / 2], x = across(points[i]), y = up(points[i + 1]);
    if (!(x > -r && x < size + r && y > -r && y < size + r)) continue;
    if (r < 2) pen.fillRect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else {
      pen.beginPath();
      pen.arc(x, y, r, 0, 2 * Math.PI);
      pen.fill();
    }
  }
  pen.globalAlpha = 1;
}

/** A ring round each mode, three standard deviations wide or as wide as can be seen. */
export function drawModes(pen, size, mixture, colour) {
  const [across, up] = toScreen(size);
  pen.strokeStyle = colour;
  pen.lineWidth = 0.8;
  for (const [x, y] of mixture.centres) {
    pen.beginPath();
    pen.arc(across(x), up(y), Math.max(2.5, (3 * mixture.std * size) / (2 * LIMIT)), 0, 2 * Math.PI);
    pen.stroke();
  }
}

/** Small triangles would be lost among points: an arrow is a line that ends in a dot-sized head. */
export function drawArrows(pen, size, points, slopes, weights, colour) {
  const [across, up] = toScreen(size), lengths = weights.map((w, i) => w * Math.hypot(slopes[2 * i], slopes[2 * i + 1]));
  const longest = Math.max(...lengths) || 1;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.2;
  for (let i = 0; i < weights.length; i += 5) {
    const factor = (34 * weights[i]) / longest, dx = factor * slopes[2 * i], dy = -factor * slopes[2 * i + 1];
    const long = Math.hypot(dx, dy);
    if (long < 1.5) continue;
    const x = across(points[2 * i]), y = up(points[2 * i + 1]), [ux, uy] = [(dx / long) * 5, (dy / long) * 5];
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x + dx, y + dy);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x + dx + ux, y + dy + uy);
    pen.lineTo(x + dx - 0.5 * uy, y + dy + 0.5 * ux);
    pen.lineTo(x + dx + 0.5 * uy, y + dy - 0.5 * ux);
    pen.fill();
  }
}

/** The paths of a few z: traces [T] of [n, 2], the newest last. */
export function drawTraces(pen, size, traces, colour) {
  if (!traces.length) return;
  const [across, up] = toScreen(size), newest = traces[traces.length - 1];
  pen.strokeStyle = colour;
  pen.lineWidth = 1.6;
  for (let i = 0; i < newest.length; i += 2) {
    pen.beginPath();
    traces.forEach((points, t) => pen[t ? "lineTo" : "moveTo"](across(points[i]), up(points[i + 1])));
    pen.stroke();
  }
  drawPoints(pen, size, newest, colour, 4);
}

export function drawCross(pen, size, [x, y], colour) {
  const [across, up] = toScreen(size);
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (const [dx, dy] of [[9, 0], [0, 9]]) {
    pen.moveTo(across(x) - dx, up(y) - dy);
    pen.lineTo(across(x) + dx, up(y) + dy);
  }
  pen.stroke();
}
