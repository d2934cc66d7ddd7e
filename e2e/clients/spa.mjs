// oauth4webapi in a browser: a page of another origin, without a server of its
// own. Everything it may read it may read by CORS. It reports in #reports.
import * as oauth from './node_modules/oauth4webapi/build/index.js'

const { issuer, resource, api, scope } = Object.fromEntries(new URLSearchParams(location.hash.slice(1) || sessionStorage.getItem('options')))
const redirect = location.origin + location.pathname
const reports = document.getElementById('reports')
const report = (step, fields = {}) => (reports.textContent += JSON.stringify({ step, ...fields }) + '\n')

const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
const importKey = (jwk, usage) => crypto.subtle.importKey('jwk', jwk, algorithm, true, [usage])

async function begin(as) {
  const client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, {
    client_name: 'A page', redirect_uris: [redirect], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    token_endpoint_auth_method: 'none', dpop_bound_access_tokens: true,
  }))
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const keys = await oauth.generateKeyPair('ES256', { extractable: true })
  sessionStorage.setItem('options', location.hash.slice(1))
  sessionStorage.setItem('kept', JSON.stringify({
    client, verifier, state,
    publicKey: await crypto.subtle.exportKey('jwk', keys.publicKey), privateKey: await crypto.subtle.exportKey('jwk', keys.privateKey),
  }))
  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams({
    client_id: client.client_id, redirect_uri: redirect, response_type: 'code', scope, state, resource,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  })
  location = url
}

async function goOn(as) {
  const { client, verifier, state, publicKey, privateKey } = JSON.parse(sessionStorage.getItem('kept'))
  const auth = oauth.None()
  const DPoP = oauth.DPoP(client, { publicKey: await importKey(publicKey, 'verify'), privateKey: await importKey(privateKey, 'sign') })
  const withNonce = async (where, request) => {
    try {
      return await request()
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error
      report('nonce', { where })
      return await request()
    }
  }
  const answer = oauth.validateAuthResponse(as, client, new URL(location), state)
  let tokens = await withNonce('token', async () => oauth.processAuthorizationCodeResponse(as, client,
    await oauth.authorizationCodeGrantRequest(as, client, auth, answer, redirect, verifier, { DPoP })))
  report('token', { token_type: tokens.token_type, scope: tokens.scope })
  const call = () => withNonce('api', () => oauth.protectedResourceRequest(tokens.access_token, 'GET', new URL(api), undefined, null, { DPoP }))
  report('call', { answer: await (await call()).json() })
  tokens = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, { DPoP }))
  report('refresh')
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, tokens.refresh_token))
  report('revocation')
  for (;;) {
    try {
      await (await call()).json()
    } catch (error) {
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error
      report('refused', { status: error.status, error: error.cause[0].parameters.error })
      break
    }
  }
  document.title = 'done'
}

try {
  const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2' }))
  const rs = await oauth.processResourceDiscoveryResponse(new URL(resource), await oauth.resourceDiscoveryRequest(new URL(resource)))
  report('discovery', { issuer: as.issuer, resource: rs.resource })
  await (new URLSearchParams(location.search).has('state') ? goOn(as) : begin(as))
} catch (error) {
  report('failed', { error: `${error}: ${error.cause ? String(error.cause.message ?? JSON.stringify(error.cause)) : ''}` })
  document.title = 'done'
}
