// openid-client 6, what most Node servers use: the same flows as oauth4webapi, by
// the calls that its documentation shows.
import * as client from 'openid-client'
import { callback, claims, failure, flow, options, privateKey, report, run, wait } from './driver.mjs'

const { issuer, resource, api, scope } = options
const redirects = await callback()
const discovery = { algorithm: flow === 'openid' ? 'oidc' : 'oauth2' }

let config
let proof // of possession

async function authentication() {
  const secret = options['client-secret']
  switch (options.auth) {
    case 'client_secret_basic':
      return client.ClientSecretBasic(secret)
    case 'client_secret_post':
      return client.ClientSecretPost(secret)
    case 'private_key_jwt':
      return client.PrivateKeyJwt(await privateKey())
    default:
      return client.None()
  }
}

async function discover() {
  config = await client.discovery(new URL(issuer), options['client-id'], undefined, await authentication(), discovery)
  report('discovery', { issuer: config.serverMetadata().issuer })
}

async function code({ push = false } = {}) {
  const verifier = client.randomPKCECodeVerifier()
  const state = client.randomState()
  const parameters = {
    redirect_uri: redirects.uri, scope, state, resource,
    code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  }
  const url = push
    ? await client.buildAuthorizationUrlWithPAR(config, parameters, { DPoP: proof })
    : client.buildAuthorizationUrl(config, parameters)
  if (push) report('pushed', { request_uri: url.searchParams.get('request_uri') })
  const back = await redirects.browse(url)

  const checks = { pkceCodeVerifier: verifier, expectedState: state }
  const other = new URL(back)
  other.searchParams.set('iss', 'https://other.example')
  const mixedUp = await failure(() => client.authorizationCodeGrant(config, other, checks))
  other.searchParams.delete('iss')
  const without = await failure(() => client.authorizationCodeGrant(config, other, checks))
  report('iss', { other: mixedUp.message, without: without.message })

  const tokens = await client.authorizationCodeGrant(config, back, checks, undefined, { DPoP: proof })
  report('token', { token_type: tokens.token_type, scope: tokens.scope, expires_in: tokens.expiresIn(), refreshable: 'refresh_token' in tokens })
  return tokens
}

async function call(token, wanted = 200) {
  try {
    const response = await client.fetchProtectedResource(config, token, new URL(api), 'GET', null, undefined, { DPoP: proof })
    await response.body?.cancel()
    if (response.status !== wanted) throw new Error(`the API answers ${response.status}`)
  } catch (error) {
    if (!(error instanceof client.WWWAuthenticateChallengeError) || error.status !== wanted) throw error
    report('refused', { status: error.status, challenges: error.cause })
    return
  }
  const { sub, client_id, aud, scope, cnf } = claims(token)
  report('call', { status: wanted, sub, client_id, aud, scope, bound: cnf !== undefined })
}

async function wholeLife(how) {
  let tokens = await code(how)
  await call(tokens.access_token)
  const fresh = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP: proof })
  if (fresh.access_token === tokens.access_token || fresh.refresh_token === tokens.refresh_token) throw new Error('nothing was rotated')
  tokens = fresh
  report('refresh', { scope: tokens.scope })
  await call(tokens.access_token)
  if (options.auth) await introspect(tokens.access_token)
  await client.tokenRevocation(config, tokens.refresh_token)
  report('revocation')
  if (options.auth) await introspect(tokens.access_token)
  for (let tries = 0; ; tries++) { // for the API within a second
    const response = await fetch(api, { headers: { Authorization: `${tokens.token_type} ${tokens.access_token}` } })
    await response.body.cancel()
    if (response.status === 401 || tries > 100) break
    await wait(0.02)
  }
  await call(tokens.access_token, 401)
  const error = await failure(() => client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP: proof }))
  report('refresh refused', { error: error.error })
}

async function introspect(token) {
  const found = await client.tokenIntrospection(config, token)
  report('introspection', { active: found.active, client_id: found.client_id, scope: found.scope })
}

const flows = {
  async code() {
    await discover()
    await wholeLife()
  },

  async par() {
    await discover()
    await wholeLife({ push: true })
  },

  // Nonces are taken by the library itself.
  async dpop() {
    await discover()
    proof = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'))
    await wholeLife({ push: true })
  },

  async credentials() {
    await discover()
    const tokens = await client.clientCredentialsGrant(config, { scope, resource })
    report('token', { token_type: tokens.token_type, scope: tokens.scope, sub: claims(tokens.access_token).sub, refreshable: 'refresh_token' in tokens })
    await call(tokens.access_token)
  },

  async device() {
    await discover()
    const started = await client.initiateDeviceAuthorization(config, { scope, resource })
    report('browse', { url: started.verification_uri_complete, user_code: started.user_code })
    const tokens = await client.pollDeviceAuthorizationGrant(config, started)
    report('token', { token_type: tokens.token_type, scope: tokens.scope })
    await call(tokens.access_token)
  },

  async openid() {
    await discover()
    client.enableNonRepudiationChecks(config) // signatures as well, not TLS alone
    const verifier = client.randomPKCECodeVerifier()
    const [state, nonce] = [client.randomState(), client.randomNonce()]
    const back = await redirects.browse(client.buildAuthorizationUrl(config, {
      redirect_uri: redirects.uri, scope, state, nonce, max_age: '3600',
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    }))
    const tokens = await client.authorizationCodeGrant(config, back,
      { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 3600, idTokenExpected: true })
    const { sub, email, aud, amr } = tokens.claims()
    report('id token', { sub, email, aud, amr })
    const info = await client.fetchUserInfo(config, tokens.access_token, sub)
    report('userinfo', { sub: info.sub, email: info.email })
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token)
    report('refresh', { sub: fresh.claims().sub })
    const left = await redirects.browse(client.buildEndSessionUrl(config, { id_token_hint: fresh.id_token, post_logout_redirect_uri: redirects.uri, state }))
    report('signed out', { state: left.searchParams.get('state') === state })
    const gone = await failure(() => client.fetchUserInfo(config, fresh.access_token, sub))
    report('refused', { status: gone.status })
  },

  async register() {
    config = await client.dynamicClientRegistration(new URL(issuer), {
      client_name: 'Registered by openid-client', redirect_uris: [redirects.uri], application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'none',
    }, client.None(), discovery)
    const { token_endpoint_auth_method, grant_types, client_secret } = config.clientMetadata()
    report('registered', { auth: token_endpoint_auth_method, grants: grant_types, secret: client_secret !== undefined })
    await wholeLife()
  },
}

await run(flows)
