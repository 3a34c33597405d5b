// The matrix product of the laboratory, twice: in JavaScript, to be read, and two columns at a time in WebAssembly, where
// the browser has it. Both add the same numbers in the same order, so their results are equal to the last bit.

const columns = new Int32Array(8192), values = new Float64Array(8192);

/**
 * out += A B. Entries of A that are zero cost nothing, and behind a ReLU half of them are. Eight sums run side by side,
 * which a compiler keeps in registers.
 *
 * A [rows, inner] is read with strides, so that it may be a transpose; B [inner, width] and out [rows, width] are not.
 */
export function addProductPlain(out, A, B, rows, inner, width, rowStride, columnStride) {
  for (let row = 0; row < rows; row += 1) {
    let count = 0;
    for (let k = 0, a = row * rowStride; k < inner; k += 1, a += columnStride) {
      const value = A[a];
      if (value !== 0) {
        columns[count] = k * width;
        values[count] = value;
        count += 1;
      }
    }
    const o = row * width;
    let j = 0;
    for (; j + 7 < width; j += 8) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
      for (let c = 0; c < count; c += 1) {
        const v = values[c], b = columns[c] + j;
        s0 += v * B[b]; s1 += v * B[b + 1]; s2 += v * B[b + 2]; s3 += v * B[b + 3];
        s4 += v * B[b + 4]; s5 += v * B[b + 5]; s6 += v * B[b + 6]; s7 += v * B[b + 7];
      }
      const q = o + j;
      out[q] += s0; out[q + 1] += s1; out[q + 2] += s2; out[q + 3] += s3;
      out[q + 4] += s4; out[q + 5] += s5; out[q + 6] += s6; out[q + 7] += s7;
    }
    for (; j < width; j += 1) {
      let sum = 0;
      for (let c = 0; c < count; c += 1) sum += values[c] * B[columns[c] + j];
      out[o + j] += sum;
    }
  }
}

// --- The same in WebAssembly ----------------------------------------------------------------------------------------

// The product in the flat text form of WebAssembly. All sizes, strides and places are in bytes. $list holds the entries
// of one row of A that are not zero, and, 64 kB behind each pair's place, where their rows of B begin.
const eight = (line) => Array.from({ length: 8 }, (_, i) => line.replaceAll("#", i).replaceAll("@", 16 * i)).join("\n");
const PARAMETERS = ["out", "A", "B", "rows", "inner", "width", "rowStride", "columnStride", "list"];
const INTEGERS = ["k", "a", "b", "at", "end", "j"], SUMS = Array.from({ length: 8 }, (_, i) => `s${i}`);
const PRODUCT = `
loop
  get list  set at   get A  set a   get B  set b   get inner  set k
  loop
    get a  f64.load 0  f64.const  f64.ne
    if
      get at  get a  f64.load 0  f64.store 0
      get at  get b  i32.store 65536
      get at  i32.const 8  i32.add  set at
    end
    get a  get columnStride  i32.add  set a
    get b  get width  i32.add  set b
    get k  i32.const 1  i32.sub  tee k  br_if 0
  end
  get at  set end
  i32.const 0  set j
  block
    loop
      get j  i32.const 128  i32.add  get width  i32.gt_u  br_if 1
      ${eight("v128.const  set s#")}
      get list  set at
      block
        loop
          get at  get end  i32.ge_u  br_if 1
          get at  i32.load 65536  get j  i32.add  set b
          ${eight("get s#  get at  load_splat 0  get b  v128.load @  f64x2.mul  f64x2.add  set s#")}
          get at  i32.const 8  i32.add  set at
          br 0
        end
      end
      get out  get j  i32.add  set b
      ${eight("get b  get b  v128.load @  get s#  f64x2.add  v128.store @")}
      get j  i32.const 128  i32.add  set j
      br 0
    end
  end
  block
    loop
      get j  get width  i32.ge_u  br_if 1
      f64.const  set sum
      get list  set at
      block
        loop
          get at  get end  i32.ge_u  br_if 1
          get sum  get at  f64.load 0  get at  i32.load 65536  get j  i32.add  f64.load 0  f64.mul  f64.add  set sum
          get at  i32.const 8  i32.add  set at
          br 0
        end
      end
      get out  get j  i32.add  set b
      get b  get b  f64.load 0  get sum  f64.add  f64.store 0
      get j  i32.const 8  i32.add  set j
      br 0
    end
  end
  get A  get rowStride  i32.add  set A
  get out  get width  i32.add  set out
  get rows  i32.const 1  i32.sub  tee rows  br_if 0
end`;

