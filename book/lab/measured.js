// Written by `python -m book.laboratory measure`: what the presets did on two cores.

export const MEASURED = {};
