// What stays: sessions, terminals, the code interpreter, language servers.
import assert from 'node:assert/strict'
import { check, eventually, rejects, sh, unique } from './kit.mjs'

async function withSession({ process }, use) {
  const id = unique('session')
  await process.createSession(id)
  try {
    await use(id)
  } finally {
    await process.deleteSession(id)
  }
}

check('/process/session', async function sessionKeepsItsState(sandbox) {
  const { process } = sandbox
  await withSession(sandbox, async (id) => {
    await process.executeSessionCommand(id, { command: 'export KEPT=yes; cd /tmp' })
    const done = await process.executeSessionCommand(id, { command: 'echo $KEPT; pwd; echo oops >&2' })
    assert.deepEqual([done.exitCode, done.stdout, done.stderr], [0, 'yes\n/tmp\n', 'oops\n'])
    assert.equal((await process.executeSessionCommand(id, { command: '(exit 5)' })).exitCode, 5)
    assert.equal((await process.getSession(id)).commands.length, 3)
    assert.ok((await process.listSessions()).some((session) => session.sessionId === id))
    await rejects(409, process.createSession(id), 'DaytonaConflictError')
  })
  await rejects(404, process.getSession('absent'), 'DaytonaProcessNotFoundError')
})

check('/process/session', async function sessionCommandsInTheBackground(sandbox) {
  const { process } = sandbox
  await withSession(sandbox, async (id) => {
    const { cmdId } = await process.executeSessionCommand(id, { command: 'read a; echo got $a; echo err >&2', runAsync: true })
    assert.equal((await process.getSessionCommand(id, cmdId)).id, cmdId)
    let [out, err] = ['', '']
    const following = process.getSessionCommandLogs(id, cmdId, (text) => (out += text), (text) => (err += text))
    await process.sendSessionCommandInput(id, cmdId, 'word')
    await following
    assert.deepEqual([out, err], ['word\ngot word\n', 'err\n'])
    assert.equal((await process.getSessionCommand(id, cmdId)).exitCode, 0)
    const logs = await process.getSessionCommandLogs(id, cmdId)
    assert.deepEqual([logs.stdout, logs.stderr], ['word\ngot word\n', 'err\n'])
    await rejects(410, process.sendSessionCommandInput(id, cmdId, 'late'), 'DaytonaCommandAlreadyCompletedError')
  })
})

check('/process/session', async function entrypointSession({ process }) {
  const found = await process.getEntrypointSession()
  assert.equal(found.sessionId, 'entrypoint')
  // The image's own command idles: whoever follows it is let go when it ends.
  const following = process.getEntrypointLogs(() => {}, () => {})
  if (found.commands[0].exitCode === undefined) await process.executeCommand('kill $(pgrep -o -x sleep)')
  await following
  assert.equal(typeof (await process.getEntrypointLogs()).output, 'string')
})

function terminal(process, id, options = {}) {
  const seen = { text: '' }
  const onData = (data) => (seen.text += Buffer.from(data).toString())
  return process.createPty({ id, onData, ...options }).then((handle) => [handle, seen])
}

check('/process/pty', async function ptyLivesOn({ process }) {
  const id = unique('pty')
  const [handle, seen] = await terminal(process, id, { cwd: '/tmp', envs: { MARK: 'a b' }, cols: 90, rows: 20 })
  await handle.sendInput('echo [$MARK] $PWD; stty size\n')
  await eventually('it answers', () => seen.text.includes('[a b] /tmp') && seen.text.includes('20 90'))
  const resized = await handle.resize(100, 30)
  assert.deepEqual([resized.cols, resized.rows], [100, 30])
  await handle.sendInput('kept=still\n')
  await handle.disconnect()
  assert.ok((await process.listPtySessions()).some((session) => session.id === id))
  assert.equal((await process.getPtySessionInfo(id)).cols, 100)
  assert.equal((await process.resizePtySession(id, 101, 31)).cols, 101)
  let again = ''
  const second = await process.connectPty(id, { onData: (data) => (again += Buffer.from(data).toString()) })
  await second.sendInput('echo $kept-here\n')
  await eventually('it kept its state', () => again.includes('still-here'))
  assert.ok(second.isConnected() && !handle.isConnected())
  await rejects(undefined, terminal(process, id))
  await process.killPtySession(id)
  assert.equal((await second.wait()).exitCode, 137)
  await rejects(404, process.getPtySessionInfo(id), 'DaytonaProcessNotFoundError')
})