// An instruction's bytes, and what follows it in the text: a name of a local, a number, or (memory) an offset.
const OPCODES = {
  block: [[2, 64]], loop: [[3, 64]], if: [[4, 64]], end: [[11]], br: [[12], "number"], br_if: [[13], "number"],
  get: [[32], "name"], set: [[33], "name"], tee: [[34], "name"], "i32.const": [[65], "number"],
  "i32.gt_u": [[75]], "i32.ge_u": [[79]], "i32.add": [[106]], "i32.sub": [[107]],
  "i32.load": [[40, 2], "offset"], "i32.store": [[54, 2], "offset"],
  "f64.load": [[43, 3], "offset"], "f64.store": [[57, 3], "offset"], "f64.const": [[68, 0, 0, 0, 0, 0, 0, 0, 0]],
  "f64.ne": [[98]], "f64.add": [[160]], "f64.mul": [[162]],
  "v128.load": [[253, 0, 3], "offset"], load_splat: [[253, 10, 3], "offset"], "v128.store": [[253, 11, 3], "offset"],
  "v128.const": [[253, 12, ...Array(16).fill(0)]], "f64x2.add": [[253, 240, 1]], "f64x2.mul": [[253, 242, 1]],
};
const I32 = 127, F64 = 124, V128 = 123;

/** LEB128: seven bits a byte, the lowest first. */
const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >>> 7)]);
const signed = (n) => (n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...signed(n >> 7)]);

/** The bytes of a module that exports the product and works in a memory given to it. */
export function assemble(pages) {
  const locals = [...PARAMETERS, ...INTEGERS, "sum", ...SUMS], words = PRODUCT.split(/\s+/).filter(Boolean), code = [];
  for (let i = 0; i < words.length; i += 1) {
    const [bytes, operand] = OPCODES[words[i]];
    code.push(...bytes);
    if (!operand) continue;
    i += 1;
    if (operand === "name") code.push(...unsigned(locals.indexOf(words[i])));
    else code.push(...(operand === "offset" || words[i - 1].startsWith("br") ? unsigned : signed)(Number(words[i])));
  }
  const counted = (parts) => [...unsigned(parts.length), ...parts.flat()];
  const text = (word) => counted([...word].map((letter) => [letter.charCodeAt(0)]));
  const section = (id, body) => [id, ...unsigned(body.length), ...body];
  const groups = [[INTEGERS.length, I32], [1, F64], [SUMS.length, V128]];
  const body = [...counted(groups), ...code, 11];
  return Uint8Array.from([
    0, 97, 115, 109, 1, 0, 0, 0,
    ...section(1, counted([[96, ...counted(PARAMETERS.map(() => [I32])), 0]])), // the function's type
    ...section(2, counted([[...text("page"), ...text("memory"), 2, 0, ...unsigned(pages)]])),
    ...section(3, [1, 0]),
    ...section(7, counted([[...text("addProduct"), 0, 0]])),
    ...section(10, counted([[...unsigned(body.length), ...body]])),
  ]);
}

const PAGES = 2048, LIST = 131072; // 128 MB, of which a system gives what is touched; the list lies in front

function start() {
  try {
    const memory = new WebAssembly.Memory({ initial: PAGES });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(assemble(PAGES)), { page: { memory } });
    return { buffer: memory.buffer, product: exports.addProduct, used: LIST };
  } catch {
    return { buffer: null, used: 0 }; // an older browser: the plain product does the work
  }
}

const machine = start();

/** An array of zeros that the fast product can reach, as long as there is room. */
export function numbers(length) {
  const after = machine.used + 16 * Math.ceil(length / 2);
  if (!machine.buffer || after > machine.buffer.byteLength) return new Float64Array(length);
  const array = new Float64Array(machine.buffer, machine.used, length);
  machine.used = after;
  return array.fill(0);
}

/** Gives the room of all `numbers` back; those handed out before must no longer be used. */
export function forgetNumbers() {
  machine.used = machine.buffer ? LIST : 0;
}

/** out += A B by the fast product where all three lie in its reach, by the plain one elsewhere. */
export function addProduct(out, A, B, rows, inner, width, rowStride, columnStride) {
  const { buffer } = machine;
  if (buffer && out.buffer === buffer && A.buffer === buffer && B.buffer === buffer) {
    machine.product(
      out.byteOffset, A.byteOffset, B.byteOffset, rows, inner, 8 * width, 8 * rowStride, 8 * columnStride, 0,
    );
  } else addProductPlain(out, A, B, rows, inner, width, rowStride, columnStride);
}
