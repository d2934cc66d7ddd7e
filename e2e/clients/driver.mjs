// What the drivers share. A driver runs one library, reports each thing done as
// a line of JSON, in the order in which it happened, and ends with an error when
// something did not happen: nothing here is said that was not done.
import { createServer } from 'node:http'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(
    ['issuer', 'resource', 'api', 'client-id', 'client-secret', 'auth', 'key', 'scope', 'document', 'tool', 'sdk'].map((name) => [name, { type: 'string' }]),
  ),
})

// options are --name VALUE of the command line, flow its first word.
export const options = values
export const [flow] = positionals

const servers = []

// run does the flow that the command line names. Browsers keep connections
// open; they are cut, so that the driver ends.
export async function run(flows) {
  await flows[flow]()
  for (const server of servers) {
    server.close()
    server.closeAllConnections()
  }
  process.stdin.destroy()
}

export function report(step, fields = {}) {
  process.stdout.write(JSON.stringify({ step, ...fields }) + '\n')
}

// goOn waits for a line of the test, which has done something meanwhile.
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
export async function goOn() {
  const { done } = await lines.next()
  if (done) throw new Error('the test is over')
}

// failure runs what must fail and returns its error.
export async function failure(what) {
  let result
  try {
    result = await what()
  } catch (error) {
    return error
  }
  throw new Error(`this should have failed: ${JSON.stringify(result)}`)
}

// callback is a redirect URI on this computer, as command line programs have it.
export async function callback() {
  const calls = []
  let wake = () => {}
  const server = createServer((request, response) => {
    const url = new URL(request.url, `http://127.0.0.1:${server.address().port}`)
    if (url.pathname !== '/callback') {
      response.writeHead(404).end()
      return
    }
    response.setHeader('Content-Type', 'text/html')
    response.end('<title>client</title>You can close this window.')
    calls.push(url)
    wake()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  servers.push(server)
  return {
    uri: `http://127.0.0.1:${server.address().port}/callback`,
    // browse has a person open the address and returns the one they were sent
    // back to.
    async browse(url, fields = {}) {
      report('browse', { url: String(url), ...fields })
      while (calls.length === 0) await new Promise((resolve) => (wake = resolve))
      return calls.shift()
    },
  }
}

// privateKey reads --key, a JWK file, as [CryptoKey, kid].
export async function privateKey() {
  const jwk = JSON.parse(readFileSync(options.key, 'utf8'))
  const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
  return { key, kid: jwk.kid }
}

// claims of a JWT, unverified.
export function claims(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
}

export const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))
