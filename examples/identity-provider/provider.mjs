// An identity provider to try `login oidc` with: node-oidc-provider, with one client
// and with users who are whoever they say they are, so for nobody's real users.
//
//	node provider.mjs
//
// GATEWAY is the issuer of the server that users sign in to, LOGIN the name of its
// `login oidc`, PORT where this listens.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider from 'oidc-provider';

const { PORT = '9100', GATEWAY = 'http://localhost:8080', LOGIN = 'oidc', CLIENT_SECRET = 'provider-secret' } = process.env;
const gateway = `${GATEWAY}/oauth/login/${LOGIN}`;
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://localhost:${PORT}`, {
  clients: [{
    client_id: 'caddy-scope',
    client_secret: CLIENT_SECRET,
    redirect_uris: [gateway],
    post_logout_redirect_uris: [`${gateway}/signed_out`],
    backchannel_logout_uri: `${gateway}/logout`,
    backchannel_logout_session_required: true,
  }],
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: id, email: `${id}@provider.example`, email_verified: true }),
  }),
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false, // claims in the ID token, not from UserInfo alone
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true } },
  // The gateway is on this machine, where node-oidc-provider sends nothing by itself.
  fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }),
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys: [{ ...key, use: 'sig', alg: 'RS256' }] },
});
provider.on('backchannel.error', (_, error) => console.error('backchannel logout:', error.message));
provider.on('server_error', (_, error) => console.error(error));
provider.listen(Number(PORT), '127.0.0.1', () => console.log('ready'));
