// What the checks of the TypeScript SDK share. One line of output per check.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.SDK_HOME, 'package.json'))
export const sdk = require('@daytona/sdk')

const CHECK_SECONDS_MAX = 90
const checks = []

/** Registers a check of the operations whose path begins with `prefix`, or is it; its name is the function's. */
export function check(prefix, run) {
  checks.push([prefix, run])
}

export const unique = (word) => `${word}-${randomUUID().slice(0, 8)}`
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

export function environment(name) {
  assert.ok(process.env[name], `${name} is not set; the Rust test that runs this file sets it`)
  return process.env[name]
}

export async function sh(sandbox, command) {
  const done = await sandbox.process.executeCommand(command)
  assert.equal(done.exitCode, 0, `\`${command}\`: ${done.result}`)
  return done.result
}

export async function eventually(what, condition) {
  for (let n = 0; n < 1000; n++) {
    const found = await condition()
    if (found) return found
    await sleep(20)
  }
  assert.fail(`${what}: never`)
}

const unbuilt = (error) => error?.statusCode === 501 || /not implemented by|response: 501/.test(`${error?.message}`)

/** The promise fails with a DaytonaError of this status and, if given, this class of the SDK. */
export async function rejects(status, promise, kind) {
  let error
  try {
    await promise
  } catch (caught) {
    error = caught
  }
  assert.ok(error, `nothing was thrown; ${kind ?? status ?? 'an error'} expected`)
  if (unbuilt(error)) throw error
  assert.ok(error instanceof sdk.DaytonaError, `${error?.constructor?.name}: ${error?.stack}`)
  if (status) assert.equal(error.statusCode, status, error.message)
  if (kind && sdk[kind]) assert.ok(error instanceof sdk[kind], `${error.constructor.name} instead of ${kind}: ${error.message}`)
  assert.ok(error.message, 'an error without words')
  return error
}

/** Says for which prefixes 501 is no failure: the desktop with its recordings, and single operations of spec/coverage.json. */
async function whatMayBeUnbuilt() {
  const text = await readFile(new URL('../../../spec/coverage.json', import.meta.url), 'utf8')
  const coverage = JSON.parse(text)
  const rows = [...coverage.toolbox, ...coverage.extras, ...coverage.api]
  const later = rows.filter((row) => row.status === 'not-yet').map((row) => row.path)
  const desktop = later.some((path) => path.startsWith('/computeruse/'))
  return (prefix) => later.includes(prefix) || (prefix === '/computeruse' && desktop)
}

async function within(promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${CHECK_SECONDS_MAX} s`)), 1000 * CHECK_SECONDS_MAX)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Runs the checks on one sandbox and returns how many failed. */
export async function runAll(daytona, sandbox, wanted) {
  const mayBeUnbuilt = await whatMayBeUnbuilt()
  const [passed, failed, absent] = [[], [], []]
  for (const [prefix, run] of checks.filter(([, run]) => !wanted.length || wanted.includes(run.name))) {
    const start = performance.now()
    try {
      await within(run(sandbox, daytona))
      passed.push(run.name)
      console.log(`ok ${run.name} ${Math.round(performance.now() - start)} ms`)
    } catch (error) {
      if (unbuilt(error) && mayBeUnbuilt(prefix)) {
        absent.push(run.name)
        console.log(`-- ${run.name}: not built yet: ${error.message}`)
      } else {
        failed.push(run.name)
        console.log(`FAILED ${run.name}\n${error?.stack ?? error}`)
      }
    }
  }
  console.log(`${passed.length} passed, ${failed.length} failed ${failed}, ${absent.length} not built yet`)
  return failed.length
}
