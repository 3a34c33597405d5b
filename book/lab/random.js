// Random numbers that depend on a seed and a name alone, so that a seed trains in the same way alone or beside others.

/** A stream of 32-bit numbers: sfc32 of Chris Doty-Humphrey (PractRand), seeded through a hash of seed and name. */
export class Stream {
  constructor(seed, name) {
    let hash = 2166136261 ^ seed; // FNV-1a over the name, then over the four words of the state
    for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
    this.state = Int32Array.from({ length: 4 }, (_, i) => (hash = Math.imul(hash ^ (seed + i + 1), 16777619)));
    this.state[3] = 1;
    this.spare = NaN;
    for (let i = 0; i < 15; i += 1) this.bits();
  }

  bits() {
    const s = this.state, sum = (s[0] + s[1] + s[3]) | 0;
    s[3] += 1;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + sum;
    return sum >>> 0;
  }

  /** Uniform in (0, 1). */
  uniform() {
    return (this.bits() + 0.5) / 4294967296;
  }

  /** Standard normal, by Box and Muller's method, which makes two at a time. */
  normal() {
    if (this.spare === this.spare) {
      const value = this.spare;
      this.spare = NaN;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(this.uniform())), angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  normals(out) {
    for (let i = 0; i < out.length; i += 1) out[i] = this.normal();
    return out;
  }

  uniforms(out) {
    for (let i = 0; i < out.length; i += 1) out[i] = this.uniform();
    return out;
  }
}
