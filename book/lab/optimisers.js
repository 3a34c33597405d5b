// Optimisers with a state of their own, in the order of PyTorch's formulas: step(parameters, gradient) changes both.

export function makeAdam({ lr, beta1, beta2 }, length) {
  const m = new Float64Array(length), v = new Float64Array(length);
  let t = 0;
  return (parameters, gradient) => {
    t += 1;
    const size = lr / (1 - beta1 ** t), root = Math.sqrt(1 - beta2 ** t);
    for (let i = 0; i < length; i += 1) {
      const g = gradient[i];
      m[i] += (1 - beta1) * (g - m[i]);
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      parameters[i] -= (size * m[i]) / (Math.sqrt(v[i]) / root + 1e-8);
    }
  };
}

/** Gradient descent; beta1 is its momentum. */
export function makeSGD({ lr, beta1 }, length) {
  const velocity = new Float64Array(length);
  return (parameters, gradient) => {
    for (let i = 0; i < length; i += 1) {
      velocity[i] = beta1 * velocity[i] + gradient[i];
      parameters[i] -= lr * velocity[i];
    }
  };
}

/** RMSProp, which the first Wasserstein GAN used; beta2 is the decay of its running mean of squares. */
export function makeRMSProp({ lr, beta2 }, length) {
  const v = new Float64Array(length);
  return (parameters, gradient) => {
    for (let i = 0; i < length; i += 1) {
      v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] * gradient[i];
      parameters[i] -= (lr * gradient[i]) / (Math.sqrt(v[i]) + 1e-8);
    }
  };
}

const OPTIMISERS = { adam: makeAdam, sgd: makeSGD, rmsprop: makeRMSProp };

export const makeOptimiser = (settings, length) => OPTIMISERS[settings.kind](settings, length);
