// Written by `python -m book.laboratory measure`.

export const MEASURED = {
  "hopping": {
    "failed": 7,
    "repaired": 1,
    "seeds": 8,
    "seconds": 8
  },
  "spiral": {
    "failed": 7,
    "repaired": 1,
    "seeds": 8,
    "seconds": 1
  },
  "saturation": {
    "failed": 7,
    "repaired": 0,
    "seeds": 8,
    "seconds": 5
  },
  "leak": {
    "failed": 8,
    "repaired": 2,
    "seeds": 8,
    "seconds": 3
  },
  "clipping": {
    "failed": 8,
    "repaired": 0,
    "seeds": 8,
    "seconds": 5
  }
};