check('/process/pty', async function ptyExitCodes({ process }) {
  for (const code of [0, 7]) {
    const [handle] = await terminal(process, unique('pty'))
    await handle.waitForConnection()
    await handle.sendInput(`exit ${code}\n`)
    const result = await handle.wait()
    assert.equal(result.exitCode, code)
    await handle.disconnect()
  }
  const [handle] = await terminal(process, unique('pty'))
  await handle.kill()
  assert.equal((await handle.wait()).exitCode, 137)
})

check('/process/interpreter', async function interpreter({ codeInterpreter }) {
  let streamed = ''
  await codeInterpreter.runCode('x = 41')
  const done = await codeInterpreter.runCode('import sys, os\nprint(x + 1, os.environ["A"])\nprint("e", file=sys.stderr)', {
    onStdout: (message) => (streamed += message.output),
    envs: { A: 'b' },
  })
  assert.deepEqual([done.stdout, done.stderr, streamed], ['42 b\n', 'e\n', '42 b\n'])
  const failed = await codeInterpreter.runCode('raise ValueError("bad")')
  assert.deepEqual([failed.error.name, failed.error.value], ['ValueError', 'bad'])
  await assert.rejects(codeInterpreter.runCode('import time; time.sleep(60)', { timeout: 1 }), /time/i)
  assert.equal((await codeInterpreter.runCode('print(x)')).stdout, '41\n')
  const context = await codeInterpreter.createContext('/tmp')
  assert.ok((await codeInterpreter.listContexts()).some((one) => one.id === context.id))
  assert.equal((await codeInterpreter.runCode('x', { context })).error.name, 'NameError')
  assert.equal((await codeInterpreter.runCode('import os; print(os.getcwd())', { context })).stdout, '/tmp\n')
  await codeInterpreter.deleteContext(context)
  await rejects(404, codeInterpreter.deleteContext(context))
})

const names = (symbols) => symbols.map((symbol) => symbol.name.split('(')[0])

async function languageServer(sandbox, language, file, content, position) {
  const folder = unique(language)
  await sandbox.fs.uploadFile(Buffer.from(content), `${folder}/${file}`)
  const server = await sandbox.createLspServer(language, folder)
  await server.start()
  await server.didOpen(`${folder}/${file}`)
  const symbols = await server.documentSymbols(`${folder}/${file}`)
  assert.ok(names(symbols).includes('Greeter') && names(symbols).includes('greet'), JSON.stringify(symbols))
  await eventually('the workspace knows the class', async () => names(await server.sandboxSymbols('Greeter')).includes('Greeter'))
  assert.ok(names(await server.workspaceSymbols('Greeter')).includes('Greeter'))
  const { items, isIncomplete } = await server.completions(`${folder}/${file}`, position)
  assert.ok(items.some((item) => item.label.startsWith('greet')))
  assert.equal(typeof isIncomplete, 'boolean')
  await server.didClose(`${folder}/${file}`)
  await server.stop()
}

check('/lsp', async function languageServerOfPython(sandbox) {
  const content = 'class Greeter:\n    def greet(self):\n        pass\n\nGreeter().greet()\n'
  await languageServer(sandbox, 'python', 'sample.py', content, { line: 4, character: 12 })
})

check('/lsp', async function languageServerOfTypeScript(sandbox) {
  const content = 'export class Greeter {\n  greet() {}\n}\nnew Greeter().greet()\n'
  await languageServer(sandbox, 'typescript', 'sample.ts', content, { line: 3, character: 14 })
  await rejects(400, (await sandbox.createLspServer('typescript', unique('x'))).documentSymbols('y.ts'))
})

check('/process', async function nothingIsLeftBehind(sandbox) {
  const left = () => sh(sandbox, "ps -eo stat= | grep '^Z' || echo none")
  await eventually('no zombie stays', async () => (await left()) === 'none\n')
})
