// executeCommand, codeRun with charts, the sandbox's folders, environment and numbers.
import assert from 'node:assert/strict'
import { check, rejects, sh, unique } from './kit.mjs'

check('/work-dir', async function folders(sandbox) {
  const [work, home] = [await sandbox.getWorkDir(), await sandbox.getUserHomeDir()]
  assert.equal(await sandbox.getUserRootDir(), home)
  assert.ok(work.startsWith('/'))
  assert.equal(home, '/home/daytona')
  assert.equal((await sandbox.process.executeCommand('pwd', work)).result.trim(), work)
})

check('/process/execute', async function execute(sandbox) {
  const run = (...words) => sandbox.process.executeCommand(...words)
  assert.equal((await run('exit 42')).exitCode, 42)
  const both = await run('echo out; echo oops >&2')
  assert.match(both.result, /oops/)
  assert.equal(both.artifacts.stdout, both.result)
  assert.equal((await run('echo $A', undefined, { A: 'b c' })).result, 'b c\n')
  assert.equal((await run('pwd', '/tmp')).result, '/tmp\n')
  assert.equal((await run('cat <<EOF\na\nEOF')).result, 'a\n')
  assert.notEqual((await run('ls /does/not/exist')).exitCode, 0)
  const late = await rejects(408, run('sleep 30', undefined, undefined, 1), 'DaytonaTimeoutError')
  assert.match(late.message, /timeout/i)
  await rejects(400, run('true', undefined, { '1x': 'y' }))
})

check('/process/code-run', async function codeRun(sandbox) {
  assert.equal((await sandbox.process.codeRun('print(6 * 7)')).result, '42\n')
  assert.notEqual((await sandbox.process.codeRun('x = = 1')).exitCode, 0)
  const done = await sandbox.process.codeRun('import sys, os; print(sys.argv[1:], os.environ["C"])', {
    argv: ['a b', 'c'],
    env: { C: 'd' },
  })
  assert.equal(done.result, "['a b', 'c'] d\n")
  await rejects(408, sandbox.process.codeRun('import time; time.sleep(60)', undefined, 1))
})

check('/process/code-run', async function codeRunCharts(sandbox) {
  const code = `import matplotlib.pyplot as plt
plt.plot([1, 2], [3, 4], label='l')
plt.title('T')
plt.show()
plt.bar(['a', 'b'], [1, 2])
plt.show()
print('after')`
  const done = await sandbox.process.codeRun(code)
  assert.equal(done.result, 'after\n')
  const [line, bar] = done.artifacts.charts
  assert.deepEqual([line.type, line.title, line.elements[0].points], ['line', 'T', [[1, 3], [2, 4]]])
  assert.ok(Buffer.from(line.png, 'base64').subarray(1, 4).equals(Buffer.from('PNG')))
  assert.deepEqual([bar.type, bar.elements.map((e) => [e.label, e.value])], ['bar', [['a', '1'], ['b', '2']]])
})

check('/process/code-run', async function codeRunTypeScript(_, daytona) {
  const sandbox = await daytona.create({ language: 'typescript' })
  try {
    const done = await sandbox.process.codeRun('const n: number = 42; console.log(n, process.argv.slice(1))', { argv: ['x'] })
    assert.deepEqual([done.exitCode, done.result], [0, "42 [ 'x' ]\n"])
    assert.notEqual((await sandbox.process.codeRun('throw new Error("no")')).exitCode, 0)
  } finally {
    await sandbox.delete()
  }
})

check('/env', async function environmentOfLaterProcesses(sandbox) {
  if (!sandbox.updateEnv) return
  await sandbox.updateEnv({ LATER: 'yes' })
  assert.equal(await sh(sandbox, 'echo $LATER'), 'yes\n')
  await sandbox.updateEnv({}, { unset: ['LATER'] })
  assert.equal(await sh(sandbox, 'echo [$LATER]'), '[]\n')
})

check('/system/metrics', async function metricsNow(sandbox) {
  if (!sandbox.getMetricsLatest) return
  const seen = await sandbox.getMetricsLatest()
  assert.ok(seen.cpuUsedPct >= 0 && seen.cpuUsedPct <= 100, JSON.stringify(seen))
  assert.equal(seen.cpuCount, 1)
  assert.ok(seen.memTotal > 0 && seen.diskTotal > 0, JSON.stringify(seen))
})

check('/sandbox/{sandboxId}/signing-key', async function signedAddresses(sandbox) {
  if (!sandbox.downloadUrl) return
  const name = unique('signed file')
  await sandbox.fs.uploadFile(Buffer.from('content'), name)
  const url = await sandbox.downloadUrl(name)
  assert.equal(await (await fetch(url)).text(), 'content')
  assert.equal((await fetch(url.replace('v1_', 'v1_A'))).status, 401)
  const form = new FormData()
  form.append('file', new Blob(['uploaded']), 'x')
  assert.equal((await fetch(await sandbox.uploadUrl(`${name}.up`), { method: 'POST', body: form })).status, 200)
  assert.equal((await sandbox.fs.downloadFile(`${name}.up`)).toString(), 'uploaded')
  await sandbox.rotateSigningKey()
  assert.equal((await fetch(url)).status, 401, 'the key has been replaced')
  assert.equal((await fetch(await sandbox.downloadUrl(name))).status, 200)
})
