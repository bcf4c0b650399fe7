// The control plane through the official TypeScript SDK, unmodified, against a real server: DAYTONA_API_URL and
// DAYTONA_API_KEY say which. What reaches into a sandbox is in toolbox.mjs.
//
// Prints one line for each case and ends with status 1 when one failed. SDK_HOME is a folder whose node_modules holds
// @daytona/sdk.
import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rejects, sdk, unique } from './kit.mjs'

const { Daytona, DaytonaNotFoundError } = sdk
const BIG_BYTES = 100 << 20

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

// A deleted sandbox may still be seen on its way out, as `destroying`; then nobody knows it.
async function gone(daytona, sandbox) {
  for (let n = 0; n < 200; n++) {
    try {
      assert.ok(['destroying', 'destroyed'].includes((await daytona.get(sandbox.id)).state))
    } catch (error) {
      assert.equal(error.statusCode, 404, error)
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.fail('a deleted sandbox can still be had')
}

async function test_create_with_defaults(daytona) {
  const sandbox = await daytona.create()
  assert.equal(sandbox.state, 'started')
  assert.deepEqual([sandbox.cpu, sandbox.memory, sandbox.disk], [1, 1, 3])
  assert.equal((await sandbox.process.executeCommand('echo hello')).result, 'hello\n')
  await sandbox.delete()
  await gone(daytona, sandbox)
}

async function test_create_with_everything(daytona) {
  const name = unique('named')
  const sandbox = await daytona.create({
    name,
    language: 'typescript',
    envVars: { COLOUR: 'blue' },
    labels: { team: 'red' },
    autoStopInterval: 30,
  })
  try {
    assert.equal(sandbox.name, name)
    assert.equal(sandbox.autoStopInterval, 30)
    assert.equal((await sandbox.process.executeCommand('echo $COLOUR')).result, 'blue\n')
    assert.equal((await daytona.get(name)).id, sandbox.id)
    await rejects(409, daytona.create({ name }))
  } finally {
    await sandbox.delete()
  }
}

async function test_hundred_mebibytes(_, sandbox) {
  const folder = await mkdtemp(join(tmpdir(), 'sdk-'))
  try {
    const bytes = randomBytes(BIG_BYTES)
    await writeFile(join(folder, 'source'), bytes)
    await sandbox.fs.uploadFile(join(folder, 'source'), 'big.bin')
    const seen = (await sandbox.process.executeCommand('sha256sum big.bin')).result.split(' ')[0]
    assert.equal(seen, sha256(bytes), 'the sandbox holds other bytes')
    await sandbox.fs.downloadFile('big.bin', join(folder, 'back'))
    assert.equal(sha256(await readFile(join(folder, 'back'))), sha256(bytes), 'other bytes came back')
    await sandbox.fs.deleteFile('big.bin')
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function test_list_and_labels(daytona) {
  const mark = unique('mark')
  const sandboxes = await Promise.all([0, 1, 2].map((n) => daytona.create({ labels: { mark, n: `${n}` } })))
  try {
    const found = []
    for await (const sandbox of daytona.list({ labels: { mark }, limit: 2 })) found.push(sandbox.id)
    assert.deepEqual(found.sort(), sandboxes.map((s) => s.id).sort(), 'each once, over two pages')
    await sandboxes[0].setLabels({ mark: unique('other') })
    await sandboxes[0].refreshData()
    assert.equal(sandboxes[0].labels.n, undefined, 'labels are replaced')
  } finally {
    await Promise.all(sandboxes.map((sandbox) => sandbox.delete()))
  }
}

async function test_intervals(daytona, sandbox) {
  await sandbox.setAutostopInterval(45)
  await sandbox.setAutoArchiveInterval(0)
  await sandbox.setAutoDeleteInterval(120)
  const seen = await daytona.get(sandbox.id)
  assert.deepEqual([seen.autoStopInterval, seen.autoArchiveInterval, seen.autoDeleteInterval], [45, 43200, 120])
  await sandbox.setAutoDeleteInterval(-1)
}

async function test_previews(_, sandbox) {
  const link = await sandbox.getPreviewLink(3200)
  assert.ok(link.token && new URL(link.url).hostname.startsWith(`3200-${sandbox.id}.`), link.url)
  const signed = await sandbox.getSignedPreviewUrl(3200, 300)
  assert.equal(signed.port, 3200)
  assert.ok(new URL(signed.url).hostname.startsWith(`3200-${signed.token}.`), signed.url)
  await sandbox.expireSignedPreviewUrl(3200, signed.token)
  await rejects(400, sandbox.getPreviewLink(65536))
}

async function test_volumes(daytona) {
  const name = `volume-${randomUUID()}`
  const volume = await daytona.volume.get(name, true)
  while ((await daytona.volume.get(name)).state !== 'ready') await new Promise((soon) => setTimeout(soon, 20))
  const sandbox = await daytona.create({ volumes: [{ volumeId: volume.id, mountPath: '/home/daytona/kept' }] })
  try {
    await sandbox.fs.uploadFile(Buffer.from('kept'), 'kept/file.txt')
    assert.equal((await sandbox.process.executeCommand('cat /home/daytona/kept/file.txt')).result, 'kept')
  } finally {
    await sandbox.delete()
  }
  await daytona.volume.delete(volume)
  assert.ok((await daytona.volume.list()).every((v) => v.name !== name || v.state !== 'ready'))
}

async function test_stop_and_start_keep_files(daytona) {
  const sandbox = await daytona.create()
  try {
    await sandbox.fs.uploadFile(Buffer.from('kept'), 'kept.txt')
    await sandbox.stop()
    assert.equal(sandbox.state, 'stopped')
    await sandbox.start()
    assert.equal(sandbox.state, 'started')
    assert.equal((await sandbox.fs.downloadFile('kept.txt')).toString(), 'kept')
  } finally {
    await sandbox.delete()
  }
}

async function test_errors(daytona) {
  const stranger = new Daytona({ apiKey: `dtn_${'0'.repeat(64)}`, apiUrl: process.env.DAYTONA_API_URL })
  await rejects(401, stranger.create())
  await assert.rejects(daytona.get(randomUUID()), DaytonaNotFoundError)
  await rejects(400, daytona.create({ snapshot: 'no/such-snapshot:1' }))
}

const cases = [
  test_create_with_defaults,
  test_create_with_everything,
  test_hundred_mebibytes,
  test_list_and_labels,
  test_intervals,
  test_previews,
  test_volumes,
  test_stop_and_start_keep_files,
  test_errors,
]
const wanted = process.argv.slice(2)
const daytona = new Daytona()
const shared = await daytona.create()
const failed = []
for (const test of cases.filter((test) => !wanted.length || wanted.includes(test.name))) {
  const start = performance.now()
  try {
    await test(daytona, shared)
    console.log(`ok ${test.name} ${Math.round(performance.now() - start)} ms`)
  } catch (error) {
    failed.push(test.name)
    console.log(`FAILED ${test.name}\n${error?.stack ?? error}`)
  }
}
await shared.delete()
console.log(`${cases.length - failed.length} passed, ${failed.length} failed: ${failed}`)
process.exit(failed.length ? 1 : 0)
