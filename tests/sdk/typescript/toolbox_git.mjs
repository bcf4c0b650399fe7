// git: every method, on repositories of a server of the test.
import assert from 'node:assert/strict'
import { check, environment, rejects, sh, unique } from './kit.mjs'

const WHO = ['Tester', 'tester@example.org']

async function cloned(sandbox, ...options) {
  const path = unique('clone')
  await sandbox.git.clone(environment('GIT_URL'), path, ...options)
  return path
}

async function committed({ fs, git }, path, file = 'new.txt', content = 'new\n') {
  await fs.uploadFile(Buffer.from(content), `${path}/${file}`)
  await git.add(path, [file])
  return (await git.commit(path, `change ${file}`, ...WHO)).sha
}

const states = (status) => Object.fromEntries(status.fileStatus.map((f) => [f.name, `${f.staging}/${f.worktree}`]))

check('/git', async function cloneStatusCommit(sandbox) {
  const { git, fs } = sandbox
  const path = await cloned(sandbox)
  const status = await git.status(path)
  assert.deepEqual([status.currentBranch, status.fileStatus, status.ahead, status.behind], ['main', [], 0, 0])
  await fs.uploadFile(Buffer.from('x'), `${path}/x`)
  assert.deepEqual(states(await git.status(path)), { x: 'Untracked/Untracked' })
  await git.add(path, ['.'])
  assert.deepEqual(states(await git.status(path)), { x: 'Added/Unmodified' })
  assert.match((await git.commit(path, 'add x', ...WHO)).sha, /^[0-9a-f]{40}$/)
  assert.match((await git.commit(path, 'nothing', ...WHO, true)).sha, /^[0-9a-f]{40}$/)
  assert.equal((await git.status(await cloned(sandbox, 'test'))).currentBranch, 'test')
  await rejects(404, git.status('/tmp'), 'DaytonaGitRepoNotFoundError')
  await rejects(404, git.clone(environment('GIT_URL').replace('project.git', 'absent.git'), unique('no')), 'DaytonaGitRepoNotFoundError')
})

check('/git', async function branches(sandbox) {
  const { git } = sandbox
  const path = await cloned(sandbox)
  await git.createBranch(path, 'feature')
  const listed = await git.branches(path)
  assert.deepEqual([listed.branches.sort(), listed.current], [['feature', 'main'], 'feature'])
  await rejects(409, git.createBranch(path, 'main'), 'DaytonaGitBranchExistsError')
  await git.checkoutBranch(path, 'main')
  await git.deleteBranch(path, 'feature')
  await rejects(404, git.checkoutBranch(path, 'feature'), 'DaytonaGitBranchNotFoundError')
})

check('/git', async function pushAndPull(sandbox) {
  const { git, fs } = sandbox
  const [path, other, name] = [await cloned(sandbox), await cloned(sandbox), unique('file')]
  await committed(sandbox, path, name)
  await git.push(path)
  await git.pull(other)
  assert.equal((await fs.downloadFile(`${other}/${name}`)).toString(), 'new\n')
  await committed(sandbox, path, name, 'mine\n')
  await git.push(path)
  await committed(sandbox, other, name, 'theirs\n')
  await rejects(409, git.push(other), 'DaytonaGitPushRejectedError')
  const declining = unique('declined')
  await git.clone(environment('GIT_URL').replace('project.git', 'declining.git'), declining)
  await committed(sandbox, declining)
  await rejects(422, git.push(declining), 'DaytonaGitRemoteRejectedError')
  const [url, hidden] = [environment('GIT_PRIVATE_URL'), unique('private')]
  await rejects(401, git.clone(url, unique('no')), 'DaytonaGitAuthFailedError')
  await git.clone(url, hidden, undefined, undefined, 'me', 'pass word')
  await git.pull(hidden, 'me', 'pass word')
})

check('/git', async function initAndRemotes(sandbox) {
  const { git } = sandbox
  const path = unique('made')
  await git.init(path, false, 'trunk')
  await rejects(409, git.init(path), 'DaytonaConflictError')
  await committed(sandbox, path)
  assert.equal((await git.status(path)).currentBranch, 'trunk')
  await git.remoteAdd(path, 'origin', environment('GIT_URL'), true)
  assert.equal(await git.remoteGet(path, 'origin'), environment('GIT_URL'))
  assert.equal(await git.remoteGet(path, 'absent'), undefined)
  assert.deepEqual((await git.remotes(path)).remotes.map((r) => r.name), ['origin'])
})

check('/git', async function resetAndRestore(sandbox) {
  const { git, fs } = sandbox
  const path = await cloned(sandbox)
  await committed(sandbox, path, 'file', '1\n')
  await committed(sandbox, path, 'file', '2\n')
  await git.reset(path, 'soft', 'HEAD~1')
  assert.deepEqual(states(await git.status(path)), { file: 'Modified/Unmodified' })
  await git.restore(path, ['file'], true, true)
  assert.equal((await fs.downloadFile(`${path}/file`)).toString(), '1\n')
  await fs.uploadFile(Buffer.from('3\n'), `${path}/file`)
  await git.reset(path, 'hard')
  assert.deepEqual(states(await git.status(path)), {})
  await rejects(400, git.reset(path, 'strange'))
})

check('/git', async function configAndCredentials(sandbox) {
  const { git } = sandbox
  const path = await cloned(sandbox)
  assert.equal(await git.getConfig('infield.absent'), undefined)
  await git.setConfig('infield.word', 'global')
  await git.setConfig('infield.word', 'local', 'local', path)
  assert.equal(await git.getConfig('infield.word'), 'global')
  assert.equal(await git.getConfig('infield.word', 'local', path), 'local')
  await git.configureUser('Some One', 'one@example.org')
  assert.equal(await sh(sandbox, 'git config --global user.email'), 'one@example.org\n')
  const [protocol, rest] = environment('GIT_PRIVATE_URL').split('://')
  await git.dangerouslyAuthenticate('me', 'pass word', rest.split('/')[0], protocol)
  try {
    await git.clone(environment('GIT_PRIVATE_URL'), unique('stored'))
  } finally {
    await sh(sandbox, 'rm -f ~/.git-credentials; git config --global --unset-all credential.helper || true')
  }
})
