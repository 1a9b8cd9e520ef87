import { describe, expect, test } from "bun:test"
import {
  automaticEngine,
  type Circumstances,
  describeCapabilities,
  parseCapabilities,
  readCircumstances,
} from "./capabilities.ts"

const NAMES = ["io_uring_setup", "eventfd", "buffer_ring", "multishot_recv", "epoll"]
const SINCE: Record<string, string> = {
  io_uring_setup: "5.1",
  eventfd: "5.2",
  buffer_ring: "5.19",
  multishot_recv: "6.0",
  epoll: "2.6",
}

const modern: Circumstances = {
  kernel: "6.18.4-generic",
  ioUringDisabled: 0,
  ioUringGroup: -1,
  seccompMode: 0,
  isAdmin: false,
  memlockBytes: 8_388_608,
  nofile: 1024,
}

/** What the shim writes when these features fail with these errnos, or (in lower case) self-tests. */
function probed(failures: Record<string, string> = {}, circumstances: Partial<Circumstances> = {}) {
  const setup = failures.io_uring_setup
  const features = NAMES.map((name) => {
    const failure = failures[name] ?? (name === "epoll" ? undefined : setup)
    const isErrno = failure !== undefined && /^E[A-Z]+$/.test(failure)
    return {
      name,
      since: SINCE[name],
      ok: failure === undefined,
      errno: isErrno ? failure : "",
      wrong: isErrno ? "" : (failure ?? ""),
    }
  })
  return parseCapabilities(JSON.stringify({ features }), { ...modern, ...circumstances })
}

const causeOfSetup = (errno: string, circumstances: Partial<Circumstances> = {}) =>
  probed({ io_uring_setup: errno }, circumstances).io_uring.cause
const whyNot = (errno: string, circumstances: Partial<Circumstances> = {}) =>
  probed({ multishot_recv: errno }, circumstances).features.find(({ name }) => name === "multishot_recv")?.why

describe("why io_uring_setup fails", () => {
  const filtered = { seccompMode: 2 }
  test.each([
    ["EPERM", { ioUringDisabled: 2 }, "sysctl kernel.io_uring_disabled=2 forbids io_uring to every process"],
    ["EPERM", { ioUringDisabled: 2, ...filtered }, "sysctl kernel.io_uring_disabled=2"],
    ["EPERM", { ioUringDisabled: 1 }, "without CAP_SYS_ADMIN"],
    ["EPERM", { ioUringDisabled: 1, ioUringGroup: 990 }, "kernel.io_uring_group (990)"],
    ["EPERM", { ioUringDisabled: 1, ...filtered }, "sysctl kernel.io_uring_disabled=1"],
    ["EPERM", { ioUringDisabled: 1, isAdmin: true, ...filtered }, "a seccomp filter forbids it"],
    ["EPERM", filtered, "Docker and containerd"],
    ["EPERM", { ioUringDisabled: null, ...filtered }, "a seccomp filter forbids it"],
    ["EPERM", {}, "a security module (SELinux, AppArmor)"],
    ["ENOSYS", filtered, "a seccomp filter hides it: kernel 6.18.4-generic is new enough"],
    ["ENOSYS", {}, "this kernel was built without it"],
    ["ENOSYS", { kernel: "4.19.0-27-amd64" }, "kernel 4.19.0-27-amd64 is older than 5.1"],
    ["ENOSYS", { kernel: "4.19.0", ...filtered }, "is older than 5.1"],
    ["ENOMEM", { memlockBytes: 65536 }, "RLIMIT_MEMLOCK is 65536 bytes"],
    ["ENOMEM", { memlockBytes: null }, "memory cgroup"],
    ["EMFILE", {}, "RLIMIT_NOFILE is 1024"],
    ["ENFILE", {}, "fs.file-max"],
  ])("%s %p", (errno, circumstances, cause) => {
    expect(causeOfSetup(errno, circumstances)).toContain(cause)
  })

  test("what needs a ring says so, and what does not stands on its own", () => {
    const { features } = probed({ io_uring_setup: "EPERM" }, filtered)
    const why = Object.fromEntries(features.map((feature) => [feature.name, feature.why]))
    expect(why).toEqual({
      io_uring_setup: expect.stringMatching(/^EPERM: a seccomp/),
      eventfd: "needs io_uring_setup",
      buffer_ring: "needs io_uring_setup",
      multishot_recv: "needs io_uring_setup",
      epoll: "",
    })
  })
})

