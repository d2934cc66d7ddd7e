// The client of the Model Context Protocol's own TypeScript SDK, against an MCP
// server that has no authorization of its own. The SDK finds out everything from
// the first 401; what a host application has to add is in Host.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { auth, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport, StreamableHTTPError } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { ResourceUpdatedNotificationSchema } from '@modelcontextprotocol/sdk/types.js'
import { callback, goOn, options, report, run, wait } from './driver.mjs'

const server = new URL(options.resource)
const redirects = await callback()

// Host keeps what the SDK learns, in memory. It publishes a metadata document
// (--document) or registers itself.
class Host {
  constructor(grants) {
    this.clientMetadataUrl = options.document
    this.clientMetadata = {
      client_name: 'MCP TypeScript SDK', redirect_uris: [redirects.uri], application_type: 'native',
      grant_types: grants, response_types: ['code'], token_endpoint_auth_method: 'none',
    }
  }
  redirectUrl = redirects.uri
  saved = 0
  state = () => (this.expected = crypto.randomUUID())
  clientInformation = () => this.client
  saveClientInformation = (client) => (this.client = client)
  tokens = () => this.held
  saveTokens = (tokens) => {
    this.held = tokens
    this.saved++
  }
  saveCodeVerifier = (verifier) => (this.verifier = verifier)
  codeVerifier = () => this.verifier
  redirectToAuthorization = (url) => (this.asked = { url, state: this.expected, verifier: this.verifier })
  invalidateCredentials = (what) => {
    report('invalidated', { what })
    if (what === 'all' || what === 'tokens') this.held = undefined
    if (what === 'all' || what === 'client') this.client = undefined
  }

  // authorize has a person open what the SDK asked for. An event stream that
  // reconnects meanwhile asks as well: one question is enough.
  async authorize() {
    const { url, state, verifier } = this.asked
    const said = Object.fromEntries(['client_id', 'scope', 'resource', 'code_challenge_method'].map((name) => [name, url.searchParams.get(name)]))
    const back = await redirects.browse(url, said)
    if (back.searchParams.get('state') !== state) throw new Error(`state: ${back}`)
    if (back.searchParams.has('error')) throw new Error(`refused: ${back}`)
    this.verifier = verifier
    return back.searchParams.get('code')
  }

  // connect goes from nothing to a session with the MCP server.
  async connect() {
    const traffic = []
    const recording = async (url, init) => {
      const response = await fetch(url, init)
      traffic.push(`${init?.method ?? 'GET'} ${new URL(url).pathname} ${response.status}`)
      return response
    }
    const transport = () => new StreamableHTTPClientTransport(server, { authProvider: this, fetch: recording })
    this.mcp = new Client({ name: 'driver', version: '1' })
    const first = transport()
    try {
      await this.mcp.connect(first)
      throw new Error('the MCP server let everybody in')
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
    }
    report('discovery', { traffic: traffic.splice(0) })
    await first.finishAuth(await this.authorize())
    report('token', { scope: this.held.scope, token_type: this.held.token_type, refreshable: 'refresh_token' in this.held })
    this.mcp = new Client({ name: 'driver', version: '1' })
    this.transport = transport()
    await this.mcp.connect(this.transport)
    report('connected', { server: this.mcp.getServerVersion().name, session: this.transport.sessionId })
    const { tools } = await this.mcp.listTools()
    report('tools', { names: tools.map((tool) => tool.name) })
    await this.call()
  }

  // call calls a tool and reports what it says; quiet: does not.
  async call({ quiet = false } = {}) {
    const result = await this.mcp.callTool({ name: options.tool, arguments: {} })
    if (result.isError) throw new Error(JSON.stringify(result))
    if (!quiet) report('tool', { text: result.content[0].text, session: this.transport.sessionId })
  }

  async end() {
    await this.transport.terminateSession()
    await this.mcp.close()
    report('ended')
  }
}

const flows = {
  // Without refresh tokens the SDK asks for more by itself when a scope is missing.
  async 'step-up'() {
    const host = new Host(['authorization_code'])
    await host.connect()
    await goOn()
    try {
      await host.call()
      throw new Error('nothing more was needed')
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
    }
    await host.transport.finishAuth(await host.authorize())
    report('token', { scope: host.held.scope })
    await host.call()
    await host.end()
  },

  // A session that goes on while tokens expire, is cut off, and needs more.
  async life() {
    const host = new Host(['authorization_code', 'refresh_token'])
    await host.connect()
    let updates = 0
    host.mcp.setNotificationHandler(ResourceUpdatedNotificationSchema, () => updates++)
    await host.mcp.subscribeResource({ uri: 'test://watched-resource' })

    // 1. Tokens expire: the SDK refreshes, and the server's events go on.
    for (const before = host.saved; host.saved === before; await wait(0.1)) await host.call({ quiet: true })
    const seen = updates
    while (updates === seen) {
      await host.call({ quiet: true })
      await wait(0.1)
    }
    report('refreshed')

    // 2. An operator cuts it off: a person is asked again.
    await goOn()
    for (;;) {
      try {
        await host.call({ quiet: true })
      } catch (error) {
        if (!(error instanceof UnauthorizedError)) throw error
        break
      }
      await wait(0.05)
    }
    await host.transport.finishAuth(await host.authorize())
    report('token', { scope: host.held.scope })
    await host.call()

    // 3. A scope is missing. With a refresh token the SDK (1.32) refreshes, which
    // gives no scope that nobody allowed, and gives up: the host asks for more.
    await goOn()
    try {
      await host.call()
      throw new Error('nothing more was needed')
    } catch (error) {
      if (!(error instanceof StreamableHTTPError) || error.code !== 403) throw error
      report('refused', { message: error.message })
    }
    const challenge = await fetch(server, { method: 'POST', headers: { Authorization: `Bearer ${host.held.access_token}` } })
    const scope = /scope="([^"]*)"/.exec(challenge.headers.get('WWW-Authenticate'))[1]
    host.held = undefined
    await auth(host, { serverUrl: server, scope })
    await host.transport.finishAuth(await host.authorize())
    report('token', { scope: host.held.scope })
    await host.call()
    await host.end()
  },
}

await run(flows)
