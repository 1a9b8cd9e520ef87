import { expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { generateAbi, HeaderError } from "./generate-abi.ts"

async function generate(header: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "uringloop-header-"))
  try {
    await Bun.write(join(directory, "abi.h"), `#include <stdint.h>\n${header}`)
    return await generateAbi(join(directory, "abi.h"))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test("constants: values are the compiler's", async () => {
  const abi = await generate(`
#ifndef UL_ABI_H
#define UL_ABI_H
#define UL_BITS (1u << 3 | 1) // two of them
#define UL_NEGATIVE (-5)
#define UL_ALL_ONES 0xffffffffu
#define UL_HUGE UINT64_MAX
#define UL_NAME "x y"
#define UL_EXPORT __attribute__((visibility("default")))
#define UL_MIN(a, b) ((a) < (b) ? (a) : (b))
#endif`)
  expect(abi).toContain("/** two of them */\nexport const BITS = 9\n")
  expect(abi).toContain("export const NEGATIVE = -5\n")
  expect(abi).toContain("export const ALL_ONES = 4294967295\n")
  expect(abi).toContain("export const HUGE = 18446744073709551615n\n")
  expect(abi).toContain('export const NAME = "x y"\n')
  expect(abi.match(/export const/g)).toHaveLength(5)
})

test("enums: explicit, implied and computed values, with their comments", async () => {
  const abi = await generate(`
enum ul_op {
  UL_OP_NOP = 1, // completes with 0
  UL_OP_NEXT,    /* one more,
                    on two lines */
  // stands above
  UL_OP_LAST = UL_OP_NEXT << 4, UL_OP_SAME_LINE,
  UL_OP_BROKEN =
      50, // as clang-format breaks it
};`)
  expect(abi).toContain("// enum ul_op\n/** completes with 0 */\nexport const OP_NOP = 1\n")
  expect(abi).toContain("/** one more, on two lines */\nexport const OP_NEXT = 2\n")
  expect(abi).toContain("/** stands above */\nexport const OP_LAST = 32\n")
  expect(abi).toContain("export const OP_SAME_LINE = 33\n")
  expect(abi).toContain("/** as clang-format breaks it */\nexport const OP_BROKEN = 50\n")
})

test("structs: sizes and offsets, arrays, unions, padding", async () => {
  const abi = await generate(`
#define UL_N 4
struct ul_record {
  uint8_t op;      // first
                   // and its second line
  uint8_t pad[3];
  int32_t a, b;    // a pair
  union {
    uint64_t wide;
    uint32_t narrow;
  };
  char name[UL_N];
  _Alignas(64) uint32_t head;
};
struct ul_other { struct ul_record inner; };`)
  expect(abi).toContain("/** bytes */\nexport const RECORD_SIZE = 128\n")
  expect(abi).toContain("/** uint8_t: first and its second line */\nexport const RECORD_OP = 0\n")
  expect(abi).toContain("/** int32_t: a pair */\nexport const RECORD_B = 8\n")
  expect(abi).toContain("export const RECORD_WIDE = 16\n")
  expect(abi).toContain("export const RECORD_NARROW = 16\n")
  expect(abi).toContain("/** char[UL_N] */\nexport const RECORD_NAME = 24\n")
  expect(abi).toContain("export const RECORD_HEAD = 64\n")
  expect(abi).toContain("export const OTHER_INNER = 0\n")
  expect(abi).not.toContain("PAD")
})

test("a header that cannot be understood is refused with its reason", async () => {
  await expect(generate("#define FOO 1")).rejects.toThrow("begin with UL_")
  await expect(generate("#define UL_X something")).rejects.toThrow("gcc refused")
  await expect(generate("#define UL_A_SIZE 1\nstruct ul_a { int x; };")).rejects.toThrow(HeaderError)
})
