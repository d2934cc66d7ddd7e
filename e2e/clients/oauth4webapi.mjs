// oauth4webapi, the strictest client there is: each answer is checked member by
// member, and nothing is switched off here.
import * as oauth from 'oauth4webapi'
import { callback, claims, failure, flow, options, privateKey, report, run, wait } from './driver.mjs'

const { issuer, resource, api, scope } = options
const redirects = await callback()

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), { algorithm: flow === 'openid' ? 'oidc' : 'oauth2' }))
report('discovery', { issuer: as.issuer })
const rs = await oauth.processResourceDiscoveryResponse(new URL(resource), await oauth.resourceDiscoveryRequest(new URL(resource)))
report('resource discovery', { resource: rs.resource, servers: rs.authorization_servers })

let client = { client_id: options['client-id'] }
let auth = await authentication()
let proof // of possession

async function authentication() {
  const secret = options['client-secret']
  switch (options.auth) {
    case 'client_secret_basic':
      return oauth.ClientSecretBasic(secret)
    case 'client_secret_post':
      return oauth.ClientSecretPost(secret)
    case 'private_key_jwt':
      return oauth.PrivateKeyJwt(await privateKey())
    default:
      return oauth.None()
  }
}

// withNonce does it again with the nonce that the server asked for. RFC 9449
// section 8.
async function withNonce(where, request) {
  try {
    return await request()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    report('nonce', { where })
    return await request()
  }
}

// code has a person allow access and returns the tokens.
async function code({ push = false } = {}) {
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  let parameters = new URLSearchParams({
    client_id: client.client_id, redirect_uri: redirects.uri, response_type: 'code', scope, state, resource,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  })
  if (push) {
    const pushed = await withNonce('par', async () =>
      oauth.processPushedAuthorizationResponse(as, client, await oauth.pushedAuthorizationRequest(as, client, auth, parameters, { DPoP: proof })))
    report('pushed', { request_uri: pushed.request_uri, expires_in: pushed.expires_in })
    parameters = new URLSearchParams({ client_id: client.client_id, request_uri: pushed.request_uri })
  }
  const back = await redirects.browse(`${as.authorization_endpoint}?${parameters}`)

  // Mixed-up answers are seen: RFC 9207 section 2.4.
  const other = new URL(back)
  other.searchParams.set('iss', 'https://other.example')
  const mixedUp = await failure(() => oauth.validateAuthResponse(as, client, other, state))
  other.searchParams.delete('iss')
  const without = await failure(() => oauth.validateAuthResponse(as, client, other, state))
  report('iss', { other: mixedUp.message, without: without.message })

  const answer = oauth.validateAuthResponse(as, client, back, state)
  const tokens = await withNonce('token', async () =>
    oauth.processAuthorizationCodeResponse(as, client, await oauth.authorizationCodeGrantRequest(as, client, auth, answer, redirects.uri, verifier, { DPoP: proof })))
  report('token', { token_type: tokens.token_type, scope: tokens.scope, expires_in: tokens.expires_in, refreshable: 'refresh_token' in tokens })
  return tokens
}

// call asks the API and lets the library check the token as an API that trusts
// the issuer does. RFC 9068 section 4, RFC 9449 section 7.1.
async function call(token, wanted = 200) {
  let sent
  const keeping = (url, init) => {
    sent = new Request(url, init)
    return fetch(url, init)
  }
  try {
    const response = await withNonce('api', () =>
      oauth.protectedResourceRequest(token, 'GET', new URL(api), undefined, null, { DPoP: proof, [oauth.customFetch]: keeping }))
    if (response.status !== wanted) throw new Error(`the API answers ${response.status}: ${await response.text()}`)
    await response.body?.cancel()
  } catch (error) {
    if (!(error instanceof oauth.WWWAuthenticateChallengeError) || error.status !== wanted) throw error
    report('refused', { status: error.status, challenges: error.cause })
    return
  }
  const checked = await oauth.validateJwtAccessToken(as, sent, resource)
  report('call', { status: wanted, sub: checked.sub, client_id: checked.client_id, aud: checked.aud, scope: checked.scope, bound: checked.cnf !== undefined })
}

async function refresh(tokens) {
  const fresh = await withNonce('token', async () =>
    oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, { DPoP: proof })))
  if (fresh.access_token === tokens.access_token || fresh.refresh_token === tokens.refresh_token) throw new Error('nothing was rotated')
  report('refresh', { scope: fresh.scope })
  return fresh
}

async function introspect(token) {
  const found = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, token))
  report('introspection', { active: found.active, client_id: found.client_id, scope: found.scope })
}

async function revoke(token) {
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, token))
  report('revocation')
}

