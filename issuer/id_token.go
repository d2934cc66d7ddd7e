package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// idTokenType is the `typ` of ID tokens. Access tokens have another, so that
// neither passes for the other. RFC 8725 section 3.11.
const idTokenType = "JWT"

// mintIDToken signs an ID token of the session for its client, beside the
// access token that it is given with, and of the same life. OpenID Connect Core
// sections 2 and 3.1.3.6; for a refresh, section 12.2.
func (s *Server) mintIDToken(session Session, scopes oauth.ScopeSet, accessToken string, ttl time.Duration) (string, error) {
	claims, err := claimsOf(session, scopes)
	if err != nil {
		return "", err
	}
	now := s.cfg.Now()
	claims["iss"], claims["aud"] = s.cfg.Issuer, session.ClientID
	claims["iat"], claims["exp"] = now.Unix(), now.Add(ttl).Unix()
	if session.AuthTime.After(unknownAuthTime) {
		claims["auth_time"] = session.AuthTime.Unix()
	}
	claims["at_hash"] = accessTokenHash(accessToken)
	claims["sid"] = session.ID
	if session.nonce != "" {
		claims["nonce"] = session.nonce
	}
	if session.LoginMethod != "" {
		claims["acr"] = s.authenticationClass(session.LoginMethod)
	}
	if amr := authenticationMethods(session.LoginMethod); amr != nil {
		claims["amr"] = amr
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("ID token: %w", err)
	}
	return s.cfg.Keys.sign(idTokenType, payload)
}

// idTokenHint is what an ID token says that comes back to us. It counts after it
// has expired too: it was given for an hour, and the user may sign out next
// week. OpenID Connect Core section 3.1.2.1.
type idTokenHint struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	SessionID string `json:"sid"`
}

// readIDToken returns what an ID token of ours says. One that was signed by a key
// that is gone counts as none.
func (s *Server) readIDToken(token string) (idTokenHint, bool) {
	var hint idTokenHint
	ok := s.cfg.Keys.read(idTokenType, token, &hint)
	return hint, ok && hint.Issuer == s.cfg.Issuer && hint.Subject != ""
}

// authenticationMethods is the `amr` of a login method: what was asked of the user.
// RFC 8176 section 2. A passkey is a key that the user was verified for.
func authenticationMethods(method string) []string {
	switch method {
	case passwordMethod:
		return []string{"pwd"}
	case otpMethod:
		return []string{"pwd", "otp", "mfa"}
	case PasskeyMethod:
		return []string{"pop", "user", "mfa"}
	}
	return nil
}

// authenticationClass is the `acr` of a login method: the address of that way to
// sign in. OpenID Connect Core section 2 asks for an absolute URI. What another
// provider asked of its user, only that provider knows, so there is no `amr`.
func (s *Server) authenticationClass(method string) string { return s.endpoint(methodPath(method)) }

// authenticationClasses are those of all methods.
func (s *Server) authenticationClasses() (classes []string) {
	if s.offersMethod(passwordMethod) {
		classes = append(classes, s.authenticationClass(passwordMethod))
	}
	if s.cfg.SecondFactor != SecondFactorOff {
		classes = append(classes, s.authenticationClass(otpMethod))
	}
	if s.passkeys != nil {
		classes = append(classes, s.authenticationClass(PasskeyMethod))
	}
	for _, method := range s.cfg.Methods {
		classes = append(classes, s.authenticationClass(method.Name))
	}
	return classes
}

// accessTokenHash is the claim at_hash: the left half of the hash of the token.
// OpenID Connect Core section 3.1.3.6.
func accessTokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}
