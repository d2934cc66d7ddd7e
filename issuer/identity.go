package issuer

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// identityClaims are the claims that a scope opens. OpenID Connect Core section
// 5.4.
var identityClaims = map[string][]string{
	"profile": {"name", "given_name", "family_name", "nickname", "preferred_username", "picture", "locale", "zoneinfo", "updated_at"},
	"email":   {"email", "email_verified"},
}

// ProfileClaims are the claims of a provider that are kept to be told to
// clients. The others are nobody's business here.
func ProfileClaims() []string {
	return slices.DeleteFunc(slices.Concat(identityClaims["profile"], identityClaims["email"]), func(name string) bool { return name == "updated_at" })
}

// claimsOf returns what the scopes let a client know of the user of a session:
// at least `sub`, the same for every client.
func claimsOf(session Session, scopes oauth.ScopeSet) (map[string]any, error) {
	claims := map[string]any{"sub": session.UserID}
	var profile map[string]json.RawMessage
	if len(session.Profile) > 0 {
		if err := json.Unmarshal(session.Profile, &profile); err != nil {
			return nil, fmt.Errorf("profile of user %s: %w", session.UserID, err)
		}
	}
	for scope, names := range identityClaims {
		for _, name := range names {
			if value, known := profile[name]; known && scopes.Contains(scope) {
				claims[name] = value
			}
		}
	}
	if claims["email"] == nil {
		delete(claims, "email_verified")
	} else if scopes.Contains("email") && claims["email_verified"] == nil {
		claims["email_verified"] = false // nobody has said so
	}
	return claims, nil
}

// userInfoResource is what an access token is for that was asked for by identity
// scopes alone: no gate takes it.
func (s *Server) userInfoResource() string { return s.endpoint(userInfoPath) }