// wholeLife of a session, from the authorization to its end.
async function wholeLife(how) {
  let tokens = await code(how)
  await call(tokens.access_token)
  tokens = await refresh(tokens)
  await call(tokens.access_token)
  if (options.auth) await introspect(tokens.access_token)
  await revoke(tokens.refresh_token)
  if (options.auth) await introspect(tokens.access_token)
  await ended(tokens)
}

// ended: the session is over, for the API within a second.
async function ended(tokens) {
  for (let tries = 0; ; tries++) {
    const response = await fetch(api, { headers: { Authorization: `${tokens.token_type} ${tokens.access_token}` } })
    await response.body.cancel()
    if (response.status === 401 || tries > 100) break
    await wait(0.02)
  }
  await call(tokens.access_token, 401)
  const error = await failure(async () =>
    oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, { DPoP: proof })))
  report('refresh refused', { error: error.error })
}

const flows = {
  code: () => wholeLife(),
  par: () => wholeLife({ push: true }),

  async dpop() {
    proof = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
    await wholeLife({ push: true })
  },

  async credentials() {
    const tokens = await withNonce('token', async () =>
      oauth.processClientCredentialsResponse(as, client, await oauth.clientCredentialsGrantRequest(as, client, auth, { scope, resource })))
    report('token', { token_type: tokens.token_type, scope: tokens.scope, sub: claims(tokens.access_token).sub, refreshable: 'refresh_token' in tokens })
    await call(tokens.access_token)
  },

  async device() {
    const started = await oauth.processDeviceAuthorizationResponse(as, client, await oauth.deviceAuthorizationRequest(as, client, auth, { scope, resource }))
    report('browse', { url: started.verification_uri_complete, user_code: started.user_code })
    let interval = started.interval ?? 5
    for (;;) {
      try {
        const tokens = await oauth.processDeviceCodeResponse(as, client, await oauth.deviceCodeGrantRequest(as, client, auth, started.device_code))
        report('token', { token_type: tokens.token_type, scope: tokens.scope })
        return await call(tokens.access_token)
      } catch (error) {
        if (!(error instanceof oauth.ResponseBodyError)) throw error
        if (error.error === 'slow_down') interval += 5
        else if (error.error !== 'authorization_pending') throw error
        report('pending', { error: error.error })
        await wait(interval)
      }
    }
  },

  // OpenID Connect: who the user is, by ID token and UserInfo, and signing out.
  async openid() {
    const verifier = oauth.generateRandomCodeVerifier()
    const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()]
    const parameters = new URLSearchParams({
      client_id: client.client_id, redirect_uri: redirects.uri, response_type: 'code', scope, state, nonce, max_age: '3600',
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    })
    const back = await redirects.browse(`${as.authorization_endpoint}?${parameters}`)
    const answer = oauth.validateAuthResponse(as, client, back, state)
    const response = await oauth.authorizationCodeGrantRequest(as, client, auth, answer, redirects.uri, verifier)
    const otherNonce = await failure(() =>
      oauth.processAuthorizationCodeResponse(as, client, response.clone(), { expectedNonce: oauth.generateRandomNonce(), requireIdToken: true }))
    report('nonce of another', { refused: otherNonce.message })
    const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce: nonce, requireIdToken: true, maxAge: 3600 })
    await oauth.validateApplicationLevelSignature(as, response)
    const { sub, email, aud, amr } = oauth.getValidatedIdTokenClaims(tokens)
    report('id token', { sub, email, aud, amr })
    const info = await oauth.processUserInfoResponse(as, client, sub, await oauth.userInfoRequest(as, client, tokens.access_token))
    report('userinfo', { sub: info.sub, email: info.email })
    const fresh = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token))
    report('refresh', { sub: oauth.getValidatedIdTokenClaims(fresh).sub })
    const leave = new URL(as.end_session_endpoint)
    leave.search = new URLSearchParams({ id_token_hint: fresh.id_token, post_logout_redirect_uri: redirects.uri, state })
    const left = await redirects.browse(leave)
    report('signed out', { state: left.searchParams.get('state') === state })
    const gone = await failure(async () => oauth.processUserInfoResponse(as, client, sub, await oauth.userInfoRequest(as, client, fresh.access_token)))
    report('refused', { status: gone.status })
  },

  async register() {
    client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, {
      client_name: 'Registered by oauth4webapi', redirect_uris: [redirects.uri], application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'client_secret_basic',
    }))
    report('registered', { auth: client.token_endpoint_auth_method, grants: client.grant_types, secret: 'client_secret' in client })
    auth = oauth.ClientSecretBasic(client.client_secret)
    options.auth = client.token_endpoint_auth_method
    await wholeLife()
  },
}

await run(flows)
