// Package issuer is the OAuth 2.1 authorization server: endpoints, grants,
// pages and signing keys. It knows nothing of Caddy or of SQL: it is an
// http.Handler over the Store interface.
//
//	GET  /.well-known/oauth-authorization-server[/path]  RFC 8414  metadata.go
//	GET  /.well-known/oauth-protected-resource[/path]    RFC 9728  resource_metadata.go
//	GET  /oauth/authorize                                RFC 6749 section 4.1.1, RFC 7636, RFC 8707, RFC 9207  authorize.go
//	GET, POST /oauth/consent                             consent.go
//	POST /oauth/login, /oauth/logout                     login.go, logout.go
//	GET, POST /oauth/login/METHOD                        login_external.go
//	POST /oauth/login/METHOD/logout                      OpenID Connect Back-Channel Logout  provider_logout.go
//	GET  /oauth/login/METHOD/signed_out                  provider_logout.go
//	POST /oauth/events, /oauth/events/NAME               Standard Webhooks  events.go, event_source.go, event_signature.go
//	GET, POST /oauth/apps                                apps.go
//	GET, DELETE /oauth/api/apps, /oauth/api/apps/ID      apps_api.go
//	POST /oauth/api/apps/ID/drop                         apps_api.go
//	GET, POST /oauth/account                             account.go, credentials.go
//	POST /oauth/second_factor                            RFC 6238  second_factor.go, second_factor_*.go
//	POST /oauth/login/passkey, GET /oauth/passkey.js     WebAuthn  login_passkey.go, passkey.go
//	GET, POST /oauth/reset                               reset.go
//	GET, POST /oauth/forgot                              forgot.go
//	POST /oauth/token                                    RFC 6749 section 3.2, RFC 7523, RFC 9449  token.go, proof.go, grant_*.go
//	POST /oauth/revoke                                   RFC 7009  revoke.go
//	POST /oauth/par                                      RFC 9126  pushed_request.go
//	POST /oauth/device_authorization                     RFC 8628 section 3.1  device_authorization.go
//	GET, POST /oauth/device                              RFC 8628 section 3.3  device_page.go
//	POST /oauth/introspect                               RFC 7662  introspect.go
//	POST /oauth/register                                 RFC 7591  register.go
//	GET, PUT, DELETE /oauth/register/CLIENT_ID           RFC 7592  register_manage.go
//	GET  /.well-known/openid-configuration               OpenID Connect Discovery  metadata.go
//	GET, POST /oauth/userinfo                            OpenID Connect Core section 5.3  userinfo.go
//	GET, POST /oauth/end_session                         OpenID Connect RP-Initiated Logout  end_session.go
//	GET  /oauth/jwks.json                                RFC 7517  jwks.go
//	GET  /oauth/healthz/live, /oauth/healthz/ready       health.go
//
// Clients that nobody wrote down are found by registration.go: by the URL of
// their metadata (client_document.go) or by their registration.
//
// What it refuses to do: the implicit and password grants, PKCE method plain,
// wildcard redirect URIs, any URL taken from a Host or X-Forwarded header.
package issuer
