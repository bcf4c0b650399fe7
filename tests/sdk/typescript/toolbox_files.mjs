// fs: every method, single and many files and streams.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { check, rejects, sh, unique } from './kit.mjs'

const ALL_BYTES = Buffer.from(Array.from({ length: 1024 }, (_, n) => n % 256))

check('/files', async function foldersInfoAndListing({ fs, ...sandbox }) {
  const name = unique('deep')
  await fs.createFolder(`${name}/er`, '755')
  await fs.uploadFile(ALL_BYTES, `${name}/er/bytes.bin`)
  const info = await fs.getFileDetails(`${name}/er/bytes.bin`)
  assert.deepEqual([info.size, info.isDir, info.permissions, info.mode], [1024, false, '0644', '-rw-r--r--'])
  assert.ok(!Number.isNaN(Date.parse(info.modifiedAt)))
  assert.deepEqual((await fs.listFiles(name)).map((entry) => [entry.name, entry.isDir]), [['er', true]])
  assert.deepEqual(await fs.listFiles(`${name}/er`, { depth: 1 }).then((all) => all.map((e) => e.path)), [`${name}/er/bytes.bin`])
  await rejects(404, fs.getFileDetails(`${name}/absent`), 'DaytonaFileNotFoundError')
  await rejects(404, fs.listFiles(`${name}/absent`), 'DaytonaFileNotFoundError')
  await rejects(403, fs.listFiles('/root'), 'DaytonaFileAccessDeniedError')
})

check('/files', async function uploadAndDownload({ fs }) {
  const name = unique('up')
  await fs.uploadFile(ALL_BYTES, `${name}/new/bytes`)
  assert.deepEqual(await fs.downloadFile(`${name}/new/bytes`), ALL_BYTES)
  await fs.uploadFile(Buffer.alloc(0), `${name}/empty`)
  assert.equal((await fs.downloadFile(`${name}/empty`)).length, 0)
  const folder = await mkdtemp(join(tmpdir(), 'sdk-'))
  try {
    await writeFile(join(folder, 'source'), ALL_BYTES)
    await fs.uploadFile(join(folder, 'source'), `${name}/from-disk`)
    await fs.downloadFile(`${name}/from-disk`, join(folder, 'back'))
    assert.deepEqual(await readFile(join(folder, 'back')), ALL_BYTES)
  } finally {
    await rm(folder, { recursive: true })
  }
  for (const odd of ['with space', 'new\nline', 'quote"\'\\', 'ünïcödé 字', '100%25', 'a&b=c?d#e']) {
    await fs.uploadFile(Buffer.from(odd), `${name}/${odd}`)
    assert.equal((await fs.downloadFile(`${name}/${odd}`)).toString(), odd)
  }
  await rejects(undefined, fs.downloadFile(`${name}/absent`))
})

check('/files', async function manyAtOnce({ fs }) {
  const name = unique('bulk')
  const contents = new Map(Array.from({ length: 25 }, (_, n) => [`${name}/${n}.txt`, Buffer.from(`file ${n}\n`)]))
  await fs.uploadFiles([...contents].map(([destination, source]) => ({ source, destination })))
  const asked = [...contents.keys(), `${name}/absent`, name]
  const answers = await fs.downloadFiles(asked.map((source) => ({ source })))
  assert.deepEqual(answers.map((answer) => answer.source), asked)
  for (const answer of answers) {
    if (contents.has(answer.source)) assert.deepEqual(Buffer.from(answer.result), contents.get(answer.source))
    else assert.ok(answer.error, answer.source)
  }
})

check('/files', async function streams({ fs, process }) {
  const [name, data, sent] = [unique('stream'), randomBytes(3 << 20), []]
  await fs.uploadFileStream(Readable.from([data.subarray(0, 100), data.subarray(100)]), name, {
    onProgress: (told) => sent.push(told.bytesSent),
  })
  assert.equal(sent.at(-1), data.length)
  const digest = (await process.executeCommand(`sha256sum ${name}`)).result.split(' ')[0]
  assert.equal(digest, createHash('sha256').update(data).digest('hex'))
  const told = []
  const stream = await fs.downloadFileStream(name, { onProgress: (p) => told.push(p) })
  const parts = []
  for await (const part of stream) parts.push(part)
  assert.ok(Buffer.concat(parts).equals(data))
  assert.equal(told.at(-1).bytesReceived, data.length)
  assert.equal(told.at(-1).totalBytes, data.length)
})

check('/files', async function findSearchReplace({ fs }) {
  const name = unique('find')
  await fs.uploadFile(Buffer.from('one\nneedle\n'), `${name}/a.py`)
  await fs.uploadFile(Buffer.from('needle needle'), `${name}/sub/b.py`)
  const found = await fs.findFiles(name, 'needle')
  assert.deepEqual(found.map((m) => [m.file, m.line, m.content]).sort(), [[`${name}/a.py`, 2, 'needle'], [`${name}/sub/b.py`, 1, 'needle needle']])
  assert.deepEqual((await fs.searchFiles(name, '*.py')).files, [`${name}/a.py`, `${name}/sub/b.py`])
  const results = await fs.replaceInFiles([`${name}/sub/b.py`, `${name}/absent`], 'needle', 'pin')
  assert.deepEqual(results.map((r) => Boolean(r.success)), [true, false])
  assert.equal((await fs.downloadFile(`${name}/sub/b.py`)).toString(), 'pin pin')
})

check('/files', async function movePermissionsDelete(sandbox) {
  const { fs } = sandbox
  const name = unique('move')
  await fs.uploadFile(Buffer.from('a'), `${name}/a`)
  await fs.uploadFile(Buffer.from('b'), `${name}/b`)
  await fs.moveFiles(`${name}/a`, `${name}/moved`)
  await rejects(409, fs.moveFiles(`${name}/b`, `${name}/moved`), 'DaytonaConflictError')
  await rejects(404, fs.moveFiles(`${name}/a`, `${name}/x`))
  await fs.setFilePermissions(`${name}/b`, { mode: '600' })
  assert.equal((await fs.getFileDetails(`${name}/b`)).permissions, '0600')
  await rejects(403, fs.setFilePermissions('/etc/passwd', { mode: '666' }), 'DaytonaFileAccessDeniedError')
  await rejects(400, fs.deleteFile(name))
  await fs.deleteFile(`${name}/b`)
  await fs.deleteFile(name, true)
  await rejects(404, fs.deleteFile(name))
  assert.equal(await sh(sandbox, `ls -d ${name} 2>/dev/null || echo none`), 'none\n')
})
