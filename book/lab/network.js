// Fully connected networks with ReLU between the layers, and what training needs of them. A batch of N rows lies
// row after row in one Float64Array, and so do all parameters of a network: an optimiser sees a single long vector.

import { addProduct, numbers } from "./product.js";

/** A network of given layer sizes: weights [nIn, nOut] and biases [nOut] of each layer are views of `parameters`. */
export function makeNetwork(sizes) {
  let length = 0;
  for (let i = 1; i < sizes.length; i += 1) length += (sizes[i - 1] + 1) * sizes[i];
  const parameters = numbers(length), layers = [];
  let at = 0;
  const view = (n) => parameters.subarray(at, (at += n));
  for (let i = 1; i < sizes.length; i += 1) {
    const [nIn, nOut] = [sizes[i - 1], sizes[i]];
    layers.push({ nIn, nOut, weights: view(nIn * nOut), biases: view(nOut) });
  }
  return { sizes, layers, parameters };
}

/** Glorot-uniform weights and zero biases, as in `gankit.models.mlp`. */
export function initialise(network, stream) {
  for (const { nIn, nOut, weights } of network.layers) {
    const limit = Math.sqrt(6 / (nIn + nOut));
    for (let i = 0; i < weights.length; i += 1) weights[i] = limit * (2 * stream.uniform() - 1);
  }
  return network;
}

/** Room for one pass of N rows through networks of these sizes: what each layer put out, and the slopes on the way back. */
export function makeTape(sizes, rows) {
  const room = () => sizes.map((n) => numbers(rows * n));
  return { rows, outputs: room(), slopes: room(), transposed: numbers(64 * 64), ahead: room() };
}

/** The tapes of a worker's runs: passes that never overlap share one. */
export class Tapes {
  constructor() {
    this.known = new Map();
  }

  of(network, rows, use) {
    const key = `${use} ${rows} ${network.sizes}`;
    if (!this.known.has(key)) this.known.set(key, makeTape(network.sizes, rows));
    return this.known.get(key);
  }
}

/** The network's output [rows, nOut] for x [rows, nIn]; it lies on the tape until the next pass. */
export function forward(network, x, tape) {
  tape.outputs[0].set(x);
  network.layers.forEach(({ nIn, nOut, weights, biases }, i) => {
    const out = tape.outputs[i + 1], rows = tape.rows;
    for (let row = 0; row < rows; row += 1) out.set(biases, row * nOut);
    addProduct(out, tape.outputs[i], weights, rows, nIn, nOut, nIn, 1);
    if (i + 1 < network.layers.length) for (let j = 0; j < out.length; j += 1) if (out[j] < 0) out[j] = 0;
  });
  return tape.outputs[network.layers.length];
}

/**
 * Back through the pass on the tape, from the slopes of a cost in the outputs [rows, nOut].
 *
 * The slopes in the parameters are added to `gradient`, a network of the same sizes, unless it is null. Returns the
 * slopes in the inputs [rows, nIn], or null where they are not wanted.
 */
export function backward(network, tape, outputSlopes, gradient, wanted) {
  const { rows, slopes } = tape;
  slopes[network.layers.length].set(outputSlopes);
  for (let i = network.layers.length - 1; i >= 0; i -= 1) {
    const { nIn, nOut, weights } = network.layers[i], input = tape.outputs[i], after = slopes[i + 1];
    if (gradient) {
      const { weights: dWeights, biases: dBiases } = gradient.layers[i];
      addProduct(dWeights, input, after, nIn, rows, nOut, 1, nIn);
      for (let row = 0, o = 0; row < rows; row += 1) for (let j = 0; j < nOut; j += 1, o += 1) dBiases[j] += after[o];
    }
    if (i === 0 && !wanted) return null;
    addProduct(slopes[i].fill(0), after, transpose(weights, nIn, nOut, tape.transposed), rows, nOut, nIn, nOut, 1);
    if (i) for (let j = 0; j < input.length; j += 1) if (input[j] <= 0) slopes[i][j] = 0; // back through the ReLU
  }
  return slopes[0];
}

function transpose(matrix, rows, width, out) {
  for (let i = 0, at = 0; i < rows; i += 1) for (let j = 0; j < width; j += 1, at += 1) out[j * rows + i] = matrix[at];
  return out;
}

export function norm(vector) {
  let sum = 0;
  for (let i = 0; i < vector.length; i += 1) sum += vector[i] * vector[i];
  return Math.sqrt(sum);
}
