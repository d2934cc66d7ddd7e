package issuer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// replayTolerance is how long after its redemption a code may come again
// without harm: an honest double submit, a race.
const replayTolerance = 10 * time.Second

var (
	errCodeGrant    = oauth.InvalidGrant("The code is invalid, expired or used.")
	errCodeReplayed = oauth.InvalidGrant(errCodeGrant.Description) // only who counts knows it from the other
	errSessionLimit = oauth.InvalidGrant("The user has no room for another session.")
)

// grantCode exchanges a code for tokens. RFC 6749 section 4.1.3, RFC 7636
// section 4.6. Everything is checked before the code is consumed, so that
// nobody who merely saw a code can burn it or end the session made from it.
func (s *Server) grantCode(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	presented := req.params["code"]
	if presented == "" {
		return nil, oauth.InvalidRequest("The code is missing.")
	}
	if !hasPrefixAndBound(presented, codePrefix, 128) {
		return nil, errCodeGrant
	}
	// 1. The code, and that it is this client's.
	digest := Digest(sha256.Sum256([]byte(presented)))
	code, err := s.cfg.Store.FindAuthorizationCode(ctx, digest)
	if errors.Is(err, ErrNotFound) || (err == nil && code.ClientID != req.client.ID) {
		return nil, errCodeGrant
	}
	if err != nil {
		return nil, fmt.Errorf("find authorization code: %w", err)
	}
	// 2. Verifier, key, redirect URI, resource.
	if refusal := checkRedemption(code, req); refusal != nil {
		if code.RedeemedAt.IsZero() {
			if err := s.cfg.Store.CountFailedRedemption(ctx, digest); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, fmt.Errorf("count failed redemption: %w", err)
			}
		}
		return nil, refusal
	}
	// 3. A second, otherwise valid redemption.
	if !code.RedeemedAt.IsZero() {
		return nil, s.replayed(ctx, digest, req)
	}
	if err := s.count(ctx, PerUser, code.UserID, "", grantAuthorizationCode); err != nil {
		return nil, err
	}
	// 4. Consume it and make the session, in one statement.
	session, err := s.cfg.Store.RedeemAuthorizationCode(ctx, digest, s.sessionLifetime(req), req.origin)
	switch {
	case errors.Is(err, ErrNotFound): // meanwhile consumed, or its user, client or login ended
		return nil, errCodeGrant
	case errors.Is(err, ErrSessionLimit):
		return nil, errSessionLimit
	case err != nil:
		return nil, fmt.Errorf("redeem authorization code: %w", err)
	}
	session.nonce = code.Nonce
	return s.respond(req, session, session.Resource, session.Scopes)
}

func (s *Server) replayed(ctx context.Context, digest Digest, req tokenRequest) error {
	err := s.cfg.Store.ReplayAuthorizationCode(ctx, digest, replayTolerance, req.origin)
	if err != nil && !errors.Is(err, ErrReplayed) && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("replay authorization code: %w", err)
	}
	return errCodeReplayed
}

// checkRedemption compares the token request with what the code is bound to.
func checkRedemption(code AuthorizationCode, req tokenRequest) error {
	verifier, sent := req.params["code_verifier"]
	switch {
	case code.CodeChallenge == "" && sent: // PKCE downgrade: RFC 9700 section 4.8.2
		return oauth.InvalidGrant("The code was issued without a code_challenge.")
	case code.CodeChallenge != "" && !sent:
		return oauth.InvalidGrant("The code_verifier is missing.")
	case code.CodeChallenge != "" && !isVerifier(verifier):
		return oauth.InvalidGrant("The code_verifier is malformed.")
	case code.CodeChallenge != "" && subtle.ConstantTimeCompare([]byte(challengeOf(verifier)), []byte(code.CodeChallenge)) != 1:
		return oauth.InvalidGrant("The code_verifier does not match.")
	}
	if code.DPoPKey != "" && code.DPoPKey != req.thumbprint() { // RFC 9449 section 10
		return oauth.InvalidGrant("The code is for another key.")
	}
	// A PKCE-less or OAuth 2.0 client must repeat what it sent (RFC 6749 section
	// 4.1.3); OAuth 2.1 clients with PKCE may leave it out.
	redirect, sent := req.params["redirect_uri"]
	if (sent && redirect != code.RedirectURI) || (!sent && code.RedirectURISent && code.CodeChallenge == "") {
		return oauth.InvalidGrant("The redirect_uri is not that of the authorization request.")
	}
	return checkResource(code.Resource, req.resources)
}

// checkResource refuses a resource that the grant is not for. RFC 8707
// section 2.2.
func checkResource(granted string, requested []string) error {
	for _, want := range requested {
		if !oauth.SameResource(granted, want) {
			return oauth.InvalidTarget("The grant is not for this resource.")
		}
	}
	return nil
}
