package login

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// logoutTokenMaxAge bounds how old a logout token may be: a provider sends it at
// once, and for so long it is remembered.
const logoutTokenMaxAge = 5 * time.Minute

// backChannelLogout is the member of `events`. OpenID Connect Back-Channel Logout
// section 2.4.
const backChannelLogout = "http://schemas.openid.net/event/backchannel-logout"

var _ issuer.LogoutProvider = (*OIDC)(nil)

// ReadLogoutToken is described at issuer.LogoutProvider. OpenID Connect
// Back-Channel Logout sections 2.4 and 2.6. Some providers leave out `exp`, and
// `typ`; the age is bounded in any case.
func (o *OIDC) ReadLogoutToken(ctx context.Context, token string) (issuer.ProviderLogout, error) {
	none := issuer.ProviderLogout{}
	provider, err := o.discover(ctx)
	if err != nil {
		return none, err
	}
	if _, _, err := provider.keys.current(ctx, false); err != nil {
		return none, err
	}
	// 1. It is the provider's, and for us.
	verified, err := provider.logoutVerifier.Verify(ctx, token)
	if err != nil {
		return none, refused("the logout token does not hold: %w", err)
	}
	// 2. It is a logout token, and of now.
	var claims struct {
		Events    map[string]any `json:"events"`
		Nonce     any            `json:"nonce"`
		TokenID   string         `json:"jti"`
		SessionID string         `json:"sid"`
		Subject   string         `json:"sub"`
		Expiry    *float64       `json:"exp"`
	}
	if err := verified.Claims(&claims); err != nil {
		return none, refused("the logout token: %w", err)
	}
	now := o.cfg.Now()
	_, isEvent := claims.Events[backChannelLogout].(map[string]any)
	switch {
	case !isLogoutToken(token):
		return none, refused("the token is of another type")
	case !isEvent, claims.Nonce != nil: // an ID token, perhaps
		return none, refused("the token is no logout token: it has no logout event, or a nonce")
	case claims.TokenID == "":
		return none, refused("the logout token has no jti")
	case claims.Subject == "" && claims.SessionID == "":
		return none, refused("the logout token names neither a user nor a session")
	case claims.Expiry != nil && now.After(time.Unix(int64(*claims.Expiry), 0).Add(clockSkew)):
		return none, refused("the logout token has expired")
	case verified.IssuedAt.Before(now.Add(-logoutTokenMaxAge - clockSkew)), verified.IssuedAt.After(now.Add(clockSkew)):
		return none, refused("the logout token is too old, or of the future")
	}
	return issuer.ProviderLogout{
		Authority: o.cfg.Issuer, Subject: claims.Subject, SessionID: claims.SessionID, TokenID: claims.TokenID,
		RememberFor: logoutTokenMaxAge + 2*clockSkew + time.Minute, // and a bit: two clocks measure it
	}, nil
}

// isLogoutToken reports whether the token says that it is one, or does not say.
// RFC 8725 section 3.11.
func isLogoutToken(token string) bool {
	signed, err := jose.ParseSigned(token, asymmetric)
	if err != nil || len(signed.Signatures) != 1 {
		return false
	}
	kind, named := signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]
	text, _ := kind.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "logout+jwt", "jwt":
		return true
	}
	return !named
}

// EndSessionURL is described at issuer.LogoutProvider.
func (o *OIDC) EndSessionURL(ctx context.Context, hint, redirectURI, state string) (string, error) {
	provider, err := o.discover(ctx)
	if err != nil || provider.endSession == "" {
		return "", err
	}
	u, err := url.Parse(provider.endSession)
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Set("client_id", o.cfg.ClientID)
	query.Set("post_logout_redirect_uri", redirectURI)
	if hint != "" {
		query.Set("id_token_hint", hint)
	}
	if state != "" {
		query.Set("state", state)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// logoutVerifier is one for tokens that may have no `exp`.
func (o *OIDC) logoutVerifier(keys oidc.KeySet, algorithms []string) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(o.cfg.Issuer, keys, &oidc.Config{ClientID: o.cfg.ClientID, SupportedSigningAlgs: algorithms, Now: o.cfg.Now, SkipExpiryCheck: true})
}
