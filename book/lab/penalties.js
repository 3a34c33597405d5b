// Penalties of the discriminator's slope in its input, and the clipping of its weights (`gankit.game.penalties`).

import { backward, forward } from "./network.js";
import { addProduct } from "./product.js";

/**
 * Adds the gradient of a penalty of the slopes df/dx at x [rows, 2] to `gradient`, and returns the penalty.
 *
 * `price(slope, out)` puts the penalty's derivative in one slope into `out` and returns the penalty of that row; the
 * mean over the rows counts. Between its kinks a ReLU network is linear: the slope is a product of weight matrices, with
 * rows struck out. So the gradient of the slope is had by one more forward pass, of the derivative, without biases.
 */
export function slopePenalty(D, x, tape, gradient, price) {
  const { rows, outputs, slopes, ahead } = tape;
  forward(D, x, tape);
  backward(D, tape, new Float64Array(rows).fill(1), null, true);
  let total = 0;
  const out = [0, 0];
  for (let row = 0; row < rows; row += 1) {
    total += price([slopes[0][2 * row], slopes[0][2 * row + 1]], out);
    ahead[0][2 * row] = out[0] / rows;
    ahead[0][2 * row + 1] = out[1] / rows;
  }
  D.layers.forEach(({ nIn, nOut, weights }, i) => {
    addProduct(gradient.layers[i].weights, ahead[i], slopes[i + 1], nIn, rows, nOut, 1, nIn);
    if (i + 1 === D.layers.length) return;
    const next = ahead[i + 1].fill(0);
    addProduct(next, ahead[i], weights, rows, nIn, nOut, nIn, 1);
    for (let j = 0; j < next.length; j += 1) if (outputs[i + 1][j] <= 0) next[j] = 0;
  });
  return total / rows;
}

/** gamma / 2 |slope|^2: R1 at real, R2 at generated samples (Mescheder et al. 2018). */
export const zeroCentred = (gamma) => ([a, b], out) => {
  out[0] = gamma * a;
  out[1] = gamma * b;
  return (gamma / 2) * (a * a + b * b);
};

/** weight (|slope| - 1)^2, at points between real and generated ones (Gulrajani et al. 2017). */
export const oneCentred = (weight) => ([a, b], out) => {
  const size = Math.sqrt(a * a + b * b + 2.2250738585072014e-308); // never 0, so that 0 / 0 cannot happen
  const factor = (2 * weight * (size - 1)) / size;
  out[0] = factor * a;
  out[1] = factor * b;
  return weight * (size - 1) ** 2;
};

/** Points on the lines from fake to real, a share u of the way: [rows, 2]. */
export function between(real, fake, u) {
  return real.map((x, i) => fake[i] + u[i >> 1] * (x - fake[i]));
}

export function clip(parameters, limit) {
  for (let i = 0; i < parameters.length; i += 1) parameters[i] = Math.min(limit, Math.max(-limit, parameters[i]));
}