describe("why a single feature is missing", () => {
  test.each([
    ["EINVAL", { kernel: "5.15.0-91-generic" }, "EINVAL: kernel 5.15.0-91-generic is older than 6.0"],
    ["EINVAL", {}, "EINVAL: this kernel refuses it, although it is new enough"],
    ["EINVAL", { kernel: "6.0" }, "EINVAL: this kernel refuses it, although it is new enough"],
    ["EINVAL", { kernel: "10.1.0" }, "EINVAL: this kernel refuses it, although it is new enough"],
    // The sysctl is about io_uring as a whole.
    ["EPERM", { ioUringDisabled: 1 }, "EPERM: a security module (SELinux, AppArmor) forbids it"],
    [
      "ENOBUFS",
      { memlockBytes: 0 },
      "ENOBUFS: RLIMIT_MEMLOCK is 0 bytes (ulimit -l), or the memory cgroup is full",
    ],
    ["ENETUNREACH", {}, "ENETUNREACH: it could not be tried: the loopback interface is down"],
    ["ETIME", {}, "ETIME: no completion came within its time"],
    ["it ended by itself", {}, "self-test failed: it ended by itself"],
  ])("%s %p", (errno, circumstances, why) => {
    expect(whyNot(errno, circumstances)).toBe(why)
  })
})

describe("the engine that auto takes", () => {
  test("uring where all is well, and where only speed is lost", () => {
    expect(automaticEngine(probed())).toEqual({ engine: "uring", reason: "io_uring works here" })
    expect(automaticEngine(probed({ multishot_recv: "EINVAL" })).engine).toBe("uring")
  })

  test("epoll without io_uring, and without what the engine cannot do without", () => {
    expect(automaticEngine(probed({ io_uring_setup: "EPERM" }, { ioUringDisabled: 2 }))).toEqual({
      engine: "epoll",
      reason: "EPERM: sysctl kernel.io_uring_disabled=2 forbids io_uring to every process",
    })
    expect(automaticEngine(probed({ buffer_ring: "EINVAL" }, { kernel: "5.10.0" }))).toEqual({
      engine: "epoll",
      reason: "no buffer_ring: EINVAL: kernel 5.10.0 is older than 5.19",
    })
  })
})

describe("the text", () => {
  test("is aligned, without trailing blanks, and ends in a newline", () => {
    expect(describeCapabilities(probed({ multishot_recv: "EINVAL" }, { kernel: "5.19.0" }))).toBe(
      [
        "engine    auto is uring: io_uring works here",
        "io_uring  works",
        "kernel    5.19.0, kernel.io_uring_disabled=0, no seccomp",
        "",
        "  yes  io_uring_setup  5.1",
        "  yes  eventfd         5.2",
        "  yes  buffer_ring     5.19",
        "  no   multishot_recv  6.0   EINVAL: kernel 5.19.0 is older than 6.0",
        "  yes  epoll           2.6",
        "",
      ].join("\n"),
    )
  })

  test("takes the choice that was really made", () => {
    const choice = { engine: "epoll", reason: "io_uring_setup failed with ENOMEM" } as const
    expect(describeCapabilities(probed(), choice)).toStartWith(`engine    auto is epoll: ${choice.reason}\n`)
  })

  test("leaves out a sysctl that the kernel has not", () => {
    const text = describeCapabilities(probed({}, { ioUringDisabled: null, seccompMode: null }))
    expect(text).toContain("kernel    6.18.4-generic, seccomp unknown\n")
  })
})

test.each(["", "{", "{}", '{"features":[]}', '{"features":[{"name":"epoll"}]}'])("%p is refused", (text) => {
  expect(() => parseCapabilities(text, modern)).toThrow()
})

test("the circumstances of this process can be read", () => {
  const found = readCircumstances()
  expect(found.kernel).toMatch(/^\d+\.\d+/)
  expect(typeof found.isAdmin).toBe("boolean")
  for (const value of [
    found.ioUringDisabled,
    found.ioUringGroup,
    found.seccompMode,
    found.memlockBytes,
    found.nofile,
  ]) {
    expect(value === null || Number.isInteger(value)).toBe(true)
  }
  expect(found.nofile === null || found.nofile > 0).toBe(true)
})
