// Every method of the official TypeScript SDK that reaches a sandbox, unmodified, against a real server:
// toolbox.mjs [CHECK...]
//
// DAYTONA_API_URL and DAYTONA_API_KEY say which server; SDK_HOME is a folder whose node_modules holds @daytona/sdk; GIT_URL
// names a repository that sandboxes can clone and write, GIT_PRIVATE_URL one that asks for credentials.
import { runAll, sdk } from './kit.mjs'
import './toolbox_files.mjs'
import './toolbox_git.mjs'
import './toolbox_process.mjs'
import './toolbox_live.mjs'

const daytona = new sdk.Daytona()
const sandbox = await daytona.create()
let failed = 1
try {
  failed = await runAll(daytona, sandbox, process.argv.slice(2))
} finally {
  await sandbox.delete()
}
process.exit(failed ? 1 : 0)
