// The client of the Model Context Protocol's own TypeScript SDK, against an MCP
// server that has no authorization of its own. The SDK finds out everything from
// the first 401; what a host application has to add is in Host. --sdk says which
// of the two generations that are in use.
import { callback, goOn, options, report, run, wait } from './driver.mjs'

const generations = {
  async 1() {
    const [{ Client }, { auth, UnauthorizedError }, { StreamableHTTPClientTransport, StreamableHTTPError }, { ResourceUpdatedNotificationSchema }] = await Promise.all(
      ['client/index.js', 'client/auth.js', 'client/streamableHttp.js', 'types.js'].map((name) => import(`@modelcontextprotocol/sdk/${name}`)),
    )
    return {
      Client, Transport: StreamableHTTPClientTransport, Unauthorized: UnauthorizedError,
      finish: (transport, answer) => transport.finishAuth(answer.get('code')),
      onUpdate: (client, call) => client.setNotificationHandler(ResourceUpdatedNotificationSchema, call),
      // It refreshes when a scope is missing, which gives no scope that nobody
      // allowed, and gives up: the host asks for more.
      async askForMore(host) {
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
      },
    }
  },

  async 2() {
    const { Client, StreamableHTTPClientTransport, UnauthorizedError, DpopSession } = await import('@modelcontextprotocol/client')
    return {
      Client, Transport: StreamableHTTPClientTransport, Unauthorized: UnauthorizedError, DpopSession,
      finish: (transport, answer) => transport.finishAuth(answer), // it checks iss
      onUpdate: (client, call) => client.setNotificationHandler('notifications/resources/updated', call),
      askForMore: (host) => unauthorized(() => host.call()),
    }
  },
}
const sdk = await generations[options.sdk]()

// unauthorized runs what must end with the SDK asking for a person.
async function unauthorized(what) {
  try {
    await what()
  } catch (error) {
    if (error instanceof sdk.Unauthorized) return
    throw error
  }
  throw new Error('nobody had to be asked')
}

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
  async authorize(transport = this.transport) {
    const { url, state, verifier } = this.asked
    const said = Object.fromEntries(['client_id', 'scope', 'resource', 'code_challenge_method'].map((name) => [name, url.searchParams.get(name)]))
    const back = await redirects.browse(url, said)
    if (back.searchParams.get('state') !== state) throw new Error(`state: ${back}`)
    if (back.searchParams.has('error')) throw new Error(`refused: ${back}`)
    this.verifier = verifier
    await sdk.finish(transport, back.searchParams)
    report('token', { scope: this.held.scope, token_type: this.held.token_type, refreshable: 'refresh_token' in this.held })
  }

  // connect goes from nothing to a session with the MCP server.
  async connect() {
    const traffic = []
    const recording = async (url, init) => {
      const response = await fetch(url, init)
      traffic.push(`${init?.method ?? 'GET'} ${new URL(url).pathname} ${response.status}`)
      return response
    }
    const transport = () => new sdk.Transport(server, { authProvider: this, fetch: recording })
    const client = () => new sdk.Client({ name: 'driver', version: '1' })
    const first = transport()
    await unauthorized(() => client().connect(first))
    report('discovery', { traffic: traffic.splice(0) })
    await this.authorize(first)
    this.mcp = client()
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
  // A client without refresh tokens, of which more is asked.
  async 'step-up'() {
    const host = new Host(['authorization_code'])
    await host.connect()
    await goOn()
    await unauthorized(() => host.call())
    await host.authorize()
    await host.call()
    await host.end()
  },

  // Tokens that are bound to a key, with nonces.
  async dpop() {
    const host = new Host(['authorization_code', 'refresh_token'])
    const proof = sdk.DpopSession.create()
    host.dpop = () => proof
    await host.connect()
    const { access_token } = host.held
    const stolen = await fetch(server, { method: 'POST', headers: { Authorization: `Bearer ${access_token}` } })
    report('stolen', { status: stolen.status })
    await host.end()
  },

  // A session that goes on while tokens expire, is cut off, and needs more.
  async life() {
    const host = new Host(['authorization_code', 'refresh_token'])
    await host.connect()
    let updates = 0
    sdk.onUpdate(host.mcp, () => updates++)
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
    await unauthorized(async () => {
      for (;; await wait(0.05)) await host.call({ quiet: true })
    })
    await host.authorize()
    await host.call()

    // 3. A scope is missing.
    await goOn()
    await sdk.askForMore(host)
    await host.authorize()
    await host.call()
    await host.end()
  },
}

await run(flows)
